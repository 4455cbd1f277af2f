"""Thirty undoable changes and their ways back, in any order, on a server where other things happen, leave nothing.

What is rolled is what is changed, how, and when it is taken back. A lever may refuse a change because one of ours to
the same thing stands, or a way back because a later change lies on top; what was refused is asked for again in the
end, the latest first. Only a run that has been moved is not changed besides, for afterwards it is another run.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.conftest import PrefectServer
from tests.flows.lever_targets import GATE, HOUR, POOL, RUNNING, TAG, LeverTargets, PatientApi, cleanup
from tests.flows.soak_report import progress, record

from pilotage.flows.execution.receipts import Delivery, Effect, Lever
from pilotage.flows.levers import build_levers
from pilotage.flows.levers.spread_runs import SpreadLever
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import (
    Action,
    CancelRun,
    ChangeParameters,
    HoldQueue,
    LimitScope,
    MoveRun,
    ParameterValue,
    PauseDeployment,
    RaiseRetries,
    ReleaseQueue,
    RescheduleRun,
    ReserveSlot,
    SetLimit,
    SetPriority,
    SpreadRuns,
    SuspendRun,
)
from pilotage.telemetry.errors import OrchestratorError

CHANGES = 30
BOTH = {"type": "object", "properties": {"size": {"type": "integer"}, "more": {"type": "integer"}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One that was made and has not been taken back."""

    action: Action
    idempotency_key: str
    delivery: Delivery
    number: int
    """In the order in which they were made."""


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that the changes are about."""

    targets: LeverTargets
    deployment_id: str = ""
    scheduled_id: str = ""
    backlogged_id: str = ""
    safe_id: str = ""
    waiting: list[str] = field(default_factory=list)
    movable: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    suspendable: list[str] = field(default_factory=list)
    backlog: list[str] = field(default_factory=list)

    async def build(self, api: PrefectApi) -> None:
        """Make all of it."""
        await cleanup(api)
        await api.set_limit(f"deployment:{self.targets.limited_id}", 4)
        await api.set_queue_paused(
            POOL, "default", True
        )  # by a person, so that there is something to release
        daily = {
            "schedule": {"interval": 86400, "anchor_date": self.targets.base.isoformat()},
            "active": True,
        }
        self.deployment_id = await self.targets.deployment(api, parameter_openapi_schema=BOTH)
        self.scheduled_id = await self.targets.deployment(api, schedules=[daily])
        self.backlogged_id = await self.targets.deployment(api)
        self.safe_id = await self.targets.deployment(api, "pilotage:suspend-safe")
        await api._send("POST", f"/deployments/{self.scheduled_id}/schedule", json={})
        self.waiting = [await self.targets.run(api, of=self.deployment_id) for _ in range(3)]
        self.movable = [await self.targets.run(api, of=self.deployment_id) for _ in range(2)]
        self.running = [await self.targets.run(api, *RUNNING, of=self.deployment_id) for _ in range(2)]
        self.suspendable = [await self.targets.run(api, *RUNNING, of=self.safe_id)]
        late = [self.targets.base - timedelta(hours=8) - number * HOUR for number in range(3)]
        self.backlog = [await self.targets.run(api, due=due, of=self.backlogged_id) for due in late]

    async def seen(self, api: PrefectApi) -> dict[str, Any]:
        """All of it that may not change in the end."""
        pool, deployment = await api.pool(POOL), await api.deployment(self.scheduled_id)
        names = (GATE, f"tag:{TAG}", f"deployment:{self.targets.limited_id}")
        limits = [await api.limit(name) for name in names]
        future = await self._scheduled(api, self.scheduled_id)
        runs = [await api.run(run_id) for run_id in (*self.waiting, *self.backlog)]
        moved = [run for run in await self._scheduled(api, self.deployment_id) if run.id not in self.waiting]
        return {
            "pool": [pool.limit, pool.paused],
            "queues": [
                [each.name, each.priority, each.limit, each.paused] for each in await api.queues(POOL)
            ],
            "limits": [limit and limit.limit for limit in limits],
            "schedules": [deployment.paused, [each.get("active") for each in deployment.schedules]],
            "runs ahead": bool(future),
            "runs": [[run.state.type, run.next_start, dict(run.parameters), run.queue] for run in runs],
            # a run that was moved and moved back is another run, and just the same
            "moved": sorted([str(run.next_start), str(run.parameters), run.queue] for run in moved),
            "retries": [(await api.run(run_id)).policy.get("retries") for run_id in self.running],
        }

    async def _scheduled(self, api: PrefectApi, deployment_id: str) -> Any:
        where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
        return await api.all_runs(where, most=400)

    def rolled(self, dice: random.Random, number: int) -> Action:
        """Any change; numbers that are written are never written twice."""
        fresh, hold, queue = 10 + number, HOUR, dice.choice(("a", "b", "default"))
        run_id = dice.choice(self.waiting)
        kinds: tuple[Callable[[], Action], ...] = (
            lambda: RescheduleRun(run_id=run_id, start=self.targets.base + timedelta(minutes=fresh)),
            lambda: ChangeParameters(
                run_id=run_id,
                changes=(ParameterValue(name=dice.choice(("size", "more")), value=fresh),),
            ),
            lambda: CancelRun(run_id=run_id),
            lambda: MoveRun(run_id=dice.choice(self.movable), queue="b"),
            lambda: RaiseRetries(run_id=dice.choice(self.running), retries=dice.randint(1, 10)),
            lambda: SetPriority(pool=POOL, queue=queue, priority=dice.randint(1, 4), hold=hold),
            lambda: SetLimit(scope=LimitScope.POOL, name=POOL, limit=fresh, hold=hold),
            lambda: SetLimit(scope=LimitScope.QUEUE, pool=POOL, name=queue, limit=fresh, hold=hold),
            lambda: SetLimit(scope=LimitScope.GLOBAL, name=GATE, limit=fresh, hold=hold),
            lambda: SetLimit(scope=LimitScope.TAG, name=TAG, limit=fresh, hold=hold),
            lambda: SetLimit(
                scope=LimitScope.DEPLOYMENT, name=self.targets.limited_id, limit=fresh, hold=hold
            ),
            lambda: HoldQueue(pool=POOL, queue=dice.choice(("a", "b", "")), hold=hold),
            lambda: ReleaseQueue(pool=POOL, queue="default"),
            lambda: ReserveSlot(pool=POOL, busy_queue="a", starved_queue="b", limit=fresh, hold=hold),
            lambda: PauseDeployment(deployment_id=self.scheduled_id, hold=hold),
            lambda: SpreadRuns(
                deployment_id=self.backlogged_id, first=self.targets.base, wave=1, every=timedelta(minutes=10)
            ),
            lambda: SuspendRun(run_id=self.suspendable[0], hold=hold),
        )
        return dice.choice(kinds)()


async def worker_has_released(run_id: str, after: Any) -> bool:
    """A worker that lets go at once."""
    return True


async def change_and_take_back(world: World, seed: int) -> dict[str, int]:
    """How many changes were made and refused, and how many ways back had to wait for a later change's."""
    dice = random.Random(seed)
    counts = {"made": 0, "refused": 0, "waited": 0, "overlapping": 0}
    async with PatientApi.from_prefect_settings(guard=None).opened() as api:
        await world.build(api)
        before = await world.seen(api)
        levers = {
            **build_levers(worker_has_released=worker_has_released, notifier=Notifier(api=api), api=api),
            "spread_runs": SpreadLever(api, settle=timedelta(milliseconds=50)),
        }
        standing: list[Change] = []
        waiting: list[Change] = []

        async def take_back(change: Change) -> None:
            back = await patient(
                lambda: lever_of(levers, change).undo(
                    change.action, change.delivery, idempotency_key=change.idempotency_key
                )
            )
            standing.remove(change)
            if back.effect is Effect.REFUSED:
                counts["waited"] += 1
                waiting.append(change)

        while counts["made"] < CHANGES:
            if standing and dice.random() < 0.35:
                await take_back(dice.choice(standing))
                continue
            action, idempotency_key = world.rolled(dice, counts["made"] + counts["refused"]), str(uuid4())
            if isinstance(action, SpreadRuns) and any(
                isinstance(each.action, SpreadRuns) for each in (*standing, *waiting)
            ):
                continue  # a backlog is spread once at a time
            done = await patient(
                lambda action=action, idempotency_key=idempotency_key: levers[action.kind].execute(  # type: ignore[misc]
                    action, idempotency_key=idempotency_key, expected_state_id="", message="a test"
                )
            )
            if done.effect is Effect.REFUSED:
                counts["refused"] += 1
                continue
            counts["made"] += 1
            standing.append(
                Change(action=action, idempotency_key=idempotency_key, delivery=done, number=counts["made"])
            )
            counts["overlapping"] = max(counts["overlapping"], len(standing) + len(waiting))
        dice.shuffle(standing)
        for change in tuple(standing):
            await take_back(change)
        left = sorted(waiting, key=lambda change: change.number, reverse=True)
        for change in left:
            await patient(
                lambda change=change: lever_of(levers, change).undo(  # type: ignore[misc]
                    change.action, change.delivery, idempotency_key=change.idempotency_key
                )
            )
        after = await world.seen(api)
        await api.set_queue_paused(POOL, "default", False)
    wrong = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert not wrong, f"seed {seed}: {wrong}"
    return counts


