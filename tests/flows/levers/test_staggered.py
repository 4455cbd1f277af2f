"""Many waiting runs at once, on the fake server: waves, catching up, a crash half-way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import LeverBench

from pilotage.flows.execution.receipts import Effect, Judgement, Lever
from pilotage.flows.levers import staggered
from pilotage.flows.levers.catch_up import CatchUpLever
from pilotage.flows.levers.idempotency import ChangeRecords
from pilotage.flows.levers.queue_pause import TemporaryQueuePause
from pilotage.flows.levers.spread_runs import SpreadLever
from pilotage.flows.levers.staggered import StaggeredRelease, free_slots, superseded
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import Action, CatchUp, SpreadRuns

POOL = "crowded"
MINUTE = timedelta(minutes=1)
SETTLE = timedelta(milliseconds=50)


class Unserved(LeverBench):
    """Nobody takes runs of its pool, so none has to be waited for."""

    def lever(self, api: PrefectApi, action: Action) -> Lever:
        match action:
            case SpreadRuns():
                return SpreadLever(api, settle=SETTLE)
            case CatchUp():
                return CatchUpLever(api, settle=SETTLE)
            case _:
                return super().lever(api, action)


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


@pytest.fixture(scope="module")
def backlogged_pool(prefect_probe: PrefectProbe) -> str:
    """A pool that no worker serves."""
    prefect_probe.server.embedded.create_pool(POOL, queues=("default",))
    return POOL


@pytest.fixture
def bench(prefect_probe: PrefectProbe, backlogged_pool: str) -> LeverBench:
    return Unserved(prefect_probe)


def deployment(bench: LeverBench) -> str:
    """The id of a new deployment in the pool."""

    async def create(client: Any) -> str:
        flow_id = await client.create_flow_from_name(f"crowd-{uuid4().hex[:6]}")
        made = await client.create_deployment(
            flow_id=flow_id, name="demo", work_pool_name=POOL, entrypoint="none.py:none"
        )
        return str(made)

    return bench.prefect_probe.do(create)


def backlog(bench: LeverBench, deployment_id: str, many: int, *, first: datetime | None = None) -> list[str]:
    """The ids of so many runs, a minute apart, the newest due now; oldest first."""
    newest = first or datetime.now(UTC)

    async def work(api: PrefectApi) -> list[str]:
        made = []
        for number in range(many):
            due = newest - (many - 1 - number) * MINUTE
            state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
            made.append((await api.create_run_of(deployment_id, {"state": state})).id)
        return made

    return bench.with_api(work)


def starts(bench: LeverBench, runs: list[str]) -> list[datetime | None]:
    return [bench.prefect_probe.run(run_id).next_scheduled_start_time for run_id in runs]


def dies_while_executing(
    bench: LeverBench, dies: type[PrefectApi], action: Action, idempotency_key: str
) -> None:
    """Begin to execute the action with an API of this kind, and die of it."""

    async def dying() -> None:
        async with dies.from_prefect_settings(guard=None).opened() as api:
            await bench.lever(api, action).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())


def queue_is_paused(bench: LeverBench) -> bool:
    return bench.with_api(lambda api: api.queues(POOL))[0].paused


def test_a_crowd_is_spread_in_waves_once_and_taken_back_once(bench: LeverBench, idempotency_key: str) -> None:
    deployment_id = deployment(bench)
    runs = backlog(bench, deployment_id, 5)
    before = starts(bench, runs)
    first = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    action = SpreadRuns(deployment_id=deployment_id, first=first, wave=2, every=MINUTE)
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert delivery.after["moved"] == 5
    in_waves = [first, first, first + MINUTE, first + MINUTE, first + 2 * MINUTE]
    assert starts(bench, runs) == in_waves
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert starts(bench, runs) == in_waves
    assert not queue_is_paused(bench)
    assert bench.with_api(lambda api: ChangeRecords(api).of("hold")) == {}
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert starts(bench, runs) == before
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert starts(bench, runs) == before
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED


def test_waves_that_were_approved_late_begin_when_they_are_carried_out(
    bench: LeverBench, idempotency_key: str
) -> None:
    deployment_id = deployment(bench)
    runs = backlog(bench, deployment_id, 4)
    first = datetime.now(UTC) - timedelta(hours=3)
    action = SpreadRuns(deployment_id=deployment_id, first=first, wave=2, every=MINUTE)

    before = datetime.now(UTC)
    delivery = bench.execute(action, idempotency_key)
    assert delivery.after["moved"] == 4, delivery
    now, begun, *others = sorted(start for start in starts(bench, runs) if start)
    assert before <= now == begun <= datetime.now(UTC)
    assert others == [now + MINUTE, now + MINUTE]
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY


def test_of_two_pilots_at_one_queue_the_last_lets_it_go_and_neither_a_persons(bench: LeverBench) -> None:
    one, other = str(uuid4()), str(uuid4())

    async def work(api: PrefectApi) -> None:
        holds = TemporaryQueuePause(api)

        async def paused() -> bool:
            return (await api.queues(POOL))[0].paused

        # the other's hold is not taken for a person's, so each is sure of the queue for as long as it needs it
        assert [await holds.hold(POOL, "default", key) for key in (one, other)] == [True, True]
        await holds.release(one)
        assert await paused()
        assert await holds.stand([other])
        await api.set_queue_paused(POOL, "default", False)
        assert not await holds.stand([other])
        assert await paused()
        # a hold that is taken again after its end was begun is a whole one
        await holds.hold(POOL, "default", one)
        await ChangeRecords(api).write("hold", one, {"pool": POOL, "queue": "default", "ending": True})
        await holds.hold(POOL, "default", one)
        await holds.release(other)
        assert await paused()
        await holds.release(one)
        assert not await paused()
        await api.set_queue_paused(POOL, "default", True)
        assert not await holds.hold(POOL, "default", one)
        await holds.release(one)
        assert await paused()
        await api.set_queue_paused(POOL, "default", False)

    bench.with_api(work)


def test_after_an_outage_the_newest_run_and_the_superseded_do_not(
    bench: LeverBench, idempotency_key: str
) -> None:
    deployment_id = deployment(bench)
    runs = backlog(bench, deployment_id, 5)
    (future,) = backlog(bench, deployment_id, 1, first=datetime.now(UTC) + timedelta(hours=3))
    first = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    action = CatchUp(deployment_id=deployment_id, keep=2, first=first, wave=1, every=MINUTE)
    delivery = bench.execute(action, idempotency_key)
    assert (delivery.after["cancelled"], delivery.after["moved"]) == (3, 2), delivery
    assert [bench.state_name(run_id) for run_id in runs] == ["Cancelled"] * 3 + ["Scheduled"] * 2
    assert starts(bench, runs)[3:] == [first, first + MINUTE]
    assert bench.state_name(future) == "Scheduled"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY


@pytest.mark.parametrize("after", [1], ids=["before moving"])
def test_a_crowd_whose_pilot_died_half_way_is_finished_by_repeating(
    bench: LeverBench, idempotency_key: str, after: int
) -> None:
    deployment_id = deployment(bench)
    runs = backlog(bench, deployment_id, 6)
    first = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    action = CatchUp(deployment_id=deployment_id, keep=3, first=first, wave=2, every=MINUTE)

    class Dies(PrefectApi):
        written = 0

        async def set_states_if(self, *given: Any, **named: Any) -> Any:
            if self.written == after:
                raise KeyboardInterrupt
            self.written += 1
            return await super().set_states_if(*given, **named)

        async def set_queue_paused(self, pool: str, queue: str, paused: bool) -> None:
            if not paused:
                raise KeyboardInterrupt  # the dead release nothing
            await super().set_queue_paused(pool, queue, paused)

    dies_while_executing(bench, Dies, action, idempotency_key)
    assert queue_is_paused(bench)
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert [bench.state_name(run_id) for run_id in runs] == ["Cancelled"] * 3 + ["Scheduled"] * 3
    assert starts(bench, runs)[3:] == [first, first, first + MINUTE]
    for run_id in runs:
        # Prefect itself makes an overdue run Late when it comes to it
        names = [state.name for state in bench.prefect_probe.history(run_id) if state.name != "Late"]
        assert len(names) == 2, names
    assert not queue_is_paused(bench)
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED


def test_a_queue_with_a_crowd_is_calmed_before_it_is_held_and_gets_its_limit_back(
    bench: LeverBench, idempotency_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staggered, "RUSH", 4)
    deployment_id = deployment(bench)
    runs = backlog(bench, deployment_id, 4)
    first = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    action = SpreadRuns(deployment_id=deployment_id, first=first, wave=2, every=MINUTE)
    bench.with_api(lambda api: api.set_queue_limit(POOL, "default", 7))
    seen: list[tuple[int | None, bool]] = []

    class Dies(PrefectApi):
        async def set_queue_paused(self, pool: str, queue: str, paused: bool) -> None:
            (now,) = await self.queues(POOL)
            seen.append((now.limit, paused))
            raise KeyboardInterrupt

        async def set_queue_limit(self, pool: str, queue: str, limit: int | None) -> None:
            if limit != 1:
                raise KeyboardInterrupt  # the dead restore nothing
            await super().set_queue_limit(pool, queue, limit)

    dies_while_executing(bench, Dies, action, idempotency_key)
    assert seen == [(1, True)]
    assert bench.with_api(lambda api: api.queues(POOL))[0].limit == 1
    delivery = bench.execute(action, idempotency_key)
    assert delivery.after["moved"] == 4, delivery
    assert starts(bench, runs) == [first, first, first + MINUTE, first + MINUTE]
    (queue,) = bench.with_api(lambda api: api.queues(POOL))
    assert (queue.limit, queue.paused) == (7, False)
    assert bench.with_api(lambda api: ChangeRecords(api).of("hold")) == {}
    bench.with_api(lambda api: api.set_queue_limit(POOL, "default", None))


def test_a_calmed_queue_that_somebody_pauses_stays_paused(bench: LeverBench) -> None:
    key = str(uuid4())

    async def work(api: PrefectApi) -> None:
        holds = TemporaryQueuePause(api)
        assert await holds.throttle(POOL, "default", key)
        await api.set_queue_paused(POOL, "default", True)
        assert not await holds.hold(POOL, "default", key)
        assert not await holds.throttle(POOL, "default", str(uuid4()))
        await holds.release_all()
        (queue,) = await api.queues(POOL)
        assert (queue.limit, queue.paused) == (None, True)
        await api.set_queue_paused(POOL, "default", False)

    bench.with_api(work)


def test_where_nothing_waits_nothing_is_done(bench: LeverBench, idempotency_key: str) -> None:
    deployment_id = deployment(bench)
    backlog(bench, deployment_id, 1, first=datetime.now(UTC) + timedelta(hours=3))
    action = SpreadRuns(deployment_id=deployment_id, first=datetime.now(UTC), wave=1, every=MINUTE)
    assert bench.execute(action, idempotency_key).effect is Effect.REFUSED


def test_waves_fill_up_and_the_newest_are_kept() -> None:
    first = datetime(2027, 1, 1, tzinfo=UTC)
    wanted = StaggeredRelease(first=first, wave=2, every=MINUTE)
    assert free_slots(wanted, 3, ()) == [first, first, first + MINUTE]
    assert free_slots(wanted, 2, (first, first, first)) == [first + MINUTE, first + MINUTE]
    runs: list[Any] = ["oldest", "older", "newest"]
    assert superseded(runs, None) == (runs, [])
    assert superseded(runs, 1) == (runs[2:], runs[:2])
    assert superseded(runs, 2, 1) == (runs[2:], runs[:2])
    assert superseded(runs, 9) == (runs, [])
