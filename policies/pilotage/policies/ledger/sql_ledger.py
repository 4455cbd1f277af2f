"""The ledger on SQL: every change of state is one transaction that also appends to the audit log.

`admit` is the heart: one transaction re-reads and re-hashes the stored proposal, counts votes and budgets,
asks for the whole decision and writes the outbox row beside the verdict that allows it, or the refusal.
Nothing else inserts into the outbox. The two halves that move rows on from there are in `sql_outbox`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pilotage.planner.actions.types import target_of
from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import AuditReport, Entry
from pilotage.policies.audit.checkpoints import Checkpoint
from pilotage.policies.audit.signing import Verifier
from pilotage.policies.audit.table import audit
from pilotage.policies.digests import digest_of, idempotency_key_of
from pilotage.policies.gate.gate import LedgerFacts, Stage, before_deciding
from pilotage.policies.gate.recorded import RecordedDecision
from pilotage.policies.json_values import timestamp
from pilotage.policies.ledger import decisions as sql_decisions
from pilotage.policies.ledger import views
from pilotage.policies.ledger.autonomy import AutonomyRepository
from pilotage.policies.ledger.facts import deployment_in, facts_in
from pilotage.policies.ledger.grants import GrantRepository
from pilotage.policies.ledger.history import HistoryRepository
from pilotage.policies.ledger.incidents import IncidentRepository
from pilotage.policies.ledger.listed import list_again, list_judged, not_listed
from pilotage.policies.ledger.lists import ListRepository
from pilotage.policies.ledger.outbox import OutboxRepository
from pilotage.policies.ledger.plans import admissible_in
from pilotage.policies.ledger.proposals import ProposalRepository
from pilotage.policies.ledger.protocol import OPEN, Decide, Status
from pilotage.policies.ledger.publications import PublicationRepository
from pilotage.policies.ledger.rows import as_text, dicts, filed_from, run_of
from pilotage.policies.ledger.schema import WRITING, opened, outbox, proposals, verdicts
from pilotage.policies.ledger.steps import found, note, note_row, row_of, set_status, status_in
from pilotage.policies.ledger.switches import SwitchRepository
from pilotage.policies.ledger.votes import CurrentIdentity, VoteRepository
from pilotage.policies.ledger_facts import Admitted
from pilotage.policies.refusals import refused
from pilotage.policies.types import FiledProposal, Mode, Outcome, TargetFacts, Verdict
from pilotage.telemetry.errors import LedgerError

_STATUS_OF: dict[Outcome, Status] = {
    Outcome.ALLOW: "allowed",
    Outcome.NEEDS_APPROVAL: "needs_approval",
    Outcome.DENY: "denied",
}
PASSING = frozenset({"kill-switch", "!stopped", "!unreachable"})
"""Denials that pass, with the stop or with Prefect's silence: what they alone deny is held, not refused for good."""
_STATUS_OF_REFUSAL: dict[str, Status] = {"!expired": "expired", "!vetoed": "rejected"}
ENDED: frozenset[Status] = frozenset({"replaced", "expired", "refused"})
"""What ended without an outbox row and without a veto, which `before_deciding` sees. It is never admitted."""
BREAKERS = frozenset({"loop-breaker", "circuit-open", "fingerprint-budget"})
"""Policies of the default bundle by which acting stops until a person looks."""


