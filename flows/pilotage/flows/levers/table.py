"""The table of levers: which one carries out which kind of action."""

from __future__ import annotations

from collections.abc import Mapping

from pilotage.flows.announce import Announcer
from pilotage.flows.levers.answer import AnswerLever
from pilotage.flows.levers.cancel import CancelLever
from pilotage.flows.levers.cancel_tree import CancelTreeLever
from pilotage.flows.levers.direct import DirectLever
from pilotage.flows.levers.hold import HoldLever, ReleaseLever
from pilotage.flows.levers.limits import LimitLever
from pilotage.flows.levers.move import MoveLever
from pilotage.flows.levers.notify import NotifyLever
from pilotage.flows.levers.override import OverrideLever
from pilotage.flows.levers.parameters import ParametersLever
from pilotage.flows.levers.pause import PauseLever
from pilotage.flows.levers.priority import PriorityLever
from pilotage.flows.levers.remediate import RemediationLever
from pilotage.flows.levers.reschedule import RescheduleLever
from pilotage.flows.levers.reserve import ReserveLever
from pilotage.flows.levers.resize import ResizeLever
from pilotage.flows.levers.resolve import ResolveLever
from pilotage.flows.levers.retries import RetriesLever
from pilotage.flows.levers.retry import LetGo, RetryLever
from pilotage.flows.levers.size import SizeLever
from pilotage.flows.levers.slots import ReleaseSlotLever
from pilotage.flows.levers.spread import CatchUpLever, SpreadLever
from pilotage.flows.levers.suspend import ResumeLever, SuspendLever
from pilotage.flows.levers.zombie import MarkCrashedLever
from pilotage.flows.prefect_api import PrefectApi
from pilotage.flows.receipts import Lever


def build_levers(
    *, let_go: LetGo, announcer: Announcer, api: PrefectApi | None = None
) -> Mapping[str, Lever]:
    """One lever for each kind of action, on the given API or the active Prefect profile's."""
    prefect = api or PrefectApi.from_prefect_settings()
    return {
        "retry_run": RetryLever(prefect, let_go=let_go),
        "resize_run": ResizeLever(prefect, let_go=let_go),
        "size_run": SizeLever(prefect),
        "reschedule_run": RescheduleLever(prefect),
        "reserve_slot": ReserveLever(prefect),
        "cancel_run": CancelLever(prefect),
        "pause_deployment": PauseLever(prefect),
        "notify_owner": NotifyLever(prefect, announcer),
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
        "suspend_run": SuspendLever(prefect, let_go=let_go),
        "resume_run": ResumeLever(prefect),
        "spread_runs": SpreadLever(prefect),
        "catch_up": CatchUpLever(prefect),
        "mark_crashed": MarkCrashedLever(prefect),
        "release_slot": ReleaseSlotLever(prefect, let_go=let_go),
        "override_result": OverrideLever(prefect, let_go=let_go),
        "answer_run": AnswerLever(prefect),
        "resolve_alert": ResolveLever(prefect, announcer),
    }
