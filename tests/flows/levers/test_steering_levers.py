"""The further levers on the fake server: each executes, verifies, undoes, repeats without a second effect, and
leaves a target alone that has moved on. No process is needed: runs are moved through their states by hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitCreate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.states import Completed, Pending, Running
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import FAR, LeverBench

from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.flows.levers import queue_pause
from pilotage.flows.levers.change_parameters import why_not_take
from pilotage.flows.levers.move_run import MoveLever
from pilotage.flows.levers.queue_pause import TemporaryQueuePause
from pilotage.flows.levers.set_priority import ranks_after
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import (
    Action,
    ChangeParameters,
    HoldQueue,
    LimitScope,
    MoveRun,
    ParameterValue,
    ReleaseQueue,
    ReserveSlot,
    SetLimit,
    SetPriority,
)
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


HOUR = timedelta(hours=1)
POOL = "steered"


@pytest.fixture(scope="module")
def steered_pool(prefect_probe: PrefectProbe) -> str:
    """A pool of our own that no worker serves, with the queues a, b and c."""
    prefect_probe.server.embedded.create_pool(POOL, queues=("a", "b", "c"), concurrency_limit=9)
    return POOL


@pytest.fixture
def bench(prefect_probe: PrefectProbe, steered_pool: str) -> LeverBench:
    return LeverBench(prefect_probe)


def waiting(bench: LeverBench, name: str = "push-ledger/demo", **parameters: Any) -> str:
    """A run that is due in hours."""
    return bench.prefect_probe.start(name, at=(datetime.now(UTC) + FAR).replace(microsecond=0), **parameters)


@pytest.fixture
def limit_name(prefect_probe: PrefectProbe) -> Iterator[str]:
    """A global limit of 4."""
    name = f"gate-{uuid4().hex[:6]}"
    made = GlobalConcurrencyLimitCreate(name=name, limit=4)
    prefect_probe.do(lambda client: client.create_global_concurrency_limit(made))
    yield name
    prefect_probe.do(lambda client: client.delete_global_concurrency_limit_by_name(name))


# -- the whole cycle, for every lever that leaves things as they were ------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One lever on one target, and what of the target it changes."""

    action: Action
    look: Callable[[], Any]
    expected: str = ""


def _parameters(bench: LeverBench, limit: str) -> Cycle:
    run_id = waiting(bench, bookings=3)
    changes = (ParameterValue(name="bookings", value=7), ParameterValue(name="source_url", value="http://x"))
    return Cycle(
        action=ChangeParameters(run_id=run_id, changes=changes),
        look=lambda: bench.prefect_probe.run(run_id).parameters,
        expected=bench.state_id(run_id),
    )


def _pool(bench: LeverBench) -> Any:
    return bench.with_api(lambda api: api.pool(POOL))


def _queues(bench: LeverBench) -> Any:
    return bench.with_api(lambda api: api.queues(POOL))


def _priority(bench: LeverBench, limit: str) -> Cycle:
    action = SetPriority(pool=POOL, queue="c", priority=1, hold=HOUR)
    return Cycle(action=action, look=lambda: _queues(bench))


def _pool_limit(bench: LeverBench, limit: str) -> Cycle:
    action = SetLimit(scope=LimitScope.POOL, name=POOL, limit=2, hold=HOUR)
    return Cycle(action=action, look=lambda: _pool(bench))


def _queue_limit(bench: LeverBench, limit: str) -> Cycle:
    action = SetLimit(scope=LimitScope.QUEUE, pool=POOL, name="b", limit=2, hold=HOUR)
    return Cycle(action=action, look=lambda: _queues(bench))


def _global_limit(bench: LeverBench, limit: str) -> Cycle:
    action = SetLimit(scope=LimitScope.GLOBAL, name=limit, limit=1, hold=HOUR)
    return Cycle(action=action, look=lambda: bench.with_api(lambda api: api.limit(limit)))


def _tag_limit(bench: LeverBench, limit: str) -> Cycle:
    tag = f"db-{uuid4().hex[:6]}"
    bench.prefect_probe.do(lambda client: client.create_concurrency_limit(tag=tag, concurrency_limit=5))
    action = SetLimit(scope=LimitScope.TAG, name=tag, limit=2, hold=HOUR)
    return Cycle(action=action, look=lambda: bench.with_api(lambda api: api.limit(f"tag:{tag}")))


