"""What every action is: a typed request with a target, bounded arguments, and all that others need to know of it.

An action names its target by Prefect's id or name and carries only bounded, typed arguments. Nothing in it is free
text, so nothing that a log line or a model says can ride along. Actions come in over a socket, so they are strict
pydantic models: an unknown key, a wrong type or a value out of range is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

MAX_DELAY = timedelta(hours=24)
"""No action moves a run or holds anything for longer: a day is one on-call shift change."""
EXAMPLE_ID = "00000000-0000-4000-8000-000000000000"
EXAMPLE_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""The time of every example; no window of guardrails.yaml reaches back there."""


def canonical_uuid(value: str) -> str:
    """Return the UUID as Prefect writes it. Raises ValueError."""
    return str(UUID(value))


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def seconds(span: timedelta) -> int:
    """Return the whole seconds of a span, as policies compare them."""
    return int(span.total_seconds())


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with its zone; kept, hashed and shown in UTC."""
PrefectId = Annotated[str, Field(min_length=32, max_length=36), AfterValidator(canonical_uuid)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Span = Annotated[timedelta, Field(ge=timedelta(0), le=MAX_DELAY)]
ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@+=-]{0,120}$")]
"""One word: an address, a date, a name. Never a sentence."""
_EXACT = 2**53 - 1
"""No whole number beyond this survives every JSON reader unchanged."""
Value = bool | Annotated[int, Field(ge=-_EXACT, le=_EXACT)] | FiniteFloat | Token | None
"""What a flow may be given: one plain value, never a text that could say something."""


class ParameterValue(BaseModel):
    """One parameter of a flow and what it becomes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ParameterName
    value: Value


def each_once(given: tuple[ParameterValue, ...]) -> None:
    """Raise ValueError when a name is given twice."""
    names = [change.name for change in given]
    if len(set(names)) != len(names):
        raise ValueError(f"a name is given twice: {sorted(names)}")


class LimitScope(StrEnum):
    """What a concurrency limit is of."""

    POOL = "pool"
    QUEUE = "queue"
    DEPLOYMENT = "deployment"
    TAG = "tag"
    GLOBAL = "global"


class BaseAction(BaseModel):
    """One kind of action. A subclass sets `kind`; its docstring is what people and models read of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    example: ClassVar[Mapping[str, Any]] = {}
    """Arguments beside the target with which it is asked of policy whether a caller may propose the kind at all."""
    example_target: ClassVar[Mapping[str, Any]] = {}
    example_state: ClassVar[str] = ""
    """The state type of the run in that question."""

    def kinds(self) -> tuple[str, ...]:
        """Return every kind of change that the action makes; the caller needs permission for all of them."""
        return (self.kind,)

    def run_changed(self) -> str:
        """Return the id of the run that the action is about, or an empty string."""
        return ""

    def deployment_changed(self) -> str:
        """Return the id of the deployment that the action itself changes, or an empty string."""
        return ""

    def queue_changed(self) -> tuple[str, str] | None:
        """Return the pool and queue that the action changes, the queue empty for a whole pool; None for all else."""
        return None

    def limit_changed(self) -> str:
        """Return `tag:<name>` or `global:<name>` of the limit that the action changes, or an empty string."""
        return ""

    def target(self) -> str:
        """Return what the action changes, by its id.

        `run:<id>`, `deployment:<id>`, `queue:<pool>/<queue>`, `pool:<name>` or `limit:<scope>:<name>`.
        """
        if limit := self.limit_changed():
            return f"limit:{limit}"
        if queue := self.queue_changed():
            return f"queue:{queue[0]}/{queue[1]}" if queue[1] else f"pool:{queue[0]}"
        if run_id := self.run_changed():
            return f"run:{run_id}"
        return f"deployment:{self.deployment_changed()}"

    def values_given(self) -> tuple[ParameterValue, ...]:
        """Return the values that the action hands to a flow."""
        return ()

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments as the Cedar schema names them, spans in whole seconds.

        `filed_at` is when it was proposed, `starts_at` when the run would start now.
        """
        return {}


class RunAction(BaseAction):
    """An action on one run."""

    run_id: PrefectId
    example_target: ClassVar[Mapping[str, Any]] = {"run_id": EXAMPLE_ID}

    def run_changed(self) -> str:
        """Return the id of the run."""
        return self.run_id


class DeploymentAction(BaseAction):
    """An action on a deployment or on many of its runs."""

    deployment_id: PrefectId
    example_target: ClassVar[Mapping[str, Any]] = {"deployment_id": EXAMPLE_ID}

    def deployment_changed(self) -> str:
        """Return the id of the deployment."""
        return self.deployment_id


class QueueAction(BaseAction):
    """An action on a queue of a pool, or on the whole pool where `queue` is empty."""

    pool: Name
    example_target: ClassVar[Mapping[str, Any]] = {"pool": "p"}

    def queue_changed(self) -> tuple[str, str] | None:
        """Return the pool and the queue."""
        return self.pool, str(getattr(self, "queue", ""))


class LimitAction(BaseAction):
    """An action on a concurrency limit."""

    scope: Annotated[LimitScope, Field(strict=False)]
    name: Name
    """Of the pool, the queue, the tag or the global limit; of a deployment, the id."""

    def deployment_changed(self) -> str:
        """Return the id of the deployment whose limit it is, or an empty string."""
        return self.name if self.scope is LimitScope.DEPLOYMENT else ""

    def queue_changed(self) -> tuple[str, str] | None:
        """Return the pool and queue whose limit it is; None for the limit of a deployment, a tag or a name."""
        if self.scope is LimitScope.QUEUE:
            return str(getattr(self, "pool", "")), self.name
        return (self.name, "") if self.scope is LimitScope.POOL else None

    def limit_changed(self) -> str:
        """Return the limit of a tag or a global name."""
        return f"{self.scope.value}:{self.name}" if self.scope in (LimitScope.TAG, LimitScope.GLOBAL) else ""
