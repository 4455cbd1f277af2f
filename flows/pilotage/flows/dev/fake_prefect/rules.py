"""What Prefect says to a proposed state: its orchestration rules as a table of (from, to) state types.

The order is Prefect's, the words are Prefect's (3.8 and 3.9, `server/orchestration/core_policy.py`). The first rule
that objects has the last word. What a rule changes besides is put into `Transition.then` and happens only when the
proposed state is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pilotage.flows.dev.fake_prefect.records import (
    STATE_TYPES,
    TERMINAL,
    Json,
    Run,
    State,
    moment_of,
    text_of,
)
from pilotage.flows.dev.fake_prefect.tables import Tables

Status = Literal["ACCEPT", "REJECT", "ABORT", "WAIT"]
SLOT_WAIT = timedelta(seconds=30)
"""How long a run waits that found its deployment's limit full."""
LEASE = timedelta(seconds=300)
"""How long a deployment's slot is kept for a run that has not started."""


@dataclass(slots=True)
class Proposed:
    """A state that somebody wants a run to be in."""

    type: str
    name: str
    message: str | None = None
    data: object = None
    details: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What was said to it."""

    status: Status
    reason: str = ""
    instead: Proposed | None = None
    """What the run is put into, when it is not what was proposed; None leaves it where it is."""
    delay: int = 0
    """Seconds after which to ask again."""


@dataclass(slots=True, kw_only=True)
class Transition:
    """A run, the state that it is in, and the one that is proposed."""

    tables: Tables
    run: Run
    initial: State
    proposed: Proposed
    now: datetime
    then: list[Callable[[], None]] = field(default_factory=list)
    """Done when the state is taken, before the run is in it."""
    afterwards: list[Callable[[], None]] = field(default_factory=list)
    """Done when the run is in the state, and so not seen by what counts its attempts."""


Rule = Callable[[Transition], Ruling | None]


def reject(reason: str, instead: Proposed | None = None) -> Ruling:
    """Return a refusal that leaves the run where it is, or puts it into another state."""
    return Ruling(status="REJECT", reason=reason, instead=instead)


def abort(reason: str) -> Ruling:
    """Return a refusal that ends the attempt."""
    return Ruling(status="ABORT", reason=reason)


def keep_lease(t: Transition) -> Ruling | None:
    """Carry the lease of the deployment's slot from state to state."""
    if t.initial.lease_id and not t.proposed.details.get("deployment_concurrency_lease_id"):
        t.proposed.details["deployment_concurrency_lease_id"] = t.initial.lease_id
    return None


def prevent_duplicates(t: Transition) -> Ruling | None:
    """Reject a state that has the transition id of the present one."""
    ours = t.proposed.details.get("transition_id")
    if ours and ours == t.initial.details.get("transition_id"):
        return reject("This run has already made this state transition.")
    return None


def leave_terminal(t: Transition) -> Ruling | None:
    """Guard the way out of a terminal state."""
    if t.proposed.type in ("CANCELLING", "PAUSED", "CRASHED"):
        return abort(f"Run is already in terminal state {t.initial.type}.")
    kept = _has_persisted_result(t.initial.data) and t.initial.type == "COMPLETED"
    if kept and t.proposed.type not in TERMINAL:
        return reject("Run is already COMPLETED.")
    if kept and t.proposed.type == "COMPLETED" and not _has_persisted_result(t.proposed.data):
        return reject(
            "Cannot overwrite a COMPLETED state that carries persisted result data with one that does not."
        )
    if t.proposed.type == "SCHEDULED" and not t.run.deployment_id:
        return abort("Cannot reschedule a run without an associated deployment.")
    if t.proposed.type not in TERMINAL:
        retry = "reschedule" if t.proposed.type == "SCHEDULED" else None
        t.then.append(lambda: _policy(t.run, resuming=False, pause_keys=[], retry_type=retry))
    return None


def keep_results(t: Transition) -> Ruling | None:
    """Keep a persisted result from being overwritten, also by force."""
    if (
        t.initial.type == t.proposed.type == "COMPLETED"
        and _has_persisted_result(t.initial.data)
        and not _has_persisted_result(t.proposed.data)
    ):
        return reject(
            "Cannot overwrite a COMPLETED state that carries persisted result data with one that does not."
        )
    return None


def _has_persisted_result(data: object) -> bool:
    return isinstance(data, dict) and bool(data.get("storage_key"))


def only_cancelled_follows_cancelling(t: Transition) -> Ruling | None:
    """Let a run that is being cancelled become Cancelled and nothing else."""
    return reject("Cannot transition flows that are cancelling to a state other than Cancelled.")


