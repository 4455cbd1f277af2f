"""A run in the place of another: made once, only for what pilotage cancelled itself, or for a start that was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.states import Cancelled, Completed, Pending, Running
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import LeverBench

from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.planner.actions.types import CancelRun, StartRun


@pytest.fixture
def bench(fake_probe: PrefectProbe) -> LeverBench:
    return LeverBench(fake_probe)


@pytest.fixture
def idempotency_key() -> str:
    return str(uuid4())


def waiting(bench: LeverBench) -> str:
    return bench.prefect_probe.start("push-ledger/demo", at=datetime.now(UTC) + timedelta(hours=6))


def cancelled(bench: LeverBench) -> str:
    run_id = waiting(bench)
    assert bench.execute(CancelRun(run_id=run_id), str(uuid4())).effect is Effect.DONE
    return run_id


def test_a_run_that_we_cancelled_is_made_again_once(bench: LeverBench, idempotency_key: str) -> None:
    run_id = cancelled(bench)
    action = StartRun(run_id=run_id)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    made, old = bench.prefect_probe.run(delivery.after["run_id"]), bench.prefect_probe.run(run_id)
    assert (made.deployment_id, made.parameters) == (old.deployment_id, old.parameters)
    assert f"cause:{run_id}" in made.tags
    assert bench.state_name(run_id) == "Cancelled"
    again = bench.execute(action, idempotency_key)
    assert (again.effect, again.after["run_id"]) == (Effect.ALREADY, str(made.id))
    # another proposal about the same run finds the one that stands in its place
    assert "in its place" in bench.execute(action, str(uuid4())).reason
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.PENDING
    bench.prefect_probe.move(str(made.id), Pending(), Running(), Completed())
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED


def test_what_somebody_else_cancelled_or_what_goes_on_is_not_made_again(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = waiting(bench)
    assert "only a cancelled one" in bench.execute(StartRun(run_id=run_id), idempotency_key).reason
    bench.prefect_probe.move(run_id, Cancelled(message="not wanted any more"))
    assert "somebody else" in bench.execute(StartRun(run_id=run_id), idempotency_key).reason


def test_it_is_taken_back_while_it_has_not_begun(bench: LeverBench, idempotency_key: str) -> None:
    run_id = cancelled(bench)
    action = StartRun(run_id=run_id)
    delivery = bench.execute(action, idempotency_key)
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.state_name(delivery.after["run_id"]) == "Cancelled"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED


def test_for_a_deployment_without_an_active_schedule_no_start_was_missed(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = waiting(bench)
    missed = datetime.now(UTC) - timedelta(minutes=5)
    assert (
        "no active schedule" in bench.execute(StartRun(run_id=run_id, missed=missed), idempotency_key).reason
    )
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    assert "still to come" in bench.execute(StartRun(run_id=run_id, missed=ahead), idempotency_key).reason
