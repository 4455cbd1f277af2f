"""What a lever would refuse by facts that are known: one pure function for planning, for the gate and for delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pilotage.planner.actions.types import Action

_ENDED_BADLY = frozenset({"FAILED", "CRASHED"})
_NOT_STARTED = frozenset({"SCHEDULED"})
STATES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "retry_run": _ENDED_BADLY,
        "resize_run": _ENDED_BADLY,
        "override_result": _ENDED_BADLY,
        "launch_remediation": _ENDED_BADLY,
        "reschedule_run": _NOT_STARTED,
        "size_run": _NOT_STARTED,
        "change_parameters": _NOT_STARTED,
        "move_run": _NOT_STARTED,
        "raise_retries": frozenset({"RUNNING"}),
        "suspend_run": frozenset({"RUNNING"}),
        "mark_crashed": frozenset({"RUNNING", "CANCELLING"}),
        "resume_run": frozenset({"PAUSED"}),
        "answer_run": frozenset({"PAUSED"}),
    }
)
"""The state types in which a run must be for an action on it; an action that is not here does not care."""
STARTED_BY_A_WORKER = frozenset({"retry_run", "resize_run", "override_result"})
"""Actions after which a worker has to start the run again, which it does for runs of deployments only."""

AGAIN = frozenset({"retry_run", "resize_run"})
"""What runs a failed run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRun:
    """What is known of the run that an action is about, whoever read it."""

    state_type: str
    """Prefect's state type, in capitals."""
    has_deployment: bool


def why_not(action: Action, run: KnownRun | None) -> str:
    """Return why a lever would refuse this action on this run, or an empty text; without a run nothing is known."""
    if run is None or not run.state_type:
        return ""
    wanted = STATES.get(action.kind)
    if wanted is not None and run.state_type not in wanted:
        return f"the run is {run.state_type}; only {' and '.join(sorted(wanted))} runs take it"
    if action.kind in STARTED_BY_A_WORKER and not run.has_deployment:
        return "the run has no deployment, so no worker would start it again"
    return ""
