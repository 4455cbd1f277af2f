"""What is proposed for which trouble, and that the forecast matters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pilotage.planner.actions.types import (
    KINDS,
    ActionKind,
    NotifyOwner,
    PauseDeployment,
    RescheduleRun,
    ReserveSlot,
    ResizeRun,
    RetryRun,
)
from pilotage.planner.findings import PERMANENT, Cure, FailureClass
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks.plan import plan_for
from pilotage.planner.playbooks.registry import REMEDIATIONS, backoff, next_size
from pilotage.planner.remediation import Background, deadline_of

ALL: tuple[ActionKind, ...] = KINDS
P = PlaybookParameters()


def kinds(plan: Any) -> list[str]:
    return [proposal.action.kind for proposal, _ in plan.proposals]


def test_every_failure_class_has_a_play() -> None:
    assert set(REMEDIATIONS) == set(FailureClass)


@pytest.mark.parametrize(
    ("failure_class", "delay"),
    [
        (FailureClass.TRANSIENT, P.retry_delay),
        (FailureClass.CRASHED, P.retry_delay),
        (FailureClass.RATE_LIMITED, P.rate_limited_delay),
        (FailureClass.DEPENDENCY, P.dependency_delay),
        (FailureClass.CAPACITY, P.capacity_delay),
    ],
)
def test_a_passing_fault_is_retried_in_place(
    make: Any, failure_class: FailureClass, delay: timedelta
) -> None:
    [(proposal, case)] = plan_for(make.incident_context(failure_class), ALL).proposals
    assert proposal.action == RetryRun(run_id=make.run_id, delay=delay)
    assert proposal.expected_state_id == make.run().state_id
    assert proposal.expires_at == make.now + P.proposal_life
    assert case.failed_at == make.run().ended


@pytest.mark.parametrize("failure_class", sorted(PERMANENT))
def test_a_permanent_error_is_told_and_never_retried(make: Any, failure_class: FailureClass) -> None:
    for p_fail in (None, 0.0, 0.5, 1.0):
        plan = plan_for(make.incident_context(failure_class, p_fail=p_fail), ALL)
        assert kinds(plan) == ["notify_owner"]
        assert any(road.startswith("retry_run: ") for road in plan.alternatives)


@pytest.mark.parametrize("p_fail", [None, 0.0, 0.5])
def test_a_run_that_may_be_alive_is_not_started_again(make: Any, p_fail: float | None) -> None:
    plan = plan_for(make.incident_context(FailureClass.MAY_STILL_BE_RUNNING, p_fail=p_fail), ALL)
    assert kinds(plan) == ["notify_owner"]
    assert "nothing proves that it has ended" in plan.alternatives[0]


def test_a_wait_that_the_other_side_asked_for_is_kept(make: Any) -> None:
    asked = make.incident_context(FailureClass.RATE_LIMITED, wait_seconds=600.0)
    [(proposal, _)] = plan_for(asked, ALL).proposals
    assert proposal.action == RetryRun(run_id=make.run_id, delay=timedelta(minutes=10))
    too_long = make.incident_context(FailureClass.RATE_LIMITED, wait_seconds=86_400.0)
    assert kinds(plan_for(too_long, ALL)) == ["notify_owner"]


def test_a_size_that_no_machine_has_is_not_asked_for(make: Any) -> None:
    incident_context = make.incident_context(
        FailureClass.OUT_OF_MEMORY, cure=Cure.OWNER, around=Background(memory_mb=512)
    )
    assert kinds(plan_for(incident_context, ALL)) == ["notify_owner"]


def test_the_delay_doubles_with_each_attempt_and_stops_at_the_longest() -> None:
    first, longest = timedelta(seconds=10), timedelta(minutes=1)
    assert [backoff(first, n, longest).total_seconds() for n in (0, 1, 2, 3, 4, 900)] == [
        10, 10, 20, 40, 60, 60,
    ]  # fmt: skip


def test_attempts_run_out(make: Any) -> None:
    plan = plan_for(make.incident_context(FailureClass.TRANSIENT, run=make.run(run_count=4)), ALL)
    assert kinds(plan) == ["notify_owner"]
    assert "4 are the limit" in plan.alternatives[0]


def test_a_run_that_hit_its_time_limit_is_retried_once_only_with_a_good_forecast(make: Any) -> None:
    def answer(p_fail: float | None, run_count: int = 1) -> list[str]:
        run = make.run(run_count=run_count)
        return kinds(plan_for(make.incident_context(FailureClass.TIMED_OUT, p_fail=p_fail, run=run), ALL))

    assert answer(0.1) == ["retry_run"]
    assert answer(0.1, run_count=2) == ["notify_owner"]
    assert answer(0.9) == ["notify_owner"]
    assert answer(None) == ["notify_owner"]


@pytest.mark.parametrize(("has", "gets"), [(256, 384), (100, 160), (16_000, 16_384), (16_384, 16_384)])
def test_memory_grows_by_one_rounded_step_up_to_the_cap(has: int, gets: int) -> None:
    assert next_size(has, P) == gets


def test_a_run_out_of_memory_gets_one_step_more(make: Any) -> None:
    around = Background(memory_mb=256)
    [(proposal, case)] = plan_for(
        make.incident_context(FailureClass.OUT_OF_MEMORY, around=around), ALL
    ).proposals
    assert proposal.action == ResizeRun(run_id=make.run_id, memory_mb=384)
    assert "384 MiB instead of 256 MiB" in case.expected_effect


@pytest.mark.parametrize(("memory", "reason"), [(None, "nobody says"), (P.memory_cap_mb, "the cap")])
def test_a_run_that_cannot_be_resized_is_told(make: Any, memory: int | None, reason: str) -> None:
    around = Background(memory_mb=memory)
    plan = plan_for(make.incident_context(FailureClass.OUT_OF_MEMORY, around=around), ALL)
    assert kinds(plan) == ["notify_owner"]
    assert reason in " ".join(plan.alternatives)


ROW = Background(failures_in_row=5)


def test_a_hopeless_retry_is_held_back_and_inverting_the_forecast_brings_it_back(make: Any) -> None:
    p_fail = 0.95
    bad = plan_for(make.incident_context(FailureClass.TRANSIENT, p_fail=p_fail, around=ROW), ALL)
    good = plan_for(make.incident_context(FailureClass.TRANSIENT, p_fail=1 - p_fail, around=ROW), ALL)
    assert kinds(bad) == ["notify_owner"]
    assert "held back" in bad.alternatives[0]
    assert kinds(good) == ["retry_run"]


def test_a_value_that_fails_in_all_its_siblings_is_told_and_not_tried_again(make: Any) -> None:
    around = Background(failing_value="all 4 runs with region = eu failed")
    plan = plan_for(make.incident_context(FailureClass.TRANSIENT, p_fail=0.1, around=around), ALL)
    assert kinds(plan) == ["notify_owner"]
    assert "all 4 runs with region = eu failed" in str(plan)


@pytest.mark.parametrize(("minutes", "wanted"), [(14, ["retry_run"]), (15, ["notify_owner"])])
def test_failures_in_a_row_that_one_outage_may_explain_make_no_retry_hopeless(
    make: Any, minutes: int, wanted: list[str]
) -> None:
    row = Background(failures_in_row=9, failing_for=timedelta(minutes=minutes))
    assert (
        kinds(plan_for(make.incident_context(FailureClass.TRANSIENT, p_fail=0.95, around=row), ALL)) == wanted
    )


@pytest.mark.parametrize(
    ("kind", "minutes", "wanted"),
    [
        (FailureClass.TRANSIENT, 14, ["retry_run"]),
        (FailureClass.TRANSIENT, 15, ["pause_deployment", "notify_owner"]),
        (FailureClass.AUTH, 1, ["notify_owner", "pause_deployment"]),
    ],
    ids=["an outage", "longer than any outage", "what no waiting cures"],
)
def test_runs_that_meet_an_outage_do_not_pause_their_deployment(
    make: Any, kind: FailureClass, minutes: int, wanted: list[str]
) -> None:
    row = Background(failures_in_row=9, same_fault_in_row=9, failing_for=timedelta(minutes=minutes))
    assert kinds(plan_for(make.incident_context(kind, around=row), ALL)) == wanted


def test_a_bad_forecast_alone_does_not_hold_a_retry_back(make: Any) -> None:
    assert kinds(plan_for(make.incident_context(FailureClass.CRASHED, p_fail=0.95), ALL)) == ["retry_run"]


def test_an_unknown_failure_is_retried_once_only_with_a_good_forecast_where_repeating_is_safe(
    make: Any,
) -> None:
    def answer(p_fail: float | None, run_count: int = 1, safe: bool = True) -> list[str]:
        run, around = make.run(run_count=run_count), Background(safe_to_repeat=safe)
        s = make.incident_context(FailureClass.UNKNOWN, p_fail=p_fail, run=run, around=around)
        return kinds(plan_for(s, ALL))

    assert answer(0.2) == ["retry_run"]
    assert answer(0.2, safe=False) == ["notify_owner"]
    assert answer(0.2, run_count=2) == ["notify_owner"]
    assert answer(0.8) == ["notify_owner"]
    assert answer(None) == ["notify_owner"]


def test_a_run_at_risk_is_delayed_and_told_and_inverting_the_forecast_leaves_it_alone(make: Any) -> None:
    run = make.upcoming(600)
    bad = plan_for(make.incident_context(FailureClass.AT_RISK, p_fail=0.9, run=run), ALL)
    good = plan_for(make.incident_context(FailureClass.AT_RISK, p_fail=0.1, run=run), ALL)
    assert kinds(bad) == ["reschedule_run", "notify_owner"]
    moved = bad.proposals[0][0]
    assert moved.action == RescheduleRun(run_id=make.run_id, start=run.next_start + P.hold_back)
    assert moved.expires_at == run.next_start
    assert kinds(good) == []


def test_a_run_at_risk_that_starts_at_once_is_not_moved(make: Any) -> None:
    plan = plan_for(make.incident_context(FailureClass.AT_RISK, p_fail=0.9, run=make.upcoming(5)), ALL)
    assert kinds(plan) == ["notify_owner"]


def test_the_hold_back_of_one_run_has_one_id_whatever_state_it_is_in(make: Any) -> None:
    def identity(state_id: str) -> str:
        run = make.upcoming(600, state_id=state_id)
        plan = plan_for(make.incident_context(FailureClass.AT_RISK, p_fail=0.9, run=run), ALL)
        return str(plan.proposals[0][0].id)

    assert identity("a" * 36) == identity("b" * 36)


def test_a_fault_that_repeats_pauses_its_deployment_and_tells(make: Any) -> None:
    around = Background(same_fault_in_row=3)
    plan = plan_for(make.incident_context(FailureClass.CODE_BUG, around=around), ALL)
    assert kinds(plan) == ["notify_owner", "pause_deployment"]
    assert plan.proposals[1][0].action == PauseDeployment(
        deployment_id=make.deployment_id, hold=P.quarantine_hold
    )
    # what was counted, and no text of the runs: a pause of a deployment that keeps failing waits for nobody
    assert all(ref.startswith(("deployment:", "run:")) for ref in plan.proposals[1][0].evidence)
    crash = plan_for(make.incident_context(FailureClass.CRASHED, around=around), ALL)
    assert kinds(crash) == ["retry_run"]  # never a pause beside a retry


@pytest.mark.parametrize(
    "around",
    [Background(same_fault_in_row=2), Background(same_fault_in_row=9, deployment_paused=True)],
    ids=["too few", "already paused"],
)
def test_a_deployment_is_not_paused_without_need(make: Any, around: Background) -> None:
    assert "pause_deployment" not in kinds(
        plan_for(make.incident_context(FailureClass.CODE_BUG, around=around), ALL)
    )


def test_a_starved_queue_gets_a_slot_of_the_busy_one(make: Any) -> None:
    queues = (make.queue("fast", 1, running=2, waiting=4), make.queue("slow", 5, waiting=1))
    s = make.incident_context(
        FailureClass.STARVED, run=None, around=Background(queues=queues), subject="queue:pool/slow"
    )
    [(proposal, _)] = plan_for(s, ALL).proposals
    assert proposal.action == ReserveSlot(
        pool="pool", busy_queue="fast", starved_queue="slow", limit=1, hold=P.reserve_hold
    )
    assert proposal.expected_state_id == ""


def test_a_pool_with_one_slot_is_never_capped_to_nothing(make: Any) -> None:
    queues = (
        make.queue("fast", 1, running=1, waiting=4, pool_limit=1),
        make.queue("slow", 5, waiting=1, pool_limit=1),
    )
    s = make.incident_context(
        FailureClass.STARVED, run=None, around=Background(queues=queues), subject="queue:pool/slow"
    )
    plan = plan_for(s, ALL)
    assert not plan.proposals
    assert "cap of 0" in plan.alternatives[0]


def test_a_late_run_is_put_before_the_first_that_waits(make: Any) -> None:
    deadline = make.now + timedelta(minutes=20)
    run = make.upcoming(-60, tags=(f"deadline:{deadline.isoformat()}",))
    first = make.now - timedelta(minutes=10)
    plan = plan_for(
        make.incident_context(FailureClass.LATE, run=run, around=Background(earliest_waiting=first)), ALL
    )
    [(proposal, _)] = plan.proposals
    assert isinstance(proposal.action, RescheduleRun)
    assert proposal.action.start < first
    assert proposal.expires_at == deadline


def test_a_boost_never_reaches_back_further_than_its_limit(make: Any) -> None:
    around = Background(earliest_waiting=make.now - timedelta(hours=5))
    plan = plan_for(make.incident_context(FailureClass.LATE, run=make.upcoming(-60), around=around), ALL)
    assert kinds(plan) == ["notify_owner"]


@pytest.mark.parametrize("tag", ["deadline:soon", "deadline:2026-11-22T12:30:00", "deadline:", "x"])
def test_a_deadline_that_cannot_be_read_is_none(make: Any, tag: str) -> None:
    assert deadline_of(make.run(tags=(tag,))) is None


def test_what_is_not_offered_is_not_proposed_and_said_so(make: Any) -> None:
    plan = plan_for(make.incident_context(FailureClass.TRANSIENT), ("notify_owner",))
    assert not plan.proposals
    assert plan.alternatives == ("retry_run: not offered to this planner",)


def test_planning_twice_gives_the_same_proposals(make: Any) -> None:
    s = make.incident_context(FailureClass.CODE_BUG, around=Background(same_fault_in_row=3), p_fail=0.5)
    assert plan_for(s, ALL) == plan_for(s, ALL)
    ids = [proposal.id for proposal, _ in plan_for(s, ALL).proposals]
    assert len(set(ids)) == len(ids)


def test_a_vanished_run_is_left_alone(make: Any) -> None:
    assert not plan_for(make.incident_context(FailureClass.TRANSIENT, run=None), ALL).proposals


def test_notifying_does_not_depend_on_the_state_of_the_run(make: Any) -> None:
    [(proposal, _)] = plan_for(make.incident_context(FailureClass.AUTH), ALL).proposals
    assert isinstance(proposal.action, NotifyOwner)
    assert proposal.expected_state_id == ""


def test_a_child_is_not_tried_again_beside_the_parent_that_failed_with_it(make: Any) -> None:
    alone = plan_for(make.incident_context(FailureClass.TRANSIENT), ALL)
    assert kinds(alone) == ["retry_run"]
    with_parent = make.incident_context(FailureClass.TRANSIENT, around=Background(parent_ended="badly"))
    plan = plan_for(with_parent, ALL)
    assert kinds(plan) == []
    assert "starts another in its place" in " ".join(plan.alternatives)