def lever_of(levers: Any, change: Change) -> Lever:
    found: Lever = levers[change.action.kind]
    return found


async def patient(work: Callable[[], Awaitable[Delivery]]) -> Delivery:
    """The delivery, asked for again while the server is busy, as the injector asks."""
    for _ in range(20):
        try:
            return await work()
        except OrchestratorError as error:
            if not error.transient:
                raise
            await asyncio.sleep(0.2)
    return await work()


@pytest.fixture
def world(fake_server: PrefectServer) -> World:
    """The fake; the long run below is on the real server."""
    targets = LeverTargets(server=fake_server)
    targets.open()
    return World(targets=targets)


@contextlib.contextmanager
def busy(world: World) -> Iterator[None]:
    """Somebody else's runs are made, begin and end all the while."""
    stop = threading.Event()

    async def work(api: PrefectApi) -> None:
        while not stop.is_set():
            await world.targets.run(api, *RUNNING)
            await api.pool(POOL)
            await asyncio.sleep(0.3)

    thread = threading.Thread(target=lambda: world.targets.ask(work))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def test_thirty_changes_and_their_ways_back_leave_everything_as_it_was(world: World) -> None:
    with busy(world):
        counts = asyncio.run(change_and_take_back(world, seed=1))
    assert counts["overlapping"] >= 5, counts


