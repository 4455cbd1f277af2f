"""The traps of steering Prefect 3.8 from outside, and for each the tests that show that nobody here falls into it.

The table is held to the tests by name. The traps that no other test goes near have theirs below, some of them with a
plain call to the server first, which shows that the trap is there.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import ValidationError
from tests.flows.execution.dying_injector import why_never
from tests.flows.lever_targets import RUNNING, LeverTargets

from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.flows.levers.cancel_run import CancelLever
from pilotage.flows.levers.cancel_tree import CancelTreeLever
from pilotage.flows.levers.change_parameters import ParametersLever
from pilotage.flows.levers.reschedule_run import SAFE_DISTANCE, RescheduleLever
from pilotage.flows.levers.retry_run import SETTLING, judge_retry
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import StateView
from pilotage.planner.actions.types import (
    CancelRun,
    ChangeParameters,
    LimitScope,
    ParameterValue,
    RescheduleRun,
    ReserveSlot,
    SetLimit,
)
from pilotage.telemetry.facts import StateType

TESTS = Path(__file__).parents[1]
NEVER = "flows/test_traps.py::test_what_is_never_sent_is_known"
MATRIX = "flows/execution/test_crashes.py::test_every_lever_is_killed_at_every_boundary"


@dataclass(frozen=True, slots=True)
class Trap:
    """What Prefect does that one would not expect, and the tests that it does no harm here."""

    says: str
    tests: tuple[str, ...]


TRAPS = (
    Trap(
        "with an SQLAlchemy or FastAPI that its metadata admits, the server makes no scheduled runs or does not start",
        ("flows/dev/test_prefect_contract.py::test_the_contract",),
    ),
    Trap(
        "new parameters replace all, are held to no schema, are taken in any state and make no event",
        (
            "flows/test_traps.py::test_parameters_that_are_not_changed_stay",
            "flows/levers/test_steering_levers.py::test_what_prefect_would_swallow_is_refused",
            "flows/levers/test_steering_levers.py::test_a_run_that_has_begun_keeps_its_parameters",
        ),
    ),
    Trap(
        "job variables of any name are taken, and only while a run is SCHEDULED",
        (
            "flows/levers/test_levers_on_prefect.py::test_a_resize_is_refused_where_the_pool_cannot_size_its_runs",
        ),
    ),
    Trap(
        "on SQLite a server that collects garbage on its event loop stands still",
        (
            "flows/dev/test_threaded_gc.py::test_a_loop_that_collects_waits_for_a_lock_that_only_it_can_release",
            "flows/dev/test_threaded_gc.py::test_a_loop_whose_garbage_is_collected_beside_it_goes_on",
        ),
    ),
    Trap(
        "on SQLite a write that reads first is answered 503 at once",
        (
            "flows/prefect/test_api_errors.py::test_a_write_that_lost_a_race_in_the_database_is_sent_again_as_often_as_it_takes",
        ),
    ),
    Trap(
        "on SQLite a server that is asked to pause the queue of a backlog stands still",
        (
            "flows/levers/test_staggered.py::test_a_queue_with_a_crowd_is_calmed_before_it_is_held_and_gets_its_limit_back",
        ),
    ),
    Trap(
        "a run cannot be moved to another queue",
        ("flows/levers/test_steering_levers.py::test_a_waiting_run_is_moved_to_another_queue_and_back",),
    ),
    Trap(
        "ranks of queues are unique: neighbours move down, and do not move back",
        (
            "flows/levers/test_steering_levers.py::test_all_ranks_come_back_where_they_had_gaps",
            "flows/levers/test_undoing.py::test_what_a_change_of_ours_stands_on_is_not_changed_again_before_it_is_back",
        ),
    ),
    Trap(
        "a deployment that is changed, limited or paused loses its future runs and what people changed in them",
        (
            "flows/levers/test_steering_levers.py::test_a_deployments_limit_changes_and_its_future_runs_live_on",
            "flows/levers/test_pausing_and_schedules.py::test_a_quarantined_deployment_has_no_runs_ahead_and_gets_them_back",
            NEVER,
        ),
    ),
    Trap(
        "Scheduled is accepted for a run that runs or is just being started, which is then executed twice",
        (
            "flows/test_traps.py::test_prefect_would_execute_twice_what_is_moved_while_it_runs",
            "flows/levers/test_levers_on_prefect.py::test_a_run_that_is_under_way_or_over_is_never_moved",
            "flows/execution/test_race.py::test_a_run_is_executed_once_whether_the_worker_or_the_pilot_gets_it",
            "flows/execution/test_race.py::test_two_hundred_runs_are_raced_for",
            "flows/levers/test_staggered_race.py::test_a_run_that_a_worker_takes_while_it_is_moved_is_never_executed_twice",
        ),
    ),
    Trap(
        "the guard of a write and the write are two transactions, and a worker asks for runs ahead of their time",
        (
            "flows/test_traps.py::test_the_guard_reaches_further_than_a_worker",
            "flows/execution/test_race.py::test_two_hundred_runs_are_raced_for",
        ),
    ),
    Trap(
        "moving a run leaves its expected start as it was",
        ("flows/test_traps.py::test_a_run_is_moved_back_to_where_it_was_not_to_where_it_was_expected",),
    ),
    Trap(
        "cancelling may be answered REJECT and be done all the same, without our message",
        ("flows/test_traps.py::test_a_cancellation_that_is_called_rejected_and_is_done_counts_as_done",),
    ),
    Trap(
        "a pending run that is cancelled can hang in Cancelling for 300 s",
        ("flows/test_traps.py::test_a_cancellation_is_waited_for_as_long_as_it_can_hang",),
    ),
    Trap(
        "a policy of retries is replaced as a whole",
        (
            "flows/levers/test_progress_levers.py::test_retries_of_a_running_run_are_raised_once_used_and_lowered_again",
            "flows/levers/test_progress_levers.py::test_a_run_that_fails_uses_the_retries_it_was_given",
        ),
    ),
    Trap(
        "a suspended flow without tasks runs on to its end and is run again from the top",
        (
            "flows/levers/test_progress_levers.py::test_only_what_its_owner_calls_safe_is_suspended",
            "flows/levers/test_progress_levers.py::test_a_suspension_holds_only_when_the_process_has_ended",
        ),
    ),
    Trap("Paused from outside is accepted, and the tasks go on", (NEVER, MATRIX)),
    Trap("states of task runs from outside are accepted and ignored", (NEVER, MATRIX)),
    Trap("Failed from outside does not end a process, which writes its own end over it", (NEVER, MATRIX)),
    Trap(
        "a limit of 0 makes tasks fail that wait for it",
        ("flows/test_traps.py::test_no_limit_is_ever_nothing", NEVER),
    ),
    Trap(
        "a completed run can be set Scheduled, and is executed again",
        ("flows/levers/test_levers_on_prefect.py::test_a_completed_run_is_never_retried",),
    ),
    Trap(
        "a run that is retried before its worker has let go of it can end the worker",
        (
            "flows/levers/test_levers_on_prefect.py::test_a_retry_waits_until_the_worker_has_let_go",
            "telemetry/queries/test_runs.py::test_a_worker_has_let_go_only_after_its_event",
        ),
    ),
    Trap(
        "a worker may report the crash of an attempt seconds after the next one was asked for",
        ("flows/test_traps.py::test_a_late_word_on_the_attempt_before_is_not_the_end_of_the_retry",),
    ),
    Trap(
        "an idempotency key still finds its run when that has ended",
        ("flows/levers/test_progress_levers.py::test_a_remediation_stands_below_the_run_that_it_is_to_help",),
    ),
    Trap(
        "an input is told again to whoever asks again",
        (
            "flows/levers/test_progress_levers.py::"
            "test_a_directive_is_heard_once_and_in_order_and_a_server_that_is_gone_is_not_asked_again",
        ),
    ),
    Trap(
        "the stream of events drops silently, and loses what happened around a restart",
        (
            "telemetry/prefect/test_collector.py::test_a_cut_connection_is_noticed_told_and_costs_nothing",
            "telemetry/prefect/test_collector.py::test_what_happened_while_nobody_collected_is_caught_up",
        ),
    ),
    Trap(
        "SQLite answers 503 when two writes meet",
        ("flows/prefect/test_api_errors.py::test_a_busy_server_is_asked_until_it_answers",),
    ),
    Trap(
        "there is one credential for reading and writing",
        (
            "flows/controller/test_up.py::test_the_agent_holds_no_prefect_credential",
            "flows/controller/test_up.py::test_the_agent_refuses_to_start_with_a_credential",
        ),
    ),
    Trap(
        "with `force` everything is accepted",
        ("flows/prefect/test_api_errors.py::test_nothing_is_ever_forced", NEVER, MATRIX),
    ),
)


@cache
def _tests_in(path: Path) -> frozenset[str]:
    return frozenset(
        node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    )


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.says)
def test_every_trap_has_its_tests(trap: Trap) -> None:
    for named in trap.tests:
        path, _, test = named.partition("::")
        assert test in _tests_in(TESTS / path), named


# -- what is never sent ----------------------------------------------------------------------------------------

RUN = "/flow_runs/00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "route", "body", "why"),
    [
        ("POST", f"{RUN}/set_state", {"state": {"type": "SCHEDULED"}, "force": True}, "force"),
        ("POST", "/flow_runs/bulk_set_state", {"state": {"type": "PAUSED", "name": "Paused"}}, "Paused"),
        ("POST", f"{RUN}/set_state", {"state": {"type": "FAILED", "name": "Failed"}}, "FAILED"),
        ("POST", f"{RUN}/set_state", {"state": {"type": "COMPLETED", "name": "Completed"}}, "COMPLETED"),
        ("POST", "/task_runs/x/set_state", {"state": {"type": "FAILED", "name": "Failed"}}, "task run"),
        ("PATCH", "/v2/concurrency_limits/x", {"limit": 0}, "0"),
        ("PATCH", "/work_pools/p", {"concurrency_limit": 0}, "0"),
        ("PATCH", "/work_pools/p/queues/q", {"concurrency_limit": 0}, "0"),
        ("PATCH", "/deployments/x", {"concurrency_limit": 2}, "deployment"),
        ("PATCH", "/deployments/x/schedules/y", {"active": False}, "deployment"),
        ("DELETE", RUN, None, "deleted"),
    ],
)
def test_what_is_never_sent_is_known(
    method: str, route: str, body: dict[str, object] | None, why: str
) -> None:
    """The injector that is killed in the matrix checks every write of every lever by this."""
    assert why in why_never(method, route, body)


def test_what_levers_do_send_is_not_taken_for_it() -> None:
    for type_, name in (("SCHEDULED", "AwaitingRetry"), ("PAUSED", "Suspended"), ("CANCELLED", "Cancelled")):
        state = {"type": type_, "name": name, "state_details": {"pause_reschedule": True}}
        assert why_never("POST", "/flow_runs/bulk_set_state", {"state": state, "force": False}) == ""
    assert why_never("DELETE", "/variables/name/pilotage_hold_x", None) == ""
    assert why_never("PATCH", "/work_pools/p", {"concurrency_limit": None}) == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda: SetLimit(scope=LimitScope.GLOBAL, name="g", limit=0, hold=timedelta(hours=1)),
        lambda: ReserveSlot(pool="p", busy_queue="a", starved_queue="b", limit=0, hold=timedelta(hours=1)),
    ],
    ids=["set_limit", "reserve_slot"],
)
def test_no_limit_is_ever_nothing(make: object) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        make()  # type: ignore[operator]


# -- waiting long enough ---------------------------------------------------------------------------------------


def test_the_guard_reaches_further_than_a_worker() -> None:
    from prefect.settings import get_current_settings

    worker = get_current_settings().worker
    assert timedelta(seconds=worker.prefetch_seconds + worker.query_seconds) < SAFE_DISTANCE


def test_a_cancellation_is_waited_for_as_long_as_it_can_hang() -> None:
    assert CancelLever.window > timedelta(seconds=300)
    assert CancelTreeLever.window > timedelta(seconds=300)


def test_a_late_word_on_the_attempt_before_is_not_the_end_of_the_retry() -> None:
    idempotency_key, now = str(uuid4()), datetime.now(UTC)

    def state(type_: StateType, ago: timedelta, transition: str = "") -> StateView:
        return StateView(
            id=str(uuid4()),
            type=type_,
            name=type_.value.title(),
            message="",
            at=now - ago,
            scheduled_for=None,
            transition_id=transition,
        )

    retried = state(StateType.SCHEDULED, SETTLING, idempotency_key)
    soon, late = state(StateType.CRASHED, timedelta(seconds=1)), state(StateType.CRASHED, 2 * SETTLING)
    assert judge_retry([retried, soon], idempotency_key, now=now).judgement is Judgement.PENDING
    assert judge_retry([retried, late], idempotency_key, now=now).judgement is Judgement.FAILED


# -- on the server ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["fake_server", pytest.param("prefect_server", marks=pytest.mark.prefect)])
def targets(request: pytest.FixtureRequest) -> LeverTargets:
    """The pool that no worker serves, on the fake and on the real server: the traps are there on both."""
    targets = LeverTargets(server=request.getfixturevalue(request.param))
    targets.open()
    return targets


def test_prefect_would_execute_twice_what_is_moved_while_it_runs(targets: LeverTargets) -> None:
    async def work(api: PrefectApi) -> None:
        raw, ours = await targets.run(api, *RUNNING), await targets.run(api, *RUNNING)
        ruling = await api.set_state(
            raw,
            StateType.SCHEDULED,
            "Scheduled",
            message="m",
            idempotency_key=str(uuid4()),
            scheduled_for=datetime.now(UTC),
        )
        assert ruling.ruling == "ACCEPT"  # the trap is there
        assert (await api.run(raw)).state.type is StateType.SCHEDULED
        action = RescheduleRun(run_id=ours, start=datetime.now(UTC))
        done = await RescheduleLever(api).execute(
            action, idempotency_key=str(uuid4()), expected_state_id="", message="m"
        )
        assert done.effect is Effect.REFUSED
        assert (await api.run(ours)).state.type is StateType.RUNNING

    targets.ask(work)


def test_a_run_is_moved_back_to_where_it_was_not_to_where_it_was_expected(targets: LeverTargets) -> None:
    async def work(api: PrefectApi) -> None:
        run_id, lever = await targets.run(api), RescheduleLever(api)
        first = RescheduleRun(run_id=run_id, start=targets.base + timedelta(hours=1))
        second = RescheduleRun(run_id=run_id, start=targets.base + timedelta(hours=2))
        idempotency_key = str(uuid4())
        await lever.execute(first, idempotency_key=str(uuid4()), expected_state_id="", message="m")
        moved = await lever.execute(
            second, idempotency_key=idempotency_key, expected_state_id="", message="m"
        )
        assert (await api.run(run_id)).expected == targets.base  # the trap is there
        await lever.undo(second, moved, idempotency_key=idempotency_key)
        assert (await api.run(run_id)).next_start == first.start

    targets.ask(work)


def test_a_cancellation_that_is_called_rejected_and_is_done_counts_as_done(targets: LeverTargets) -> None:
    async def work(api: PrefectApi) -> None:
        raw, ours = await targets.run(api), await targets.run(api)
        ruling = await api.set_state(
            raw, StateType.CANCELLING, "Cancelling", message="m", idempotency_key=str(uuid4())
        )
        assert ruling.ruling == "REJECT"  # the trap is there
        state = (await api.run(raw)).state
        assert (state.type, state.message) != (StateType.SCHEDULED, "m")
        done = await CancelLever(api).execute(
            CancelRun(run_id=ours), idempotency_key=str(uuid4()), expected_state_id="", message="m"
        )
        assert done.effect is Effect.DONE
        state = (await api.run(ours)).state
        assert (state.type, state.message) == (StateType.CANCELLED, "m")

    targets.ask(work)


def test_parameters_that_are_not_changed_stay(targets: LeverTargets) -> None:
    async def work(api: PrefectApi) -> None:
        deployment_id = await targets.deployment(
            api,
            parameter_openapi_schema={
                "type": "object",
                "properties": {"size": {"type": "integer"}, "more": {"type": "integer"}},
            },
        )
        run_id = await targets.run(api, of=deployment_id)
        await api.set_parameters(run_id, {"more": 2})
        assert (await api.run(run_id)).parameters == {"more": 2}  # the trap is there
        await api.set_parameters(run_id, {"size": 1, "more": 2})
        changes = (ParameterValue(name="size", value=7),)
        await ParametersLever(api).execute(
            ChangeParameters(run_id=run_id, changes=changes),
            idempotency_key=str(uuid4()),
            expected_state_id="",
            message="m",
        )
        assert (await api.run(run_id)).parameters == {"size": 7, "more": 2}

    targets.ask(work)