def _hold_queue(bench: LeverBench, limit: str) -> Cycle:
    return Cycle(action=HoldQueue(pool=POOL, queue="a", hold=HOUR), look=lambda: _queues(bench))


def _hold_pool(bench: LeverBench, limit: str) -> Cycle:
    return Cycle(action=HoldQueue(pool=POOL, hold=HOUR), look=lambda: _pool(bench))


def _release(bench: LeverBench, limit: str) -> Cycle:
    bench.with_api(lambda api: api.set_queue_paused(POOL, "c", True))
    return Cycle(action=ReleaseQueue(pool=POOL, queue="c"), look=lambda: _queues(bench))


CYCLES = {
    "parameters": _parameters,
    "priority": _priority,
    "pool limit": _pool_limit,
    "queue limit": _queue_limit,
    "global limit": _global_limit,
    "tag limit": _tag_limit,
    "hold a queue": _hold_queue,
    "hold a pool": _hold_pool,
    "release a queue": _release,
}


@pytest.mark.parametrize("make", CYCLES.values(), ids=CYCLES.keys())
def test_a_lever_does_it_once_and_takes_it_back_once(
    bench: LeverBench, idempotency_key: str, limit_name: str, make: Callable[[LeverBench, str], Cycle]
) -> None:
    cycle = make(bench, limit_name)
    before = cycle.look()
    delivery = bench.execute(cycle.action, idempotency_key, expected=cycle.expected)
    assert delivery.effect is Effect.DONE, delivery
    changed = cycle.look()
    assert changed != before
    assert bench.verify(cycle.action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(cycle.action, idempotency_key).effect is Effect.ALREADY
    assert cycle.look() == changed
    assert bench.undo(cycle.action, delivery, idempotency_key).effect is Effect.DONE
    assert cycle.look() == before
    assert bench.undo(cycle.action, delivery, idempotency_key).effect is Effect.ALREADY
    # a delivery that is repeated after its undo does nothing
    assert bench.execute(cycle.action, idempotency_key).effect is Effect.ALREADY
    assert cycle.look() == before
    # and nothing claims to be in force any more
    assert bench.verify(cycle.action, delivery, idempotency_key).judgement is Judgement.FAILED
    bench.with_api(lambda api: api.set_queue_paused(POOL, "c", False))


# -- parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [Pending(), Running(), Completed()], ids=lambda state: state.type.value)
def test_a_run_that_has_begun_keeps_its_parameters(
    bench: LeverBench, idempotency_key: str, state: Any
) -> None:
    run_id = waiting(bench, bookings=3)
    bench.prefect_probe.move(run_id, state)
    action = ChangeParameters(run_id=run_id, changes=(ParameterValue(name="bookings", value=7),))
    assert bench.execute(action, idempotency_key).effect is Effect.REFUSED
    assert bench.prefect_probe.run(run_id).parameters["bookings"] == 3


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("bookings", "many", "bookings would not fit"), ("nonsense", 1, "takes no parameter nonsense")],
    ids=["a wrong type", "an unknown name"],
)
def test_what_prefect_would_swallow_is_refused(
    bench: LeverBench, idempotency_key: str, name: str, value: Any, why: str
) -> None:
    run_id = waiting(bench, bookings=3)
    changes = (ParameterValue(name=name, value=value),)
    delivery = bench.execute(ChangeParameters(run_id=run_id, changes=changes), idempotency_key)
    assert delivery.effect is Effect.REFUSED
    assert why in delivery.reason
    assert bench.prefect_probe.run(run_id).parameters["bookings"] == 3


def test_no_value_of_a_parameter_is_in_a_receipt(bench: LeverBench, idempotency_key: str) -> None:
    run_id = waiting(bench, source_url="http://user:hunter2@x")
    action = ChangeParameters(run_id=run_id, changes=(ParameterValue(name="source_url", value=""),))
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE
    assert "hunter2" not in repr(delivery)
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.prefect_probe.run(run_id).parameters["source_url"] == "http://user:hunter2@x"


def test_a_parameter_that_somebody_changed_since_stays(bench: LeverBench, idempotency_key: str) -> None:
    run_id = waiting(bench, bookings=3)
    action = ChangeParameters(run_id=run_id, changes=(ParameterValue(name="bookings", value=7),))
    delivery = bench.execute(action, idempotency_key)
    bench.with_api(lambda api: api.set_parameters(run_id, {"bookings": 9, "source_url": ""}))
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
    assert bench.prefect_probe.run(run_id).parameters["bookings"] == 9


