"""What something left behind, found in stored telemetry: dead runs, slots of nobody, alerts about what is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.planner.planner_fixture import ALL, PlannerFixture

from pilotage.planner.findings import FailureClass
from pilotage.planner.playbooks.plan import plan_for
from pilotage.telemetry.facts import AskedFact, DecisionFact, EventFact, LogLine, StateType

MINUTE = timedelta(minutes=1)
BEAT = timedelta(minutes=3)
SILENT = timedelta(minutes=14)
OTHER = "44444444-2222-4222-8222-222222222222"


def _id(n: int) -> str:
    return f"{n:08d}-1111-4111-8111-111111111111"


def _running(make: Any, **changes: Any) -> Any:
    began = make.now - timedelta(hours=1)
    going = {"state_type": StateType.RUNNING, "state_name": "Running", "state_message": "", "ended": None}
    return make.run(**(going | {"started": began, "updated": began} | changes))


def _heard(
    planner_fixture: PlannerFixture, make: Any, *moments: timedelta, run_id: str = "", name: str = "heartbeat"
) -> None:
    """Events of a run, so long ago."""
    planner_fixture.store.add_events(
        [
            EventFact(
                event_id=f"{run_id}{name}{ago}",
                occurred=make.now - ago,
                name=f"prefect.flow-run.{name}",
                resource_id="r",
                run_id=run_id or make.run_id,
            )
            for ago in moments
        ]
    )


def _others(planner_fixture: PlannerFixture, make: Any, *, since: timedelta = timedelta(minutes=30)) -> None:
    minutes = range(int(since / MINUTE))
    _heard(planner_fixture, make, *(number * MINUTE for number in minutes), run_id=OTHER, name="Running")


def _found(planner_fixture: PlannerFixture) -> list[str]:
    """The classes found in two looks; the second finds nothing new."""
    first, second = planner_fixture.ticks(2)
    assert second == []
    return [entry["failure_class"] for entry in first]


# -- the dead


def test_a_run_that_missed_four_heartbeats_is_to_be_marked_and_once_for_each_silence(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_runs([_running(make)])
    _heard(planner_fixture, make, SILENT, SILENT + BEAT, SILENT + 2 * BEAT)
    _others(planner_fixture, make)
    assert _found(planner_fixture) == ["silent"]
    assert planner_fixture.control_api.actions == [{"kind": "mark_crashed", "run_id": make.run_id}]
    [(proposal, case)] = planner_fixture.control_api.filed.values()
    assert proposal.expected_state_id == make.run().state_id
    assert "silent for 14 min" in case.notes[0]
    # a planner that was started again asks nothing more
    planner_fixture.ticks()
    assert len(planner_fixture.control_api.filed) == 1


def test_a_run_that_is_being_cancelled_and_is_silent_is_marked_too(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    just_now = {"updated": make.now - MINUTE}
    planner_fixture.store.merge_runs(
        [_running(make, state_type=StateType.CANCELLING, state_name="Cancelling", **just_now)]
    )
    _heard(planner_fixture, make, SILENT, SILENT + BEAT, SILENT + 2 * BEAT)
    # that somebody asked for its end, and what pilotage says of it, are no signs of life
    _heard(planner_fixture, make, MINUTE, name="Cancelling")
    _others(planner_fixture, make)
    assert _found(planner_fixture) == ["silent"]
    assert planner_fixture.control_api.actions == [{"kind": "mark_crashed", "run_id": make.run_id}]


def test_on_a_quiet_site_a_run_is_silent_where_the_server_answered_all_the_while(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_runs([_running(make)])
    _heard(planner_fixture, make, SILENT, SILENT + BEAT)
    failing = AskedFact(kind="api", at=make.now, requests=40, failures=3)
    planner_fixture.store.put("asked", [failing])
    assert _found(planner_fixture) == []
    planner_fixture.store.put("asked", [replace(failing, failures=0)])
    assert _found(planner_fixture) == ["silent"]


@pytest.mark.parametrize(
    ("beats", "others", "log"),
    [
        ((9 * MINUTE, 12 * MINUTE), True, None),
        ((SILENT,), True, None),
        ((SILENT, SILENT + BEAT), False, None),
        ((SILENT, SILENT + BEAT), True, 2 * MINUTE),
        ((SILENT, SILENT + 4 * MINUTE), True, None),
    ],
    ids=[
        "heard a while ago",
        "one heartbeat",
        "nobody was heard",
        "a line of its log",
        "seldom heard anyway",
    ],
)
def test_a_run_that_may_be_slow_is_left_alone(
    planner_fixture: PlannerFixture,
    make: Any,
    beats: tuple[timedelta, ...],
    others: bool,
    log: timedelta | None,
) -> None:
    planner_fixture.store.merge_runs([_running(make)])
    _heard(planner_fixture, make, *beats)
    if others:
        _others(planner_fixture, make)
    if log is not None:
        line = LogLine(log_id="l", run_id=make.run_id, at=make.now - log, level=20, message="still here")
        planner_fixture.store.add_logs([line])
    assert _found(planner_fixture) == []


def test_silence_of_the_whole_server_says_nothing_of_a_run(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_runs([_running(make)])
    _heard(planner_fixture, make, SILENT, SILENT + BEAT)
    # the collector was away: what it hears now is fresh, and of the time between it knows nothing
    _others(planner_fixture, make, since=timedelta(minutes=2))
    assert _found(planner_fixture) == []


def test_a_run_that_ended_meanwhile_is_not_marked(make: Any) -> None:
    incident_context = make.incident_context(
        FailureClass.SILENT, run=make.run(state_type=StateType.COMPLETED)
    )
    plan = plan_for(incident_context, ALL)
    assert plan.proposals == ()
    assert "already" in plan.alternatives[0]


# -- slots of nobody


def _waits_for_a_slot(make: Any, **changes: Any) -> Any:
    """A run that has been put off again and again for twenty minutes."""
    due = {"expected_start": make.now - 20 * MINUTE, "next_start": make.now + timedelta(seconds=20)}
    return make.upcoming(20, state_name="AwaitingConcurrencySlot", **(due | changes))


def test_slots_that_no_run_holds_are_to_be_given_back(planner_fixture: PlannerFixture, make: Any) -> None:
    planner_fixture.store.merge_runs(
        [_waits_for_a_slot(make), make.run(run_id=_id(1), ended=make.now - 30 * MINUTE)]
    )
    assert "leaked" in _found(planner_fixture)
    released = [each for each in planner_fixture.control_api.actions if each["kind"] == "release_slot"]
    assert released == [{"kind": "release_slot", "scope": "deployment", "name": make.deployment_id}]


@pytest.mark.parametrize(
    "holder",
    [
        {"state_type": StateType.RUNNING, "ended": None},
        {"state_type": StateType.SCHEDULED, "state_name": "AwaitingRetry", "ended": None},
        {"state_type": StateType.PAUSED, "state_name": "Paused", "ended": None},
        {"state_type": StateType.COMPLETED, "state_name": "Completed"},
    ],
    ids=["one runs", "one waits for its retry", "one is paused", "one ended a minute ago"],
)
def test_slots_that_a_run_may_hold_are_left_alone(
    planner_fixture: PlannerFixture, make: Any, holder: dict[str, Any]
) -> None:
    planner_fixture.store.merge_runs([_waits_for_a_slot(make), make.run(run_id=_id(1), **holder)])
    assert "leaked" not in _found(planner_fixture)


def test_a_run_that_has_waited_for_a_slot_for_a_moment_is_left_alone(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_runs([_waits_for_a_slot(make, expected_start=make.now - 5 * MINUTE)])
    assert _found(planner_fixture) == []


# -- alerts about what is over


def _step(make: Any, action: str, step: str, ago: timedelta, outcome: str = "done") -> DecisionFact:
    return DecisionFact(
        decision_id=f"{action}-{step}-{ago}", at=make.now - ago, proposal_id=f"p-{action}", incident_id="i-0",
        run_id=make.run_id, step=step, action=action, outcome=outcome, detail={},
    )  # fmt: skip


def _completed(make: Any) -> Any:
    return make.run(state_type=StateType.COMPLETED, state_name="Completed", state_message="")


def test_an_owner_who_was_told_is_told_that_it_is_over_and_once(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.add_decisions([_step(make, "notify_owner", "injected", 9 * MINUTE)])
    planner_fixture.store.merge_runs([make.run(run_count=9)])
    planner_fixture.ticks()
    assert "resolve_alert" not in planner_fixture.control_api.kinds_filed  # it is in trouble still
    planner_fixture.store.merge_runs([replace(_completed(make), updated=make.now)])
    assert _found(planner_fixture) == ["recovered"]
    assert [each for each in planner_fixture.control_api.actions if each["kind"] == "resolve_alert"] == [
        {"kind": "resolve_alert", "run_id": make.run_id}
    ]
    planner_fixture.store.add_decisions([_step(make, "resolve_alert", "proposed", MINUTE)])
    assert _found(planner_fixture) == []


@pytest.mark.parametrize(
    ("step", "ago", "outcome"),
    [("proposed", 9, "done"), ("injected", 9, "refused"), ("injected", 0, "done")],
    ids=["nobody was told yet", "telling failed", "told after it ended"],
)
def test_an_owner_who_was_not_told_of_trouble_is_not_told_that_it_is_over(
    planner_fixture: PlannerFixture, make: Any, step: str, ago: int, outcome: str
) -> None:
    planner_fixture.store.add_decisions([_step(make, "notify_owner", step, ago * MINUTE, outcome)])
    planner_fixture.store.merge_runs([_completed(make)])
    assert _found(planner_fixture) == []
