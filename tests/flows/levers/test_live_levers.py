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
from tests.flows.aboard import eventually
from tests.flows.conftest import Floor
from tests.flows.levers.test_levers_on_prefect import Bench

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


class Yard(Bench):
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

        return self.floor.do(create)

    def begin(self, deployment_id: str, **parameters: Any) -> str:
        """The id of a new run, due now."""

        async def create(client: PrefectClient) -> str:
            run = await client.create_flow_run_from_deployment(UUID(deployment_id), parameters=parameters)
            return str(run.id)

        return self.floor.do(create)

    def until(self, run_id: str, name: str) -> None:
        """Nothing, once the run's state has this name."""
        eventually(lambda: self.state_name(run_id) == name, within=180, what=f"{run_id} {name}")

    def kept(self, action: Action, delivery: Delivery, mark: str) -> Check:
        """The check, which is the final word."""
        return self.verified(action, delivery, mark, within=180)


@pytest.fixture
def yard(floor: Floor) -> Yard:
    return Yard(floor)


@pytest.fixture
def mark() -> str:
    return str(uuid4())


# -- a value in the place of a result --------------------------------------------------------------------------


def test_a_task_that_cannot_compute_takes_the_value_that_was_approved(
    yard: Yard, mark: str, tmp_path: Path
) -> None:
    run_id = yard.begin(yard.deploy("needs_a_price", "pilotage:overridable"), place=str(tmp_path))
    yard.until(run_id, "Failed")
    action = OverrideResult(run_id=run_id, task="price", value=999)
    assert yard.execute(action, mark, expected=str(uuid4())).effect is Effect.REFUSED
    delivery = yard.execute(action, mark, expected=yard.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    check = yard.kept(action, delivery, mark)
    assert check.judgement is Judgement.VERIFIED, check
    assert "took the value" in check.detail
    assert (tmp_path / "price").read_text() == "999"
    # the function itself was called by the first attempt only
    assert (tmp_path / "asked").read_text() == "x"
    assert yard.execute(action, mark).effect is Effect.ALREADY
    assert yard.undo(action, delivery, mark).effect is Effect.REFUSED
    assert yard.execute(action, str(uuid4())).effect is Effect.REFUSED
    assert len(yard.with_api(lambda api: api.inputs(run_id, "pilotage-override-"))) == 1


def failed(yard: Yard, *tags: str) -> str:
    """A run of a deployment with these tags that has been moved to Failed; no worker ever had it."""
    deployment_id = yard.deploy("needs_a_price", *tags)

    async def create(client: PrefectClient) -> str:
        run = await client.create_flow_run_from_deployment(UUID(deployment_id), state=Pending())
        await client.set_flow_run_state(run.id, Failed(), force=True)
        return str(run.id)

    return yard.floor.do(create)


def hold_the_pool(yard: Yard, paused: bool) -> None:
    yard.with_api(lambda api: api.set_pool_paused("pilotage", paused))


@pytest.fixture
def nothing_starts(yard: Yard) -> Iterator[None]:
    hold_the_pool(yard, True)
    yield
    hold_the_pool(yard, False)


@pytest.mark.usefixtures("nothing_starts")
def test_a_value_that_has_not_been_taken_is_taken_back_with_its_retry(yard: Yard, mark: str) -> None:
    run_id = failed(yard, "pilotage:overridable")
    action = OverrideResult(run_id=run_id, task="price", value=1)
    delivery = yard.execute(action, mark)
    assert delivery.effect is Effect.DONE, delivery
    assert yard.verify(action, delivery, mark).judgement is Judgement.PENDING
    assert yard.undo(action, delivery, mark).effect is Effect.DONE
    assert yard.with_api(lambda api: api.inputs(run_id, "pilotage-override-")) == ()
    assert yard.state_name(run_id) == "Cancelled"
    assert yard.undo(action, delivery, mark).effect is Effect.ALREADY
    # a delivery that comes late puts nothing down again
    assert yard.execute(action, mark).effect is Effect.ALREADY
    assert yard.with_api(lambda api: api.inputs(run_id, "pilotage-override-")) == ()


class Dies(PrefectApi):
    """An API whose process is gone before it sets a state."""

    async def set_state_if(self, *given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt


def dies_before_the_state_is_set(yard: Yard, action: Action, mark: str) -> None:
    """Delivers the action up to the state that it would set, where the process dies."""

    async def dying() -> None:
        async with Dies.from_prefect_settings().opened() as api:
            await yard.lever(api, action).execute(action, mark=mark, expected_state_id="", message="m")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())


@pytest.mark.usefixtures("nothing_starts")
def test_a_delivery_that_died_between_value_and_retry_is_finished(yard: Yard, mark: str) -> None:
    run_id = failed(yard, "pilotage:overridable")
    action = OverrideResult(run_id=run_id, task="price", value=1)

    dies_before_the_state_is_set(yard, action, mark)
    assert yard.state_name(run_id) == "Failed"
    assert yard.execute(action, mark).effect is Effect.DONE
    assert len(yard.with_api(lambda api: api.inputs(run_id, "pilotage-override-"))) == 1
    assert yard.undo(action, Delivery(effect=Effect.DONE), mark).effect is Effect.DONE


def test_a_flow_that_was_not_made_ready_is_given_no_value(yard: Yard, mark: str) -> None:
    run_id = failed(yard)
    delivery = yard.execute(OverrideResult(run_id=run_id, task="price", value=1), mark)
    assert "not tagged" in delivery.reason
    assert yard.state_name(run_id) == "Failed"
    assert yard.with_api(lambda api: api.inputs(run_id, "pilotage-override-")) == ()


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


def test_a_run_that_waits_is_answered_once_and_goes_on(yard: Yard, mark: str, tmp_path: Path) -> None:
    run_id = yard.begin(yard.deploy("asks"), place=str(tmp_path))
    yard.until(run_id, "Paused")
    before = yard.state_id(run_id)
    # an answer that the flow would choke on is not given, nor one to a run that has moved on
    for wrong in ((amount("many"),), (amount(1, "sum"),), (amount(True, "sure"),)):
        refused = yard.execute(AnswerRun(run_id=run_id, answers=wrong), mark)
        assert refused.effect is Effect.REFUSED, refused
    action = AnswerRun(run_id=run_id, answers=(amount(7), amount(True, "sure")))
    assert yard.execute(action, mark, expected=str(uuid4())).effect is Effect.REFUSED
    assert yard.state_id(run_id) == before

    # a death between answer and state: 409 says that the answer is there, its sender that it is ours
    dies_before_the_state_is_set(yard, action, mark)
    other = AnswerRun(run_id=run_id, answers=(amount(8),))
    assert "somebody else" in yard.execute(other, str(uuid4())).reason
    delivery = yard.execute(action, mark, expected=before)
    assert delivery.effect is Effect.DONE, delivery
    assert yard.kept(action, delivery, mark).judgement is Judgement.VERIFIED
    assert yard.execute(action, mark).effect is Effect.ALREADY
    yard.until(run_id, "Completed")
    assert (tmp_path / "said").read_text() == "7 True"
    assert yard.execute(other, str(uuid4())).effect is Effect.REFUSED
    assert yard.undo(action, delivery, mark).effect is Effect.REFUSED


def test_a_run_that_was_suspended_for_an_answer_is_resumed_with_one_only(yard: Yard, mark: str) -> None:
    run_id = failed(yard)
    keys = {"schema": "wait-schema", "response": "wait-response"}
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    suspended: State[None] = Suspended(timeout_seconds=600)
    suspended.state_details.run_input_keyset = keys
    yard.floor.move(run_id, suspended)
    yard.with_api(lambda api: api.send_input(run_id, keys["schema"], json.dumps(schema), sender="flow"))
    # the flow would fail for want of it
    assert "answer" in yard.execute(ResumeRun(run_id=run_id), mark).reason
    action = AnswerRun(run_id=run_id, answers=(amount(7),))
    delivery = yard.execute(action, mark, expected=yard.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    assert yard.state_name(run_id) == "Resuming"
    assert yard.with_api(lambda api: api.input(run_id, keys["response"])) == {"amount": 7}
    assert yard.verify(action, delivery, mark).judgement is Judgement.PENDING
    assert yard.execute(action, mark).effect is Effect.ALREADY
    yard.floor.move(run_id, Cancelled())
    assert yard.verify(action, delivery, mark).judgement is Judgement.FAILED


# -- retries, suspension and trees, with a process ------------------------------------------------------------


@pytest.mark.soak
def test_a_process_uses_the_retry_that_it_was_given_while_it_ran(
    yard: Yard, mark: str, tmp_path: Path
) -> None:
    run_id = yard.begin(yard.deploy("fails_once"), place=str(tmp_path))
    yard.until(run_id, "Running")
    eventually((tmp_path / "attempts").exists, within=60, what="the first attempt")
    action = RaiseRetries(run_id=run_id, retries=1, delay=timedelta(seconds=1))
    delivery = yard.execute(action, mark, expected=yard.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    (tmp_path / "go").touch()
    yard.until(run_id, "Completed")
    assert (tmp_path / "attempts").read_text() == "xx"
    assert [state.name for state in yard.floor.history(run_id)].count("AwaitingRetry") == 1
    assert yard.verify(action, delivery, mark).judgement is Judgement.VERIFIED
    assert yard.execute(action, mark).effect is Effect.ALREADY
    assert yard.undo(action, delivery, mark).effect is Effect.REFUSED


def test_a_suspended_process_ends_at_its_next_task_and_its_work_is_not_done_twice(
    yard: Yard, mark: str, tmp_path: Path
) -> None:
    run_id = yard.begin(yard.deploy("steps", "pilotage:suspend-safe"), place=str(tmp_path))
    done = tmp_path / "steps"
    eventually(lambda: done.exists() and "2 " in done.read_text(), within=180, what="the second step")
    action = SuspendRun(run_id=run_id, hold=timedelta(hours=1))
    delivery = yard.execute(action, mark, expected=yard.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    (tmp_path / "go").write_text("suspended")
    # the process has gone when its worker says so, not when the state says Suspended
    yard.wait_for_worker(run_id, within=120)
    check = yard.kept(action, delivery, mark)
    assert check.judgement is Judgement.VERIFIED, check
    assert done.read_text() == "0 1 2 "
    resume, other = ResumeRun(run_id=run_id), str(uuid4())
    back = yard.execute(resume, other, expected=yard.state_id(run_id))
    assert back.effect is Effect.DONE, back
    assert yard.kept(resume, back, other).judgement is Judgement.VERIFIED
    yard.until(run_id, "Completed")
    # from the top, and yet no kept step was done again
    assert done.read_text() == "0 1 2 3 4 5 6 7 8 9 "
    assert yard.execute(action, mark).effect is Effect.ALREADY
    assert yard.execute(resume, other).effect is Effect.ALREADY


@pytest.mark.soak
def test_a_tree_with_a_subflow_in_its_process_and_a_waiting_child_is_cancelled_whole(
    yard: Yard, mark: str
) -> None:
    pool = f"nobody-{uuid4().hex[:6]}"
    yard.floor.do(lambda client: client.create_work_pool(WorkPoolCreate(name=pool, type="process")))
    child = yard.deploy("below", pool=pool)
    name = yard.floor.do(lambda client: client.read_deployment(UUID(child))).name
    run_id = yard.begin(yard.deploy("above"), child=f"below/{name}")

    def whole() -> bool:
        below = yard.with_api(lambda api: api.children(run_id))
        return len(below) == 2 and any(each.state.name == "Running" for each in below)

    eventually(whole, within=180, what="a subflow that runs and a child that waits")
    action = CancelTree(run_id=run_id)
    delivery = yard.execute(action, mark, expected=yard.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    check = yard.kept(action, delivery, mark)
    assert check.judgement is Judgement.VERIFIED, check
    below = yard.with_api(lambda api: api.children(run_id))
    assert yard.state_name(run_id) == "Cancelled"
    assert {each.state.name for each in below} <= {"Cancelled", "Crashed"}
    assert yard.execute(action, mark).effect is Effect.ALREADY