def cancel_without_infrastructure(t: Transition) -> Ruling | None:
    """Cancel at once what has no process that would have to be ended."""
    cancelled = Proposed(type="CANCELLED", name="Cancelled")
    keep_lease(Transition(tables=t.tables, run=t.run, initial=t.initial, proposed=cancelled, now=t.now))
    if t.initial.type == "SCHEDULED":
        if not t.run.infrastructure_pid or t.initial.name == "Resuming":
            return reject("Scheduled flow run has no infrastructure to terminate.", cancelled)
    elif t.initial.details.get("pause_reschedule"):
        return reject("Suspended flow run has no infrastructure to terminate.", cancelled)
    return None


def prevent_pending(t: Transition) -> Ruling | None:
    """Keep a run from being submitted twice."""
    named = t.initial.name != t.proposed.name and t.proposed.name != "Pending"
    if t.initial.type == "PENDING" and named:
        if due := t.initial.details.get("scheduled_time"):
            t.proposed.details["scheduled_time"] = due
        return None
    return abort(f"This run is in a {t.initial.type} state and cannot transition to a PENDING state.")


def renew_lease_at_start(t: Transition) -> Ruling | None:
    """Renew the deployment's slot as the run starts, or take it again, or cancel the run."""
    lease_id, limit = t.initial.lease_id, t.tables.limit_of_deployment(t.run.deployment_id)
    if not lease_id or limit is None or t.tables.renew_lease(lease_id, t.now + LEASE, t.now):
        return None
    if not t.tables.take_slots((limit["id"],), 1, t.now):
        lost = (
            "Deployment concurrency slot lost during provisioning - no slots available to continue execution"
        )
        return reject(
            "Deployment concurrency limit reached after lease expiry.",
            Proposed(type="CANCELLED", name="Cancelled", message=lost),
        )
    holder = {"type": "flow_run", "id": t.run.id}
    lease = t.tables.new_lease((limit["id"],), 1, t.now + LEASE, holder, t.now)
    t.proposed.details["deployment_concurrency_lease_id"] = lease.id
    return None


def only_scheduled_is_late(t: Transition) -> Ruling | None:
    """Let only what is Scheduled become Late, and once."""
    if t.proposed.name != "Late":
        return None
    if t.initial.type != "SCHEDULED":
        return reject("Only scheduled flows can be marked late.")
    return reject("This flow run is already marked late.") if t.initial.name == "Late" else None


def cancel_new_when_late(t: Transition) -> Ruling | None:
    """Cancel what is late where the deployment is full and wants new runs cancelled."""
    limit = t.tables.limit_of_deployment(t.run.deployment_id)
    if t.proposed.name != "Late" or limit is None or not _cancels_new(t):
        return None
    if limit["active_slots"] < limit["limit"]:
        return None
    full = Proposed(type="CANCELLED", name="Cancelled", message="Deployment concurrency limit reached.")
    return reject("Deployment concurrency limit is full and uses the CANCEL_NEW strategy.", full)


def _cancels_new(t: Transition) -> bool:
    options = t.tables.deployments[t.run.deployment_id or ""].get("concurrency_options") or {}
    return bool(options.get("collision_strategy") == "CANCEL_NEW")


def pause(t: Transition) -> Ruling | None:
    """Pause or suspend only what runs, once for a key."""
    verb = "suspend" if t.proposed.name == "Suspended" else "pause"
    if t.initial.type != "RUNNING":
        return reject(f"Cannot {verb} flows that are not currently running.")
    key = t.proposed.details.get("pause_key") or t.tables.new_id(t.now)
    if key in t.run.policy["pause_keys"]:
        return reject(f"This {verb} has already fired.")
    if t.proposed.details.get("pause_reschedule"):
        if t.run.parent_task_run_id:
            return abort(f"Cannot {verb} subflows.")
        if t.run.deployment_id is None:
            return abort(f"Cannot {verb} flows without a deployment.")
    t.afterwards.append(lambda: _policy(t.run, pause_keys=[*t.run.policy["pause_keys"], key]))
    return None


def resume(t: Transition) -> Ruling | None:
    """Guard the way out of a pause."""
    if t.proposed.type not in {"RUNNING", "SCHEDULED", "CANCELLING"} | TERMINAL:
        return reject(
            f"This run cannot transition to the StateType.{t.proposed.type} state"
            f" from the StateType.{t.initial.type} state."
        )
    name = t.proposed.name.lower()
    if t.initial.details.get("pause_reschedule") and not t.run.deployment_id:
        return reject(f"Cannot reschedule a {name} flow run without a deployment.")
    t.afterwards.append(lambda: _policy(t.run, resuming=True))
    if t.proposed.type == "CANCELLING":
        return None
    timeout = moment_of(t.initial.details.get("pause_timeout"))
    if timeout and timeout < t.now:
        failed = Proposed(type="FAILED", name="Failed", message=f"The flow was {name} and never resumed.")
        return reject("The flow run pause has timed out and can no longer resume.", failed)
    return None


