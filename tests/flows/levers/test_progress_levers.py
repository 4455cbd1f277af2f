"""Levers on runs that are under way or in trouble, on the fake server: retries, trees, remediations, directives,
suspension. Runs are moved through their states by hand wherever a process is not the point.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.states import Completed, Failed, Pending, Running
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_bench import FAR, LeverBench

from pilotage.flows import steered
from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.flows.levers.suspend_run import SuspendLever
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.sdk.directives import Steering
from pilotage.planner.actions.types import (
    CancelTree,
    Directive,
    LaunchRemediation,
    RaiseRetries,
    ResumeRun,
    SendDirective,
    SuspendRun,
)


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


HOUR = timedelta(hours=1)


def waiting(bench: LeverBench, name: str = "push-ledger/demo") -> str:
    return bench.prefect_probe.start(name, at=(datetime.now(UTC) + FAR).replace(microsecond=0))


def running(bench: LeverBench, name: str = "push-ledger/demo") -> str:
    """A run that is Running by its state; there is no process."""
    run_id = waiting(bench, name)
    bench.prefect_probe.move(run_id, Pending(), Running())
    return run_id


def tagged(prefect_probe: PrefectProbe, *tags: str, schema: dict[str, Any] | None = None) -> str:
    """The id of a new deployment with these tags, in a queue that nothing is started from."""

    async def create(client: Any) -> str:
        flow_id = await client.create_flow_from_name(f"of-a-test-{uuid4().hex[:6]}")
        made = await client.create_deployment(
            flow_id=flow_id,
            name="demo",
            tags=list(tags),
            entrypoint="none.py:none",
            parameter_openapi_schema=schema or {"type": "object", "properties": {}},
        )
        return str(made)

    return prefect_probe.do(create)


def run_of(prefect_probe: PrefectProbe, deployment_id: str) -> str:
    """The id of a new run of the deployment, Running by its state."""

    async def create(client: Any) -> str:
        run = await client.create_flow_run_from_deployment(UUID(deployment_id), state=Pending())
        await client.set_flow_run_state(run.id, Running(), force=True)
        return str(run.id)

    return prefect_probe.do(create)


# -- retries ---------------------------------------------------------------------------------------------------


def test_retries_of_a_running_run_are_raised_once_used_and_lowered_again(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = running(bench)
    before = bench.prefect_probe.run(run_id).empirical_policy
    action = RaiseRetries(run_id=run_id, retries=2, delay=timedelta(seconds=90))
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    policy = bench.prefect_probe.run(run_id).empirical_policy
    assert (policy.retries, policy.retry_delay) == (2, 90)
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.prefect_probe.run(run_id).empirical_policy == before
    bench.prefect_probe.move(run_id, Completed())


def test_a_run_that_fails_uses_the_retries_it_was_given(bench: LeverBench, idempotency_key: str) -> None:
    run_id = running(bench)
    action = RaiseRetries(run_id=run_id, retries=1, delay=HOUR)
    delivery = bench.execute(action, idempotency_key)
    bench.prefect_probe.do(lambda client: client.set_flow_run_state(UUID(run_id), Failed(message="once")))
    assert bench.state_name(run_id) == "AwaitingRetry"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    bench.prefect_probe.move(run_id, Completed())


@pytest.mark.parametrize("state", [Pending(), Failed(), Completed()], ids=lambda state: state.type.value)
def test_only_a_running_run_is_given_retries(bench: LeverBench, idempotency_key: str, state: Any) -> None:
    run_id = waiting(bench)
    bench.prefect_probe.move(run_id, state)
    assert bench.execute(RaiseRetries(run_id=run_id, retries=3), idempotency_key).effect is Effect.REFUSED
    assert not bench.prefect_probe.run(run_id).empirical_policy.retries


def test_a_run_that_was_touched_since_the_proposal_keeps_its_retries(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = running(bench)
    delivery = bench.execute(RaiseRetries(run_id=run_id, retries=3), idempotency_key, expected=str(uuid4()))
    assert delivery.effect is Effect.REFUSED
    bench.prefect_probe.move(run_id, Completed())


# -- trees -----------------------------------------------------------------------------------------------------


def grow(bench: LeverBench, parent: str, name: str = "push-ledger/demo") -> str:
    """A waiting run below another, as `run_deployment` inside a flow makes one."""
    link = {"flow_run_id": parent, "task_key": "t", "dynamic_key": str(uuid4())}
    deployment_id = bench.prefect_probe.deployment_id(name)
    due = (datetime.now(UTC) + FAR).isoformat()

    async def work(api: PrefectApi) -> str:
        task = await api.create_task_run({**link, "state": {"type": "RUNNING", "name": "Running"}})
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        child = await api.create_run_of(deployment_id, {"parent_task_run_id": task, "state": state})
        return child.id

    return bench.with_api(work)


def test_a_whole_tree_is_cancelled_from_below_and_what_waited_is_restored(
    bench: LeverBench, idempotency_key: str
) -> None:
    root = waiting(bench)
    child, other = grow(bench, root), grow(bench, root)
    grandchild = grow(bench, child)
    # a child that ended may have left something behind
    bench.prefect_probe.move(other, Completed())
    orphan = grow(bench, other)
    live = (root, child, grandchild, orphan)
    action = CancelTree(run_id=root)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(root))
    assert delivery.effect is Effect.DONE, delivery
    assert set(delivery.after["results"]) == set(live)
    ended = {run_id: bench.prefect_probe.history(run_id)[-1].timestamp for run_id in live}
    assert ended[grandchild] < ended[child] < ended[root]
    assert ended[orphan] < ended[root]
    check = bench.verify(action, delivery, idempotency_key)
    assert check.judgement is Judgement.VERIFIED, check
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert {bench.state_name(run_id) for run_id in live} == {"Scheduled"}
    assert bench.state_name(other) == "Completed"
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert {bench.state_name(run_id) for run_id in live} == {"Scheduled"}


def test_a_tree_whose_cancelling_process_died_is_finished_by_repeating_it(
    bench: LeverBench, idempotency_key: str
) -> None:
    root = waiting(bench)
    live = (root, grow(bench, root), grow(bench, root))
    action = CancelTree(run_id=root)

    class Dies(PrefectApi):
        async def set_state_if(self, *given: Any, **named: Any) -> Any:
            await super().set_state_if(*given, **named)
            raise KeyboardInterrupt

    async def dying() -> None:
        async with Dies.from_prefect_settings(guard=None).opened() as api:
            await bench.lever(api, action).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())
    assert sorted(bench.state_name(run_id) for run_id in live) == ["Cancelled", "Scheduled", "Scheduled"]
    delivery = bench.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert all(
        [state.name for state in bench.prefect_probe.history(run_id)].count("Cancelled") == 1
        for run_id in live
    )


def test_a_tree_in_which_nothing_is_left_is_not_cancelled(bench: LeverBench, idempotency_key: str) -> None:
    run_id = bench.failed_run()
    assert bench.execute(CancelTree(run_id=run_id), idempotency_key).effect is Effect.REFUSED
    other = waiting(bench)
    assert (
        bench.execute(CancelTree(run_id=other), idempotency_key, expected=str(uuid4())).effect
        is Effect.REFUSED
    )
    assert bench.state_name(other) == "Scheduled"


# -- remediation -----------------------------------------------------------------------------------------------


def test_a_remediation_stands_below_the_run_that_it_is_to_help(
    bench: LeverBench, idempotency_key: str
) -> None:
    schema = {"type": "object", "properties": {"cause_run_id": {"type": "string"}}}
    remedy = tagged(bench.prefect_probe, "pilotage:remediation", schema=schema)
    run_id = bench.failed_run()
    action = LaunchRemediation(run_id=run_id, deployment_id=remedy)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    (child,) = bench.with_api(lambda api: api.children(run_id))
    assert child.id == delivery.after["run_id"]
    assert child.parameters == {"cause_run_id": run_id}
    assert {"remediation", f"cause:{run_id}"} <= set(child.tags)
    assert bench.state_name(run_id) == "Failed"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.PENDING
    again = bench.execute(action, idempotency_key)
    assert (again.effect, again.after["run_id"]) == (Effect.ALREADY, child.id)
    assert len(bench.with_api(lambda api: api.children(run_id))) == 1
    bench.prefect_probe.move(child.id, Running(), Completed())
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
    # another attempt is another proposal with another mark, and so another run
    assert bench.execute(action, str(uuid4())).effect is Effect.DONE
    assert len(bench.with_api(lambda api: api.children(run_id))) == 2


def test_a_remediation_that_has_not_begun_is_taken_back(bench: LeverBench, idempotency_key: str) -> None:
    remedy, run_id = tagged(bench.prefect_probe, "pilotage:remediation"), bench.failed_run()
    action = LaunchRemediation(run_id=run_id, deployment_id=remedy)
    delivery = bench.execute(action, idempotency_key)
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY


def test_no_deployment_is_started_that_its_owner_did_not_offer(
    bench: LeverBench, idempotency_key: str
) -> None:
    run_id = bench.failed_run()
    action = LaunchRemediation(run_id=run_id, deployment_id=tagged(bench.prefect_probe))
    assert "not tagged" in bench.execute(action, idempotency_key).reason
    healthy = running(bench)
    remedy = tagged(bench.prefect_probe, "pilotage:remediation")
    action = LaunchRemediation(run_id=healthy, deployment_id=remedy)
    assert bench.execute(action, idempotency_key).effect is Effect.REFUSED
    bench.prefect_probe.move(healthy, Completed())
    moved = LaunchRemediation(run_id=run_id, deployment_id=remedy)
    assert bench.execute(moved, idempotency_key, expected=str(uuid4())).effect is Effect.REFUSED
    assert bench.with_api(lambda api: api.children(run_id)) == ()


# -- directives ------------------------------------------------------------------------------------------------


def test_a_directive_is_sent_once_and_taken_back_once(bench: LeverBench, idempotency_key: str) -> None:
    run_id = running(bench)
    action = SendDirective(run_id=run_id, directive=Directive.SLOW_DOWN)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.PENDING
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    sent = bench.with_api(lambda api: api.inputs(run_id, "pilotage-directive-"))
    assert sorted(each.value for each in sent) == ['{"value": "carry_on"}', '{"value": "slow_down"}']
    assert bench.execute(action, str(uuid4()), expected=str(uuid4())).effect is Effect.REFUSED
    bench.prefect_probe.move(run_id, Completed())
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED
    assert bench.execute(action, str(uuid4())).effect is Effect.REFUSED


def broken(*_: Any) -> Any:
    raise RuntimeError("the server is gone")


def nonsense(method: str, route: str, body: Any) -> Any:
    return [{"key": "pilotage-directive-x", "value": "no JSON"}]


@pytest.mark.parametrize("ask", [None, broken, nonsense], ids=["outside Prefect", "server gone", "nonsense"])
def test_a_flow_never_fails_of_being_steered(ask: Callable[..., Any] | None) -> None:
    with Steering(ask=ask) as pilot:
        assert pilot.heard() == ()
        assert asyncio.run(pilot.aheard()) == ()
        assert pilot.latest == ""


def test_a_directive_is_heard_once_and_in_order_and_a_server_that_is_gone_is_not_asked_again() -> None:
    rows = [
        {"key": "pilotage-directive-b", "value": '{"value": "drain"}', "created": "2"},
        {"key": "pilotage-directive-a", "value": '{"value": "slow_down"}', "created": "1"},
    ]
    asked: list[tuple[str, Any]] = []

    def ask(method: str, route: str, body: Any) -> Any:
        asked.append((route, body))
        if len(asked) > 4:
            raise RuntimeError("gone")
        return rows if route == "/input/filter" else None

    pilot = Steering(every=timedelta(0), ask=ask)
    assert pilot.heard() == ("slow_down", "drain")
    assert [body["key"] for route, body in asked if route == "/input"] == [
        "pilotage-heard-a",
        "pilotage-heard-b",
    ]
    assert pilot.heard() == ()
    assert pilot.latest == "drain"
    assert pilot.heard() == ()
    calls = len(asked)
    assert pilot.heard() == ()
    assert len(asked) == calls


def test_listening_costs_no_heavy_import() -> None:
    code = "import sys\nfrom pilotage.flows import steered\nprint(' '.join({m.split('.')[0] for m in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"prefect", "httpx", "pydantic", "sqlalchemy", "duckdb"} & set(ran.stdout.split())
    assert callable(steered)


# -- suspension ------------------------------------------------------------------------------------------------


def test_a_run_is_suspended_once_and_resumed_once(bench: LeverBench, idempotency_key: str) -> None:
    run_id = run_of(bench.prefect_probe, tagged(bench.prefect_probe, "pilotage:suspend-safe"))
    action = SuspendRun(run_id=run_id, hold=HOUR)
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    assert bench.state_name(run_id) == "Suspended"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert len(bench.prefect_probe.history(run_id)) == 3
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.DONE
    assert bench.state_name(run_id) == "Resuming"
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.ALREADY
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.state_name(run_id) == "Resuming"
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.FAILED


def test_a_suspended_run_is_resumed_and_seen_to_run(bench: LeverBench, idempotency_key: str) -> None:
    run_id = run_of(bench.prefect_probe, tagged(bench.prefect_probe, "pilotage:suspend-safe"))
    bench.execute(SuspendRun(run_id=run_id, hold=HOUR), str(uuid4()))
    action = ResumeRun(run_id=run_id)
    assert bench.execute(action, idempotency_key, expected=str(uuid4())).effect is Effect.REFUSED
    delivery = bench.execute(action, idempotency_key, expected=bench.state_id(run_id))
    assert delivery.effect is Effect.DONE, delivery
    assert bench.execute(action, idempotency_key).effect is Effect.ALREADY
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.PENDING
    bench.prefect_probe.do(lambda client: client.set_flow_run_state(UUID(run_id), Running()))
    assert bench.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert bench.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
    assert bench.execute(action, str(uuid4())).effect is Effect.REFUSED


def test_only_what_its_owner_calls_safe_is_suspended(bench: LeverBench, idempotency_key: str) -> None:
    run_id = run_of(bench.prefect_probe, tagged(bench.prefect_probe))
    # anybody can tag a run; that says nothing of its flow
    bench.prefect_probe.do(
        lambda client: client.update_flow_run(UUID(run_id), tags=["pilotage:suspend-safe"])
    )
    assert "not tagged" in bench.execute(SuspendRun(run_id=run_id, hold=HOUR), idempotency_key).reason
    safe = run_of(bench.prefect_probe, tagged(bench.prefect_probe, "pilotage:suspend-safe"))
    action = SuspendRun(run_id=safe, hold=HOUR)
    assert bench.execute(action, idempotency_key, expected=str(uuid4())).effect is Effect.REFUSED
    bench.prefect_probe.move(safe, Completed())
    assert bench.execute(action, idempotency_key).effect is Effect.REFUSED
    assert bench.state_name(safe) == "Completed"


def test_a_suspension_holds_only_when_the_process_has_ended(bench: LeverBench, idempotency_key: str) -> None:
    run_id = run_of(bench.prefect_probe, tagged(bench.prefect_probe, "pilotage:suspend-safe"))
    action = SuspendRun(run_id=run_id, hold=HOUR)
    delivery = bench.execute(action, idempotency_key)

    async def runs_on(run: str, after: datetime) -> bool:
        return False

    check = bench.with_api(
        lambda api: SuspendLever(api, worker_has_released=runs_on).verify(
            action, delivery, idempotency_key=idempotency_key
        )
    )
    assert check.judgement is Judgement.PENDING
