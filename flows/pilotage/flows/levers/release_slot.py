"""Releases slots of a concurrency limit that are held for dead work, and finds whose slots those are.

- A tag's slot stands in the name of a task run. It is given back in that name, so that nobody else's is touched,
  when the task's flow run has ended and its process has been reported gone or has been silent for long.
- A deployment's slot stands for a run that is under way. What is counted beyond the runs that may hold one is lost
  (Prefect keeps leases in memory by default: a server that restarts forgets them, and the count stays). It is given
  back when, beside that sum, nothing has been taken or given back for longer than any lease lasts unrenewed.
- A global limit's slots are nameless, and nothing says who may hold one. No safe route: a person counts, and sets it.

A slot whose lease Prefect still keeps comes back by itself some five minutes after its holder died.

What is about to be given back is noted first: whoever repeats a delivery that died counts again, gives back what is
still lost, and knows that the rest was its own doing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import ChangeRecords, refused
from pilotage.flows.levers.mark_crashed import holders_of
from pilotage.flows.levers.retry_run import WorkerReleased
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.liveness import MISSED, Probe, interval, process_here
from pilotage.flows.prefect.models import LimitView
from pilotage.flows.prefect.writes import give_slots_back, keep_note
from pilotage.planner.actions.types import Action, LimitScope, ReleaseSlot
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

LAPSE = timedelta(seconds=330)
"""A lease lasts 300 s and is renewed before; Prefect reclaims a lapsed one within seconds."""
MOST = 100
"""Slots that one delivery gives back; what it gives back has to fit a note."""
_QUOTED = 5
"""Reasons that a refusal gives."""
BY_HAND = (
    "the slots of a global limit are nameless, so nobody can tell a dead holder's from a living one's. What is lost "
    "with its process lapses by itself in five minutes; after a restart of the server it does not: count what runs, "
    "then `prefect gcl update {name} --active-slots COUNT`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """What is taken of a limit, by the names under which it is noted, and what of it is lost."""

    lost: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    """Of a deployment only what no run may hold."""
    why: str = ""
    """Why nothing is given back, when nothing is."""


class ReleaseSlotLever:
    """Gives back the slots of dead holders."""

    kind = "release_slot"
    window = timedelta(minutes=1)
    writes = (*give_slots_back(), *keep_note("slots"))
    undoable = "A slot that was given back is free for whoever asks next; it is not taken again."

    def __init__(
        self,
        api: PrefectApi,
        *,
        worker_has_released: WorkerReleased,
        probe: Probe = process_here,
        lapse: timedelta = LAPSE,
    ) -> None:
        self._api = api
        self._worker_has_released = worker_has_released
        self._probe = probe
        self._lapse = lapse
        self._records = ChangeRecords(api)

    async def execute(
        self, action: ReleaseSlot, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Repeating it gives back what is lost by then and no more: it counts again."""
        note = await self._records.read("slots", idempotency_key)
        if note is not None and note.get("done"):
            return Delivery(effect=Effect.ALREADY, after=note)
        match action.scope:
            case LimitScope.TAG:
                count = await self._of_tag(action.name)
            case LimitScope.DEPLOYMENT:
                count = await self._of_deployment(action.name)
            case LimitScope.GLOBAL:
                return refused(BY_HAND.format(name=action.name))
            case LimitScope.POOL | LimitScope.QUEUE:
                return refused(
                    "pools and queues count the runs that are under way; no slot of theirs is lost"
                )
            case _:
                assert_never(action.scope)
        # those of the note that are not taken any more were given back by the delivery that died
        earlier = set(note["given_back"] if note else ()) - count.taken
        lost = sorted(count.lost)[: MOST - len(earlier)]
        given = sorted(earlier.union(lost))
        if not given:
            return refused(count.why)
        note = {"at": self._api.now().isoformat(), "given_back": given, "slots": len(given)}
        await self._records.write("slots", idempotency_key, note)
        await self._give_back(action, lost)
        note = {**note, "done": self._api.now().isoformat()}
        await self._records.write("slots", idempotency_key, note)
        return Delivery(effect=Effect.DONE, after=note)

    async def verify(self, action: ReleaseSlot, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the slots are free, and not more than those."""
        slots = delivery.after.get("slots")
        match action.scope:
            case LimitScope.TAG:
                taken_again = set(await self._api.holders_of_tag(action.name)) & set(
                    delivery.after["given_back"]
                )
                bad = f"{sorted(taken_again)} hold slots again" if taken_again else ""
            case _:
                short = await self._surplus(action.name)
                bad = f"{-short} slots too few are counted: a run had ended meanwhile" if short < 0 else ""
        if bad:
            return Check(judgement=Judgement.FAILED, detail=bad)
        return Check(judgement=Judgement.VERIFIED, detail=f"{slots} slots are free again")

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """A refusal: there is no way back."""
        return refused("the slots are free for whoever asks next")

    async def _give_back(self, action: ReleaseSlot, lost: list[str]) -> None:
        if action.scope is LimitScope.TAG:
            for task_run_id in lost:
                await self._api.release_holder(action.name, task_run_id)
        elif lost:
            await self._api.give_back(f"deployment:{action.name}", len(lost))

    async def _of_tag(self, tag: str) -> _Count:
        """The task runs that hold a slot, and which of them are dead."""
        if await self._api.limit(f"tag:{tag}") is None:
            return _Count(why=f"there is no limit of tag {tag!r}")
        holders = await self._api.holders_of_tag(tag)
        alive = {holder: reason for holder in holders if (reason := await self._why_alive(holder))}
        why = "; ".join(list(alive.values())[:_QUOTED]) or "no task run holds a slot of it"
        return _Count(lost=frozenset(holders) - alive.keys(), taken=frozenset(holders), why=why)

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
        if await self._worker_has_released(run_id, began):
            return ""
        beats = await self._api.events_about(run_id, began, names=["prefect.flow-run.heartbeat"], most=MISSED)
        heard = max([*(beat.at for beat in beats), run.state.at])
        silent = self._api.now() - heard
        if silent > MISSED * interval(beats) and self._probe(run_id, run.pid) != "alive":
            return ""
        return f"run {run_id} is {run.state.name}, but nobody has reported the end of its process yet"

    async def _of_deployment(self, deployment_id: str) -> _Count:
        """The slots that no run may hold, numbered, and whether they have been lost for long enough."""
        name = f"deployment:{deployment_id}"
        before = await self._api.limit(name)
        if before is None:
            return _Count(why="the deployment has no limit")
        lost = await self._surplus(deployment_id)
        after = await self._api.limit(name)
        if after is None or after.updated != before.updated:
            raise OrchestratorError(
                f"Counting the slots of deployment {deployment_id}: one was taken or given back while they were "
                "counted. They are counted again.",
                transient=True,
            )
        if lost <= 0:
            return _Count(why=f"none of its {before.active_slots} slots is lost")
        slots = frozenset(f"{number:03}" for number in range(lost))
        why = self._why_not_yet(before, lost)
        return _Count(lost=frozenset() if why else slots, taken=slots, why=why)

    def _why_not_yet(self, limit: LimitView, lost: int) -> str:
        still = self._api.now() - limit.updated if limit.updated else timedelta(0)
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
