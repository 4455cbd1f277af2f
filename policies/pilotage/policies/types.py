"""What may be done: verdicts, votes and the facts they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

from pilotage.planner.actions.types import Action
from pilotage.planner.proposals import CaseFile, Proposal

Liveness = Literal["", "worker", "process"]
"""What bears out that a silent RUNNING run is dead: nothing, its worker is gone too, or its process is."""
Stuck = Literal["", "never-started", "hung"]
"""What is proven of a run that will not go on: nothing was ever started for it, or it does nothing for far longer than
its like ever took."""


class Outcome(StrEnum):
    """The three answers."""

    ALLOW = "allow"
    NEEDS_APPROVAL = "needs_approval"
    DENY = "deny"


class Mode(StrEnum):
    """How far the loop may go."""

    OBSERVE = "observe"
    """Observe only: no action is proposed."""
    SHADOW = "shadow"
    """Proposed and judged, never injected, and nothing is sent to Prefect."""
    APPROVE = "approve"
    """Every action needs a person."""
    AUTO = "auto"
    """Policy decides."""

    @staticmethod
    def strictest(*modes: Mode) -> Mode:
        """The one of these that lets the loop go least far: they are defined in that order."""
        return min(modes, key=tuple(Mode).index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to one proposal under one bundle and set of facts. A refusal is one, never an exception."""

    outcome: Outcome
    policy_ids: tuple[str, ...] = ()
    """The policies that decided. Those that begin with `!` are ours, listed in `refusals.py`."""
    reasons: tuple[str, ...] = ()
    """The same in words."""
    requirements: Mapping[str, int] = field(default_factory=dict)
    """The cheapest sufficient set of approvals still missing, such as `{"approver": 1}`."""
    would_change: tuple[str, ...] = ()
    """What would make the answer another one."""
    bundle: str = ""
    """Hash of the policy bundle that decided."""
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is calling, proved by a token; never taken from what the caller says."""

    name: str
    kind: Literal["user", "agent"]
    roles: frozenset[str] = frozenset()
    teams: frozenset[str] = frozenset()
    scope: frozenset[str] | None = None
    """The roles that the token was narrowed to; None where it opens all that its person may do. What a person holds
    besides their roles (a right that was lent, broken glass) is never in a scope."""

    def narrowed(self, scope: frozenset[str] | None) -> Identity:
        """Return this caller with no more than the roles of a scope."""
        if scope is None:
            return self
        kept = scope if self.scope is None else self.scope & scope
        return replace(self, roles=self.roles & kept, scope=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """What Prefect says of a proposal's target, read at `read_at` and good only for a short while."""

    target: str
    """As `target_of(action)`."""
    read_at: datetime
    state_type: str = ""
    """Of a run; empty for queues and deployments."""
    state_name: str = ""
    state_id: str = ""
    late_since_id: str = ""
    """Of a run that Prefect itself has made Late since, the id of the state that it was in; nobody has touched it."""
    run_count: int = 0
    deployment_id: str = ""
    deployment_name: str = ""
    env: str = "prod"
    """From the tag `env:…`; an unlabelled deployment is taken for production."""
    tier: int = 1
    """From the tag `tier:…`; 0 is what the business cannot be without."""
    team: str = ""
    """Owning team, from the tag `team:…`."""
    tags: frozenset[str] = frozenset()
    memory_mb: int = 0
    """What the run has now, or 0 when nobody said."""
    default_memory_mb: int = 0
    """What its deployment or pool gives a run, or 0 when neither says. Looked up for `size_run` only."""
    proven_memory_mb: int = 0
    """The most that a run of its deployment completed with lately, or 0. Looked up for `size_run` only."""
    seconds_to_start: int = 0
    """For a scheduled run; negative when it is overdue."""
    repeatable: Literal["", "yes", "no"] = ""
    """What owners say of running it twice, by tag; empty when they say nothing. Looked up for what runs it again."""
    half_done: bool = False
    """Whether it was cut off in the middle of work that another attempt may do twice. Looked up likewise."""
    read_as: str = ""
    """The failure class that rules read from its state and its log rows now, where that speaks against running it
    again as it is; else empty. Looked up likewise."""
    paused: bool = False
    failing: int = 0
    """How many of the newest ended runs of the deployment or queue failed in a row. Looked up for what holds it."""
    overdue: int = 0
    """How many runs of the deployment wait although they were due. Looked up for `catch_up` only."""
    death: Liveness = ""
    """Looked up only for an action that rests on it."""
    stuck: Stuck = ""
    """Why the run will not go on; looked up for `cancel_run` only."""


class FactProvider(Protocol):
    """Looks facts up now. What it cannot find it refuses: a missing fact is a denial."""

    def target(self, action: Action) -> TargetFacts:
        """Fresh facts about the action's target. Raises OrchestratorError when they cannot be had."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledProposal:
    """A proposal with the identity that the API authenticated and the digest that votes bind to."""

    proposal: Proposal
    case: CaseFile
    proposer: Identity
    digest: str
    """SHA-256 over `pilotage.proposal.v1\\0` and the RFC 8785 form of the proposal and its proposer."""
    filed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One person's answer to one digest."""

    proposal_id: str
    digest: str
    voter: str
    role: str
    """All roles the voter held when voting, comma separated; seats are matched from them."""
    teams: frozenset[str] = frozenset()
    """The voter's teams when voting: an approver of the owning team fills the owner's seat."""
    delegated_by: str = ""
    """Whose right to approve the voter used, or empty for the voter's own."""
    decision: Literal["approve", "reject"]
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """One admitted proposal on its way to Prefect."""

    proposal_id: str
    digest: str
    idempotency_key: str
    """A UUID derived from the proposal: what makes a second delivery recognisable in Prefect."""
    payload: Mapping[str, Any]
    """The canonical proposal."""
    state: Literal["pending", "claimed", "delivered", "refused", "failed", "unknown"]
    admitted_at: datetime
    attempts: int = 0
    last_error: str = ""
    """What came of the try before."""
