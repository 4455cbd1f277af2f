"""Runs an ended run again in place: same run id, state AwaitingRetry, never by force.

Parameters may be given other values first: the process of an ended run is gone, and the next one reads them again.
Before anything is changed it is told from the last attempt's tasks which will be done again.

The worker must have let go of the last attempt first: a worker with a limit of its own was seen to exit, and
its pool with it, when the same run came back before it had freed the slot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.change_parameters import ParametersLever, give, take_back
from pilotage.flows.levers.idempotency import after, marked, refused, step_key
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, StateView, Transition
from pilotage.flows.prefect.writes import set_state
from pilotage.planner.actions.preconditions import KnownRun, why_not
from pilotage.planner.actions.types import RetryRun
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.queries.retry_impact import retry_impact_of

WorkerReleased = Callable[[str, datetime], Awaitable[bool]]
"""Whether the worker has reported the end of a run's process since that time."""

RETRYABLE = (StateType.FAILED, StateType.CRASHED)
RELEASE_GRACE = timedelta(seconds=15)
"""How long after its end a run is waited for that no worker submitted: nobody will ever report it."""
WORKER_GRACE = timedelta(seconds=60)
"""The same for a run that a worker submitted. On a busy machine the report was seen 9 s after a crash, and
the worker set Crashed a second time with it; a worker that died with its runs never reports."""
SETTLING = timedelta(seconds=30)
"""A Crashed that comes after our retry and before Running may be that late second report: waited out."""
AWAITING_RETRY = "AwaitingRetry"
SUBMITTING = "Submitting"
"""The name of the state in which a worker starts a process."""


