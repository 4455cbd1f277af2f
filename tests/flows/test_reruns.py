"""A retry says what it will do again, on a real server and worker, and may give the run other parameters first."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.states import Failed, Pending, Running
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import FAR, LeverBench

from pilotage.flows.dev.embedded import POOL
from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.planner.actions.types import ParameterValue, RetryRun
from pilotage.telemetry.queries.retry_impact import retry_impact_of

pytestmark = pytest.mark.prefect

THREE_TASKS = """
from pathlib import Path
from prefect import flow, task

def done(what):
    with (Path({folder!r}) / what).open("a") as file:
        file.write("x")

@task(persist_result=True)
def extract():
    done("extract")
    return 7

@task
def load(rows):
    done("load")
    return rows

@task
def publish(rows, broken):
    done("publish")
    if broken:
        raise ValueError("the printer is on fire")

@flow
def three(broken: bool = True):
    publish(load(extract()), broken)
"""
SCHEMA = {"type": "object", "properties": {"broken": {"type": "boolean"}}}
TOLD = "load, publish and what follows run again; extract taken from storage"
RECOVERED_QUEUE = (ParameterValue(name="broken", value=False),)


@pytest.fixture
def three(prefect_probe: PrefectProbe, tmp_path: Path) -> str:
    """The name of a deployment of three tasks: one keeps its result, one does not, one fails while it is broken."""
    (tmp_path / "three.py").write_text(THREE_TASKS.replace("{folder!r}", repr(str(tmp_path))))
    name = f"of-{uuid4().hex[:6]}"

    async def create(client: Any) -> None:
        await client.create_deployment(
            flow_id=await client.create_flow_from_name("three"),
            name=name,
            work_pool_name=POOL,
            work_queue_name="default",
            path=str(tmp_path),
            entrypoint="three.py:three",
            parameter_openapi_schema=SCHEMA,
        )

    prefect_probe.do(create)
    return f"three/{name}"


def far_failed(bench: LeverBench, name: str) -> str:
    run_id = bench.prefect_probe.start(name, at=datetime.now(UTC) + FAR, broken=True)
    bench.prefect_probe.move(run_id, Pending(), Running(), Failed(message="it failed"))
    return run_id


def test_a_retry_with_another_parameter_does_again_what_it_said_and_no_more(
    bench: LeverBench, three: str, tmp_path: Path, idempotency_key: str
) -> None:
    run_id = bench.prefect_probe.start(three, broken=True)
    assert str(bench.prefect_probe.ended(run_id).state_type) in ("StateType.FAILED", "FAILED")
    bench.wait_for_worker(run_id)
    deadline = time.monotonic() + 60  # task runs are written after their flow run has ended
    while (told := retry_impact_of(bench.with_api(lambda api: api.task_runs_of(run_id))).words()) != TOLD:
        assert time.monotonic() < deadline, told
        time.sleep(0.3)
    action = RetryRun(run_id=run_id, changes=RECOVERED_QUEUE)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert (delivery.effect, delivery.after["tasks"]) == (Effect.DONE, TOLD)
    assert bench.verified(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    times = {what: len((tmp_path / what).read_text()) for what in ("extract", "load", "publish")}
    assert times == {"extract": 1, "load": 2, "publish": 2}
    assert bench.prefect_probe.run(run_id).parameters == {"broken": False}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("bogus", 1, "takes no parameter bogus"), ("broken", "perhaps", "would not fit")],
    ids=["unknown", "wrong type"],
)
def test_a_parameter_that_the_flow_does_not_take_is_refused_and_nothing_is_retried(
    bench: LeverBench, three: str, idempotency_key: str, name: str, value: Any, why: str
) -> None:
    run_id = far_failed(bench, three)
    action = RetryRun(run_id=run_id, changes=(ParameterValue(name=name, value=value),))
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.REFUSED
    assert why in delivery.reason
    assert bench.state_name(run_id) == "Failed"
    assert bench.prefect_probe.run(run_id).parameters == {"broken": True}


def test_a_retry_that_is_taken_back_takes_its_parameters_back(
    bench: LeverBench, three: str, idempotency_key: str
) -> None:
    run_id = far_failed(bench, three)
    action = RetryRun(run_id=run_id, delay=timedelta(hours=1), changes=RECOVERED_QUEUE)
    delivery = bench.execute(action, idempotency_key)
    assert bench.prefect_probe.run(run_id).parameters == {"broken": False}
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.prefect_probe.run(run_id).parameters == {"broken": True}
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.prefect_probe.run(run_id).parameters == {"broken": True}
    assert bench.state_name(run_id) == "Cancelled"


def test_parameters_that_a_dead_delivery_left_behind_go_back_when_the_run_has_moved_on(
    bench: LeverBench, three: str, idempotency_key: str
) -> None:
    run_id = far_failed(bench, three)
    seen = bench.state_id(run_id)
    action = RetryRun(run_id=run_id, delay=timedelta(hours=1), changes=RECOVERED_QUEUE)

    async def dies_after_the_parameters(api: Any) -> None:
        from pilotage.flows.levers.change_parameters import give

        assert await give(api, await api.run(run_id), RECOVERED_QUEUE, idempotency_key, "m") == ""

    bench.with_api(dies_after_the_parameters)
    assert bench.prefect_probe.run(run_id).parameters == {"broken": False}
    bench.prefect_probe.move(run_id, Running(), Failed(message="again"))
    assert bench.execute(action, idempotency_key, expected=seen).effect is Effect.REFUSED
    assert bench.prefect_probe.run(run_id).parameters == {"broken": True}
