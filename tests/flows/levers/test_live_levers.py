"""Levers on runs that a real worker runs: what a process really does about what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed, Pending, Suspended
from tests.flows.conftest import PrefectProbe
from tests.flows.levers.test_levers_on_prefect import LeverBench
from tests.flows.running_controller import eventually

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.sdk.overrides import overridable, put_down
from pilotage.planner.actions.types import (
    Action,
    AnswerRun,
    CancelTree,
    OverrideResult,
    ParameterValue,
    RaiseRetries,
    ResumeRun,
    SuspendRun,
)

pytestmark = pytest.mark.prefect

HERE = Path(__file__).parents[1]


class LeverTargets(LeverBench):
    """Deployments of the flows of `live_flows.py`, which the session's worker runs."""

    def deploy(self, name: str, *tags: str, pool: str = "pilotage") -> str:
        """The id of a deployment of the flow with this function name."""

        async def create(client: PrefectClient) -> str:
            flow_id = await client.create_flow_from_name(name.replace("_", "-"))
            made = await client.create_deployment(
                flow_id=flow_id,
                name=f"live-{uuid4().hex[:6]}",
                tags=list(tags),
                entrypoint=f"live_flows.py:{name}",
                path=str(HERE),
                work_pool_name=pool,
                pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(HERE)}}],
                parameter_openapi_schema={"type": "object", "properties": {}},
                enforce_parameter_schema=False,
            )
            return str(made)

        return self.prefect_probe.do(create)

    def begin(self, deployment_id: str, **parameters: Any) -> str:
        """The id of a new run, due now."""

        async def create(client: PrefectClient) -> str:
            run = await client.create_flow_run_from_deployment(UUID(deployment_id), parameters=parameters)
            return str(run.id)

        return self.prefect_probe.do(create)

    def until(self, run_id: str, name: str) -> None:
        """Nothing, once the run's state has this name."""
        eventually(lambda: self.state_name(run_id) == name, within=180, what=f"{run_id} {name}")

    def kept(self, action: Action, delivery: Delivery, idempotency_key: str) -> Check:
        """The check, which is the final word."""
        return self.verified(action, delivery, idempotency_key, within=180)


@pytest.fixture
def targets(prefect_probe: PrefectProbe) -> LeverTargets:
    return LeverTargets(prefect_probe)


@pytest.fixture
def idempotency_key() -> str:
    return str(uuid4())


# -- a value in the place of a result --------------------------------------------------------------------------


