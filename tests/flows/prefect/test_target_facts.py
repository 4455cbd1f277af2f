"""Facts about targets: what tags say, strictly read, and what the real server says of runs and queues."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Crashed, Late, Pending, Running
from tests.flows.conftest import PrefectProbe

from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.target_facts import PrefectFacts, labelled, strictest
from pilotage.planner.actions.types import (
    Action,
    HoldQueue,
    LimitScope,
    NotifyOwner,
    PauseDeployment,
    ReserveSlot,
    RetryRun,
    SetLimit,
)
from pilotage.policies.types import TargetFacts
from pilotage.telemetry.errors import OrchestratorError


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


@pytest.mark.parametrize(
    ("deployment", "run", "env", "tier", "team"),
    [
        pytest.param((), (), "prod", 1, "", id="nothing said is production"),
        pytest.param(("env:staging", "tier:3", "team:a"), (), "staging", 3, "a", id="the deployment says"),
        pytest.param((), ("env:dev", "tier:3", "team:a"), "prod", 1, "", id="a run cannot loosen"),
        pytest.param(("env:dev", "tier:2"), ("env:prod", "tier:0"), "prod", 0, "", id="a run can tighten"),
        pytest.param(("env:dev", "env:staging"), (), "prod", 1, "", id="two answers are none"),
        pytest.param(("tier:2", "tier:0"), ("tier:x",), "prod", 0, "", id="the lowest tier counts"),
    ],
)
def test_tags_are_read_strictly(
    deployment: tuple[str, ...], run: tuple[str, ...], env: str, tier: int, team: str
) -> None:
    said = labelled(deployment, run)
    assert (said["env"], said["tier"], said["team"]) == (env, tier, team)
    assert said["tags"] == frozenset((*deployment, *run))


def facts(action: Action) -> TargetFacts:
    async def inside() -> TargetFacts:
        async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
            return await PrefectFacts(api).target(action)

    return asyncio.run(inside())


@pytest.mark.prefect
def test_a_runs_facts_come_from_itself_its_deployment_and_its_pool(prefect_probe: PrefectProbe) -> None:
    run_id = prefect_probe.start("nightly-close/demo", at=datetime.now(UTC) + timedelta(hours=2))
    seen = facts(RetryRun(run_id=run_id))
    assert (seen.target, seen.state_type, seen.state_name) == (f"run:{run_id}", "SCHEDULED", "Scheduled")
    assert (seen.env, seen.tier, seen.team) == ("prod", 1, "finance")
    assert seen.deployment_name == "nightly-close/demo"
    assert seen.deployment_id == prefect_probe.deployment_id("nightly-close/demo")
    assert seen.memory_mb == 128
    assert 7000 < seen.seconds_to_start <= 7200
    state = prefect_probe.run(run_id).state
    assert state is not None
    assert seen.state_id == str(state.id)
    assert datetime.now(UTC) - seen.read_at < timedelta(seconds=30)
    prefect_probe.do(lambda client: client.update_flow_run(UUID(run_id), job_variables={"memory_mb": 192}))
    assert facts(RetryRun(run_id=run_id)).memory_mb == 192


@pytest.mark.prefect
def test_what_was_logged_since_says_whether_another_attempt_would_repeat_it(
    prefect_probe: PrefectProbe,
) -> None:
    run_id = prefect_probe.start("nightly-close/demo")
    crashed: State[None] = Crashed(message="Flow run process exited with non-zero status code 1.")
    prefect_probe.move(run_id, Pending(), Running(), crashed)
    line = {
        "name": "prefect.runner",
        "level": 40,
        "timestamp": datetime.now(UTC).isoformat(),
        "flow_run_id": run_id,
    }

    async def write(client: PrefectClient, text: str) -> None:
        await client.create_logs([{**line, "message": text}])

    words = ("the connection was lost", "ModuleNotFoundError: No module named 'etl_helpers'")
    seen = []
    for text in words:
        prefect_probe.do(partial(write, text=text))
        seen.append(facts(RetryRun(run_id=run_id)).read_as)
    assert seen == ["crashed", "environment"]
    assert facts(NotifyOwner(run_id=run_id, severity="error")).read_as == ""


@pytest.mark.prefect
def test_a_run_that_is_late_is_known_by_the_state_that_it_was_in_before(prefect_probe: PrefectProbe) -> None:
    due = datetime.now(UTC) + timedelta(hours=2)
    run_id = prefect_probe.start("nightly-close/demo", at=due)
    planned = facts(RetryRun(run_id=run_id))
    assert planned.late_since_id == ""
    # as Prefect does by itself to what is overdue
    prefect_probe.do(lambda client: client.set_flow_run_state(UUID(run_id), Late(scheduled_time=due)))
    late = facts(RetryRun(run_id=run_id))
    assert (late.state_name, late.late_since_id) == ("Late", planned.state_id)
    assert late.state_id != planned.state_id


@pytest.mark.prefect
def test_what_does_not_exist_is_an_error_not_a_guess(prefect_probe: PrefectProbe) -> None:
    absent = str(uuid4())
    for action in (
        RetryRun(run_id=absent),
        PauseDeployment(deployment_id=absent, hold=timedelta(0)),
        ReserveSlot(pool="pilotage", busy_queue="high", starved_queue="none", limit=1, hold=timedelta(0)),
        ReserveSlot(pool="none", busy_queue="high", starved_queue="low", limit=1, hold=timedelta(0)),
    ):
        with pytest.raises(OrchestratorError) as caught:
            facts(action)
        assert not caught.value.transient


@pytest.mark.prefect
def test_a_deployment_and_a_queue_have_facts_too(prefect_probe: PrefectProbe) -> None:
    deployment_id = prefect_probe.deployment_id("payments/demo")
    seen = facts(PauseDeployment(deployment_id=deployment_id, hold=timedelta(hours=1)))
    assert (seen.env, seen.tier, seen.paused) == ("prod", 0, False)
    action = ReserveSlot(
        pool="pilotage", busy_queue="high", starved_queue="low", limit=1, hold=timedelta(minutes=1)
    )
    assert facts(action).target == "queue:pilotage/high"


@pytest.mark.parametrize(
    ("users", "env", "tier", "team"),
    [
        ([], "prod", 1, ""),
        ([["env:staging", "tier:3", "team:a"]], "staging", 3, "a"),
        ([["env:staging", "tier:3", "team:a"], ["env:staging", "tier:2", "team:b"]], "staging", 2, ""),
        ([["env:staging"], ["env:prod", "tier:0"]], "prod", 0, ""),
        ([["env:staging"], []], "prod", 1, ""),
        ([["env:staging"], ["env:dev"]], "prod", 1, ""),
    ],
)
def test_a_queue_is_as_strict_as_the_strictest_deployment_that_uses_it(
    users: list[list[str]], env: str, tier: int, team: str
) -> None:
    said = strictest(users)
    assert (said["env"], said["tier"], said["team"]) == (env, tier, team)


@pytest.mark.prefect
def test_what_nobody_knows_the_users_of_is_as_strict_as_can_be(prefect_probe: PrefectProbe) -> None:
    seen = facts(SetLimit(scope=LimitScope.TAG, name="database", limit=2, hold=timedelta(hours=1)))
    assert (seen.target, seen.env, seen.tier) == ("limit:tag:database", "prod", 1)


@pytest.mark.prefect
def test_a_pool_is_as_strict_as_the_strictest_deployment_that_uses_it(prefect_probe: PrefectProbe) -> None:
    # the shipped project has payments of tier 0 beside its reports
    seen = facts(HoldQueue(pool="pilotage", hold=timedelta(hours=1)))
    assert (seen.target, seen.env, seen.tier, seen.paused) == ("pool:pilotage", "prod", 0, False)
