"""What of the ledger is past its age: closed troubles go whole, with all that was proposed about them.

The audit log is cut from its beginning only, behind a signed checkpoint, and never an entry of a proposal or an incident
that is still kept. Nothing that is open, under way or to be taken back is touched.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from pilotage.policies.audit import chain as log
from pilotage.policies.audit import cuts
from pilotage.policies.audit.chain import Entry
from pilotage.policies.audit.checkpoints import Checkpoint
from pilotage.policies.audit.table import audit, audit_cuts
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.incidents import OPEN_PROPOSALS
from pilotage.policies.ledger.protocol import Keep, KindSize
from pilotage.policies.ledger.rows import dicts
from pilotage.policies.ledger.schema import (
    allow_cutting,
    escalations,
    forbid_cutting,
    incident_causes,
    incident_runs,
    incidents,
    listed,
    outbox,
    outcomes,
    proposals,
    receipts,
    verdicts,
    votes,
)
from pilotage.policies.ledger.transaction import Transactions
from pilotage.telemetry.errors import InvariantError

AT_ONCE = 200
"""Incidents, or proposals that belong to none, that one transaction takes."""
_OF_A_PROPOSAL = (outcomes, receipts, escalations, votes, listed, outbox, verdicts)
"""Tables with rows of a proposal, in the order in which they let go of each other."""


class HistoryRepository:
    """The part of the ledger that forgets."""

    def needed_runs(self: Transactions) -> frozenset[str]:
        """The runs that an open incident or proposal is about."""
        with self.reading("reading which runs are needed") as connection:
            open_runs = sa.select(incident_runs.c.run_id).join(
                incidents, incidents.c.id == incident_runs.c.incident_id
            )
            wanted = sa.union(
                open_runs.where(incidents.c.state == "open"),
                sa.select(proposals.c.run_id).where(_unfinished()),
            )
            return frozenset(run_id for run_id in connection.execute(wanted).scalars() if run_id)

    def forget_history(self: Transactions, before: datetime, keep: Keep | None = None) -> dict[str, int]:
        """How many proposals and incidents ended before this moment and are deleted, each given to `keep` first."""
        gone = {"proposals": 0, "incidents": 0}
        while True:
            with self.writing("forgetting what ended long ago") as connection:
                closed = _closed_incidents(connection, timestamp(before))
                subjects = _proposals_of(connection, closed, timestamp(before))
                if not closed and not subjects:
                    return gone
                _drop_proposals(connection, subjects, keep)
                _drop_incidents(connection, closed, keep)
                gone["proposals"] += len(subjects)
                gone["incidents"] += len(closed)

    def cuttable_audit(self: Transactions, before: datetime) -> int:
        """The number of the last audit entry that may go: it and all before it are older, and of nothing that is kept."""
        with self.reading("looking how far the audit log may be cut") as connection:
            return _cuttable(connection, before)

    def cut_audit(
        self: Transactions,
        vouched: Checkpoint,
        note: str,
        before: datetime,
        at: datetime,
        keep: Keep | None = None,
    ) -> int:
        """Delete the entries that a checkpoint vouches for; return how many.

        `note` is the signed checkpoint: it stays in their place, and the rest is verified from there. Raises
        InvariantError when the checkpoint does not fit the log, or an entry is younger or still needed.
        """
        with self.writing(f"cutting the audit log at {vouched.size}") as connection:
            doing = f"cutting the audit log at entry {vouched.size}"
            if vouched.size > _cuttable(connection, before):
                raise InvariantError(f"{doing}: younger entries or such of what is kept lie before it")
            peaks = cuts.peaks_at(connection, vouched)
            if peaks is None:
                raise InvariantError(f"{doing}: the log is not what the checkpoint vouches for")
            chosen = audit.c.seq <= vouched.size
            if keep is not None:
                after = 0
                while rows := dicts(
                    connection.execute(
                        sa.select(audit)
                        .where(chosen, audit.c.seq > after)
                        .order_by(audit.c.seq)
                        .limit(20_000)
                    )
                ):
                    keep("audit", rows)
                    after = rows[-1]["seq"]
            allow_cutting(connection)
            gone = connection.execute(audit.delete().where(chosen)).rowcount
            forbid_cutting(connection)
            connection.execute(
                audit_cuts.insert().values(seq=vouched.size, hash=vouched.head, peaks=peaks, note=note)
            )
            log.append(
                connection,
                Entry(
                    event="audit_cut",
                    at=at,
                    actor="retention",
                    detail={"entries": gone, "until": vouched.size, "head": vouched.head},
                ),
            )
            return gone

    def kind_sizes(self: Transactions) -> list[KindSize]:
        """Rows and the oldest of each kind that has a life."""
        with self.reading("counting what is kept") as connection:
            return [
                KindSize(kind=kind, rows=rows, oldest=moment(oldest) if oldest else None)
                for kind, column in (
                    ("proposals", proposals.c.filed_at),
                    ("incidents", incidents.c.opened_at),
                    ("audit", audit.c.at),
                )
                for rows, oldest in connection.execute(sa.select(sa.func.count(), sa.func.min(column)))
            ]

    def shrink(self: Transactions, unused: float) -> bool:
        """Whether more than this share of the file held nothing and it was made as small as its rows. SQLite alone."""
        with self.reading("measuring the ledger's file") as connection:
            if connection.engine.dialect.name != "sqlite":
                return False
            pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
            free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
            engine = connection.engine
        if free <= unused * pages or free == 0:
            return False
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("VACUUM")
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()
        return True


def _unfinished() -> sa.ColumnElement[bool]:
    """A proposal of which something may still come."""
    under_way = sa.select(outbox.c.proposal_id).where(outbox.c.state.in_(("pending", "claimed")))
    to_undo = sa.select(receipts.c.proposal_id).where(receipts.c.undo_at != "", receipts.c.undone_at == "")
    return sa.or_(
        proposals.c.status.in_(OPEN_PROPOSALS), proposals.c.id.in_(under_way), proposals.c.id.in_(to_undo)
    )


def _closed_incidents(connection: sa.Connection, before: str) -> list[str]:
    """Incidents over before this moment with nothing younger or unfinished about them; those merged go together."""
    young = (
        sa.select(incident_runs.c.incident_id)
        .where(
            sa.or_(
                incident_runs.c.state == "open",
                incident_runs.c.at >= before,
                incident_runs.c.closed_at >= before,
            )
        )
        .union(
            sa.select(incident_runs.c.incident_id)
            .join(proposals, proposals.c.incident_id == incident_runs.c.occurrence_id)
            .where(sa.or_(proposals.c.filed_at >= before, _unfinished())),
            sa.select(proposals.c.incident_id).where(sa.or_(proposals.c.filed_at >= before, _unfinished())),
        )
    )
    over = sa.and_(
        incidents.c.state != "open",
        incidents.c.resolved_at != "",
        incidents.c.resolved_at < before,
        incidents.c.last_at < before,
        incidents.c.id.not_in(young),
    )
    merged_into = {
        row.id: row.merged_into
        for row in connection.execute(sa.select(incidents.c.id, incidents.c.merged_into).where(over))
    }
    others = connection.execute(
        sa.select(incidents.c.id, incidents.c.merged_into).where(incidents.c.merged_into != "", sa.not_(over))
    ).all()
    stays = {row.merged_into for row in others}
    groups: dict[str, list[str]] = {}
    for incident in merged_into:
        groups.setdefault(_root(incident, merged_into), []).append(incident)
    chosen: list[str] = []
    for root, members in sorted(groups.items()):
        if root in merged_into and not stays.intersection(members):
            chosen += members
        if len(chosen) >= AT_ONCE:
            break
    return chosen


def _root(incident: str, merged_into: dict[str, str]) -> str:
    """What it was merged into in the end; a name that is not among these where that is kept or in a circle."""
    for _ in range(len(merged_into) + 1):
        target = merged_into.get(incident)
        if not target:
            return incident
        incident = target
    return ""


def _proposals_of(connection: sa.Connection, closed: list[str], before: str) -> list[str]:
    """The proposals of these incidents, and old ones that are of no incident at all."""
    occurrences = sa.select(incident_runs.c.occurrence_id).where(incident_runs.c.incident_id.in_(closed))
    of_these = sa.or_(proposals.c.incident_id.in_(occurrences), proposals.c.incident_id.in_(closed))
    known = sa.select(incident_runs.c.occurrence_id).union(sa.select(incidents.c.id))
    stray = sa.and_(
        proposals.c.incident_id.not_in(known), proposals.c.filed_at < before, sa.not_(_unfinished())
    )
    found = list(connection.execute(sa.select(proposals.c.id).where(of_these)).scalars()) if closed else []
    return found + list(connection.execute(sa.select(proposals.c.id).where(stray).limit(AT_ONCE)).scalars())


def _drop_proposals(connection: sa.Connection, ids: list[str], keep: Keep | None) -> None:
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        for table in (*_OF_A_PROPOSAL, proposals):
            column = table.c.id if table is proposals else table.c.proposal_id
            _drop(connection, table, column.in_(some), keep)


def _drop_incidents(connection: sa.Connection, ids: list[str], keep: Keep | None) -> None:
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        for table in (incident_runs, incident_causes, incidents):
            column = table.c.id if table is incidents else table.c.incident_id
            _drop(connection, table, column.in_(some), keep)


def _drop(
    connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool], keep: Keep | None
) -> None:
    if keep is not None and table is not listed:  # made from the others
        rows = dicts(connection.execute(sa.select(table).where(which)))
        if rows:
            keep(table.name, rows)
    connection.execute(table.delete().where(which))


def _cuttable(connection: sa.Connection, before: datetime) -> int:
    first_young = sa.select(sa.func.min(audit.c.seq)).where(audit.c.at >= timestamp(before))
    kept_proposal = sa.select(sa.func.min(audit.c.seq)).where(
        audit.c.proposal_id != "", audit.c.proposal_id.in_(sa.select(proposals.c.id))
    )
    kept_incident = sa.select(sa.func.min(audit.c.seq)).where(
        audit.c.incident_id != "",
        audit.c.incident_id.in_(sa.select(incident_runs.c.occurrence_id).union(sa.select(incidents.c.id))),
    )
    stops = [connection.execute(each).scalar_one() for each in (first_young, kept_proposal, kept_incident)]
    last = int(connection.execute(sa.select(sa.func.max(audit.c.seq))).scalar_one() or 0)
    return min([last, *(int(stop) - 1 for stop in stops if stop is not None)])