def test_parameters_of_a_run_that_was_touched_since_the_proposal_stay(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = waiting(bench, bookings=3)
    action = ChangeParameters(run_id=run_id, changes=(ParameterValue(name="bookings", value=7),))
    delivery = bench.execute(action, idempotency_key, expected=str(uuid4()))
    assert delivery.effect is Effect.REFUSED
    assert "moved on" in delivery.reason


def test_a_schema_is_never_fetched_from_elsewhere() -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    assert "no valid one" in why_not_take(schema, {"x": 1}, {"x": 1})
    assert why_not_take({}, {"x": 1}, {"x": 1}) != ""


# -- move ------------------------------------------------------------------------------------------------------


def test_a_waiting_run_is_moved_to_another_queue_and_back(bench: LeverBench, idempotency_key: str) -> None:
    run_id = waiting(bench, bookings=3)
    due = bench.prefect_probe.run(run_id).next_scheduled_start_time
    action = MoveRun(run_id=run_id, queue="low")
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    new = bench.prefect_probe.run(str(delivery.after["run_id"]))
    assert (new.work_queue_name, new.next_scheduled_start_time) == ("low", due)
    assert new.parameters == bench.prefect_probe.run(run_id).parameters
    assert f"cause:{run_id}" in new.tags
    assert new.labels["pilotage.moved.from"] == run_id
    assert bench.state_name(run_id) == "Cancelled"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    again = bench.execute(action, idempotency_key)
    assert (again.effect, again.after["run_id"]) == (Effect.ALREADY, str(new.id))
    back = bench.undo(action, delivery, idempotency_key)
    assert back.effect is Effect.DONE, back
    third = bench.prefect_probe.run(str(back.after["run_id"]))
    assert (third.work_queue_name, third.next_scheduled_start_time) == ("default", due)
    assert bench.state_name(str(new.id)) == "Cancelled"
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY


def test_a_run_that_has_begun_stays_in_its_queue(bench: LeverBench, idempotency_key: str) -> None:
    run_id = waiting(bench)
    bench.prefect_probe.move(run_id, Pending())
    assert bench.execute(MoveRun(run_id=run_id, queue="low"), idempotency_key).effect is Effect.REFUSED
    assert bench.state_name(run_id) == "Pending"
    assert bench.with_api(lambda api: api.runs_with_key(idempotency_key)) == ()


@pytest.mark.parametrize("queue", ["default", "none such"])
def test_a_move_to_nowhere_is_refused(bench: LeverBench, idempotency_key: str, queue: str) -> None:
    run_id = waiting(bench)
    assert bench.execute(MoveRun(run_id=run_id, queue=queue), idempotency_key).effect is Effect.REFUSED
    assert bench.state_name(run_id) == "Scheduled"


class _DiesMoving(PrefectApi):
    """An API whose process dies before or after one of the writes of a move."""

    deadly = ""

    async def create_run_of(self, deployment_id: str, body: Any) -> Any:
        made = await super().create_run_of(deployment_id, body)
        if self.deadly == "twin made":
            raise KeyboardInterrupt
        return made

    async def set_state_if(self, run_id: str, *given: Any, **named: Any) -> Any:
        ruling = await super().set_state_if(run_id, *given, **named)
        if self.deadly == "old one cancelled":
            raise KeyboardInterrupt
        return ruling


@pytest.mark.parametrize("moment", ["twin made", "old one cancelled"])
def test_a_move_whose_process_died_is_finished_by_repeating_it(
    bench: LeverBench, idempotency_key: str, moment: str
) -> None:
    run_id = waiting(bench)
    action = MoveRun(run_id=run_id, queue="low")

    async def dying() -> None:
        async with _DiesMoving.from_prefect_settings(guard=None).opened() as api:
            api.deadly = moment
            await MoveLever(api).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert len(bench.with_api(lambda api: api.runs_with_key(idempotency_key))) == 1
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY


class _LosesTheRace(PrefectApi):
    """An API on which a worker takes the run just before it is cancelled."""

    taken: Any = None

    async def create_run_of(self, deployment_id: str, body: Any) -> Any:
        made = await super().create_run_of(deployment_id, body)
        await self.taken(self)
        return made


def test_a_run_that_gets_away_while_it_is_moved_runs_once(bench: LeverBench, idempotency_key: str) -> None:
    run_id = waiting(bench)

    async def taken(api: PrefectApi) -> None:
        await api.set_state(
            run_id, StateType.PENDING, "Pending", message="a worker", idempotency_key=str(uuid4())
        )

    async def losing() -> Any:
        async with _LosesTheRace.from_prefect_settings(guard=None).opened() as api:
            api.taken = taken
            action = MoveRun(run_id=run_id, queue="low")
            return await MoveLever(api).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )

    assert asyncio.run(losing()).effect is Effect.REFUSED
    assert bench.state_name(run_id) == "Pending"
    (twin,) = bench.with_api(lambda api: api.runs_with_key(idempotency_key))
    assert twin.state.name == "Cancelled"