def test_a_task_that_cannot_compute_takes_the_value_that_was_approved(
    targets: LeverTargets, idempotency_key: str, tmp_path: Path
) -> None:
    run_id = targets.begin(targets.deploy("needs_a_price", "pilotage:overridable"), place=str(tmp_path))
    targets.until(run_id, "Failed")
    action = OverrideResult(run_id=run_id, task="price", value=999)
    assert targets.execute(action, idempotency_key, expected=str(uuid4())).effect is Effect.REFUSED
    delivery = targets.execute(action, idempotency_key, expected=targets.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    check = targets.kept(action, delivery, idempotency_key)
    assert check.judgement is Judgement.VERIFIED, check
    assert "took the value" in check.detail
    assert (tmp_path / "price").read_text() == "999"
    # the function itself was called by the first attempt only
    assert (tmp_path / "asked").read_text() == "x"
    assert targets.execute(action, idempotency_key).effect is Effect.ALREADY
    assert targets.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
    assert targets.execute(action, str(uuid4())).effect is Effect.REFUSED
    assert len(targets.with_api(lambda api: api.inputs(run_id, "pilotage-override-"))) == 1


def failed(targets: LeverTargets, *tags: str) -> str:
    """A run of a deployment with these tags that has been moved to Failed; no worker ever had it."""
    deployment_id = targets.deploy("needs_a_price", *tags)

    async def create(client: PrefectClient) -> str:
        run = await client.create_flow_run_from_deployment(UUID(deployment_id), state=Pending())
        await client.set_flow_run_state(run.id, Failed(), force=True)
        return str(run.id)

    return targets.prefect_probe.do(create)


def hold_the_pool(targets: LeverTargets, paused: bool) -> None:
    targets.with_api(lambda api: api.set_pool_paused("pilotage", paused))


@pytest.fixture
def nothing_starts(targets: LeverTargets) -> Iterator[None]:
    hold_the_pool(targets, True)
    yield
    hold_the_pool(targets, False)


@pytest.mark.usefixtures("nothing_starts")
def test_a_value_that_has_not_been_taken_is_taken_back_with_its_retry(
    targets: LeverTargets, idempotency_key: str
) -> None:
    run_id = failed(targets, "pilotage:overridable")
    action = OverrideResult(run_id=run_id, task="price", value=1)
    delivery = targets.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert targets.verify(action, delivery, idempotency_key).judgement is Judgement.PENDING
    assert targets.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert targets.with_api(lambda api: api.inputs(run_id, "pilotage-override-")) == ()
    assert targets.state_name(run_id) == "Cancelled"
    assert targets.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    # a delivery that comes late puts nothing down again
    assert targets.execute(action, idempotency_key).effect is Effect.ALREADY
    assert targets.with_api(lambda api: api.inputs(run_id, "pilotage-override-")) == ()


class Dies(PrefectApi):
    """An API whose process is gone before it sets a state."""

    async def set_state_if(self, *given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt


def dies_before_the_state_is_set(targets: LeverTargets, action: Action, idempotency_key: str) -> None:
    """Delivers the action up to the state that it would set, where the process dies."""

    async def dying() -> None:
        async with Dies.from_prefect_settings(guard=None).opened() as api:
            await targets.lever(api, action).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())


@pytest.mark.usefixtures("nothing_starts")
def test_a_delivery_that_died_between_value_and_retry_is_finished(
    targets: LeverTargets, idempotency_key: str
) -> None:
    run_id = failed(targets, "pilotage:overridable")
    action = OverrideResult(run_id=run_id, task="price", value=1)

    dies_before_the_state_is_set(targets, action, idempotency_key)
    assert targets.state_name(run_id) == "Failed"
    assert targets.execute(action, idempotency_key).effect is Effect.DONE
    assert len(targets.with_api(lambda api: api.inputs(run_id, "pilotage-override-"))) == 1
    assert targets.undo(action, Delivery(effect=Effect.DONE), idempotency_key).effect is Effect.DONE


def test_a_flow_that_was_not_made_ready_is_given_no_value(
    targets: LeverTargets, idempotency_key: str
) -> None:
    run_id = failed(targets)
    delivery = targets.execute(OverrideResult(run_id=run_id, task="price", value=1), idempotency_key)
    assert "not tagged" in delivery.reason
    assert targets.state_name(run_id) == "Failed"
    assert targets.with_api(lambda api: api.inputs(run_id, "pilotage-override-")) == ()


def test_a_task_takes_the_newest_value_of_its_name_and_never_fails_of_pilotage() -> None:
    rows = [
        {"key": "pilotage-override-a", "value": json.dumps({"task": "price", "value": 1}), "created": "1"},
        {"key": "pilotage-override-b", "value": json.dumps({"task": "price", "value": None}), "created": "2"},
        {"key": "pilotage-override-c", "value": json.dumps({"task": "other", "value": 3}), "created": "3"},
    ]
    answered = []

    def ask(method: str, route: str, body: Any) -> Any:
        answered.append(body.get("key"))
        return rows if route == "/input/filter" else None

    assert put_down("price", ask=ask) == (None,)
    assert answered[1:] == ["pilotage-taken-b"]
    assert put_down("none", ask=ask) is None

    def broken(method: str, route: str, body: Any) -> Any:
        raise RuntimeError("gone")

    assert put_down("price", ask=broken) is None

    @overridable("price")
    def called(number: int) -> int:
        return number + 1

    @overridable("price")
    async def awaited(number: int) -> int:
        return number + 1

    # outside a run nobody is asked
    assert (called(1), asyncio.run(awaited(2)), called.__name__) == (2, 3, "called")


# -- answers ---------------------------------------------------------------------------------------------------


def amount(value: Any, name: str = "amount") -> ParameterValue:
    return ParameterValue(name=name, value=value)


def test_a_run_that_waits_is_answered_once_and_goes_on(
    targets: LeverTargets, idempotency_key: str, tmp_path: Path
) -> None:
    run_id = targets.begin(targets.deploy("asks"), place=str(tmp_path))
    targets.until(run_id, "Paused")
    before = targets.state_id(run_id)
    # an answer that the flow would choke on is not given, nor one to a run that has moved on
    for wrong in ((amount("many"),), (amount(1, "sum"),), (amount(True, "sure"),)):
        refused = targets.execute(AnswerRun(run_id=run_id, answers=wrong), idempotency_key)
        assert refused.effect is Effect.REFUSED, refused
    action = AnswerRun(run_id=run_id, answers=(amount(7), amount(True, "sure")))
    assert targets.execute(action, idempotency_key, expected=str(uuid4())).effect is Effect.REFUSED
    assert targets.state_id(run_id) == before

    # a death between answer and state: 409 says that the answer is there, its sender that it is ours
    dies_before_the_state_is_set(targets, action, idempotency_key)
    other = AnswerRun(run_id=run_id, answers=(amount(8),))
    assert "somebody else" in targets.execute(other, str(uuid4())).reason
    delivery = targets.execute(action, idempotency_key, expected=before)
    assert delivery.effect is Effect.DONE, delivery
    assert targets.kept(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert targets.execute(action, idempotency_key).effect is Effect.ALREADY
    targets.until(run_id, "Completed")
    assert (tmp_path / "said").read_text() == "7 True"
    assert targets.execute(other, str(uuid4())).effect is Effect.REFUSED
    assert targets.undo(action, delivery, idempotency_key).effect is Effect.REFUSED


@pytest.mark.usefixtures("nothing_starts")
def test_a_run_that_was_suspended_for_an_answer_is_resumed_with_one_only(
    targets: LeverTargets, idempotency_key: str
) -> None:
    run_id = failed(targets)
    keys = {"schema": "wait-schema", "response": "wait-response"}
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    suspended: State[None] = Suspended(timeout_seconds=600)
    suspended.state_details.run_input_keyset = keys
    targets.prefect_probe.move(run_id, suspended)
    targets.with_api(lambda api: api.send_input(run_id, keys["schema"], json.dumps(schema), sender="flow"))
    # the flow would fail for want of it
    assert "answer" in targets.execute(ResumeRun(run_id=run_id), idempotency_key).reason
    action = AnswerRun(run_id=run_id, answers=(amount(7),))
    delivery = targets.execute(action, idempotency_key, expected=targets.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    assert targets.state_name(run_id) == "Resuming"
    assert targets.with_api(lambda api: api.input(run_id, keys["response"])) == {"amount": 7}
    assert targets.verify(action, delivery, idempotency_key).judgement is Judgement.PENDING
    assert targets.execute(action, idempotency_key).effect is Effect.ALREADY
    targets.prefect_probe.move(run_id, Cancelled())
    assert targets.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED


# -- retries, suspension and trees, with a process ------------------------------------------------------------


@pytest.mark.soak
def test_a_process_uses_the_retry_that_it_was_given_while_it_ran(
    targets: LeverTargets, idempotency_key: str, tmp_path: Path
) -> None:
    run_id = targets.begin(targets.deploy("fails_once"), place=str(tmp_path))
    targets.until(run_id, "Running")
    eventually((tmp_path / "attempts").exists, within=60, what="the first attempt")
    action = RaiseRetries(run_id=run_id, retries=1, delay=timedelta(seconds=1))
    delivery = targets.execute(action, idempotency_key, expected=targets.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    (tmp_path / "go").touch()
    targets.until(run_id, "Completed")
    assert (tmp_path / "attempts").read_text() == "xx"
    assert [state.name for state in targets.prefect_probe.history(run_id)].count("AwaitingRetry") == 1
    assert targets.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert targets.execute(action, idempotency_key).effect is Effect.ALREADY
    assert targets.undo(action, delivery, idempotency_key).effect is Effect.REFUSED


def test_a_suspended_process_ends_at_its_next_task_and_its_work_is_not_done_twice(
    targets: LeverTargets, idempotency_key: str, tmp_path: Path
) -> None:
    run_id = targets.begin(targets.deploy("steps", "pilotage:suspend-safe"), place=str(tmp_path))
    done = tmp_path / "steps"
    eventually(lambda: done.exists() and "2 " in done.read_text(), within=180, what="the second step")
    action = SuspendRun(run_id=run_id, hold=timedelta(hours=1))
    delivery = targets.execute(action, idempotency_key, expected=targets.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    (tmp_path / "go").write_text("suspended")
    # the process has gone when its worker says so, not when the state says Suspended
    targets.wait_for_worker(run_id, within=120)
    check = targets.kept(action, delivery, idempotency_key)
    assert check.judgement is Judgement.VERIFIED, check
    assert done.read_text() == "0 1 2 "
    resume, other = ResumeRun(run_id=run_id), str(uuid4())
    back = targets.execute(resume, other, expected=targets.state_id(run_id))
    assert back.effect is Effect.DONE, back
    assert targets.kept(resume, back, other).judgement is Judgement.VERIFIED
    targets.until(run_id, "Completed")
    # from the top, and yet no kept step was done again
    assert done.read_text() == "0 1 2 3 4 5 6 7 8 9 "
    assert targets.execute(action, idempotency_key).effect is Effect.ALREADY
    assert targets.execute(resume, other).effect is Effect.ALREADY


@pytest.mark.soak
def test_a_tree_with_a_subflow_in_its_process_and_a_waiting_child_is_cancelled_whole(
    targets: LeverTargets, idempotency_key: str
) -> None:
    pool = f"nobody-{uuid4().hex[:6]}"
    targets.prefect_probe.do(
        lambda client: client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    )
    child = targets.deploy("below", pool=pool)
    name = targets.prefect_probe.do(lambda client: client.read_deployment(UUID(child))).name
    run_id = targets.begin(targets.deploy("above"), child=f"below/{name}")

    def whole() -> bool:
        below = targets.with_api(lambda api: api.children(run_id))
        return len(below) == 2 and any(each.state.name == "Running" for each in below)

    eventually(whole, within=180, what="a subflow that runs and a child that waits")
    action = CancelTree(run_id=run_id)
    delivery = targets.execute(action, idempotency_key, expected=targets.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    check = targets.kept(action, delivery, idempotency_key)
    assert check.judgement is Judgement.VERIFIED, check
    below = targets.with_api(lambda api: api.children(run_id))
    assert targets.state_name(run_id) == "Cancelled"
    assert {each.state.name for each in below} <= {"Cancelled", "Crashed"}
    assert targets.execute(action, idempotency_key).effect is Effect.ALREADY