def copy_scheduled_time(t: Transition) -> Ruling | None:
    """Keep in the Pending state when the run was due."""
    due = t.initial.details.get("scheduled_time")
    if due and not t.proposed.details.get("scheduled_time"):
        t.proposed.details["scheduled_time"] = due
    return None


def wait_for_scheduled_time(t: Transition) -> Ruling | None:
    """Let nothing run before it is due."""
    due = t.initial.scheduled_time
    if due is None:
        return None
    delay = due - t.now
    seconds = math.floor(delay.total_seconds()) + round(delay.microseconds / 1e6)
    return (
        Ruling(status="WAIT", reason="Scheduled time is in the future", delay=seconds)
        if seconds > 0
        else None
    )


def retry_failed(t: Transition) -> Ruling | None:
    """Turn a failure into a retry while the run has retries left."""
    retries = t.run.policy["retries"]
    if retries is None or t.run.run_count > retries:
        t.then.append(lambda: _policy(t.run, retry_type=None))
        return None
    due = t.now + timedelta(seconds=t.run.policy["retry_delay"] or 0)
    _policy(t.run, resuming=False, pause_keys=[], retry_type="in_process")
    details: Json = {"scheduled_time": text_of(due)}
    if t.initial.lease_id:
        details["deployment_concurrency_lease_id"] = t.initial.lease_id
    retry = Proposed(type="SCHEDULED", name="AwaitingRetry", message=t.proposed.message, details=details)
    return reject("Retrying", retry)


def take_deployment_slot(t: Transition) -> Ruling | None:
    """Take a slot of the deployment's limit; without a free one the run waits, or is cancelled."""
    limit = t.tables.limit_of_deployment(t.run.deployment_id)
    if limit is None:
        return None
    if limit["limit"] == 0:
        return abort("The deployment concurrency limit is 0. The flow will deadlock if submitted again.")
    if t.tables.take_slots((limit["id"],), 1, t.now):
        lease = t.tables.new_lease((limit["id"],), 1, t.now + LEASE, None, t.now)
        t.proposed.details["deployment_concurrency_lease_id"] = lease.id
        return None
    full = "Deployment concurrency limit reached."
    if _cancels_new(t):
        return reject(full, Proposed(type="CANCELLED", name="Cancelled", message=full))
    due = {"scheduled_time": text_of(t.now + SLOT_WAIT)}
    return reject(full, Proposed(type="SCHEDULED", name="AwaitingConcurrencySlot", details=due))


def _policy(run: Run, **changes: object) -> None:
    run.policy = run.policy | changes


ANY = STATE_TYPES
Row = tuple[frozenset[str], frozenset[str], Rule]
_S, _P, _R = frozenset({"SCHEDULED"}), frozenset({"PENDING"}), frozenset({"RUNNING"})
_PAUSED = frozenset({"PAUSED"})

FLOW_RULES: tuple[Row, ...] = (
    (ANY, ANY, keep_lease),
    (ANY, ANY, prevent_duplicates),
    (TERMINAL, ANY, leave_terminal),
    (frozenset({"CANCELLING"}), ANY - {"CANCELLED"}, only_cancelled_follows_cancelling),
    (_S | _PAUSED, frozenset({"CANCELLING"}), cancel_without_infrastructure),
    (frozenset({"PENDING", "CANCELLING", "RUNNING", "CANCELLED"}), _P, prevent_pending),
    (_P, _R, renew_lease_at_start),
    (ANY, _S, only_scheduled_is_late),
    (ANY, _PAUSED, pause),
    (_PAUSED, ANY, resume),
    (_S, _P, copy_scheduled_time),
    (_S | _P, _R, wait_for_scheduled_time),
    (_R, frozenset({"FAILED"}), retry_failed),
    # Prefect takes the slot earlier and gives it back when a later rule objects; the effect is the same
    (ANY - {"PENDING", "RUNNING", "CANCELLING"}, _P, take_deployment_slot),
)
"""For a state that is proposed as workers, flows and pilotage propose it."""
FORCED_RULES: tuple[Row, ...] = (
    (TERMINAL, TERMINAL, keep_results),
    (_S | _PAUSED, frozenset({"CANCELLING"}), cancel_without_infrastructure),
)
"""For a state that is proposed with `force`."""
LATE_RULES: tuple[Row, ...] = ((ANY, _S, only_scheduled_is_late), (_S, _S, cancel_new_when_late))
"""For Prefect's own marking recently runs."""


def ruling_on(t: Transition, rules: tuple[Row, ...]) -> Ruling:
    """Return what the first rule that objects says, else ACCEPT."""
    intended = t.proposed.type
    for from_types, to_types, rule in rules:
        if t.initial.type in from_types and intended in to_types and (said := rule(t)) is not None:
            return said
    return Ruling(status="ACCEPT")
