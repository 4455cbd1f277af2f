"""Knows how to give back slots of a concurrency limit that are held for work which is dead, and whose slots those are.

- A tag's slot stands in the name of a task run. It is given back in that name, so that nobody else's is touched,
  when the task's flow run has ended and its process has been reported gone or has been silent for long.
- A deployment's slot stands for a run that is under way. What is counted beyond the runs that may hold one is lost
  (Prefect keeps leases in memory by default: a server that restarts forgets them, and the count stays). It is given
  back when, beside that sum, nothing has been taken or given back for longer than any lease lasts unrenewed.
- A global limit's slots are nameless, and nothing says who may hold one. No safe route: a person counts, and sets it.

A slot whose lease Prefect still keeps comes back by itself some five minutes after its holder died.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_never

from pilotage.flows.levers.death import MISSED, Probe, interval, process_here
from pilotage.flows.levers.marks import Notes, refused, wrong_lever
from pilotage.flows.levers.retry import LetGo
from pilotage.flows.levers.zombie import holders_of
from pilotage.flows.prefect_api import PrefectApi
from pilotage.flows.prefect_views import LimitView
from pilotage.flows.receipts import Check, Delivery, Effect, Judgement
from pilotage.planner.actions import Action, LimitScope, ReleaseSlot
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

LAPSE = timedelta(seconds=330)
"""A lease lasts 300 s and is renewed before; Prefect reclaims a lapsed one within seconds."""
_QUOTED = 5
"""Reasons that a refusal gives."""
BY_HAND = (
    "the slots of a global limit are nameless, so nobody can tell a dead holder's from a living one's. What is lost "
    "with its process lapses by itself in five minutes; after a restart of the server it does not: count what runs, "
    "then `prefect gcl update {name} --active-slots COUNT`"
)


class ReleaseSlotLever:
    """Gives back the slots of dead holders."""

    kind = "release_slot"
    window = timedelta(minutes=1)
    undoable = "A slot that was given back is free for whoever asks next; it is not taken again."

    def __init__(
        self, api: PrefectApi, *, let_go: LetGo, probe: Probe = process_here, lapse: timedelta = LAPSE
    ) -> None:
        self._api = api
        self._let_go = let_go
        self._probe = probe
        self._lapse = lapse
        self._notes = Notes(api)

    async def execute(self, action: Action, *, mark: str, expected_state_id: str, message: str) -> Delivery:
        """The delivery. Repeating it gives back what is lost by then and no more: it counts anew."""
        if not isinstance(action, ReleaseSlot):
            wrong_lever(self.kind, action)
        if note := await self._notes.read("slots", mark):
            return Delivery(effect=Effect.ALREADY, after=note)
        match action.scope:
            case LimitScope.TAG:
                given, why = await self._of_tag(action.name)
            case LimitScope.DEPLOYMENT:
                given, why = await self._of_deployment(action.name)
            case LimitScope.GLOBAL:
                return refused(BY_HAND.format(name=action.name))
            case LimitScope.POOL | LimitScope.QUEUE:
                return refused(
                    "pools and queues count the runs that are under way; no slot of theirs is lost"
                )
            case _:
                assert_never(action.scope)
        if not given:
            return refused(why)
        # after it: whoever repeats it before this is written counts again and finds nothing lost
        note = {"at": datetime.now(UTC).isoformat(), "given_back": given[:40], "slots": len(given)}
        await self._notes.write("slots", mark, note)
        return Delivery(effect=Effect.DONE, after=note)

    async def verify(self, action: Action, delivery: Delivery, *, mark: str) -> Check:
        """Whether the slots are free, and not more than those."""
        if not isinstance(action, ReleaseSlot):
            wrong_lever(self.kind, action)
        slots = delivery.after.get("slots")
        match action.scope:
            case LimitScope.TAG:
                again = set(await self._api.holders_of_tag(action.name)) & set(delivery.after["given_back"])
                bad = f"{sorted(again)} hold slots again" if again else ""
            case _:
                short = await self._surplus(action.name)
                bad = f"{-short} slots too few are counted: a run had ended meanwhile" if short < 0 else ""
        if bad:
            return Check(judgement=Judgement.FAILED, detail=bad)
        return Check(judgement=Judgement.VERIFIED, detail=f"{slots} slots are free again")

    async def undo(self, action: Action, delivery: Delivery, *, mark: str) -> Delivery:
        """A refusal: there is no way back."""
        return refused("the slots are free for whoever asks next")

    async def _of_tag(self, tag: str) -> tuple[list[str], str]:
        """The task runs whose slots were given back; or why none was."""
        if await self._api.limit(f"tag:{tag}") is None:
            return [], f"there is no limit of tag {tag!r}"
        given, alive = [], []
        for task_run_id in await self._api.holders_of_tag(tag):
            if reason := await self._why_alive(task_run_id):
                alive.append(reason)
            else:
                await self._api.release_holder(tag, task_run_id)
                given.append(task_run_id)
        return given, "; ".join(alive[:_QUOTED]) or "no task run holds a slot of it"

    async def _why_alive(self, task_run_id: str) -> str:
        run_id = await self._api.run_of_task(task_run_id)
        if not run_id:
            return f"task run {task_run_id} belongs to no flow run, so nothing tells whether it lives"
        run = await self._api.run(run_id)
        if not run.state.ended:
            return f"run {run_id} of task run {task_run_id} is {run.state.name}; mark it crashed first if it is dead"
        history = await self._api.history(run_id)
        began = max(
            (state.at for state in history if state.type is StateType.SCHEDULED), default=history[0].at
        )
        if await self._let_go(run_id, began):
            return ""
        beats = await self._api.events_about(run_id, began, names=["prefect.flow-run.heartbeat"], most=MISSED)
        heard = max([*(beat.at for beat in beats), run.state.at])
        silent = datetime.now(UTC) - heard
        if silent > MISSED * interval(beats) and self._probe(run_id, run.pid) != "alive":
            return ""
        return f"run {run_id} is {run.state.name}, but nobody has reported the end of its process yet"

    async def _of_deployment(self, deployment_id: str) -> tuple[list[str], str]:
        """The slots that were given back, numbered; or why none was."""
        name = f"deployment:{deployment_id}"
        before = await self._api.limit(name)
        if before is None:
            return [], "the deployment has no limit"
        lost = await self._surplus(deployment_id)
        after = await self._api.limit(name)
        if after is None or after.updated != before.updated:
            raise OrchestratorError(
                f"Counting the slots of deployment {deployment_id}: one was taken or given back while they were "
                "counted. They are counted again.",
                transient=True,
            )
        if lost <= 0:
            return [], f"none of its {before.active_slots} slots is lost"
        if reason := self._why_not_yet(before, lost):
            return [], reason
        await self._api.give_back(name, lost)
        return [str(number) for number in range(lost)], ""

    def _why_not_yet(self, limit: LimitView, lost: int) -> str:
        still = datetime.now(UTC) - limit.updated if limit.updated else timedelta(0)
        if still > self._lapse:
            return ""
        return (
            f"{lost} slots seem lost, but one was taken or given back {still.total_seconds():.0f} s ago: what lapses "
            f"comes back by itself within {self._lapse.total_seconds():.0f} s"
        )

    async def _surplus(self, deployment_id: str) -> int:
        """How many slots are counted beyond the runs that may hold one."""
        limit = await self._api.limit(f"deployment:{deployment_id}")
        held = limit.active_slots if limit else 0
        return held - len(await holders_of(self._api, deployment_id))
