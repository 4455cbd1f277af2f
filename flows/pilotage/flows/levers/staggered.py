"""Deals with the many waiting runs of one deployment: parks them and releases them in waves, or first
cancel those that newer ones have superseded.

Every run is moved or cancelled once, under our mark, by a guarded write of many at once, while the queues that hold
due runs are held: a worker that has one in hand would start it twice. They are held once for all: a thousand that are
due would, between two holds, all be taken up again before anybody else's, and keep the server from answering. The waves
are start times, so nobody has to be alive to release them. A process that dies in between leaves a note; whoever
repeats the delivery goes on with the runs that have not been dealt with. Runs that became due after the note are not
part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import ChangeRecords, as_before, marked, refused, step_key
from pilotage.flows.levers.queue_pause import TemporaryQueuePause
from pilotage.flows.levers.reschedule_run import SAFE_DISTANCE, SETTLE
from pilotage.flows.levers.retry_run import AWAITING_RETRY, settled
from pilotage.flows.prefect.api import BULK, PrefectApi
from pilotage.flows.prefect.models import RunView, Transition, moment
from pilotage.flows.prefect.stopping import pause
from pilotage.telemetry.facts import StateType

MOST = 1000
"""Runs that one delivery deals with."""
RUSH = 100
"""Due runs beside which Prefect may be too busy to pause a queue, so that it is calmed first."""
PATIENCE = timedelta(seconds=60)
"""For a worker that was handed many runs to have proposed each of them: a dozen seconds for a thousand."""
_TOLD = 40
"""Refusals that a receipt quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaggeredRelease:
    """What is wanted of the waiting runs."""

    first: datetime
    """When the first is due; when it is carried out, where that is later."""
    wave: int
    every: timedelta
    most: int = MOST
    keep: int | None = None
    """How many of the newest are run; the others are cancelled. None keeps all."""


@dataclass(slots=True, kw_only=True)
class _Tally:
    moved: int = 0
    cancelled: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def told(self, waiting: int) -> dict[str, Any]:
        return {
            "moved": self.moved,
            "cancelled": self.cancelled,
            "refused": len(self.refused),
            "why": dict(list(self.refused.items())[:_TOLD]),
            "found": waiting,
        }


