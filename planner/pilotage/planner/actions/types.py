"""The registry of actions: every kind that may be wanted, ours and those of installed packages, and their JSON.

Ours are the classes of `run`, `deployment`, `queue` and `limit`, in the order in which they stand there. A package adds
a class by an entry point of the group `pilotage.actions`. Policy judges them alike: a kind that no policy names is denied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from pilotage.planner.actions import deployment, limit, queue, run
from pilotage.planner.actions.base import (
    MAX_DELAY as MAX_DELAY,
)
from pilotage.planner.actions.base import (
    BaseAction as BaseAction,
)
from pilotage.planner.actions.base import (
    DeploymentAction as DeploymentAction,
)
from pilotage.planner.actions.base import (
    LimitAction as LimitAction,
)
from pilotage.planner.actions.base import (
    LimitScope as LimitScope,
)
from pilotage.planner.actions.base import (
    Moment as Moment,
)
from pilotage.planner.actions.base import (
    Name as Name,
)
from pilotage.planner.actions.base import (
    ParameterName as ParameterName,
)
from pilotage.planner.actions.base import (
    ParameterValue as ParameterValue,
)
from pilotage.planner.actions.base import (
    PrefectId as PrefectId,
)
from pilotage.planner.actions.base import (
    QueueAction as QueueAction,
)
from pilotage.planner.actions.base import (
    RunAction as RunAction,
)
from pilotage.planner.actions.base import (
    Span as Span,
)
from pilotage.planner.actions.base import (
    Token as Token,
)
from pilotage.planner.actions.base import (
    Value as Value,
)
from pilotage.planner.actions.deployment import (
    CatchUp as CatchUp,
)
from pilotage.planner.actions.deployment import (
    PauseDeployment as PauseDeployment,
)
from pilotage.planner.actions.deployment import (
    SpreadRuns as SpreadRuns,
)
from pilotage.planner.actions.limit import (
    ReleaseSlot as ReleaseSlot,
)
from pilotage.planner.actions.limit import (
    SetLimit as SetLimit,
)
from pilotage.planner.actions.queue import (
    HoldQueue as HoldQueue,
)
from pilotage.planner.actions.queue import (
    ReleaseQueue as ReleaseQueue,
)
from pilotage.planner.actions.queue import (
    ReserveSlot as ReserveSlot,
)
from pilotage.planner.actions.queue import (
    SetPriority as SetPriority,
)
from pilotage.planner.actions.run import (
    AnswerRun as AnswerRun,
)
from pilotage.planner.actions.run import (
    CancelRun as CancelRun,
)
from pilotage.planner.actions.run import (
    CancelTree as CancelTree,
)
from pilotage.planner.actions.run import (
    ChangeParameters as ChangeParameters,
)
from pilotage.planner.actions.run import (
    Directive as Directive,
)
from pilotage.planner.actions.run import (
    LaunchRemediation as LaunchRemediation,
)
from pilotage.planner.actions.run import (
    MarkCrashed as MarkCrashed,
)
from pilotage.planner.actions.run import (
    MoveRun as MoveRun,
)
from pilotage.planner.actions.run import (
    NotifyOwner as NotifyOwner,
)
from pilotage.planner.actions.run import (
    OverrideResult as OverrideResult,
)
from pilotage.planner.actions.run import (
    RaiseRetries as RaiseRetries,
)
from pilotage.planner.actions.run import (
    RescheduleRun as RescheduleRun,
)
from pilotage.planner.actions.run import (
    ResizeRun as ResizeRun,
)
from pilotage.planner.actions.run import (
    ResolveAlert as ResolveAlert,
)
from pilotage.planner.actions.run import (
    ResumeRun as ResumeRun,
)
from pilotage.planner.actions.run import (
    RetryRun as RetryRun,
)
from pilotage.planner.actions.run import (
    SendDirective as SendDirective,
)
from pilotage.planner.actions.run import (
    Severity as Severity,
)
from pilotage.planner.actions.run import (
    SizeRun as SizeRun,
)
from pilotage.planner.actions.run import (
    StartRun as StartRun,
)
from pilotage.planner.actions.run import (
    SuspendRun as SuspendRun,
)
from pilotage.planner.plugins import broken, plugins

GROUP = "pilotage.actions"


def _registered() -> Iterator[tuple[str, type[BaseAction]]]:
    """Yield each kind with its class, ours first. Raises ConfigError for a class of a package that is none or is taken."""
    ours: dict[str, type[BaseAction]] = {}
    for module in (run, deployment, queue, limit):
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, BaseAction) and each.__module__ == module.__name__:
                ours[each.model_fields["kind"].default] = each
    yield from ours.items()
    for name, added in plugins(GROUP):
        if not (isinstance(added, type) and issubclass(added, BaseAction)):
            raise broken(GROUP, name, "it is no subclass of BaseAction")
        if added.model_fields["kind"].default != name or name in ours:
            raise broken(GROUP, name, "it must have the `kind` of its entry point, and one that is not taken")
        yield name, added


ACTIONS: Mapping[str, type[BaseAction]] = MappingProxyType(dict(_registered()))
"""The class of each kind."""
KINDS: tuple[str, ...] = tuple(ACTIONS)
if TYPE_CHECKING:
    Action = BaseAction
    ActionKind = str
else:
    Action = Annotated[reduce(or_, ACTIONS.values()), Field(discriminator="kind")]
    ActionKind = Literal[KINDS]
ACTION: TypeAdapter[Action] = TypeAdapter(Action)


def action_from_json(value: str | bytes) -> Action:
    """Return the action that a JSON text stands for. Raises pydantic's ValidationError when it is none."""
    return ACTION.validate_json(value)


def action_as_json(action: Action) -> dict[str, Any]:
    """Return the action as plain JSON values: durations as ISO 8601, times in UTC."""
    return action.model_dump(mode="json")


def example_of(kind: str) -> Action:
    """Return the example of a kind, by which it is asked whether a caller may propose it at all."""
    model = ACTIONS[kind]
    values = {"kind": kind, **model.example_target, **model.example}
    return action_from_json(json.dumps(values, default=_plain))


def _plain(value: object) -> str:
    return f"PT{int(value.total_seconds())}S" if isinstance(value, timedelta) else value.isoformat()  # type: ignore[attr-defined]


def kinds_of(action: Action) -> tuple[ActionKind, ...]:
    """Return every kind of change that the action makes; the caller needs permission for all of them."""
    return action.kinds()


def target_of(action: Action) -> str:
    """Return the id of what the action changes, with its kind; see `BaseAction.target`."""
    return action.target()


def run_of(action: Action) -> str:
    """Return the id of the run that the action is about, or an empty string."""
    return action.run_changed()


def values_of(action: Action) -> tuple[ParameterValue, ...]:
    """Return the values that the action hands to a flow."""
    return action.values_given()


def deployment_of(action: Action) -> str:
    """Return the id of the deployment that the action itself changes, or an empty string."""
    return action.deployment_changed()


def queue_of(action: Action) -> tuple[str, str] | None:
    """Return the pool and queue that the action changes; None for all else."""
    return action.queue_changed()


def hold_of(action: Action) -> timedelta | None:
    """Return after how long the action is undone by itself, or None: every action with a `hold` is."""
    return getattr(action, "hold", None)
