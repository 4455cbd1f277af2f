"""What the ledger is to everybody else: owner of proposals, verdicts, votes, the outbox and outcomes.

All methods are synchronous and may be called from any thread. They raise LedgerError when the database cannot
be read or written, and nothing may be injected until it can. Every change of state is one transaction that
also appends to the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from pilotage.policies.audit.chain import AuditReport
from pilotage.policies.audit.checkpoints import Checkpoint
from pilotage.policies.audit.signing import Verifier
from pilotage.policies.autonomy import AutonomyChange, AutonomyRule
from pilotage.policies.gate.recorded import RecordedDecision
from pilotage.policies.grants import BreakGlassGrant, Delegation
from pilotage.policies.ledger.queries import AuditQuery, IncidentQuery, ProposalQuery
from pilotage.policies.ledger_facts import Autonomy, LedgerFacts, Stage
from pilotage.policies.types import FiledProposal, Identity, Mode, OutboxEntry, TargetFacts, Verdict, Vote

Status = Literal[
    "filed",
    "held",
    "allowed",
    "needs_approval",
    "denied",
    "admitted",
    "delivered",
    "verified",
    "failed",
    "refused",
    "expired",
    "rejected",
    "replaced",
    "undone",
    "unknown",
]
"""Where a proposal stands; `held` is one that only the kill switch denies, or Prefect's silence, to be
judged again when that is over; `replaced` one that a person edited, for good; `unknown` one never filed."""
OPEN: frozenset[Status] = frozenset({"filed", "held", "allowed", "needs_approval"})
"""Still open to votes."""
EDITABLE: frozenset[Status] = OPEN | {"denied"}
"""What a person may edit: nothing has come of it, and nobody said no to it."""

SignInStep = Literal["signed_in", "sign_in_failed", "sessions_ended"]
"""The rows of the sign-in log."""

RunState = Literal["open", "recovered", "superseded", "waived"]
"""How a run of an incident stands: `recovered` when its work is done, `superseded` when another did it or nobody
wants it any more, `waived` when a person says that it need not be done."""

Decide = Callable[[FiledProposal, LedgerFacts], Verdict]
"""The whole decision, over facts about the target that were read before. It must not call the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One change that was made, and what verification and undo need to know of it."""

    filed: FiledProposal
    idempotency_key: str
    effect: str
    receipt: Mapping[str, Any]
    """Whatever was recorded with the delivery, as plain JSON."""
    delivered_at: datetime
    undo_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The kill switch, set."""

    by: str
    reason: str
    at: datetime
    resume_votes: tuple[str, ...] = ()
    """Who has voted to lift it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSize:
    """How much of one kind the ledger holds."""

    kind: str
    rows: int
    oldest: datetime | None


Keep = Callable[[str, Sequence[dict[str, Any]]], None]
"""Takes rows of a table into an archive before they are deleted; raises when it cannot."""


class Ledger(Protocol):
    """The ledger, whatever database it is on."""

    def file(self, filed: FiledProposal) -> bool:
        """True when it is new, False when it was filed before. Another text under its id: LedgerError."""
        ...

    def amend(self, proposal_id: str, edited: FiledProposal) -> Verdict | None:
        """None when `edited` is filed in the place of this proposal, now or before; else the refusal.

        The old one is `replaced` by it, which nothing else makes it and nothing unmakes.
        """
        ...

    def filed(self, proposal_id: str) -> FiledProposal | None:
        """The proposal as it was filed, or None."""
        ...

    def status(self, proposal_id: str) -> Status:
        """Where it stands."""
        ...

    def facts(
        self,
        filed: FiledProposal,
        stage: Stage,
        mode: Mode,
        now: datetime,
        target: TargetFacts | None = None,
    ) -> LedgerFacts:
        """What the ledger counts about it; the proposal's own outbox row is left out."""
        ...

    def record_verdict(
        self,
        proposal_id: str,
        stage: Stage,
        verdict: Verdict,
        target: TargetFacts | None,
        at: datetime,
        ledger: LedgerFacts | None = None,
    ) -> None:
        """Keeps a verdict and the facts it rests on."""
        ...

    def vote(
        self,
        proposal_id: str,
        digest: str,
        voter: Identity,
        decision: Literal["approve", "reject"],
        reason: str,
        verdict: Verdict,
        at: datetime,
        *,
        delegated_by: str = "",
    ) -> Vote | Verdict:
        """The vote that now counts, or the refusal; `verdict` is the gate's answer to the vote itself."""
        ...

    def acting(self, voter: Identity, now: datetime) -> tuple[Identity, str]:
        """The voter with what was lent to them, and by whom, or empty when the right is their own."""
        ...

    def delegate(self, delegation: Delegation, verdict: Verdict) -> bool:
        """True when the right to approve is lent now; `verdict` is the gate's answer."""
        ...

    def end_delegations(self, giver: str, at: datetime) -> int:
        """How many of this person's delegations were ended by this call."""
        ...

    def escalate(self, now: datetime, after: timedelta, to: str = "admin") -> list[str]:
        """The ids of proposals that have waited for approvals for longer than `after`, each told of once."""
        ...

    def break_glass(self, grant: BreakGlassGrant, verdict: Verdict) -> bool:
        """True when the grant stands now; `verdict` is the gate's answer."""
        ...

    def revoke_break_glass(self, grant_id: str, by: str, at: datetime) -> bool:
        """True when the grant was ended by this call, before its time."""
        ...

    def break_glass_reviews(self, now: datetime) -> list[str]:
        """The ids of grants that have run out already, each put up for review once."""
        ...

    def active_grants(self, now: datetime) -> dict[str, list[dict[str, Any]]]:
        """What is lent now, as plain JSON: `glass` that is broken and `delegations` of the right to approve."""
        ...

    def trust(self, rule: AutonomyRule) -> list[dict[str, Any]]:
        """Every kind of action on every deployment that was ever measured or set: level, outcomes, lower bound."""
        ...

    def autonomy(self, kind: str, scope: str) -> Autonomy:
        """How far this kind of action is trusted on this deployment."""
        ...

    def measured_since(self, seq: int | None) -> tuple[int, frozenset[tuple[str, str]]]:
        """The number of the last audit entry, and the kinds and scopes whose outcomes or trust changed since `seq`.

        None for all that were ever measured.
        """
        ...

    def promote(
        self, rule: AutonomyRule, at: datetime, pairs: Collection[tuple[str, str]] | None = None
    ) -> list[AutonomyChange]:
        """The promotions that measured outcomes earned already, each recorded; of these kinds and scopes, or of all."""
        ...

    def set_autonomy(
        self, kind: str, scope: str, level: Autonomy, by: str, why: str, at: datetime
    ) -> AutonomyChange | None:
        """The change by a person's word, or None when nothing changed. Earned is measured, never given."""
        ...

    def admit(
        self, proposal_id: str, decide: Decide, mode: Mode, now: datetime, target: TargetFacts | None = None
    ) -> Verdict:
        """The verdict under which it was put into the outbox or refused, in one transaction."""
        ...

    def claim(self, owner: str, now: datetime, lease: timedelta) -> OutboxEntry | None:
        """The oldest waiting entry, now this owner's until the lease ends; None while stopped."""
        ...

    def claim_of(self, proposal_id: str, owner: str, now: datetime, lease: timedelta) -> OutboxEntry | None:
        """The same for one proposal."""
        ...

    def outbox_row(self, proposal_id: str) -> tuple[FiledProposal, OutboxEntry] | None:
        """The proposal and its row of the outbox as they are now; None for one that was never admitted."""
        ...

    def renew(self, proposal_id: str, owner: str, now: datetime, lease: timedelta) -> bool:
        """Whether the entry is still this owner's; its lease ends so much later then."""
        ...

    def record_delivery(
        self, proposal_id: str, receipt: Mapping[str, Any], effect: str, at: datetime
    ) -> bool:
        """True when it was recorded now, False when a delivery had been recorded before."""
        ...

    def record_failure(
        self, proposal_id: str, why: str, transient: bool, at: datetime, *, written: Sequence[str] = ()
    ) -> None:
        """Puts the entry back for a later try, or gives it up. `written` is what was changed before it broke off."""
        ...

    def record_outcome(
        self, proposal_id: str, judgement: str, detail: str, final_state: str, at: datetime
    ) -> bool:
        """True when verification's final word was recorded now."""
        ...

    def record_undo(
        self, proposal_id: str, by: str, effect: str, detail: Mapping[str, Any], at: datetime
    ) -> bool:
        """True when the way back was recorded now; `refused` leaves the status as it was."""
        ...

    def delivered(self, proposal_id: str) -> Delivered | None:
        """The change that it made, or None when there was none or it was undone."""
        ...

    def awaiting_verification(self) -> list[Delivered]:
        """Changes without a final word, oldest first."""
        ...

    def set_aside_unreadable(self, at: datetime) -> list[str]:
        """The ids of changes that were listed and could not be read, ended now: each is told of once."""
        ...

    def set_aside(self, proposal_id: str, why: str, at: datetime) -> None:
        """Ends a proposal of which something stored cannot be read."""
        ...

    def due_undos(self, now: datetime) -> list[Delivered]:
        """Changes that were to be held until a time that has come."""
        ...

    def expire(self, now: datetime) -> list[str]:
        """The ids of proposals that nobody admitted in time, now marked so."""
        ...

    def lapse(self, now: datetime, why: str) -> list[str]:
        """The ids of all proposals that were still open, now expired for this reason."""
        ...

    def stop(self, by: str, reason: str, at: datetime) -> bool:
        """True when the kill switch is set now, False when it was already."""
        ...

    def resume_vote(self, by: str, needed: int, at: datetime) -> bool:
        """True when this vote lifts the kill switch; one vote for each person."""
        ...

    def stopped(self) -> Stop | None:
        """The kill switch, or None when it is not set."""
        ...

    def set_mode(self, mode: Mode, by: str, at: datetime, *, reason: str = "", asked: bool = False) -> None:
        """Keeps the mode over restarts. `asked` when a person asked for it, which further starts heed."""
        ...

    def asked_mode(self) -> Mode | None:
        """The mode that a person asked for last, or None when nobody ever did."""
        ...

    def refuse_command(self, command: str, by: str, verdict: Verdict, at: datetime, **detail: object) -> None:
        """Keeps that somebody gave a command that they may not give."""
        ...

    def record_sign_in(self, step: SignInStep, name: str, at: datetime, **detail: object) -> None:
        """Keeps that somebody signed in, failed to, or that sessions of theirs were ended."""
        ...

    def mode(self) -> Mode | None:
        """The mode that was set last, or None when none ever was."""
        ...

    def proposals(self, status: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest proposals as plain JSON."""
        ...

    def proposal_page(self, query: ProposalQuery) -> dict[str, Any]:
        """One page of proposals: `{rows, count, next}`. Raises ValueError for a cursor that is none."""
        ...

    def proposal_choices(self, status: str = "") -> dict[str, dict[str, int]]:
        """What the proposals of a status can be filtered by, each value with its count."""
        ...

    def incident_page(self, query: IncidentQuery) -> dict[str, Any]:
        """One page of incidents: `{rows, count, counts, next}`. Raises ValueError for a cursor that is none."""
        ...

    def holds(self, now: datetime) -> list[dict[str, Any]]:
        """What was changed for a time that ends later, the next to end first."""
        ...

    def audit_page(self, query: AuditQuery) -> dict[str, Any]:
        """One page of the audit log, the newest first: `{rows, count, folded, next}`. Raises ValueError likewise."""
        ...

    def proposal(self, proposal_id: str) -> dict[str, Any] | None:
        """One proposal as plain JSON, or None."""
        ...

    def beginning(self, kind: str, id_begin: str) -> list[dict[str, str]]:
        """The proposals, incidents, grants or runs (`kind`) whose id begins so: `{id, what, status, at}`."""
        ...

    def incidents_on(self, deployment_id: str) -> list[dict[str, str]]:
        """The incidents of one deployment's runs: `{id, what, status, at}`, newest first."""
        ...

    def approvers(self, proposal_id: str) -> tuple[str, ...]:
        """Who approved it, in the order of their votes."""
        ...

    def incidents(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest incidents with their proposals, as plain JSON."""
        ...

    def incident(self, incident_id: str) -> dict[str, Any] | None:
        """One incident with its runs and proposals, or None; an occurrence's id leads to the incident it is part of."""
        ...

    def incident_of(self, occurrence_or_run: str) -> str:
        """The id of the newest incident of this occurrence or run, or empty."""
        ...

    def open_incident_runs(self) -> list[dict[str, str]]:
        """Every run of an open incident that is not recovered, superseded or waived, oldest first."""
        ...

    def close_run(
        self, incident_id: str, subject: str, state: RunState, why: str, by: str, at: datetime
    ) -> bool:
        """True when this closed what was open of a subject; the incident is resolved with its last one."""
        ...

    def settle_incidents(self, now: datetime) -> list[str]:
        """The ids of incidents that are over since nothing is found or proposed about them any more."""
        ...

    def waive_incident(
        self, incident_id: str, by: str, reason: str, at: datetime, run_ids: Sequence[str] = ()
    ) -> int:
        """How many runs (all, or those named) need not be recovered any more, by a person's word."""
        ...

    def acknowledge_incident(self, incident_id: str, by: str, reason: str, at: datetime) -> None:
        """Keeps that a person looks at an open incident. Raises LedgerError when it is none."""
        ...

    def said_by_people(self, since: datetime) -> list[dict[str, Any]]:
        """The audited steps since then in which a person decided something, oldest first."""
        ...

    def split_incident(self, incident_id: str, run_ids: Sequence[str], by: str, at: datetime) -> str:
        """The id of the new incident that these runs are now of."""
        ...

    def merge_incidents(self, kept: str, others: Sequence[str], by: str, at: datetime) -> int:
        """How many incidents became part of `kept`, by a person's word."""
        ...

    def incidents_to_tell(self, since: datetime) -> list[dict[str, Any]]:
        """The open incidents and those that ended since, with proposals and what was told of them; oldest first."""
        ...

    def told_of(self, incident_id: str, told: Mapping[str, Any]) -> None:
        """Keeps what an incident's page and its events said last."""
        ...

    def admissible(self, now: datetime) -> list[str]:
        """The ids of allowed proposals whose turn it is, oldest first: runs of one incident wait for its probe."""
        ...

    def story(self, subject: str) -> list[dict[str, Any]]:
        """Every audited step about a run, proposal or incident id, in the order in which it happened."""
        ...

    def entries(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The audit entries that follow entry number `after`, oldest first, shaped as the steps of a story."""
        ...

    def decisions(self, since: datetime | None = None, proposal_id: str = "") -> Iterator[RecordedDecision]:
        """Recorded decisions with the facts they rest on, oldest first, of all proposals or of one."""
        ...

    def counts(self) -> dict[str, int]:
        """How many proposals stand where."""
        ...

    def backlog(self) -> dict[str, Any]:
        """What stands open: `{incidents_open, outbox_waiting, outbox_oldest, audit_seq}`.

        `outbox_oldest` is when the oldest proposal was admitted that is not delivered yet, or None; `audit_seq` the number
        of the last entry of the audit log.
        """
        ...

    def verify_audit(
        self, checkpoints: Sequence[Checkpoint] = (), verifier: Verifier | None = None
    ) -> AuditReport:
        """What a walk along the audit chain finds, held against checkpoints kept elsewhere.

        `verifier` checks who signed for entries that were cut from the log's beginning.
        """
        ...

    def needed_runs(self) -> frozenset[str]:
        """The runs that an open incident or proposal is about."""
        ...

    def forget_history(self, before: datetime, keep: Keep | None = None) -> dict[str, int]:
        """How many proposals and incidents ended before this moment and are deleted, each given to `keep` first."""
        ...

    def cuttable_audit(self, before: datetime) -> int:
        """The number of the last audit entry that may go: it and all before it are older, and of nothing that is kept."""
        ...

    def cut_audit(
        self, vouched: Checkpoint, note: str, before: datetime, at: datetime, keep: Keep | None = None
    ) -> int:
        """Delete the entries that a checkpoint vouches for; return how many.

        `note` is the signed checkpoint: it stays in their place. Raises InvariantError when the checkpoint does not fit
        the log, or an entry is younger or still needed.
        """
        ...

    def kind_sizes(self) -> list[KindSize]:
        """Rows and the oldest of each kind that has a life."""
        ...

    def shrink(self, unused: float) -> bool:
        """Whether more than this share of the file held nothing and it was made as small as its rows."""
        ...

    def export_audit(self) -> Iterator[str]:
        """The audit log as JSON lines."""
        ...

    def close(self) -> None:
        """Lets the database go."""
        ...