class WaitingRuns:
    """The waiting runs of a deployment, dealt with together."""

    def __init__(self, api: PrefectApi, *, settle: timedelta = SETTLE) -> None:
        self._api = api
        self._records = ChangeRecords(api)
        self._holds = TemporaryQueuePause(api)
        self._settle = settle

    async def execute(
        self, deployment_id: str, waves: StaggeredRelease, *, idempotency_key: str, message: str
    ) -> Delivery:
        """The delivery, with what became of the runs."""
        note = await self._records.read("waves", idempotency_key)
        if note is not None and (note.get("done") or note.get("undone")):
            return Delivery(effect=Effect.ALREADY, after=note.get("told") or {})
        if note is None:
            cutoff = self._api.now()
            if not await self._waiting(deployment_id, cutoff, waves, idempotency_key):
                return refused("no run of the deployment is waiting")
            note = {"at": cutoff.isoformat()}
            await self._records.write("waves", idempotency_key, note)
        cutoff = moment(str(note["at"]))
        waves = _from_now_on(waves, cutoff)
        todo = await self._waiting(deployment_id, cutoff, waves, idempotency_key)
        ours = await self._ours(deployment_id, idempotency_key)
        kept, dropped = superseded(todo, waves.keep, len(ours))
        kept = kept[: max(0, waves.most - len(ours))]
        slots = free_slots(waves, len(kept), (run.next_start for run in ours))
        tally = _Tally(moved=len(ours))
        # what nobody wants goes first: a repetition then finds the same ones to keep
        work = [(run, None) for run in dropped] + list(zip(kept, slots, strict=True))
        for start in range(0, len(work), MOST):
            await self._deal(
                deployment_id,
                work[start : start + MOST],
                tally,
                idempotency_key=idempotency_key,
                message=message,
            )
        await self._release_left(idempotency_key)
        totals = tally.told(len(todo) + len(ours))
        await self._records.write(
            "waves", idempotency_key, {**note, "done": self._api.now().isoformat(), "told": totals}
        )
        return Delivery(effect=Effect.DONE, after=totals)

    async def verify(
        self, deployment_id: str, waves: StaggeredRelease, delivery: Delivery, *, idempotency_key: str
    ) -> Check:
        """Whether none of the runs waits where it waited before."""
        note = await self._records.read("waves", idempotency_key)
        if note is None:
            return Check(judgement=Judgement.FAILED, detail="nothing is known of these waves")
        if note.get("undone"):
            return Check(judgement=Judgement.FAILED, detail="it was taken back")
        cutoff = moment(str(note["at"]))
        left = await self._waiting(deployment_id, cutoff, _from_now_on(waves, cutoff), idempotency_key)
        allowed = max(0, int(delivery.after.get("found") or 0) - waves.most) if waves.keep is None else 0
        summary = f"{delivery.after.get('moved')} in waves, {delivery.after.get('cancelled')} cancelled"
        if len(left) > allowed:
            detail = f"{len(left)} runs still wait where they waited, such as {left[0].id}; {summary}"
            return Check(judgement=Judgement.PENDING, detail=detail)
        return Check(judgement=Judgement.VERIFIED, detail=summary)

    async def undo(self, deployment_id: str, *, idempotency_key: str) -> Delivery:
        """The delivery of the old times, for the runs that still wait in their waves. Cancelled ones stay so."""
        note = await self._records.read("waves", idempotency_key)
        if note is None:
            return refused("nothing is known of these waves")
        if note.get("undone"):
            return as_before(note)
        back = step_key(idempotency_key, "undo")
        tally = _Tally(moved=await self._back_already(deployment_id, back) if note.get("undoing") else 0)
        await self._records.write("waves", idempotency_key, {**note, "undoing": True})
        for run in await self._ours(deployment_id, idempotency_key):
            history = await self._api.history(run.id)
            own = marked(history, _ours_is(idempotency_key))
            old = next(
                (state.scheduled_for for state in reversed(history) if own and state.at < own.at), None
            )
            if run.next_start is None or run.next_start <= self._api.now() + SAFE_DISTANCE or old is None:
                tally.refused[run.id] = "it is about to start"
                continue
            await self._write(
                [run],
                old,
                tally,
                idempotency_key=step_key(back, run.id),
                message="pilotage took its waves back",
            )
        why = "" if tally.moved else "none of the runs waits in its wave any more"
        await self._records.write("waves", idempotency_key, self._records.tombstone(note, why))
        if why:
            return refused(why)
        return Delivery(effect=Effect.DONE, after=tally.told(tally.moved))

    async def _waiting(
        self, deployment_id: str, cutoff: datetime, waves: StaggeredRelease, idempotency_key: str
    ) -> list[RunView]:
        """The runs that were due by then, still wait, and have not been dealt with; oldest first."""
        due = [
            run
            for run in await self._scheduled(deployment_id)
            if (run.expected or cutoff) <= cutoff
            and not _is_ours(run, idempotency_key)
            and not _in_its_wave(run, waves)
        ]
        return sorted(due, key=lambda run: (run.expected or cutoff, run.id))

    async def _ours(self, deployment_id: str, idempotency_key: str) -> list[RunView]:
        return [run for run in await self._scheduled(deployment_id) if _is_ours(run, idempotency_key)]

    async def _scheduled(self, deployment_id: str) -> tuple[RunView, ...]:
        where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
        return await self._api.all_runs(where, most=5 * MOST)

    async def _back_already(self, deployment_id: str, back: str) -> int:
        """How many runs an undo that died has given their old times. Looked for in their histories: Late already."""
        histories = [
            (run.id, await self._api.history(run.id)) for run in await self._scheduled(deployment_id)
        ]
        return sum(marked(history, step_key(back, run_id)) is not None for run_id, history in histories)

    async def _stand_still(self, deployment_id: str) -> None:
        """Wait until no run of the deployment was proposed a state for the settling time, or the deadline has passed.

        Whoever had been handed runs before their queue was held has proposed them by then; beside a backlog that takes
        a server a while.
        """
        over = self._api.now() + PATIENCE
        before: set[tuple[str, str]] | None = None
        while True:
            now = {_proposed(run) for run in await self._scheduled(deployment_id)}
            if now == before or self._api.now() > over:
                return
            before = now
            await pause(self._settle.total_seconds())

    async def _deal(
        self,
        deployment_id: str,
        work: Sequence[tuple[RunView, datetime | None]],
        tally: _Tally,
        *,
        idempotency_key: str,
        message: str,
    ) -> None:
        near = self._api.now() + SAFE_DISTANCE
        queues = {(run.pool, run.queue) for run, _ in work if run.queue and (run.next_start or near) <= near}
        held: list[str] = []
        keys = {where: _hold_key(idempotency_key, *where) for where in sorted(queues)}
        try:
            if len(work) >= RUSH and any(
                [await self._holds.throttle(*each, key) for each, key in keys.items()]
            ):
                await self._stand_still(deployment_id)
            held = [key for each, key in keys.items() if await self._holds.hold(*each, key)]
            if queues:
                await self._stand_still(deployment_id)
            if not await self._holds.stand(held):
                await self._stand_still(deployment_id)
            for start, batch in batches(work):
                await self._write(
                    batch, start, tally, idempotency_key=_ours_is(idempotency_key), message=message
                )
        finally:
            for key in keys.values():
                await self._holds.release(key)

    async def _write(
        self,
        batch: Sequence[RunView],
        start: datetime | None,
        tally: _Tally,
        *,
        idempotency_key: str,
        message: str,
    ) -> None:
        """Give these runs, all of one kind, one start time; None cancels them."""
        waits = AWAITING_RETRY if batch[0].state.name == AWAITING_RETRY else "Scheduled"
        rulings = await self._api.set_states_if(
            [run.id for run in batch],
            (StateType.SCHEDULED,),
            StateType.CANCELLED if start is None else StateType.SCHEDULED,
            "Cancelled" if start is None else waits,
            message=message,
            idempotency_key=idempotency_key,
            scheduled_for=start,
        )
        for run in batch:
            ruling = rulings.get(run.id, Transition(ruling="NONE", state=None))
            stood = await settled(self._api, run, idempotency_key, ruling, before={})
            if stood.effect is Effect.REFUSED:
                tally.refused[run.id] = stood.reason
            elif start is None:
                tally.cancelled += 1
            else:
                tally.moved += 1

    async def _release_left(self, idempotency_key: str) -> None:
        """Open every queue held by an earlier delivery that died after it had dealt with all runs."""
        for key, note in (await self._records.of("hold")).items():
            if key == _hold_key(idempotency_key, str(note.get("pool")), str(note.get("queue"))):
                await self._holds.release(key)


