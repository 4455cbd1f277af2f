"""A run that ran out of memory gets more on every type of pool: what its worker would submit has the new size."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Failed, Pending, Running
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import FAR, LeverBench

from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.planner.actions.types import ResizeRun, SizeRun

TEMPLATES = Path(__file__).with_name("pool_templates")
BEFORE: dict[str, dict[str, Any]] = {
    "kubernetes": {"memory_limit": "512Mi", "memory_request": "256Mi"},
    "ecs": {"cpu": 1024, "memory": 2048},
    "docker": {"mem_limit": "512m"},
    "cloud-run": {"memory": "512Mi"},
    "cloud-run-v2": {"memory": "512Mi"},
    "azure-container-instance": {"memory": 1.0},
    "snowpark-container-service": {"memory_limit": "1Gi", "memory_request": "1Gi"},
}
"""What the owner of a deployment wrote, in the form of the pool's type."""
WANTED = {
    "kubernetes": "768Mi",
    "ecs": 3072,
    "docker": "768m",
    "cloud-run": "768Mi",
    "cloud-run-v2": "768Mi",
    "azure-container-instance": 1.5,
    "snowpark-container-service": "1536Mi",
}
MIB = {"ecs": 3072, "azure-container-instance": 1536, "snowpark-container-service": 1536}


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


def deployed(
    probe: PrefectProbe, pool_type: str, drop: str = "", before: dict[str, Any] | None = None
) -> str:
    """The name of a deployment on a pool of this type, made from the template that the integration ships."""
    template = json.loads((TEMPLATES / f"{pool_type}.json").read_text())["base_job_template"]
    template["variables"]["properties"].pop(drop, None)
    mark, has = uuid4().hex[:6], BEFORE.get(pool_type, {}) if before is None else before

    async def create(client: Any) -> None:
        pool = WorkPoolCreate(name=f"{pool_type}-{mark}", type=pool_type, base_job_template=template)
        await client.create_work_pool(pool)
        await client.create_deployment(
            flow_id=await client.create_flow_from_name("sized"),
            name=mark,
            work_pool_name=pool.name,
            entrypoint="none.py:none",
            job_variables={k: v for k, v in has.items() if k != drop},
            parameter_openapi_schema={"type": "object", "properties": {}},
        )

    probe.do(create)
    return f"sized/{mark}"


def submitted(probe: PrefectProbe, run_id: str, pool_type: str) -> str:
    """What a worker of the type would submit, as text: the template with the run's variables in their places."""
    template = json.loads((TEMPLATES / f"{pool_type}.json").read_text())["base_job_template"]
    run = probe.run(run_id)

    async def of_deployment(client: Any) -> dict[str, Any]:
        return dict((await client.read_deployment(run.deployment_id)).job_variables)

    values = {**probe.do(of_deployment), **(run.job_variables or {})}
    text = json.dumps(template["job_configuration"])
    return re.sub(r"\{\{\s*([\w-]+)\s*\}\}", lambda m: str(values.get(m[1], m[0])), text)


@pytest.mark.parametrize("pool_type", sorted(BEFORE))
def test_a_run_without_enough_memory_is_tried_again_with_more(
    bench: LeverBench, pool_type: str, idempotency_key: str
) -> None:
    run_id = bench.prefect_probe.start(deployed(bench.prefect_probe, pool_type))
    bench.prefect_probe.move(run_id, Pending(), Running(), Failed(message="OOMKilled"))
    action = ResizeRun(run_id=run_id, memory_mb=MIB.get(pool_type, 768))
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery.reason
    assert str(WANTED[pool_type]) in submitted(bench.prefect_probe, run_id, pool_type)
    again = bench.execute(action, idempotency_key)
    assert (again.effect, again.after["memory_mb"]) == (Effect.ALREADY, delivery.after["memory_mb"])


@pytest.mark.parametrize("pool_type", sorted(BEFORE))
def test_a_waiting_run_gets_its_size_and_the_way_back(
    bench: LeverBench, pool_type: str, idempotency_key: str
) -> None:
    run_id = bench.prefect_probe.start(deployed(bench.prefect_probe, pool_type), at=datetime.now(UTC) + FAR)
    action = SizeRun(run_id=run_id, memory_mb=MIB.get(pool_type, 768))
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery.reason
    assert str(WANTED[pool_type]) in submitted(bench.prefect_probe, run_id, pool_type)
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert not bench.prefect_probe.run(run_id).job_variables


@pytest.mark.parametrize(
    ("pool_type", "before", "memory_mb", "after"),
    [
        ("ecs", {"cpu": 256, "memory": 2048}, 3072, {"cpu": 512, "memory": 3072}),
        ("cloud-run", {"cpu": "1000m", "memory": "4Gi"}, 6144, {"cpu": "2000m", "memory": "6144Mi"}),
        ("cloud-run-v2", {"cpu": "1000m", "memory": "4Gi"}, 6144, {"cpu": "2000m", "memory": "6144Mi"}),
    ],
)
def test_the_cpu_moves_with_a_size_that_needs_more_and_comes_back_with_it(
    bench: LeverBench,
    pool_type: str,
    before: dict[str, Any],
    memory_mb: int,
    after: dict[str, Any],
    idempotency_key: str,
) -> None:
    name = deployed(bench.prefect_probe, pool_type, before=before)
    run_id = bench.prefect_probe.start(name, at=datetime.now(UTC) + FAR)
    action = SizeRun(run_id=run_id, memory_mb=memory_mb)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery.reason
    assert bench.prefect_probe.run(run_id).job_variables == after
    assert delivery.after["job_variables"] == after
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert not bench.prefect_probe.run(run_id).job_variables


def test_a_pool_whose_template_lacks_the_variable_is_refused_and_nothing_changes(
    bench: LeverBench, idempotency_key: str
) -> None:
    name = deployed(bench.prefect_probe, "kubernetes", drop="memory_limit")
    run_id = bench.prefect_probe.start(name, at=datetime.now(UTC) + timedelta(hours=6))
    delivery = bench.execute(
        SizeRun(run_id=run_id, memory_mb=768), idempotency_key, expected=bench.state_id(run_id)
    )
    assert delivery.effect is Effect.REFUSED
    assert "memory_limit" in delivery.reason
    assert not bench.prefect_probe.run(run_id).job_variables
