"""The actions on one run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pilotage.planner.actions.base import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    Moment,
    Name,
    ParameterName,
    ParameterValue,
    PrefectId,
    RunAction,
    Span,
    Value,
    each_once,
    seconds,
)


class Severity(StrEnum):
    """As PagerDuty's Events API v2 has them."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Directive(StrEnum):
    """What a steered flow may be told; what it does about it is its own."""

    CHECKPOINT = "checkpoint"
    """Save what is done so far."""
    DRAIN = "drain"
    """Finish what is begun, begin nothing new."""
    SLOW_DOWN = "slow_down"
    SPEED_UP = "speed_up"
    SKIP_OPTIONAL = "skip_optional"
    """Leave out what can be left out."""
    CARRY_ON = "carry_on"
    """As if nothing had been said."""


class RetryRun(RunAction):
    """Run a FAILED or CRASHED run again in place: same run id, with other parameters where they are given."""

    kind: Literal["retry_run"] = "retry_run"
    example_state: ClassVar[str] = "FAILED"
    delay: Span = timedelta(0)
    """How long after the injection the run becomes due."""
    changes: Annotated[tuple[ParameterValue, ...], Field(max_length=20, strict=False)] = ()
    """Parameters that get another value first; the others stay, and the deployment's schema must agree."""

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        each_once(self.changes)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a retry that changes nothing reads, and is digested, as it was before there were changes
        said: dict[str, Any] = serialize(self)
        if not self.changes:
            del said["changes"]
        return said

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"delay": seconds(self.delay)}

    def values_given(self) -> tuple[ParameterValue, ...]:
        """Return the parameters that get another value."""
        return self.changes

    def kinds(self) -> tuple[str, ...]:
        """Return the kind, and that of changing parameters where it changes any."""
        return (self.kind, "change_parameters") if self.changes else (self.kind,)


class ResizeRun(RunAction):
    """Give a FAILED or CRASHED run more memory, as its type of work pool is told, then retry it in place."""

    kind: Literal["resize_run"] = "resize_run"
    example_state: ClassVar[str] = "FAILED"
    example: ClassVar[Mapping[str, Any]] = {"memory_mb": 256}
    memory_mb: Annotated[int, Field(ge=16, le=1_048_576)]
    """The new size in MiB."""

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"memory_mb": self.memory_mb}


class SizeRun(RunAction):
    """Set the memory of a SCHEDULED run, as its type of work pool is told: what its like needed, or one step less."""

    kind: Literal["size_run"] = "size_run"
    example_state: ClassVar[str] = "SCHEDULED"
    example: ClassVar[Mapping[str, Any]] = {"memory_mb": 256}
    memory_mb: Annotated[int, Field(ge=16, le=1_048_576)]
    """The size in MiB; never below what the deployment gives."""

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"memory_mb": self.memory_mb}


class RescheduleRun(RunAction):
    """Move a SCHEDULED run: an earlier start boosts it within its queue, a later one delays it."""

    kind: Literal["reschedule_run"] = "reschedule_run"
    example_state: ClassVar[str] = "SCHEDULED"
    example: ClassVar[Mapping[str, Any]] = {"start": EXAMPLE_TIME + timedelta(minutes=2)}
    start: Moment

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"shift": seconds(self.start - starts_at), "ahead": seconds(self.start - filed_at)}


class CancelRun(RunAction):
    """Cancel a run that has not ended."""

    kind: Literal["cancel_run"] = "cancel_run"
    example_state: ClassVar[str] = "RUNNING"


class NotifyOwner(RunAction):
    """Tell the owner of a run: a Prefect event and a webhook. Changes nothing else."""

    kind: Literal["notify_owner"] = "notify_owner"
    example_state: ClassVar[str] = "FAILED"
    severity: Severity = Field(default=Severity.ERROR, strict=False)

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"severity": self.severity.value}


class ChangeParameters(RunAction):
    """Change some parameters of a SCHEDULED run; the others stay, and the deployment's schema must agree."""

    kind: Literal["change_parameters"] = "change_parameters"
    example_state: ClassVar[str] = "SCHEDULED"
    example: ClassVar[Mapping[str, Any]] = {"changes": ({"name": "a", "value": 1},)}
    changes: Annotated[tuple[ParameterValue, ...], Field(min_length=1, max_length=20, strict=False)]

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        each_once(self.changes)
        return self

    def values_given(self) -> tuple[ParameterValue, ...]:
        """Return the parameters that get another value."""
        return self.changes