class RetryLever:
    """Retries a FAILED or CRASHED run in place."""

    kind = "retry_run"
    window = timedelta(minutes=15)
    writes = (set_state(StateType.SCHEDULED, StateType.CANCELLED), *ParametersLever.writes)
    undoable = (
        "A retry that has not started is cancelled, and the parameters it was given go back; one that runs or has "
        "ended cannot be taken back, for its side effects are done."
    )

    def __init__(self, api: PrefectApi, *, worker_has_released: WorkerReleased) -> None:
        self._api = api
        self._worker_has_released = worker_has_released

    async def execute(
        self, action: RetryRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Raises a transient OrchestratorError while the worker still holds the run."""
        history = await self._api.history(action.run_id)
        if ours := marked(history, idempotency_key):
            return Delivery(effect=Effect.ALREADY, after=_after(ours))
        run = await self._api.run(action.run_id)
        if reason := why_not_retry(run, expected_state_id):
            await take_back(self._api, run.id, action.changes, idempotency_key)
            return refused(reason)
        await wait_for_worker(self._worker_has_released, run, history, now=self._api.now())
        if action.changes and (
            reason := await give(self._api, run, action.changes, idempotency_key, message)
        ):
            return refused(reason)
        tasks = await tasks_in_words(self._api, run.id)
        ruling = await self._api.set_state_if(
            run.id,
            RETRYABLE,
            StateType.SCHEDULED,
            AWAITING_RETRY,
            message=message,
            idempotency_key=idempotency_key,
            scheduled_for=self._api.now() + action.delay,
        )
        stood = await settled(self._api, run, idempotency_key, ruling, before=_before(run))
        if stood.effect is Effect.REFUSED:
            await take_back(self._api, run.id, action.changes, idempotency_key)
            return stood
        return replace(stood, after={**stood.after, "tasks": tasks})

    async def verify(self, action: RetryRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run was started again and how that ended."""
        return judge_retry(await self._api.history(action.run_id), idempotency_key, now=self._api.now())

    async def undo(self, action: RetryRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the cancellation, while the run still waits."""
        done = await cancel_waiting(self._api, action.run_id, idempotency_key)
        if done.effect is not Effect.REFUSED:
            await take_back(self._api, action.run_id, action.changes, idempotency_key)
        return done


async def tasks_in_words(api: PrefectApi, run_id: str) -> str:
    """Which tasks the next attempt does again and which it finds in storage, or an empty text."""
    return retry_impact_of(await api.task_runs_of(run_id)).words()


def why_not_retry(run: RunView, expected_state_id: str) -> str:
    """Why this run may not be retried in place, or an empty text."""
    known = KnownRun(state_type=run.state.type.value, has_deployment=bool(run.deployment_id))
    if why := why_not(RetryRun(run_id=run.id), known):
        return why
    if expected_state_id and run.state.id != expected_state_id:
        return "the run has moved on since this was proposed: it failed again, or somebody retried it"
    return ""


async def wait_for_worker(
    worker_has_released: WorkerReleased, run: RunView, history: Sequence[StateView], *, now: datetime
) -> None:
    """Return once the worker has released the run. Raises a transient OrchestratorError until then."""
    begun = max(
        (number for number, state in enumerate(history) if state.type is StateType.SCHEDULED), default=0
    )
    attempt = history[begun:]
    by_worker = any(state.name == SUBMITTING for state in attempt)
    grace = WORKER_GRACE if by_worker else RELEASE_GRACE
    since = attempt[0].at if attempt else run.state.at
    if now - run.state.at > grace or await worker_has_released(run.id, since):
        return
    raise OrchestratorError(
        f"Retrying run {run.id}: its worker has not reported the end of the last attempt. "
        f"It will be tried again, and {grace.total_seconds():.0f} s after its end without waiting for it.",
        transient=True,
    )


async def settled(
    api: PrefectApi, run: RunView, idempotency_key: str, ruling: Transition, *, before: dict[str, object]
) -> Delivery:
    """The delivery that a ruling amounts to, read from the run's history, not the ruling alone."""
    if ruling.ruling == "ACCEPT" and ruling.state and ruling.state.transition_id == idempotency_key:
        return Delivery(effect=Effect.DONE, before=before, after=_after(ruling.state))
    # an answer that was lost on its way and asked for again: the history knows
    if ours := marked(await api.history(run.id), idempotency_key):
        return Delivery(effect=Effect.ALREADY, before=before, after=_after(ours))
    match ruling.ruling:
        case "NONE":
            return refused("the run moved on at the last moment; nothing was changed")
        case "ACCEPT":
            return refused(f"Prefect put another state in its place: {ruling.state and ruling.state.name}")
        case "REJECT" | "ABORT" | "WAIT":
            return refused(f"Prefect said {ruling.ruling}: {ruling.reason or 'without a reason'}")


def judge_retry(history: Sequence[StateView], idempotency_key: str, *, now: datetime) -> Check:
    """Whether the attempt that began under this mark ran by `now`, and how it ended."""
    ours = marked(history, idempotency_key)
    if ours is None:
        return Check(judgement=Judgement.FAILED, detail="our retry is not in the run's history")
    since = after(history, idempotency_key)
    last = since[-1] if since else ours
    ran = any(state.type is StateType.RUNNING for state in since)
    if not last.ended:
        detail = "running again" if ran else "waiting to be started again"
        return Check(judgement=Judgement.PENDING, detail=detail, final_state=last.name)
    if last.type is StateType.COMPLETED and ran:
        seconds = (last.at - ours.at).total_seconds()
        detail = f"completed {seconds:.0f} s after the retry"
        return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=last.name)
    if last.type is StateType.CRASHED and not ran and now - last.at < SETTLING:
        detail = "crashed before it ran; it may be the worker's late word on the attempt before"
        return Check(judgement=Judgement.PENDING, detail=detail, final_state=last.name)
    detail = "it ended without having run" if not ran else f"it ended {last.type.value} again"
    if last.type in (StateType.CANCELLED, StateType.COMPLETED):
        detail = f"somebody set it {last.type.value}"
    return Check(judgement=Judgement.FAILED, detail=detail, final_state=last.name)


async def cancel_waiting(api: PrefectApi, run_id: str, idempotency_key: str) -> Delivery:
    """The delivery of the way back from a retry: cancelled if it has not started, refused otherwise."""
    back = step_key(idempotency_key, "undo")
    if marked(await api.history(run_id), back):
        return Delivery(effect=Effect.ALREADY)
    run = await api.run(run_id)
    if run.state.transition_id != idempotency_key or run.state.type is not StateType.SCHEDULED:
        return refused(f"the run is {run.state.name} already; a retry that has started cannot be taken back")
    ruling = await api.set_state_if(
        run_id,
        (StateType.SCHEDULED,),
        StateType.CANCELLED,
        "Cancelled",
        message="pilotage took its retry back before it started",
        idempotency_key=back,
    )
    return await settled(api, run, back, ruling, before={})


def _before(run: RunView) -> dict[str, object]:
    return {"state_type": run.state.type.value, "state_id": run.state.id, "run_count": run.run_count}


def _after(state: StateView) -> dict[str, object]:
    due = state.scheduled_for.isoformat() if state.scheduled_for else None
    return {"state_id": state.id, "state_name": state.name, "due": due, "at": state.at.isoformat()}
