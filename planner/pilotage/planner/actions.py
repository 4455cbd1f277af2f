"""What may be wanted: the closed union of typed actions.

Every action names its target by Prefect's id or name and carries only bounded, typed arguments. Nothing in
it is free text, so nothing that a log line or a model says can ride along. They come in over a socket, so
they are strict pydantic models: an unknown key, a wrong type or a value out of range is refused.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

MAX_DELAY = timedelta(hours=24)
"""No action moves a run or holds anything for longer: a day is one on-call shift change."""


def _canonical_uuid(value: str) -> str:
    return str(UUID(value))


PrefectId = Annotated[str, Field(min_length=32, max_length=36), AfterValidator(_canonical_uuid)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Span = Annotated[timedelta, Field(ge=timedelta(0), le=MAX_DELAY)]


class Severity(StrEnum):
    """As PagerDuty's Events API v2 has them."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RetryRun(_Action):
    """Run a FAILED or CRASHED run again in place: same run id, state AwaitingRetry."""

    kind: Literal["retry_run"] = "retry_run"
    run_id: PrefectId
    delay: Span = timedelta(0)
    """How long after the injection the run becomes due."""


class ResizeRun(_Action):
    """Raise the job variable `memory_mb` of a FAILED or CRASHED run, then retry it in place."""

    kind: Literal["resize_run"] = "resize_run"
    run_id: PrefectId
    memory_mb: Annotated[int, Field(ge=16, le=1_048_576)]
    """The new size in MiB."""


class RescheduleRun(_Action):
    """Move a SCHEDULED run: an earlier start boosts it within its queue, a later one delays it."""

    kind: Literal["reschedule_run"] = "reschedule_run"
    run_id: PrefectId
    start: AwareDatetime


class ReserveSlot(_Action):
    """Cap a busy queue so that a starved one of the same pool gets a slot; lifted after `hold`."""

    kind: Literal["reserve_slot"] = "reserve_slot"
    pool: Name
    busy_queue: Name
    """The queue that is capped."""
    starved_queue: Name
    limit: Annotated[int, Field(ge=1, le=10_000)]
    """The cap; never 0, which would fail tasks."""
    hold: Span
    """How long the reservation stands before it is undone."""


class CancelRun(_Action):
    """Cancel a run that has not ended."""

    kind: Literal["cancel_run"] = "cancel_run"
    run_id: PrefectId


class PauseDeployment(_Action):
    """Quarantine a deployment: no scheduled run starts until `hold` has passed or a person resumes it."""

    kind: Literal["pause_deployment"] = "pause_deployment"
    deployment_id: PrefectId
    hold: Span


class NotifyOwner(_Action):
    """Tell the owner of a run: a Prefect event and a webhook. Changes nothing else."""

    kind: Literal["notify_owner"] = "notify_owner"
    run_id: PrefectId
    severity: Severity = Field(default=Severity.ERROR, strict=False)


Action = Annotated[
    RetryRun | ResizeRun | RescheduleRun | ReserveSlot | CancelRun | PauseDeployment | NotifyOwner,
    Field(discriminator="kind"),
]
ActionKind = Literal[
    "retry_run",
    "resize_run",
    "reschedule_run",
    "reserve_slot",
    "cancel_run",
    "pause_deployment",
    "notify_owner",
]
ACTION: TypeAdapter[Action] = TypeAdapter(Action)


def action_from_json(value: str | bytes) -> Action:
    """The action that a JSON text stands for. Raises pydantic's ValidationError when it is none."""
    return ACTION.validate_json(value)


def action_as_json(action: Action) -> dict[str, Any]:
    """The action as plain JSON values: durations as ISO 8601, times in UTC."""
    dumped: dict[str, Any] = ACTION.dump_python(action, mode="json")
    return dumped


def target_of(action: Action) -> str:
    """The id of what the action changes, with its kind: `run:…`, `deployment:…`, `queue:pool/queue`."""
    match action:
        case ReserveSlot():
            return f"queue:{action.pool}/{action.busy_queue}"
        case PauseDeployment():
            return f"deployment:{action.deployment_id}"
        case _:
            return f"run:{action.run_id}"
