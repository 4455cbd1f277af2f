"""Each lever on the fake server: execute, verify, undo, a repeated mark, a target that has moved on.

Runs are moved through their states by hand. What a worker does is in `test_levers_with_a_worker.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from prefect.states import Completed, Crashed, Failed, Pending, Running
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import FAR, holds_on, worker_has_released
from tests.flows.lever_bench import LeverBench as LeverBench

from pilotage.flows.execution.receipts import Delivery, Effect, Judgement
from pilotage.flows.levers import build_levers
from pilotage.flows.levers.idempotency import ChangeRecords, step_key, untouched
from pilotage.flows.levers.reschedule_run import RescheduleLever
from pilotage.flows.levers.resize_run import ResizeLever
from pilotage.flows.levers.retry_run import RELEASE_GRACE, RetryLever
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, StateView
from pilotage.planner.actions.types import (
    KINDS,
    CancelRun,
    NotifyOwner,
    RescheduleRun,
    ReserveSlot,
    ResizeRun,
    RetryRun,
    Severity,
)
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


T = TypeVar("T")


# -- retry ------------------------------------------------------------------------------------------------


def test_a_repeated_retry_has_no_second_effect(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.failed_run()
    action = RetryRun(run_id=run_id, delay=timedelta(hours=1))
    first = bench.execute(action, idempotency_key)
    states = len(bench.prefect_probe.history(run_id))
    assert (first.effect, bench.execute(action, idempotency_key).effect) == (Effect.DONE, Effect.ALREADY)
    assert len(bench.prefect_probe.history(run_id)) == states
    assert bench.state_name(run_id) == "AwaitingRetry"
    assert bench.verify(action, first, idempotency_key).judgement is Judgement.PENDING
    message = bench.prefect_probe.history(run_id)[-1].message
    assert message == "pilotage p-0123456789ab"


def test_a_retry_that_waits_is_taken_back_by_cancelling_it(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.failed_run()
    action = RetryRun(run_id=run_id, delay=timedelta(hours=1))
    delivery = bench.execute(action, idempotency_key)
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.state_name(run_id) == "Cancelled"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED
    # the retry's mark is in the history, so a late repetition does not bring it back
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.state_name(run_id) == "Cancelled"


def test_a_run_that_has_moved_on_is_not_retried(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.failed_run()
    seen = bench.state_id(run_id)
    bench.prefect_probe.move(run_id, Running(), Crashed(message="again"))
    delivery = bench.execute(RetryRun(run_id=run_id), idempotency_key, expected=seen)
    assert delivery.effect is Effect.REFUSED
    assert "moved on" in delivery.reason
    assert bench.state_name(run_id) == "Crashed"


def test_a_completed_run_is_never_retried(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.prefect_probe.start("push-ledger/demo", at=datetime.now(UTC) + FAR)
    bench.prefect_probe.move(run_id, Running(), Completed())
    delivery = bench.execute(RetryRun(run_id=run_id), idempotency_key)
    assert delivery.effect is Effect.REFUSED
    assert bench.state_name(run_id) == "Completed"


def test_a_retry_that_fails_again_is_not_verified(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.failed_run()
    action = RetryRun(run_id=run_id, delay=timedelta(hours=1))
    delivery = bench.execute(action, idempotency_key)
    bench.prefect_probe.move(run_id, Pending(), Running(), Failed(message="again"))
    check = bench.verify(action, delivery, idempotency_key)
    assert check.judgement is Judgement.FAILED
    assert "FAILED again" in check.detail


def test_a_retry_waits_until_the_worker_has_let_go(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.failed_run()

    async def work(api: PrefectApi) -> Delivery:
        lever = RetryLever(api, worker_has_released=holds_on)
        return await lever.execute(
            RetryRun(run_id=run_id), idempotency_key=idempotency_key, expected_state_id="", message="m"
        )

    with pytest.raises(OrchestratorError, match="has not reported") as caught:
        bench.with_api(work)
    assert caught.value.transient
    assert bench.state_name(run_id) == "Failed"


def test_a_run_that_no_worker_reports_is_retried_after_the_grace(
    bench: LeverBench, idempotency_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(seconds=5) < RELEASE_GRACE
    monkeypatch.setattr("pilotage.flows.levers.retry_run.RELEASE_GRACE", timedelta(0))
    run_id = bench.failed_run()

    async def work(api: PrefectApi) -> Delivery:
        lever = RetryLever(api, worker_has_released=holds_on)
        action = RetryRun(run_id=run_id, delay=timedelta(hours=1))
        return await lever.execute(action, idempotency_key=idempotency_key, expected_state_id="", message="m")

    assert bench.with_api(work).effect is Effect.DONE


# -- resize -----------------------------------------------------------------------------------------------


class _DiesAt(PrefectApi):
    """An API whose process dies at one call."""

    deadly = ""

    async def set_job_variables(self, run_id: str, variables: Any) -> None:
        if self.deadly == "before the patch":
            raise KeyboardInterrupt
        await super().set_job_variables(run_id, variables)
        if self.deadly == "after the patch":
            raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["before the patch", "after the patch"])
def test_a_resize_whose_process_died_is_finished_by_repeating_it(
    bench: LeverBench, idempotency_key: str, moment: str
) -> None:
    # no worker takes it meanwhile, so that only the lever's own steps are seen
    bench.prefect_probe.server.embedded.create_pool("unserved", queues=("default",))
    name = f"of-{uuid4().hex[:6]}"

    async def create(client: Any) -> None:
        await client.create_deployment(
            flow_id=await client.create_flow_from_name("resized"),
            name=name,
            work_pool_name="unserved",
            entrypoint="none.py:none",
        )

    bench.prefect_probe.do(create)
    run_id = bench.failed_run(f"resized/{name}")
    action = ResizeRun(run_id=run_id, memory_mb=256)

    async def dying() -> None:
        async with _DiesAt.from_prefect_settings(guard=None).opened() as api:
            assert isinstance(api, _DiesAt)
            api.deadly = moment
            lever = ResizeLever(api, worker_has_released=worker_has_released)
            await lever.execute(action, idempotency_key=idempotency_key, expected_state_id="", message="m")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())
    assert bench.state_name(run_id) == "AwaitingRetry"
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE
    assert delivery.before == {"memory_mb": None}
    marks = [str(state.state_details.transition_id) for state in bench.prefect_probe.history(run_id)]
    assert (marks.count(step_key(idempotency_key, "park")), marks.count(idempotency_key)) == (1, 1)
    assert (bench.prefect_probe.run(run_id).job_variables or {})["memory_mb"] == 256


def test_a_resize_is_refused_where_the_pool_cannot_size_its_runs(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = bench.failed_run()

    async def work(api: PrefectApi) -> Delivery:
        lever = ResizeLever(api, worker_has_released=worker_has_released)
        pool = await api.pool("pilotage")
        assert "memory_mb" in pool.variables
        plain = type(pool)(name=pool.name, limit=None, variables={})

        async def sizeless(name: str) -> Any:
            return plain

        api.pool = sizeless  # type: ignore[method-assign]
        action = ResizeRun(run_id=run_id, memory_mb=256)
        return await lever.execute(action, idempotency_key=idempotency_key, expected_state_id="", message="m")

    delivery = bench.with_api(work)
    assert delivery.effect is Effect.REFUSED
    assert "no variable 'memory_mb'" in delivery.reason
    assert bench.state_name(run_id) == "Failed"


# -- reschedule -------------------------------------------------------------------------------------------


def test_a_run_far_from_due_is_moved_and_moved_back(bench: LeverBench, idempotency_key: str) -> None:
    due = (datetime.now(UTC) + FAR).replace(microsecond=0)
    run_id = bench.prefect_probe.start("push-ledger/demo", at=due)
    action = RescheduleRun(run_id=run_id, start=due + timedelta(hours=1))
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.prefect_probe.run(run_id).next_scheduled_start_time == action.start
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.prefect_probe.run(run_id).next_scheduled_start_time == due
    assert len(bench.prefect_probe.history(run_id)) == 3


@pytest.mark.parametrize("state", [Pending(), Running(), Completed()], ids=lambda state: state.type.value)
def test_a_run_that_is_under_way_or_over_is_never_moved(
    bench: LeverBench, idempotency_key: str, state: Any
) -> None:
    run_id = bench.prefect_probe.start("push-ledger/demo", at=datetime.now(UTC) + FAR)
    bench.prefect_probe.move(run_id, state)
    delivery = bench.execute(RescheduleRun(run_id=run_id, start=datetime.now(UTC)), idempotency_key)
    assert delivery.effect is Effect.REFUSED
    assert bench.state_name(run_id) == state.name


@pytest.fixture
def quiet_queue(bench: LeverBench) -> Iterator[str]:
    """The queue `low`, limited by nobody and left unpaused."""
    yield "low"
    bench.with_api(lambda api: api.set_queue_paused("pilotage", "low", False))


def _paused(bench: LeverBench, queue: str) -> bool:
    queues = bench.with_api(lambda api: api.queues("pilotage"))
    return next(each.paused for each in queues if each.name == queue)


def test_a_due_run_is_moved_while_its_queue_is_held_and_the_queue_is_released(
    bench: LeverBench, idempotency_key: str, quiet_queue: str
) -> None:
    # far enough out for this test to get there first, near enough for the lever to hold the queue
    run_id = bench.prefect_probe.start("quick-report/demo", at=datetime.now(UTC) + timedelta(seconds=20))
    action = RescheduleRun(run_id=run_id, start=(datetime.now(UTC) + FAR).replace(microsecond=0))
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert bench.prefect_probe.run(run_id).next_scheduled_start_time == action.start
    assert not _paused(bench, quiet_queue)
    assert bench.with_api(lambda api: ChangeRecords(api).of("hold")) == {}


class _DiesHolding(PrefectApi):
    """An API whose process dies as soon as it has paused a queue."""

    async def set_queue_paused(self, pool: str, queue: str, paused: bool) -> None:
        await super().set_queue_paused(pool, queue, paused)
        if paused:
            raise KeyboardInterrupt
        raise OrchestratorError("dead processes release nothing")


@pytest.mark.parametrize("rescue", ["repeating", "starting up"])
def test_a_process_that_died_holding_a_queue_does_not_leave_it_paused(
    bench: LeverBench, idempotency_key: str, quiet_queue: str, rescue: str
) -> None:
    run_id = bench.prefect_probe.start("quick-report/demo", at=datetime.now(UTC) + timedelta(seconds=25))
    action = RescheduleRun(run_id=run_id, start=(datetime.now(UTC) + FAR).replace(microsecond=0))

    async def dying() -> None:
        async with _DiesHolding.from_prefect_settings(guard=None).opened() as api:
            await RescheduleLever(api).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())
    assert _paused(bench, quiet_queue)
    if rescue == "repeating":
        assert bench.execute(action, idempotency_key).effect is Effect.DONE
    else:
        assert bench.at_start(lambda api: RescheduleLever(api).release_all()) == 1
    assert not _paused(bench, quiet_queue)
    bench.execute(CancelRun(run_id=run_id), str(uuid4()))


# -- reserve ----------------------------------------------------------------------------------------------


def test_a_starved_run_gets_a_slot_under_a_cap_that_is_lifted_again(
    bench: LeverBench, idempotency_key: str
) -> None:
    before = bench.with_api(lambda api: api.queues("pilotage"))
    assert [queue.limit for queue in before] == [None, None, None]
    action = ReserveSlot(
        pool="pilotage", busy_queue="high", starved_queue="low", limit=1, hold=timedelta(minutes=5)
    )
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.PENDING
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    run_id = bench.prefect_probe.start("quick-report/demo", at=datetime.now(UTC) + FAR)
    bench.prefect_probe.move(run_id, Pending(), Running())
    check = bench.verify(action, delivery, idempotency_key)
    assert check.judgement is Judgement.VERIFIED
    assert run_id in check.detail
    bench.prefect_probe.move(run_id, Completed())
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.with_api(lambda api: api.queues("pilotage")) == before
    # a delivery that is repeated after its undo does not cap the queue again
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.with_api(lambda api: api.queues("pilotage")) == before


def test_a_limit_that_a_person_set_meanwhile_is_left_alone(bench: LeverBench, idempotency_key: str) -> None:
    action = ReserveSlot(
        pool="pilotage", busy_queue="high", starved_queue="low", limit=2, hold=timedelta(minutes=5)
    )
    delivery = bench.execute(action, idempotency_key)
    try:
        bench.with_api(lambda api: api.set_queue_limit("pilotage", "high", 7))
        assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED
        assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
        assert bench.with_api(lambda api: api.queues("pilotage"))[0].limit == 7
        assert bench.with_api(lambda api: api.queues("pilotage"))[0].name == "high"
    finally:
        bench.with_api(lambda api: api.set_queue_limit("pilotage", "high", None))


@pytest.mark.parametrize(
    ("busy", "starved"), [("absent", "low"), ("high", "absent"), ("low", "low")], ids=lambda name: name
)
def test_a_cap_that_makes_no_sense_is_refused(
    bench: LeverBench, idempotency_key: str, busy: str, starved: str
) -> None:
    action = ReserveSlot(
        pool="pilotage", busy_queue=busy, starved_queue=starved, limit=1, hold=timedelta(minutes=5)
    )
    assert bench.execute(action, idempotency_key).effect is Effect.REFUSED


# -- cancel -----------------------------------------------------------------------------------------------


def test_a_waiting_run_is_cancelled_and_its_schedule_restored(
    bench: LeverBench, idempotency_key: str
) -> None:
    due = (datetime.now(UTC) + FAR).replace(microsecond=0)
    run_id = bench.prefect_probe.start("push-ledger/demo", at=due)
    action = CancelRun(run_id=run_id)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.prefect_probe.history(run_id)[-1].message == "pilotage p-0123456789ab"
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.prefect_probe.run(run_id).next_scheduled_start_time == due
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.state_name(run_id) == "Scheduled"


def test_a_run_that_is_over_is_not_cancelled(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.failed_run()
    assert bench.execute(CancelRun(run_id=run_id), idempotency_key).effect is Effect.REFUSED
    assert bench.state_name(run_id) == "Failed"


def test_a_run_that_has_moved_on_is_not_cancelled(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.prefect_probe.start("push-ledger/demo", at=datetime.now(UTC) + FAR)
    seen = bench.state_id(run_id)
    bench.prefect_probe.move(run_id, Pending(), Running())
    assert bench.execute(CancelRun(run_id=run_id), idempotency_key, expected=seen).effect is Effect.REFUSED
    assert bench.state_name(run_id) == "Running"
    bench.prefect_probe.move(run_id, Completed())


# -- notify -----------------------------------------------------------------------------------------------


def test_an_owner_is_told_once_by_an_event_that_can_be_read_back(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = bench.failed_run()
    action = NotifyOwner(run_id=run_id, severity=Severity.CRITICAL)
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE
    assert bench.verified(action, delivery, idempotency_key, within=60).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED


def test_every_kind_of_action_has_a_lever(bench: LeverBench) -> None:

    async def work(api: PrefectApi) -> dict[str, str]:
        levers = build_levers(worker_has_released=worker_has_released, notifier=Notifier(api=api), api=api)
        return {kind: lever.kind for kind, lever in levers.items()}

    kinds = bench.with_api(work)
    assert set(kinds) == set(KINDS)
    assert all(kind == lever for kind, lever in kinds.items())


# -- what counts as touched -----------------------------------------------------------------------------------


def seen(number: int, name: str) -> StateView:
    at = datetime(2027, 1, 1, 12, number, tzinfo=UTC)
    return StateView(
        id=f"s{number}",
        type=StateType.SCHEDULED,
        name=name,
        message="",
        at=at,
        scheduled_for=at,
        transition_id="",
    )


@pytest.mark.parametrize(
    ("names", "read_before", "touched"),
    [
        (["Scheduled"], 1, False),
        (["Scheduled", "Late"], 2, False),
        # Prefect made it Late between the two questions
        (["Scheduled", "Late"], 1, False),
        (["Scheduled", "Scheduled"], 2, True),
        (["Scheduled", "Scheduled", "Late"], 3, True),
        (["Scheduled", "Scheduled", "Late"], 2, True),
    ],
)
def test_a_run_that_prefect_itself_calls_late_was_not_touched(
    names: list[str], read_before: int, touched: bool
) -> None:
    states = [seen(number, name) for number, name in enumerate(names)]
    run = RunView(
        id="r", name="r", state=states[-1], deployment_id="", pool="", queue="", run_count=0, next_start=None,
        started=None, ended=None, tags=(), auto_scheduled=False,
    )  # fmt: skip
    assert untouched(run, states[:read_before], "s0") is not touched