def test_what_a_change_of_ours_stands_on_is_not_changed_again_before_it_is_back(world: World) -> None:
    cap = SetLimit(scope=LimitScope.QUEUE, pool=POOL, name="a", limit=5, hold=HOUR)
    reserve = ReserveSlot(pool=POOL, busy_queue="a", starved_queue="b", limit=1, hold=HOUR)
    ranks = [SetPriority(pool=POOL, queue=queue, priority=1, hold=HOUR) for queue in ("b", "default")]

    async def work(api: PrefectApi) -> None:
        await cleanup(api)
        levers = build_levers(worker_has_released=worker_has_released, notifier=Notifier(api=api), api=api)

        async def execute(action: Action, idempotency_key: str) -> Delivery:
            return await levers[action.kind].execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )

        for first, second in ((cap, reserve), (reserve, cap), (ranks[0], ranks[1])):
            one, other = str(uuid4()), str(uuid4())
            done = await execute(first, one)
            assert done.effect is Effect.DONE, done
            assert "stands already" in (await execute(second, other)).reason
            await levers[first.kind].undo(first, done, idempotency_key=one)
            after = await execute(second, other)
            assert after.effect is Effect.DONE, after
            await levers[second.kind].undo(second, after, idempotency_key=other)

    world.targets.ask(work)


@pytest.mark.prefect
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_whatever_is_rolled_everything_is_left_as_it_was(prefect_server: PrefectServer) -> None:
    targets = LeverTargets(server=prefect_server)
    targets.open()
    world = World(targets=targets)
    total = {"sequences": 0, "made": 0, "refused": 0, "waited": 0, "overlapping": 0}
    wrong: list[str] = []
    with busy(world):
        for seed in range(2, 32):
            try:
                counts = asyncio.run(change_and_take_back(world, seed))
            except AssertionError as error:
                wrong.append(str(error))
                counts = {}
            total = {key: total[key] + counts.get(key, 0) for key in total} | {"sequences": seed - 1}
            progress(f"undoing: seed {seed}, {counts or wrong[-1]}")
            record("undoing", {**total, "not_as_it_was": wrong})
    assert not wrong
