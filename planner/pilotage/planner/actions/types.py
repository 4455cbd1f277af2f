"""What may be wanted: the closed union of typed actions.

Every action names its target by Prefect's id or name and carries only bounded, typed arguments. Nothing in
it is free text, so nothing that a log line or a model says can ride along. They come in over a socket, so
they are strict pydantic models: an unknown key, a wrong type or a value out of range is refused.

It is longer than a module should be because the union is closed: whoever reads it sees all that can happen.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)

MAX_DELAY = timedelta(hours=24)
"""No action moves a run or holds anything for longer: a day is one on-call shift change."""


def _canonical_uuid(value: str) -> str:
    return str(UUID(value))


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""Whatever zone it was told in, it is kept, hashed and shown in UTC."""
PrefectId = Annotated[str, Field(min_length=32, max_length=36), AfterValidator(_canonical_uuid)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Span = Annotated[timedelta, Field(ge=timedelta(0), le=MAX_DELAY)]


ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@+=-]{0,120}$")]
"""One word: an address, a date, a name. Never a sentence."""
_EXACT = 2**53 - 1
"""No whole number beyond this survives every JSON reader unchanged."""
Value = bool | Annotated[int, Field(ge=-_EXACT, le=_EXACT)] | FiniteFloat | Token | None
"""What a flow may be given: one plain value, never a text that could say something."""


class Severity(StrEnum):
    """As PagerDuty's Events API v2 has them."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RetryRun(_Action):
    """Run a FAILED or CRASHED run again in place: same run id, with other parameters where they are given."""

    kind: Literal["retry_run"] = "retry_run"
    run_id: PrefectId
    delay: Span = timedelta(0)
    """How long after the injection the run becomes due."""
    changes: Annotated[tuple[ParameterValue, ...], Field(max_length=20, strict=False)] = ()
    """Parameters that get another value first; the others stay, and the deployment's schema must agree."""

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        _once(self.changes)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a retry that changes nothing reads, and is digested, as it was before there were changes
        said: dict[str, Any] = serialize(self)
        if not self.changes:
            del said["changes"]
        return said


class ResizeRun(_Action):
    """Give a FAILED or CRASHED run more memory, as its type of work pool is told, then retry it in place."""

    kind: Literal["resize_run"] = "resize_run"
    run_id: PrefectId
    memory_mb: Annotated[int, Field(ge=16, le=1_048_576)]
    """The new size in MiB."""


class SizeRun(_Action):
    """Set the memory of a SCHEDULED run, as its type of work pool is told: what its like needed, or one step less."""

    kind: Literal["size_run"] = "size_run"
    run_id: PrefectId
    memory_mb: Annotated[int, Field(ge=16, le=1_048_576)]
    """The size in MiB; never below what the deployment gives."""


class RescheduleRun(_Action):
    """Move a SCHEDULED run: an earlier start boosts it within its queue, a later one delays it."""

    kind: Literal["reschedule_run"] = "reschedule_run"
    run_id: PrefectId
    start: Moment


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


class ParameterValue(BaseModel):
    """One parameter of a flow and what it becomes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ParameterName
    value: Value


def _once(given: tuple[ParameterValue, ...]) -> None:
    names = [change.name for change in given]
    if len(set(names)) != len(names):
        raise ValueError(f"a name is given twice: {sorted(names)}")


class ChangeParameters(_Action):
    """Change some parameters of a SCHEDULED run; the others stay, and the deployment's schema must agree."""

    kind: Literal["change_parameters"] = "change_parameters"
    run_id: PrefectId
    changes: Annotated[tuple[ParameterValue, ...], Field(min_length=1, max_length=20, strict=False)]

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        _once(self.changes)
        return self


class MoveRun(_Action):
    """Move a SCHEDULED run to another queue of its pool: cancelled here, and the same made again there."""

    kind: Literal["move_run"] = "move_run"
    run_id: PrefectId
    queue: Name
    """Where to."""


class SetPriority(_Action):
    """Give a queue another rank in its pool; all ranks are restored after `hold`."""

    kind: Literal["set_priority"] = "set_priority"
    pool: Name
    queue: Name
    priority: Annotated[int, Field(ge=1, le=10_000)]
    """1 is served first."""
    hold: Span


class LimitScope(StrEnum):
    """What a concurrency limit is of."""

    POOL = "pool"
    QUEUE = "queue"
    DEPLOYMENT = "deployment"
    TAG = "tag"
    GLOBAL = "global"


class SetLimit(_Action):
    """Change a concurrency limit; the old one is restored after `hold`."""

    kind: Literal["set_limit"] = "set_limit"
    scope: Annotated[LimitScope, Field(strict=False)]
    name: Name
    """Of the pool, the queue, the tag or the global limit; of a deployment, the id."""
    pool: Annotated[str, Field(max_length=255)] = ""
    """The pool of a queue; empty for all else."""
    limit: Annotated[int, Field(ge=1, le=10_000)]
    """Never 0, which would fail tasks."""
    hold: Span

    @model_validator(mode="after")
    def _names_what_it_says(self) -> Self:
        if bool(self.pool) != (self.scope is LimitScope.QUEUE):
            raise ValueError("`pool` goes with the limit of a queue, and with no other")
        if self.scope is LimitScope.DEPLOYMENT and _canonical_uuid(self.name) != self.name:
            raise ValueError("a deployment is named by its id")
        if self.scope is LimitScope.GLOBAL and self.name.startswith(("tag:", "deployment:")):
            raise ValueError("the limits of tags and deployments have scopes of their own")
        return self