class MoveRun(RunAction):
    """Move a SCHEDULED run to another queue of its pool: cancelled here, and the same made again there."""

    kind: Literal["move_run"] = "move_run"
    example_state: ClassVar[str] = "SCHEDULED"
    example: ClassVar[Mapping[str, Any]] = {"queue": "b"}
    queue: Name
    """Where to."""


class RaiseRetries(RunAction):
    """Give a RUNNING run more retries than it has; they are used if this attempt fails."""

    kind: Literal["raise_retries"] = "raise_retries"
    example_state: ClassVar[str] = "RUNNING"
    example: ClassVar[Mapping[str, Any]] = {"retries": 1}
    retries: Annotated[int, Field(ge=1, le=10)]
    delay: Span = timedelta(0)
    """Before each retry; whole seconds."""

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"retries": self.retries}


class CancelTree(RunAction):
    """Cancel a run and every run below it, those below first."""

    kind: Literal["cancel_tree"] = "cancel_tree"
    example_state: ClassVar[str] = "RUNNING"


class LaunchRemediation(RunAction):
    """Start a run of a deployment tagged `pilotage:remediation`, as a child of the run it is to help."""

    kind: Literal["launch_remediation"] = "launch_remediation"
    example_state: ClassVar[str] = "FAILED"
    example: ClassVar[Mapping[str, Any]] = {"deployment_id": EXAMPLE_ID}
    deployment_id: PrefectId
    """The remediation."""
    attempt: Annotated[int, Field(ge=1, le=99)] = 1
    """Another attempt is another run; the same one is the same run."""

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"attempt": self.attempt}


class SendDirective(RunAction):
    """Tell a flow that listens (`from pilotage.flows import steered`) what is wanted of it."""

    kind: Literal["send_directive"] = "send_directive"
    example_state: ClassVar[str] = "RUNNING"
    example: ClassVar[Mapping[str, Any]] = {"directive": Directive.CARRY_ON}
    directive: Annotated[Directive, Field(strict=False)]

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"directive": self.directive.value}


class SuspendRun(RunAction):
    """Suspend a RUNNING run whose deployment is tagged `pilotage:suspend-safe`: soon after, between two tasks."""

    kind: Literal["suspend_run"] = "suspend_run"
    example_state: ClassVar[str] = "RUNNING"
    example: ClassVar[Mapping[str, Any]] = {"hold": timedelta(minutes=1)}
    hold: Span
    """How long it stays suspended before it is resumed."""

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"hold": seconds(self.hold)}


class ResumeRun(RunAction):
    """Resume a suspended run; it starts from the top and finds the results that its tasks kept."""

    kind: Literal["resume_run"] = "resume_run"
    example_state: ClassVar[str] = "PAUSED"


class MarkCrashed(RunAction):
    """Mark a RUNNING run Crashed, a CANCELLING one Cancelled, whose process is dead by two signs; what Prefect kept for it
    is freed with it."""

    kind: Literal["mark_crashed"] = "mark_crashed"
    example_state: ClassVar[str] = "RUNNING"


class StartRun(RunAction):
    """Make a run in the place of one that pilotage cancelled, or, with `missed`, one for a start that a schedule missed."""

    kind: Literal["start_run"] = "start_run"
    example_state: ClassVar[str] = "CANCELLED"
    missed: Moment | None = None
    """The start for which no run was made; then `run_id` is the newest run of the schedule. None for a cancelled run."""

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"missed": self.missed is not None}


class OverrideResult(RunAction):
    """Put a value in the place of what a task of a FAILED or CRASHED run could not compute, then retry the run."""

    kind: Literal["override_result"] = "override_result"
    example_state: ClassVar[str] = "FAILED"
    example: ClassVar[Mapping[str, Any]] = {"task": "a", "value": 1}
    task: ParameterName
    """The name that the flow gave it with `@overridable`."""
    value: Value


class AnswerRun(RunAction):
    """Answer a run that is paused or suspended until somebody tells it something; it goes on with the answer."""

    kind: Literal["answer_run"] = "answer_run"
    example_state: ClassVar[str] = "PAUSED"
    example: ClassVar[Mapping[str, Any]] = {"answers": ({"name": "a", "value": 1},)}
    answers: Annotated[tuple[ParameterValue, ...], Field(min_length=1, max_length=20, strict=False)]

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        each_once(self.answers)
        return self

    def values_given(self) -> tuple[ParameterValue, ...]:
        """Return the answers."""
        return self.answers


class ResolveAlert(RunAction):
    """Tell the owner of a run that the trouble they were told of is over: the alert is resolved, once."""

    kind: Literal["resolve_alert"] = "resolve_alert"
    example_state: ClassVar[str] = "COMPLETED"
