"""The table of levers: which one carries out which kind of action."""

from __future__ import annotations

from collections.abc import Mapping

from pilotage.flows.execution.receipts import Lever
from pilotage.flows.levers.answer_run import AnswerLever
from pilotage.flows.levers.cancel_run import CancelLever
from pilotage.flows.levers.cancel_tree import CancelTreeLever
from pilotage.flows.levers.change_parameters import ParametersLever
from pilotage.flows.levers.hold_queue import HoldLever, ReleaseLever
from pilotage.flows.levers.launch_remediation import RemediationLever
from pilotage.flows.levers.mark_crashed import MarkCrashedLever
from pilotage.flows.levers.move_run import MoveLever
from pilotage.flows.levers.notify_owner import NotifyLever
from pilotage.flows.levers.override_result import OverrideLever
from pilotage.flows.levers.pause_deployment import PauseLever
from pilotage.flows.levers.raise_retries import RetriesLever
from pilotage.flows.levers.release_slot import ReleaseSlotLever
from pilotage.flows.levers.reschedule_run import RescheduleLever
from pilotage.flows.levers.reserve_slot import ReserveLever
from pilotage.flows.levers.resize_run import ResizeLever
from pilotage.flows.levers.resolve_alert import ResolveLever
from pilotage.flows.levers.retry_run import RetryLever, WorkerReleased
from pilotage.flows.levers.send_directive import DirectLever
from pilotage.flows.levers.set_limit import LimitLever
from pilotage.flows.levers.set_priority import PriorityLever
from pilotage.flows.levers.size_run import SizeLever
from pilotage.flows.levers.spread_runs import CatchUpLever, SpreadLever
from pilotage.flows.levers.suspend_run import ResumeLever, SuspendLever
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi


def build_levers(
    *, worker_has_released: WorkerReleased, notifier: Notifier, api: PrefectApi | None = None
) -> Mapping[str, Lever]:
    """One lever for each kind of action, on the given API or the active Prefect profile's."""
    prefect = api or PrefectApi.from_prefect_settings()
    return {
        "retry_run": RetryLever(prefect, worker_has_released=worker_has_released),
        "resize_run": ResizeLever(prefect, worker_has_released=worker_has_released),
        "size_run": SizeLever(prefect),
        "reschedule_run": RescheduleLever(prefect),
        "reserve_slot": ReserveLever(prefect),
        "cancel_run": CancelLever(prefect),
        "pause_deployment": PauseLever(prefect),
        "notify_owner": NotifyLever(prefect, notifier),
        "change_parameters": ParametersLever(prefect),
        "move_run": MoveLever(prefect),
        "set_priority": PriorityLever(prefect),
        "set_limit": LimitLever(prefect),
        "hold_queue": HoldLever(prefect),
        "release_queue": ReleaseLever(prefect),
        "raise_retries": RetriesLever(prefect),
        "cancel_tree": CancelTreeLever(prefect),
        "launch_remediation": RemediationLever(prefect),
        "send_directive": DirectLever(prefect),
        "suspend_run": SuspendLever(prefect, worker_has_released=worker_has_released),
        "resume_run": ResumeLever(prefect),
        "spread_runs": SpreadLever(prefect),
        "catch_up": CatchUpLever(prefect),
        "mark_crashed": MarkCrashedLever(prefect),
        "release_slot": ReleaseSlotLever(prefect, worker_has_released=worker_has_released),
        "override_result": OverrideLever(prefect, worker_has_released=worker_has_released),
        "answer_run": AnswerLever(prefect),
        "resolve_alert": ResolveLever(prefect, notifier),
    }
