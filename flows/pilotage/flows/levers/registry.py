"""The registry of levers: which one carries out which kind of action, ours and those of installed packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from pilotage.flows.execution.receipts import Lever
from pilotage.flows.levers.answer_run import AnswerLever
from pilotage.flows.levers.cancel_run import CancelLever
from pilotage.flows.levers.cancel_tree import CancelTreeLever
from pilotage.flows.levers.catch_up import CatchUpLever
from pilotage.flows.levers.change_parameters import ParametersLever
from pilotage.flows.levers.hold_queue import HoldLever
from pilotage.flows.levers.launch_remediation import RemediationLever
from pilotage.flows.levers.mark_crashed import MarkCrashedLever
from pilotage.flows.levers.move_run import MoveLever
from pilotage.flows.levers.notify_owner import NotifyLever
from pilotage.flows.levers.override_result import OverrideLever
from pilotage.flows.levers.pause_deployment import PauseLever
from pilotage.flows.levers.raise_retries import RetriesLever
from pilotage.flows.levers.release_queue import ReleaseLever
from pilotage.flows.levers.release_slot import ReleaseSlotLever
from pilotage.flows.levers.reschedule_run import RescheduleLever
from pilotage.flows.levers.reserve_slot import ReserveLever
from pilotage.flows.levers.resize_run import ResizeLever
from pilotage.flows.levers.resolve_alert import ResolveLever
from pilotage.flows.levers.resume_run import ResumeLever
from pilotage.flows.levers.retry_run import RetryLever, WorkerReleased
from pilotage.flows.levers.send_directive import DirectLever
from pilotage.flows.levers.set_limit import LimitLever
from pilotage.flows.levers.set_priority import PriorityLever
from pilotage.flows.levers.size_run import SizeLever
from pilotage.flows.levers.spread_runs import SpreadLever
from pilotage.flows.levers.start_run import StartLever
from pilotage.flows.levers.suspend_run import SuspendLever
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import ADMITTED
from pilotage.planner.actions.types import ACTIONS
from pilotage.planner.plugins import broken, plugins

GROUP = "pilotage.levers"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeverTools:
    """What a lever may be built with."""

    api: PrefectApi
    notifier: Notifier
    worker_has_released: WorkerReleased
    """Asks whether the worker has released a run since a moment."""


LeverFactory = Callable[[LeverTools], Lever]
LEVERS: Mapping[str, LeverFactory] = MappingProxyType(
    {
        "retry_run": lambda t: RetryLever(t.api, worker_has_released=t.worker_has_released),
        "resize_run": lambda t: ResizeLever(t.api, worker_has_released=t.worker_has_released),
        "size_run": lambda t: SizeLever(t.api),
        "reschedule_run": lambda t: RescheduleLever(t.api),
        "reserve_slot": lambda t: ReserveLever(t.api),
        "cancel_run": lambda t: CancelLever(t.api),
        "pause_deployment": lambda t: PauseLever(t.api),
        "notify_owner": lambda t: NotifyLever(t.api, t.notifier),
        "change_parameters": lambda t: ParametersLever(t.api),
        "move_run": lambda t: MoveLever(t.api),
        "set_priority": lambda t: PriorityLever(t.api),
        "set_limit": lambda t: LimitLever(t.api),
        "hold_queue": lambda t: HoldLever(t.api),
        "release_queue": lambda t: ReleaseLever(t.api),
        "raise_retries": lambda t: RetriesLever(t.api),
        "cancel_tree": lambda t: CancelTreeLever(t.api),
        "launch_remediation": lambda t: RemediationLever(t.api),
        "send_directive": lambda t: DirectLever(t.api),
        "suspend_run": lambda t: SuspendLever(t.api, worker_has_released=t.worker_has_released),
        "resume_run": lambda t: ResumeLever(t.api),
        "spread_runs": lambda t: SpreadLever(t.api),
        "catch_up": lambda t: CatchUpLever(t.api),
        "mark_crashed": lambda t: MarkCrashedLever(t.api),
        "start_run": lambda t: StartLever(t.api),
        "release_slot": lambda t: ReleaseSlotLever(t.api, worker_has_released=t.worker_has_released),
        "override_result": lambda t: OverrideLever(t.api, worker_has_released=t.worker_has_released),
        "answer_run": lambda t: AnswerLever(t.api),
        "resolve_alert": lambda t: ResolveLever(t.api, t.notifier),
    }
)
"""How the lever of each kind of ours is built."""


@cache
def lever_factories() -> Mapping[str, LeverFactory]:
    """Return how the lever of each kind is built, those of installed packages after ours.

    A package names its lever by the kind of action, in an entry point of the group `pilotage.levers`. Raises
    ConfigError when that kind is not registered, or is ours.
    """
    added: dict[str, LeverFactory] = {}
    for kind, factory in plugins(GROUP):
        if kind in LEVERS or kind not in ACTIONS:
            raise broken(GROUP, kind, "a lever is named by a registered kind of action that has no lever yet")
        added[kind] = factory
    return MappingProxyType({**LEVERS, **added})


def build_levers(
    *, worker_has_released: WorkerReleased, notifier: Notifier, api: PrefectApi | None = None
) -> Mapping[str, Lever]:
    """Return one lever for each kind of action, on the given API or the active Prefect profile's."""
    tools = LeverTools(
        api=api or PrefectApi.from_prefect_settings(guard=ADMITTED),
        notifier=notifier,
        worker_has_released=worker_has_released,
    )
    return {kind: factory(tools) for kind, factory in lever_factories().items()}
