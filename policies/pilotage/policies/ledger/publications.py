"""Published bundles as rows: their files by hash, who put which in force when, and what is put to the vote.

The row that puts a bundle in force is written in the transaction that counts the last vote: before it the old
one holds, after it the new one, and there is nothing in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import Entry
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.rows import as_text, dicts
from pilotage.policies.ledger.schema import bundles, outbox, publications
from pilotage.policies.ledger.switches import get_switch, put_switch
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.publishing import Ballot, Candidate, Publication
from pilotage.policies.refusals import refused
from pilotage.policies.types import Outcome, Verdict

_CANDIDATE = "candidate bundle"


class PublicationRepository:
    """The part of the ledger that knows which policies are in force. See `publications.Publications`."""

    def in_force(self: Transactions) -> Publication | None:
        """What was published last, or None in a new installation. The caller checks its note."""
        with self.reading("reading which policies are in force") as connection:
            return _last(connection)

    def published(self: Transactions, limit: int) -> list[dict[str, Any]]:
        """The newest publications as plain JSON, without their files."""
        with self.reading("listing publications") as connection:
            rows = dicts(
                connection.execute(sa.select(publications).order_by(publications.c.seq.desc()).limit(limit))
            )
        return [{**row, "people": json.loads(row["people"])} for row in rows]

    def files_of(self: Transactions, bundle: str) -> Mapping[str, str] | None:
        """The files of a bundle that was published or put to the vote."""
        with self.reading(f"reading bundle {bundle[:12]}") as connection:
            return _files(connection, bundle)

    def kept(self: Transactions, prefix: str) -> tuple[str, ...]:
        """The hashes, two at most, of bundles published or put to the vote that begin so."""
        with self.reading(f"looking for bundle {prefix[:12]}") as connection:
            alike = bundles.c.bundle.startswith(prefix, autoescape=True)
            return tuple(connection.execute(sa.select(bundles.c.bundle).where(alike).limit(2)).scalars())

    def candidate(self: Transactions, now: datetime) -> Candidate | None:
        """What is put to the vote now."""
        with self.reading("reading what is put to the vote") as connection:
            waiting = _candidate(connection)
            return waiting if waiting and now < waiting.until else None

    def vote_on_bundle(
        self: Transactions,
        ballot: Ballot,
        verdict: Verdict,
        *,
        needed: int,
        window: timedelta,
        may: Callable[[str], bool],
        seal: Callable[[Publication], str],
    ) -> Publication | Candidate | Verdict:
        """The publication when this vote was the last one needed, the candidate while more are, or the refusal.

        A vote on another hash than the one put to the vote begins from nothing. `may` tells whether an earlier
        voter still has the right; it and `seal` must not call the ledger.
        """
        with self.writing("voting on policies") as connection:
            before, waiting = _last(connection), _lapsed(connection, ballot.at)
            refusal = _refusal(before, waiting, ballot, verdict)
            if refusal is not None:
                _note(connection, "policy_refused", ballot, verdict=refusal)
                return refusal
            if waiting is not None and waiting.bundle != ballot.bundle:
                _note(connection, "policy_replaced", ballot, replaced=waiting.bundle)
                waiting = None
            if waiting is None:
                _keep_files(connection, ballot.bundle, ballot.files)
                voted = Candidate(
                    bundle=ballot.bundle,
                    by=ballot.voter,
                    reason=ballot.reason,
                    at=ballot.at,
                    until=ballot.at + window,
                    voters=(ballot.voter,),
                )
            else:
                still = tuple(name for name in waiting.voters if may(name))
                voted = replace(waiting, voters=(*still, ballot.voter))
            event = "policy_proposed" if waiting is None else "policy_approved"
            _note(connection, event, ballot, voters=voted.voters, needed=needed, until=voted.until)
            if len(voted.voters) < needed:
                put_switch(connection, _CANDIDATE, as_text(voted))
                return voted
            unsigned = Publication(
                bundle=ballot.bundle,
                how="votes",
                people=voted.voters,
                reason=voted.reason,
                at=ballot.at,
                note="",
                files=ballot.files,
            )
            done = replace(unsigned, note=seal(unsigned))
            put_switch(connection, _CANDIDATE, None)
            _publish(connection, done, before)
            return done

    def veto_bundle(
        self: Transactions, bundle: str, voter: str, verdict: Verdict, reason: str, at: datetime
    ) -> Candidate | Verdict:
        """What was put to the vote and is no more, or the refusal."""
        ballot = Ballot(bundle=bundle, files={}, voter=voter, reason=reason, at=at)
        with self.writing("vetoing policies") as connection:
            waiting = _lapsed(connection, at)
            refusal = verdict if verdict.outcome is not Outcome.ALLOW else None
            if refusal is None and (waiting is None or waiting.bundle != bundle):
                refusal = refused("!not-put-to-the-vote", detail=bundle[:12])
            if refusal is not None or waiting is None:
                _note(connection, "policy_refused", ballot, verdict=refusal)
                return refusal or refused("!not-put-to-the-vote")
            put_switch(connection, _CANDIDATE, None)
            _note(connection, "policy_vetoed", ballot, voters=waiting.voters)
            return waiting

    def adopt_bundle(self: Transactions, publication: Publication) -> None:
        """Puts a bundle in force that takes no votes."""
        with self.writing("adopting policies") as connection:
            _keep_files(connection, publication.bundle, publication.files)
            _publish(connection, publication, _last(connection))

    def lapse_bundle(self: Transactions, now: datetime) -> str:
        """The hash of the candidate whose time ran out already, or empty; told once."""
        with self.reading("looking at the vote on policies") as connection:
            waiting = _candidate(connection)
        if waiting is None or now < waiting.until:
            return ""
        with self.writing("letting a vote on policies lapse") as connection:
            return waiting.bundle if _lapsed(connection, now) is None else ""

    def ever_acted(self: Transactions) -> bool:
        """Whether anything was ever admitted."""
        with self.reading("looking whether anything was ever done") as connection:
            return connection.execute(sa.select(outbox.c.proposal_id).limit(1)).first() is not None


def _refusal(
    before: Publication | None, waiting: Candidate | None, ballot: Ballot, verdict: Verdict
) -> Verdict | None:
    if verdict.outcome is not Outcome.ALLOW:
        return verdict
    if before is not None and before.bundle == ballot.bundle:
        return refused("!in-force", detail=ballot.bundle[:12])
    if waiting is not None and waiting.bundle == ballot.bundle and ballot.voter in waiting.voters:
        return refused("!voted-before")
    return None


def _last(connection: sa.Connection) -> Publication | None:
    rows = dicts(connection.execute(sa.select(publications).order_by(publications.c.seq.desc()).limit(1)))
    if not rows:
        return None
    row = rows[0]
    return Publication(
        bundle=row["bundle"],
        how=row["how"],
        people=tuple(json.loads(row["people"])),
        reason=row["reason"],
        at=moment(row["at"]),
        note=row["note"],
        files=_files(connection, row["bundle"]) or {},
    )


def _files(connection: sa.Connection, bundle: str) -> Mapping[str, str] | None:
    stored = connection.execute(
        sa.select(bundles.c.files).where(bundles.c.bundle == bundle)
    ).scalar_one_or_none()
    return dict(json.loads(stored)) if stored else None


def _keep_files(connection: sa.Connection, bundle: str, files: Mapping[str, str]) -> None:
    # what decides is the same whenever the hash is; the cases beside it may be newer
    row = {"files": json.dumps(dict(files), sort_keys=True)}
    known = connection.execute(bundles.update().where(bundles.c.bundle == bundle).values(**row)).rowcount
    if not known:
        connection.execute(bundles.insert().values(bundle=bundle, **row))


def _publish(connection: sa.Connection, publication: Publication, before: Publication | None) -> None:
    connection.execute(
        publications.insert().values(
            bundle=publication.bundle,
            how=publication.how,
            people=json.dumps(publication.people),
            reason=publication.reason,
            at=timestamp(publication.at),
            note=publication.note,
        )
    )
    detail = {key: value for key, value in asdict(publication).items() if key != "files"}
    log.append(
        connection,
        Entry(
            event="policy_published",
            at=publication.at,
            actor=publication.people[-1] if publication.people else "pilotage up",
            detail={**detail, "replaces": before.bundle if before else ""},
        ),
    )


def _candidate(connection: sa.Connection) -> Candidate | None:
    switch = get_switch(connection, _CANDIDATE)
    if switch is None:
        return None
    value: dict[str, Any] = json.loads(switch)
    return Candidate(
        bundle=value["bundle"],
        by=value["by"],
        reason=value["reason"],
        at=moment(value["at"]),
        until=moment(value["until"]),
        voters=tuple(value["voters"]),
    )


def _lapsed(connection: sa.Connection, now: datetime) -> Candidate | None:
    """What is put to the vote; a candidate whose time ran out is noted as such and gone."""
    waiting = _candidate(connection)
    if waiting is None or now < waiting.until:
        return waiting
    put_switch(connection, _CANDIDATE, None)
    log.append(
        connection,
        Entry(
            event="policy_lapsed",
            at=now,
            actor="clock",
            detail={"bundle": waiting.bundle, "voters": waiting.voters, "until": waiting.until},
        ),
    )
    return None


def _note(connection: sa.Connection, event: str, ballot: Ballot, **detail: object) -> None:
    log.append(
        connection,
        Entry(
            event=event,
            at=ballot.at,
            actor=ballot.voter,
            detail={"bundle": ballot.bundle, "reason": ballot.reason, **detail},
        ),
    )