class HoldQueue(_Action):
    """Hold a queue or a whole pool: nothing more is handed out until `hold` has passed or it is released."""

    kind: Literal["hold_queue"] = "hold_queue"
    pool: Name
    queue: Annotated[str, Field(max_length=255)] = ""
    """Empty for the whole pool."""
    hold: Span


class ReleaseQueue(_Action):
    """Let a queue or a whole pool that is paused hand out runs again."""

    kind: Literal["release_queue"] = "release_queue"
    pool: Name
    queue: Annotated[str, Field(max_length=255)] = ""
    """Empty for the whole pool."""


class RaiseRetries(_Action):
    """Give a RUNNING run more retries than it has; they are used if this attempt fails."""

    kind: Literal["raise_retries"] = "raise_retries"
    run_id: PrefectId
    retries: Annotated[int, Field(ge=1, le=10)]
    delay: Span = timedelta(0)
    """Before each retry; whole seconds."""


class CancelTree(_Action):
    """Cancel a run and every run below it, those below first."""

    kind: Literal["cancel_tree"] = "cancel_tree"
    run_id: PrefectId


class LaunchRemediation(_Action):
    """Start a run of a deployment tagged `pilotage:remediation`, as a child of the run it is to help."""

    kind: Literal["launch_remediation"] = "launch_remediation"
    run_id: PrefectId
    """The run in trouble."""
    deployment_id: PrefectId
    """The remediation."""
    attempt: Annotated[int, Field(ge=1, le=99)] = 1
    """Another attempt is another run; the same one is the same run."""


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


class SendDirective(_Action):
    """Tell a flow that listens (`from pilotage.flows import steered`) what is wanted of it."""

    kind: Literal["send_directive"] = "send_directive"
    run_id: PrefectId
    directive: Annotated[Directive, Field(strict=False)]


class SuspendRun(_Action):
    """Suspend a RUNNING run whose deployment is tagged `pilotage:suspend-safe`: soon after, between two tasks."""

    kind: Literal["suspend_run"] = "suspend_run"
    run_id: PrefectId
    hold: Span
    """How long it stays suspended before it is resumed."""


class ResumeRun(_Action):
    """Resume a suspended run; it starts from the top and finds the results that its tasks kept."""

    kind: Literal["resume_run"] = "resume_run"
    run_id: PrefectId


class MarkCrashed(_Action):
    """Mark a RUNNING run Crashed whose process is dead by two signs; what Prefect kept for it is freed with it."""

    kind: Literal["mark_crashed"] = "mark_crashed"
    run_id: PrefectId


class ReleaseSlot(_Action):
    """Give back the slots of a concurrency limit that are held for work which is dead by two signs."""

    kind: Literal["release_slot"] = "release_slot"
    scope: Annotated[LimitScope, Field(strict=False)]
    name: Name
    """Of the tag or the global limit; of a deployment, the id."""

    @model_validator(mode="after")
    def _names_what_it_says(self) -> Self:
        if self.scope in (LimitScope.POOL, LimitScope.QUEUE):
            raise ValueError("pools and queues count the runs that are under way; no slot of theirs is lost")
        if self.scope is LimitScope.DEPLOYMENT and _canonical_uuid(self.name) != self.name:
            raise ValueError("a deployment is named by its id")
        return self


class OverrideResult(_Action):
    """Put a value in the place of what a task of a FAILED or CRASHED run could not compute, then retry the run."""

    kind: Literal["override_result"] = "override_result"
    run_id: PrefectId
    task: ParameterName
    """The name that the flow gave it with `@overridable`."""
    value: Value


class AnswerRun(_Action):
    """Answer a run that is paused or suspended until somebody tells it something; it goes on with the answer."""

    kind: Literal["answer_run"] = "answer_run"
    run_id: PrefectId
    answers: Annotated[tuple[ParameterValue, ...], Field(min_length=1, max_length=20, strict=False)]

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        _once(self.answers)
        return self


class ResolveAlert(_Action):
    """Tell the owner of a run that the trouble they were told of is over: the alert is resolved, once."""

    kind: Literal["resolve_alert"] = "resolve_alert"
    run_id: PrefectId


class SpreadRuns(_Action):
    """Park the waiting runs of a deployment and release them in waves; what is beyond `most` is left alone."""

    kind: Literal["spread_runs"] = "spread_runs"
    deployment_id: PrefectId
    first: Moment
    """When the first wave is due: then, or when it is carried out where that is later."""
    wave: Annotated[int, Field(ge=1, le=200)]
    """Runs in one wave."""
    every: Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(hours=6))]
    """From one wave to the next."""
    most: Annotated[int, Field(ge=1, le=1000)] = 1000