# -- ranks, limits and holds -----------------------------------------------------------------------------------


def test_all_ranks_come_back_where_they_had_gaps(bench: LeverBench, idempotency_key: str) -> None:
    for queue, rank in (("a", 2), ("b", 5), ("c", 9), ("default", 12)):
        bench.with_api(lambda api, queue=queue, rank=rank: api.set_queue_priority(POOL, queue, rank))  # type: ignore[misc]
    before = _queues(bench)
    ranks = {queue.name: queue.priority for queue in before}
    action = SetPriority(pool=POOL, queue="c", priority=2, hold=HOUR)
    delivery = bench.execute(action, idempotency_key)
    now = {queue.name: queue.priority for queue in _queues(bench)}
    assert now == ranks_after(ranks, "c", 2)
    assert now["a"] == 3
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert _queues(bench) == before


def test_ranks_that_somebody_moved_since_stay(bench: LeverBench, idempotency_key: str) -> None:
    action = SetPriority(pool=POOL, queue="c", priority=1, hold=HOUR)
    delivery = bench.execute(action, idempotency_key)
    bench.with_api(lambda api: api.set_queue_priority(POOL, "b", 1))
    since = _queues(bench)
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
    assert _queues(bench) == since


@pytest.mark.parametrize(
    "action",
    [
        SetPriority(pool=POOL, queue="none", priority=1, hold=HOUR),
        SetLimit(scope=LimitScope.QUEUE, pool=POOL, name="none", limit=1, hold=HOUR),
        SetLimit(scope=LimitScope.GLOBAL, name="none", limit=1, hold=HOUR),
        SetLimit(scope=LimitScope.TAG, name="none", limit=1, hold=HOUR),
        SetLimit(scope=LimitScope.DEPLOYMENT, name=str(uuid4()), limit=1, hold=HOUR),
        SetLimit(scope=LimitScope.POOL, name=POOL, limit=9, hold=HOUR),
        ReleaseQueue(pool=POOL, queue="b"),
    ],
    ids=["rank", "queue", "global", "tag", "deployment", "as it is", "not held"],
)
def test_what_is_not_there_or_is_so_already_is_refused(
    bench: LeverBench, idempotency_key: str, action: Action
) -> None:
    assert bench.execute(action, idempotency_key).effect is Effect.REFUSED


def test_a_limit_that_somebody_set_since_stays(bench: LeverBench, idempotency_key: str) -> None:
    action = SetLimit(scope=LimitScope.POOL, name=POOL, limit=3, hold=HOUR)
    delivery = bench.execute(action, idempotency_key)
    bench.with_api(lambda api: api.set_pool_limit(POOL, 5))
    try:
        assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED
        assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
        assert _pool(bench).limit == 5
    finally:
        bench.with_api(lambda api: api.set_pool_limit(POOL, 9))


def test_a_deployments_limit_changes_and_its_future_runs_live_on(
    bench: LeverBench, idempotency_key: str
) -> None:
    async def create(client: Any) -> str:
        flow_id = await client.create_flow_from_name("limited-for-a-test")
        every = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(days=1)), active=True)
        made = await client.create_deployment(
            flow_id=flow_id,
            name=f"limited-{uuid4().hex[:6]}",
            schedules=[every],
            concurrency_limit=4,
            work_pool_name=POOL,
            entrypoint="none.py:none",
        )
        await client.request("POST", f"/deployments/{made}/schedule", json={})
        return str(made)

    deployment_id = bench.prefect_probe.do(create)
    where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    ahead = {run.id for run in bench.with_api(lambda api: api.runs(where))}
    assert ahead
    action = SetLimit(scope=LimitScope.DEPLOYMENT, name=deployment_id, limit=2, hold=HOUR)
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert {run.id for run in bench.with_api(lambda api: api.runs(where))} == ahead
    bench.prefect_probe.do(lambda client: client.delete_deployment(UUID(deployment_id)))


