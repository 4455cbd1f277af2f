"""Marks a run Crashed that is dead and does not know it; then it can be retried like any other.

One that was being cancelled is marked Cancelled: that is what whoever asked for it waits for.

Prefect takes Crashed for any run that is Running, a living one included, and its process goes on: so it is asked
only on two signs of death, looked at again at the moment of delivery. What the deployment's limit keeps for the run
is given back by Prefect with the state, under the lease that the state names. Where that lease has lapsed, Prefect
takes a slot from whoever has one instead; that is looked at first, and waited out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Judgement
from pilotage.flows.levers.idempotency import marked, refused, still_running
from pilotage.flows.levers.retry_run import settled
from pilotage.flows.notify.notifier import event_id
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.liveness import Probe, judge_liveness, others_heard, process_here, signs_of
from pilotage.flows.prefect.models import RunView
from pilotage.flows.prefect.writes import own_events, renew_lease, set_state
from pilotage.planner.actions.types import Action, MarkCrashed
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

CRASHED = "Crashed"
CANCELLED = "Cancelled"
WATCHED = timedelta(seconds=20)
"""How long a run that was marked is listened to: one that speaks was not dead."""
HOLDING = ("PENDING", "RUNNING", "CANCELLING")
"""The states in which a run holds a slot of its deployment's limit."""
_KEPT_NAMES = ("AwaitingRetry", "Paused")
"""States in which it may: a run that waits for its next attempt in the same process keeps its slot."""
_MOST = 1000


class MarkCrashedLever:
    """Marks a dead run Crashed, or Cancelled where somebody had asked for that."""

    kind = "mark_crashed"
    window = timedelta(minutes=5)
    writes = (set_state(StateType.CRASHED, StateType.CANCELLED), renew_lease(), own_events())
    undoable = "What is marked stays marked; a run that was dead has nothing to go back to. Retry it instead."

    def __init__(
        self, api: PrefectApi, *, probe: Probe = process_here, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._api = api
        self._probe = probe
        self._clock = clock or api.now

    async def execute(
        self, action: MarkCrashed, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Raises a transient OrchestratorError while only the server may have been away."""
        only = "only a run that is RUNNING or CANCELLING can be dead without saying so"
        run = await still_running(
            self._api,
            action.run_id,
            idempotency_key=idempotency_key,
            expected_state_id=expected_state_id,
            only=only,
            states=(StateType.RUNNING, StateType.CANCELLING),
        )
        if isinstance(run, Delivery):
            return run
        now = self._clock()
        tags = (await self._api.deployment(run.deployment_id)).tags if run.deployment_id else ()
        signs = await signs_of(self._api, run, tags, self._probe, now)
        proof = judge_liveness(signs, now)
        if not proof.by:
            return refused(proof.why)
        if not await others_heard(self._api, signs.every, now):
            await self._listen(run.id, now)
            raise OrchestratorError(
                f"Marking run {run.id}: {proof.why}, but nobody else was heard for a while either, so the server "
                f"may have been away. It is looked at again until {3 * signs.every} have been heard.",
                transient=True,
            )
        if reason := await self._why_not_its_slot(run):
            return refused(reason)
        cancelling = run.state.type is StateType.CANCELLING
        ruling = await self._api.set_state_if(
            run.id,
            (run.state.type,),
            StateType.CANCELLED if cancelling else StateType.CRASHED,
            CANCELLED if cancelling else CRASHED,
            message=f"{message}: {proof.why}",
            idempotency_key=idempotency_key,
        )
        return await settled(
            self._api, run, idempotency_key, ruling, before={"signs": proof.by, "why": proof.why}
        )

    async def verify(self, action: MarkCrashed, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run is as it was marked, and still silent."""
        ours = marked(await self._api.history(action.run_id), idempotency_key)
        if ours is None:
            return Check(judgement=Judgement.FAILED, detail="our mark is not in the run's history")
        state = (await self._api.run(action.run_id)).state.name
        spoke = await self._api.events_about(
            action.run_id, ours.at, names=["prefect.flow-run.heartbeat", "prefect.task-run.Completed"]
        )
        if spoke or self._probe(action.run_id, "") == "alive":
            detail = (
                "it was heard after it was marked: its process is alive; a person ends it or takes it back"
            )
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state)
        if self._clock() - ours.at < WATCHED:
            return Check(judgement=Judgement.PENDING, detail="it is listened to", final_state=state)
        return Check(judgement=Judgement.VERIFIED, detail="marked, and silent", final_state=state)

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """A refusal: there is no way back."""
        return refused("a run that was dead has nothing to go back to; retry it instead")

    async def _listen(self, run_id: str, now: datetime) -> None:
        # an event of our own each half minute: that Prefect keeps it shows that it would have kept the run's
        slot = now.replace(second=now.second // 30 * 30, microsecond=0)
        await self._api.emit(
            [
                {
                    "occurred": slot.isoformat(),
                    "event": "pilotage.listening",
                    "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
                    "id": event_id(run_id, f"listening-{slot.isoformat()}"),
                }
            ]
        )

    async def _why_not_its_slot(self, run: RunView) -> str:
        """Why Prefect would take a slot from a living run if this one ended, or an empty text."""
        if not run.deployment_id or (run.state.lease_id and await self._api.lease_stands(run.state.lease_id)):
            return ""
        limit = await self._api.limit(f"deployment:{run.deployment_id}")
        others = len(await holders_of(self._api, run.deployment_id)) - 1
        if limit is None or limit.active_slots == 0 or limit.active_slots > others:
            return ""
        return (
            f"its slot was given back already, and {others} living runs of the deployment hold "
            f"{limit.active_slots}: Prefect would take one of theirs. It can be marked when they have ended"
        )


async def holders_of(api: PrefectApi, deployment_id: str) -> frozenset[str]:
    """The ids of the runs that may hold a slot of their deployment's limit."""
    of_it = {"deployment_id": {"any_": [deployment_id]}}
    by_type = await api.all_runs({**of_it, "state": {"type": {"any_": list(HOLDING)}}}, most=_MOST)
    by_name = await api.all_runs({**of_it, "state": {"name": {"any_": list(_KEPT_NAMES)}}}, most=_MOST)
    return frozenset(run.id for run in (*by_type, *by_name))