class CatchUp(_Action):
    """After an outage: of a deployment's overdue runs keep the newest, cancel the superseded, release in waves."""

    kind: Literal["catch_up"] = "catch_up"
    deployment_id: PrefectId
    keep: Annotated[int, Field(ge=1, le=1000)]
    """How many of the newest are run."""
    first: Moment
    """When the first wave is due: then, or when it is carried out where that is later."""
    wave: Annotated[int, Field(ge=1, le=200)]
    every: Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(hours=6))]


RunAction = (
    RetryRun
    | ResizeRun
    | SizeRun
    | RescheduleRun
    | CancelRun
    | NotifyOwner
    | ChangeParameters
    | MoveRun
    | RaiseRetries
    | CancelTree
    | LaunchRemediation
    | SendDirective
    | SuspendRun
    | ResumeRun
    | MarkCrashed
    | OverrideResult
    | AnswerRun
    | ResolveAlert
)
"""What is done to one run."""
DeploymentAction = PauseDeployment | SpreadRuns | CatchUp
"""What is done to a deployment or to many of its runs."""
QueueAction = ReserveSlot | SetPriority | HoldQueue | ReleaseQueue
"""What is done to a queue or a pool."""
LimitAction = SetLimit | ReleaseSlot
"""What is done to a concurrency limit, whosever it is."""
Action = Annotated[RunAction | DeploymentAction | QueueAction | LimitAction, Field(discriminator="kind")]
ActionKind = Literal[
    "retry_run",
    "resize_run",
    "size_run",
    "reschedule_run",
    "reserve_slot",
    "cancel_run",
    "pause_deployment",
    "notify_owner",
    "change_parameters",
    "move_run",
    "set_priority",
    "set_limit",
    "hold_queue",
    "release_queue",
    "raise_retries",
    "cancel_tree",
    "launch_remediation",
    "send_directive",
    "suspend_run",
    "resume_run",
    "spread_runs",
    "catch_up",
    "mark_crashed",
    "release_slot",
    "override_result",
    "answer_run",
    "resolve_alert",
]
ACTION: TypeAdapter[Action] = TypeAdapter(Action)


def action_from_json(value: str | bytes) -> Action:
    """The action that a JSON text stands for. Raises pydantic's ValidationError when it is none."""
    return ACTION.validate_json(value)


def action_as_json(action: Action) -> dict[str, Any]:
    """The action as plain JSON values: durations as ISO 8601, times in UTC."""
    dumped: dict[str, Any] = ACTION.dump_python(action, mode="json")
    return dumped


def kinds_of(action: Action) -> tuple[ActionKind, ...]:
    """Every kind of change that the action makes: whoever may not do one of them may not do it."""
    if isinstance(action, RetryRun) and action.changes:
        return (action.kind, "change_parameters")
    return (action.kind,)


def target_of(action: Action) -> str:
    """The id of what the action changes, with its kind: `run:…`, `deployment:…`, `queue:pool/queue`, `limit:…`."""
    match action:
        case SetLimit() | ReleaseSlot() if action.scope in (LimitScope.TAG, LimitScope.GLOBAL):
            return f"limit:{action.scope.value}:{action.name}"
        case _ if queue := queue_of(action):
            return f"queue:{queue[0]}/{queue[1]}" if queue[1] else f"pool:{queue[0]}"
        case _ if run_id := run_of(action):
            return f"run:{run_id}"
        case _:
            return f"deployment:{deployment_of(action)}"


def run_of(action: Action) -> str:
    """The id of the run that the action is about, or empty."""
    return action.run_id if isinstance(action, RunAction) else ""


def values_of(action: Action) -> tuple[ParameterValue, ...]:
    """The values that the action hands to a flow: its parameters or answers to its questions."""
    match action:
        case ChangeParameters() | RetryRun():
            return action.changes
        case AnswerRun():
            return action.answers
        case _:
            return ()


def deployment_of(action: Action) -> str:
    """The id of the deployment that the action itself changes, or empty."""
    match action:
        case SetLimit() | ReleaseSlot() if action.scope is LimitScope.DEPLOYMENT:
            return action.name
        case PauseDeployment() | SpreadRuns() | CatchUp():
            return action.deployment_id
        case _:
            return ""


def queue_of(action: Action) -> tuple[str, str] | None:
    """The pool and queue that the action changes; the queue is empty for a whole pool. None for all else."""
    match action:
        case ReserveSlot():
            return action.pool, action.busy_queue
        case SetPriority() | HoldQueue() | ReleaseQueue():
            return action.pool, action.queue
        case SetLimit(scope=LimitScope.QUEUE):
            return action.pool, action.name
        case SetLimit(scope=LimitScope.POOL):
            return action.name, ""
        case _:
            return None


def hold_of(action: Action) -> timedelta | None:
    """After how long the action is to be undone by itself, or None."""
    match action:
        case ReserveSlot() | PauseDeployment() | SetPriority() | SetLimit() | HoldQueue() | SuspendRun():
            return action.hold
        case _:
            return None