def test_a_hold_that_a_person_ended_is_not_ended_again(bench: LeverBench, idempotency_key: str) -> None:
    action = HoldQueue(pool=POOL, queue="b", hold=HOUR)
    delivery = bench.execute(action, idempotency_key)
    other = bench.execute(action, str(uuid4()))
    assert other.effect is Effect.REFUSED
    bench.with_api(lambda api: api.set_queue_paused(POOL, "b", False))
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED
    # also when it is asked again, as after a death before it was recorded: nothing was taken back
    for _ in range(2):
        assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert not any(queue.paused for queue in _queues(bench))


def test_a_release_that_a_hold_of_ours_lies_on_is_taken_back_after_the_hold(
    bench: LeverBench, idempotency_key: str
) -> None:
    over, release = str(uuid4()), ReleaseQueue(pool=POOL, queue="b")
    hold = HoldQueue(pool=POOL, queue="b", hold=HOUR)
    bench.with_api(lambda api: api.set_queue_paused(POOL, "b", True))
    released = bench.execute(release, idempotency_key)
    held = bench.execute(hold, over)
    assert (released.effect, held.effect) == (Effect.DONE, Effect.DONE)
    # another pilot is told whose hold it is
    assert "by pilotage p-0123456789ab" in bench.execute(hold, str(uuid4())).reason
    assert "take that back first" in bench.undo(release, released, idempotency_key).reason
    assert bench.execute(release, idempotency_key).effect is Effect.ALREADY
    assert bench.undo(hold, held, over).effect is Effect.DONE
    assert bench.undo(release, released, idempotency_key).effect is Effect.DONE
    assert {queue.name for queue in _queues(bench) if queue.paused} == {"b"}
    assert bench.undo(release, released, idempotency_key).effect is Effect.ALREADY
    bench.with_api(lambda api: api.set_queue_paused(POOL, "b", False))


# -- beside a delivery that holds the queue for some seconds ------------------------------------------------------


BESIDE_A_HOLD = (
    ReserveSlot(pool=POOL, busy_queue="a", starved_queue="b", limit=1, hold=HOUR),
    ReserveSlot(pool=POOL, busy_queue="b", starved_queue="c", limit=1, hold=HOUR),
    SetLimit(scope=LimitScope.QUEUE, pool=POOL, name="b", limit=1, hold=HOUR),
    HoldQueue(pool=POOL, queue="b", hold=HOUR),
)


@pytest.mark.parametrize("only_throttled", [False, True])
@pytest.mark.parametrize("action", BESIDE_A_HOLD, ids=lambda action: f"{action.kind}-{action.target()}")
def test_what_a_hold_of_ours_does_to_a_queue_is_not_taken_for_how_it_was_set(
    bench: LeverBench, idempotency_key: str, action: Action, only_throttled: bool
) -> None:
    before, other = _queues(bench), str(uuid4())

    async def hold(api: PrefectApi) -> bool:
        holds = TemporaryQueuePause(api)
        return await (holds.throttle if only_throttled else holds.hold)(POOL, "b", other)

    def let_go() -> None:
        time.sleep(1)
        bench.with_api(lambda api: TemporaryQueuePause(api).release(other))

    assert bench.with_api(hold)
    assert _queues(bench) != before
    with ThreadPoolExecutor(1) as aside:
        aside.submit(let_go)
        delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    bench.with_api(hold)  # which a queue that is capped or held already may not need
    with ThreadPoolExecutor(1) as aside:
        aside.submit(let_go)
        undone = bench.undo(action, delivery, idempotency_key)
    assert undone.effect is Effect.DONE, undone
    assert _queues(bench) == before


def test_a_queue_that_is_not_let_go_is_asked_for_again_later(
    bench: LeverBench, idempotency_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_pause, "PATIENCE", timedelta(seconds=1))
    before, other = _queues(bench), str(uuid4())
    bench.with_api(lambda api: TemporaryQueuePause(api).hold(POOL, "b", other))
    with pytest.raises(OrchestratorError, match="another delivery holds it") as told:
        bench.execute(BESIDE_A_HOLD[0], idempotency_key)
    assert told.value.transient
    bench.with_api(lambda api: TemporaryQueuePause(api).release(other))
    assert _queues(bench) == before
