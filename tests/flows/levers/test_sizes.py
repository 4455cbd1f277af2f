"""A run gets its size before it starts, on the fake server: once, verified, undone, and never below its deployment's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.states import Completed, Pending, Running
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import FAR, LeverBench

from pilotage.flows.dev.embedded import POOL
from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.planner.actions.types import SizeRun


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


OWN = 256


@pytest.fixture
def sized(prefect_probe: PrefectProbe) -> str:
    """The name of a deployment that gives its runs 256 MiB."""
    name = f"of-{uuid4().hex[:6]}"

    async def create(client: Any) -> None:
        await client.create_deployment(
            flow_id=await client.create_flow_from_name("sized"),
            name=name,
            work_pool_name=POOL,
            work_queue_name="default",
            entrypoint="none.py:none",
            job_variables={"memory_mb": OWN},
            parameter_openapi_schema={"type": "object", "properties": {}},
        )

    prefect_probe.do(create)
    return f"sized/{name}"


def waiting(bench: LeverBench, name: str, after: timedelta = FAR) -> str:
    return bench.prefect_probe.start(name, at=datetime.now(UTC) + after)


def memory(bench: LeverBench, run_id: str) -> Any:
    return (bench.prefect_probe.run(run_id).job_variables or {}).get("memory_mb")


def test_a_waiting_run_is_sized_once_and_the_size_is_taken_back(
    bench: LeverBench, sized: str, idempotency_key: str
) -> None:
    run_id = waiting(bench, sized)
    action = SizeRun(run_id=run_id, memory_mb=384)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert (delivery.effect, delivery.before, memory(bench, run_id)) == (
        Effect.DONE,
        {"memory_mb": None},
        384,
    )
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert memory(bench, run_id) is None
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    # a late repetition does not bring it back
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert memory(bench, run_id) is None
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED


def test_a_step_down_restores_the_size_before_it(bench: LeverBench, sized: str, idempotency_key: str) -> None:
    run_id = waiting(bench, sized)
    up, down = SizeRun(run_id=run_id, memory_mb=576), SizeRun(run_id=run_id, memory_mb=384)
    bench.execute(up, str(uuid4()))
    delivery = bench.execute(down, idempotency_key)
    assert (delivery.before, memory(bench, run_id)) == ({"memory_mb": 576}, 384)
    assert bench.undo(down, delivery, idempotency_key).effect is Effect.DONE
    assert memory(bench, run_id) == 576


@pytest.mark.parametrize(
    ("size", "after", "why"),
    [(OWN - 16, FAR, "nothing goes below"), (384, timedelta(seconds=5), "about to start")],
    ids=["below its deployment's", "about to start"],
)
def test_a_size_is_refused_where_it_would_harm_or_come_too_late(
    bench: LeverBench, sized: str, idempotency_key: str, size: int, after: timedelta, why: str
) -> None:
    run_id = waiting(bench, sized, after)
    delivery = bench.execute(SizeRun(run_id=run_id, memory_mb=size), idempotency_key)
    assert delivery.effect is Effect.REFUSED
    assert why in delivery.reason


def test_a_run_that_has_moved_on_keeps_its_size(bench: LeverBench, sized: str, idempotency_key: str) -> None:
    run_id = waiting(bench, sized)
    seen = bench.state_id(run_id)
    bench.prefect_probe.move(run_id, Pending(), Running())
    assert (
        bench.execute(SizeRun(run_id=run_id, memory_mb=384), idempotency_key, expected=seen).effect
        is Effect.REFUSED
    )
    assert memory(bench, run_id) is None


def test_policy_is_told_what_the_deployment_gives_and_what_its_runs_completed_with(
    bench: LeverBench, sized: str, idempotency_key: str
) -> None:
    done, run_id = waiting(bench, sized), waiting(bench, sized)
    bench.execute(SizeRun(run_id=done, memory_mb=576), idempotency_key)
    bench.prefect_probe.move(done, Pending(), Running(), Completed())

    async def look() -> tuple[int, int, int]:
        async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
            facts = await PrefectFacts(api).target(SizeRun(run_id=run_id, memory_mb=384))
            return facts.memory_mb, facts.default_memory_mb, facts.proven_memory_mb

    assert asyncio.run(look()) == (OWN, OWN, 576)