def _from_now_on(waves: StaggeredRelease, acting: datetime) -> StaggeredRelease:
    """The same waves, none of them before the moment of acting: approved late, all would be due at once."""
    return replace(waves, first=max(waves.first, acting))


def superseded(
    runs: Sequence[RunView], keep: int | None, kept_before: int = 0
) -> tuple[list[RunView], list[RunView]]:
    """Which of these runs, oldest first, are kept and which are superseded by the newest `keep`."""
    if keep is None:
        return list(runs), []
    room = max(0, keep - kept_before)
    cut = max(0, len(runs) - room)
    return list(runs[cut:]), list(runs[:cut])


def free_slots(waves: StaggeredRelease, wanted: int, taken: Iterable[datetime | None]) -> list[datetime]:
    """The start times of so many more runs: each wave is filled before the next, those taken left out."""
    full = Counter(taken)
    slots: list[datetime] = []
    at = waves.first
    while len(slots) < wanted:
        slots += [at] * min(waves.wave - full[at], wanted - len(slots))
        at += waves.every
    return slots


def batches(
    work: Sequence[tuple[RunView, datetime | None]],
) -> list[tuple[datetime | None, list[RunView]]]:
    """The work in writes: runs that get the same state together, at most `BULK`, those that no queue holds alone."""
    groups: list[tuple[datetime | None, list[RunView]]] = []
    for (start, _, alone), group in groupby(work, key=_together):
        runs = [run for run, _ in group]
        size = 1 if alone else BULK
        groups += [(start, runs[at : at + size]) for at in range(0, len(runs), size)]
    return groups


def _together(each: tuple[RunView, datetime | None]) -> tuple[datetime | None, bool, bool]:
    run, start = each
    return start, run.state.name == AWAITING_RETRY, not run.queue


def _hold_key(idempotency_key: str, pool: str, queue: str) -> str:
    """Under which one delivery holds one queue."""
    return step_key(idempotency_key, f"{pool}/{queue}")


def _ours_is(idempotency_key: str) -> str:
    """The mark of every run that one delivery moves or cancels; a run is known by its id besides."""
    return step_key(idempotency_key, "crowd")


def _in_its_wave(run: RunView, waves: StaggeredRelease) -> bool:
    # Prefect makes Late what it finds Scheduled and overdue, and our mark goes with it; the time of the wave stays
    return run.state.name == "Late" and run.next_start is not None and run.next_start >= waves.first


def _proposed(run: RunView) -> tuple[str, str]:
    # Prefect makes Late by itself what is overdue: nobody has such a run in hand
    return run.id, "" if run.state.name in ("Scheduled", "Late") else run.state.id


def _is_ours(run: RunView, idempotency_key: str) -> bool:
    return run.state.transition_id == _ours_is(idempotency_key)