class SqlLedger(
    ProposalRepository,
    OutboxRepository,
    SwitchRepository,
    VoteRepository,
    GrantRepository,
    AutonomyRepository,
    PublicationRepository,
    IncidentRepository,
    ListRepository,
    HistoryRepository,
):
    """The `Ledger` protocol on SQLAlchemy Core. Thread-safe; several processes may share the database.

    `current_identity` says who a voter is now: with it, an approval counts only as far as its voter's rights still go.
    """

    def __init__(self, url: str, *, current_identity: CurrentIdentity | None = None) -> None:
        self._current_identity = current_identity
        self._one_writer = threading.Lock()
        self.unreadable: dict[str, str] = {}
        with _translated(f"opening the ledger {sa.make_url(url).render_as_string(hide_password=True)}"):
            self._engine = opened(url)
        with self.reading("looking what is not listed yet") as connection:
            missing = not_listed(connection)
        if missing:
            with self.writing("listing what was filed before there were lists") as connection:
                list_again(connection, missing)

    def close(self) -> None:
        """Lets the database go."""
        self._engine.dispose()

    @contextmanager
    def reading(self, what: str) -> Iterator[sa.Connection]:
        """A connection whose reads see one moment."""
        with _translated(what), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, what: str) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its beginning; rolled back when anything is raised."""
        with (
            _translated(what),
            self._one_writer,
            self._engine.connect().execution_options(**{WRITING: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def filed(self, proposal_id: str) -> FiledProposal | None:
        """The proposal as it was filed, or None."""
        with self.reading(f"reading {proposal_id}") as connection:
            return found(connection, proposal_id)

    def status(self, proposal_id: str) -> Status:
        """Where it stands; `unknown` when it was never filed."""
        with self.reading(f"reading {proposal_id}") as connection:
            return status_in(connection, proposal_id)

    def facts(
        self,
        filed: FiledProposal,
        stage: Stage,
        mode: Mode,
        now: datetime,
        target: TargetFacts | None = None,
    ) -> LedgerFacts:
        """What the ledger counts about it; the proposal's own outbox row is left out."""
        with self.reading(f"counting for {filed.proposal.id}") as connection:
            return facts_in(connection, filed, stage, mode, now, target, self._current_identity)

    def record_verdict(
        self,
        proposal_id: str,
        stage: Stage,
        verdict: Verdict,
        target: TargetFacts | None,
        at: datetime,
        ledger: LedgerFacts | None = None,
    ) -> None:
        """Keeps a verdict and the facts it rests on; moves the status of what is not admitted yet."""
        with self.writing(f"recording the verdict on {proposal_id}") as connection:
            filed = found(connection, proposal_id)
            if filed is None:
                raise LedgerError(
                    f"recording the verdict on {proposal_id}: it was never filed; file it first"
                )
            self._keep_verdict(connection, filed, stage, verdict, target, at, ledger)
            note(connection, filed, "judged", at, "gate", stage=stage, verdict=verdict, target_facts=target)
            _tell_of_breakers(connection, filed, verdict, at)

    def admit(
        self, proposal_id: str, decide: Decide, mode: Mode, now: datetime, target: TargetFacts | None = None
    ) -> Verdict:
        """The verdict under which it was put into the outbox or refused, in one transaction.

        `decide` gets the stored proposal and what the ledger counts at this moment, and must not call the
        ledger. An exception in it is a denial. A second call changes nothing: `!already-admitted`. What has ended
        otherwise (replaced by an edit, lapsed with its mode) is never decided again: `!closed`.
        """
        with self.writing(f"admitting {proposal_id}") as connection:
            already = connection.execute(
                sa.select(outbox.c.proposal_id).where(outbox.c.proposal_id == proposal_id)
            ).first()
            if already is not None:
                return refused("!already-admitted")
            row = row_of(connection, proposal_id)
            if row is None:
                return refused("!not-filed", detail=proposal_id)
            if row["status"] in ENDED:
                stands = f"{row['status']} by {row['replaced_by']}" if row["replaced_by"] else row["status"]
                return _refuse(connection, row, now, refused("!closed", detail=stands))
            try:
                filed = filed_from(row)
                why = "" if digest_of(filed.proposal, filed.proposer) == filed.digest else "another digest"
            except (ValueError, KeyError, TypeError) as exc:
                filed, why = None, str(exc)
            if filed is None or why:
                set_status(connection, proposal_id, "refused")
                return _refuse(connection, row, now, refused("!tampered", detail=why))
            ledger_facts = facts_in(connection, filed, "inject", mode, now, target, self._current_identity)
            verdict = before_deciding(filed, ledger_facts, now) or _decided(decide, filed, ledger_facts)
            seq = self._keep_verdict(connection, filed, "inject", verdict, target, now, ledger_facts)
            if verdict.outcome is not Outcome.ALLOW:
                note(connection, filed, "refused", now, "gate", verdict=verdict, target_facts=target)
                _tell_of_breakers(connection, filed, verdict, now)
                return verdict
            idempotency_key = idempotency_key_of(filed.digest)
            connection.execute(
                outbox.insert().values(
                    proposal_id=proposal_id,
                    verdict_seq=seq,
                    digest=filed.digest,
                    mark=idempotency_key,
                    kind=filed.proposal.action.kind,
                    target=target_of(filed.proposal.action),
                    run_id=run_of(filed),
                    deployment_id=deployment_in(connection, filed, target),
                    fingerprint=filed.case.fingerprint,
                    state="pending",
                    admitted_at=timestamp(now),
                    attempts=0,
                    owner="",
                    free_at="",
                    last_error="",
                )
            )
            set_status(connection, proposal_id, "admitted")
            note(
                connection,
                filed,
                "admitted",
                now,
                "gate",
                mark=idempotency_key,
                verdict=verdict,
                target_facts=target,
            )
            return verdict

    def expire(self, now: datetime) -> list[str]:
        """The ids of proposals that nobody admitted in time, now marked so."""
        with self.writing("expiring proposals") as connection:
            rows = dicts(
                connection.execute(
                    sa.select(proposals).where(
                        proposals.c.status.in_(sorted(OPEN)), proposals.c.expires_at <= timestamp(now)
                    )
                )
            )
            for row in rows:
                set_status(connection, row["id"], "expired")
                note_row(connection, row, "expired", now, "clock", expires_at=row["expires_at"])
            return [row["id"] for row in rows]

    def lapse(self, now: datetime, why: str) -> list[str]:
        """The ids of all proposals that were still open, now expired for this reason."""
        with self.writing("lapsing open proposals") as connection:
            wanted = sa.select(proposals).where(proposals.c.status.in_(sorted(OPEN)))
            rows = dicts(connection.execute(wanted))
            for row in rows:
                set_status(connection, row["id"], "expired")
                note_row(connection, row, "expired", now, "clock", why=why)
            return [row["id"] for row in rows]

    def proposals(self, status: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest proposals as plain JSON."""
        with self.reading("listing proposals") as connection:
            return views.proposal_list(connection, status, limit)

    def proposal(self, proposal_id: str) -> dict[str, Any] | None:
        """One proposal as plain JSON, or None."""
        with self.reading(f"reading {proposal_id}") as connection:
            return views.one_proposal(connection, proposal_id)

    def beginning(self, kind: str, id_begin: str) -> list[dict[str, str]]:
        """The proposals, incidents, grants or runs whose id begins so: `{id, what, status, at}`, newest first."""
        with self.reading(f"looking for {kind} {id_begin}") as connection:
            return views.ids_beginning(connection, kind, id_begin)

    def incidents_on(self, deployment_id: str) -> list[dict[str, str]]:
        """The incidents of one deployment's runs: `{id, what, status, at}`, newest first."""
        with self.reading(f"looking for incidents of {deployment_id}") as connection:
            return views.incidents_on(connection, deployment_id)

    def approvers(self, proposal_id: str) -> tuple[str, ...]:
        """Who approved it, in the order of their votes."""
        row = self.proposal(proposal_id)
        cast = row["votes"] if row else []
        return tuple(vote["voter"] for vote in cast if vote["decision"] == "approve")

    def incidents(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest incidents with their proposals, as plain JSON."""
        with self.reading("listing incidents") as connection:
            return views.incident_list(connection, limit)

    def incident(self, incident_id: str) -> dict[str, Any] | None:
        """One incident with its runs and proposals, or None; an occurrence's id leads to the incident it is part of."""
        with self.reading(f"reading {incident_id}") as connection:
            return views.one_incident(connection, incident_id)

    def said_by_people(self, since: datetime) -> list[dict[str, Any]]:
        """The audited steps since then in which a person decided something, oldest first."""
        with self.reading("reading what people decided") as connection:
            return views.said_by_people(connection, since)

    def incidents_to_tell(self, since: datetime) -> list[dict[str, Any]]:
        """The open incidents and those that ended since, with proposals and what was told of them; oldest first."""
        with self.reading("listing incidents to tell of") as connection:
            return views.incidents_to_tell(connection, since)

    def admissible(self, now: datetime) -> list[str]:
        """The ids of allowed proposals whose turn it is, oldest first: runs of one incident wait for its probe."""
        with self.reading("looking whose turn it is") as connection:
            return admissible_in(connection, now)

    def story(self, subject: str) -> list[dict[str, Any]]:
        """Every audited step about a run, proposal or incident id, in the order in which it happened."""
        with self.reading(f"telling the story of {subject}") as connection:
            return views.story_of(connection, subject)

    def entries(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The audit entries that follow entry number `after`, oldest first, shaped as the steps of a story."""
        with self.reading(f"reading the audit log after {after}") as connection:
            return views.entries_after(connection, after, limit)

    def decisions(self, since: datetime | None = None, proposal_id: str = "") -> Iterator[RecordedDecision]:
        """Recorded decisions with the facts they rest on, oldest first, of all proposals or of one."""
        yield from map(sql_decisions.recorded_decision_from, self.stored_decisions(since, proposal_id))

    def stored_decisions(
        self, since: datetime | None = None, proposal_id: str = ""
    ) -> Iterator[sql_decisions.StoredDecision]:
        """The same as plain rows, for whoever reads very many."""
        with self.reading("reading decisions") as connection:
            yield from sql_decisions.stored_decisions_in(connection, since, proposal_id)

    def admitted(self, since: datetime) -> list[Admitted]:
        """What was admitted after a moment, oldest first, as far as budgets count it."""
        with self.reading("reading what was admitted") as connection:
            return sql_decisions.admitted_in(connection, since)

    def known_incidents(self) -> frozenset[str]:
        """Every incident that something was ever proposed about."""
        with self.reading("reading incidents") as connection:
            return sql_decisions.incidents_in(connection)

    def counts(self) -> dict[str, int]:
        """How many proposals stand where."""
        with self.reading("counting proposals") as connection:
            return views.count_by_status(connection)

    def backlog(self) -> dict[str, Any]:
        """What stands open: `{incidents_open, outbox_waiting, outbox_oldest, audit_seq}`."""
        with self.reading("counting what stands open") as connection:
            return views.backlog_in(connection)

    def verify_audit(
        self, checkpoints: Sequence[Checkpoint] = (), verifier: Verifier | None = None
    ) -> AuditReport:
        """What a walk along the audit chain finds, held against checkpoints kept elsewhere."""
        with self.reading("verifying the audit log") as connection:
            return log.verify(connection, checkpoints, verifier)

    def export_audit(self) -> Iterator[str]:
        """The audit log as JSON lines."""
        with self.reading("exporting the audit log") as connection:
            yield from log.exported(connection)

    def _keep_verdict(
        self,
        connection: sa.Connection,
        filed: FiledProposal,
        stage: Stage,
        verdict: Verdict,
        target: TargetFacts | None,
        at: datetime,
        ledger: LedgerFacts | None,
    ) -> int:
        proposal_id = filed.proposal.id
        result = connection.execute(
            verdicts.insert().values(
                proposal_id=proposal_id,
                stage=stage,
                outcome=verdict.outcome.value,
                verdict=as_text(verdict),
                target_facts=as_text(target),
                ledger_facts=as_text(ledger),
                at=timestamp(at),
            )
        )
        if status_in(connection, proposal_id) in OPEN | {"denied"}:
            set_status(connection, proposal_id, _status_of(verdict))
        if target is not None and target.deployment_id:
            connection.execute(
                proposals.update()
                .where(proposals.c.id == proposal_id)
                .values(deployment_id=target.deployment_id)
            )
        list_judged(connection, filed, verdict, target)
        (seq,) = result.inserted_primary_key or (0,)
        return int(seq)


def _refuse(connection: sa.Connection, row: dict[str, Any], now: datetime, verdict: Verdict) -> Verdict:
    """The refusal of what is not decided at all, noted."""
    log.append(
        connection,
        Entry(
            event="refused",
            at=now,
            actor="gate",
            proposal_id=row["id"],
            incident_id=row["incident_id"],
            run_id=row["run_id"],
            detail={"verdict": verdict},
        ),
    )
    return verdict


def _tell_of_breakers(
    connection: sa.Connection, filed: FiledProposal, verdict: Verdict, at: datetime
) -> None:
    """Notes that acting has stopped by itself, once for each trouble: whoever reads the log tells a person."""
    broken = sorted(BREAKERS & set(verdict.policy_ids))
    notified = sa.select(audit.c.seq).where(
        audit.c.event == "gave_up", audit.c.incident_id == filed.proposal.incident_id
    )
    if broken and connection.execute(notified.limit(1)).first() is None:
        note(connection, filed, "gave_up", at, "gate", verdict=verdict, fingerprint=filed.case.fingerprint)


def _status_of(verdict: Verdict) -> Status:
    if verdict.policy_ids and PASSING.issuperset(verdict.policy_ids):
        return "held"
    refusal = next((name for name in verdict.policy_ids if name in _STATUS_OF_REFUSAL), "")
    return _STATUS_OF_REFUSAL.get(refusal, _STATUS_OF[verdict.outcome])


def _decided(decide: Decide, filed: FiledProposal, ledger_facts: LedgerFacts) -> Verdict:
    try:
        return decide(filed, ledger_facts)
    except Exception as exc:  # any surprise is a denial
        return refused("!evaluation-error", errors=(f"{type(exc).__name__}: {exc}",))


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as exc:
        # a locked database is free again later; everything else wants a person
        transient = isinstance(exc, sa.exc.OperationalError) and "locked" in str(exc)
        raise LedgerError(
            f"{what}: {exc.__class__.__name__}: {exc}; nothing was changed", transient=transient
        ) from exc
