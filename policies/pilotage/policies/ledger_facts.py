"""What the ledger counts about one proposal: the facts that only the controller can count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pilotage.policies.types import Identity, Mode, Vote

Stage = Literal["judge", "inject"]
Autonomy = Literal["standard", "earned", "demoted"]
"""Of one kind of action on one deployment: what policy says; more, by good outcomes; less, by a bad one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFacts:
    """What the ledger says at one moment about one proposal and the traffic around it."""

    stage: Stage
    mode: Mode
    stopped: bool = False
    """The kill switch."""
    actions_1h: int = 0
    """Admitted within the hour: notifications for a notification, changes for everything else."""
    actions_of_run_24h: int = 0
    """Retries and resizes of the same run admitted within 24 hours."""
    actions_of_deployment_1h: int = 0
    """Changes to the same deployment and its runs admitted within the hour."""
    seconds_since_same_target: int | None = None
    """Since the last change to the same target was admitted; None when there was none."""
    votes: tuple[Vote, ...] = ()
    """Every vote on the proposal, whatever digest it was for."""
    evidence_tainted: bool = False
    """True when the evidence quotes text that a user's code or a third party wrote; only ever tightens."""
    other_targets_1h: int = 0
    """Distinct targets, this one apart, that were changed within the hour: the blast radius so far."""
    actions_of_fingerprint_24h: int = 0
    """Changes admitted within 24 hours for the same fault; 0 when the proposal names none."""
    fruitless_of_fingerprint_24h: int = 0
    """Changes for the same fault that failed within 24 hours, since the last one that helped."""
    failed_1h: int = 0
    """Changes of the same deployment (or else target) whose outcome within the hour was bad."""
    seconds_since_failed: int | None = None
    """Since the last of those; None when there was none."""
    verified_since_failed: int = 0
    """Changes admitted after the last bad outcome that turned out well: one of them closes the circuit."""
    probing: int = 0
    """Changes admitted after the last bad outcome whose own outcome is still open."""
    behind: Identity | None = None
    """Who the person is now for whom an agent proposes it; None when it names none, or nobody of that name is left."""
    break_glass: str = ""
    """The grant that covers this proposal of this proposer now, or empty."""
    autonomy: Autonomy = "standard"
    """Of this kind of action on this deployment."""
    forecast: bool = False
    """Whether it is about what has not happened."""
    forecast_actions_1h: int = 0
    """Changes for what was forecast admitted within the hour; for all other changes these do not count."""
    run_closed: str = ""
    """As what its run was given up in its incident: superseded, waived, or empty."""
    waiting: int = 0
    """Other proposals of the same proposer that wait for approvals now."""
    waiting_alike: int = 0
    """Other proposals of the same kind for the same target that wait for approvals now: an agent's are counted
    against whoever's, a person's against their own, so that what an agent asked can be edited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """One action that counts against budgets."""

    at: datetime
    kind: str
    target: str
    run_id: str
    deployment_id: str
    fingerprint: str
