"""Trouble of whole deployments, queues and families, found in stored telemetry: proposed once, and not without proof."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.planner.planner_fixture import FixedForecaster, PlannerFixture

from pilotage.planner.actions.types import CancelTree, NotifyOwner
from pilotage.planner.detect.backlog import backlog_of, kept_by_owner
from pilotage.planner.detect.ongoing import fingerprint_of
from pilotage.planner.findings import FailureClass
from pilotage.planner.playbooks.plan import plan_for
from pilotage.planner.remediation import Background, Backlog, Remedy
from pilotage.telemetry.facts import DecisionFact, DeploymentFact, StateType, TaskRunFact

OTHER = "44444444-2222-4222-8222-222222222222"
MINUTE = timedelta(minutes=1)
PLATFORM = "Flow run could not be submitted to infrastructure: no route to the daemon"
NEVER: dict[str, Any] = {"state_message": "", "ended": None, "started": None}


def _id(n: int) -> str:
    return f"{n:08d}-1111-4111-8111-111111111111"


def _deployment(make: Any, *tags: str, deployment_id: str = "", name: str = "nightly") -> DeploymentFact:
    return DeploymentFact(
        deployment_id=deployment_id or make.deployment_id,
        name=name,
        flow_name="etl",
        tags=tags,
        updated=make.now,
    )


def _completed(make: Any, n: int, started: float, **changes: Any) -> Any:
    """A run that started and completed so many minutes from now."""
    at = make.now + started * MINUTE
    good = {"state_type": StateType.COMPLETED, "state_name": "Completed", "state_message": ""}
    return make.run(
        run_id=_id(n), state_id=f"s{n}", started=at, ended=at + MINUTE, updated=at, **good, **changes
    )


def _steps(
    make: Any, subject: str, kind: FailureClass, action: str, *steps: tuple[str, float]
) -> list[DecisionFact]:
    """The mirror of a proposal that was filed and went through these steps, so many minutes from now."""
    fingerprint = fingerprint_of(subject, kind)
    return [
        DecisionFact(
            decision_id=f"{action}-{n}",
            at=make.now + minutes * MINUTE,
            proposal_id=f"p-{action}",
            incident_id="i-000000000000",
            run_id=None,
            step=step,
            action=action,
            outcome="done",
            detail={"told": "", "fingerprint": fingerprint if step == "proposed" else ""},
        )
        for n, (step, minutes) in enumerate(steps)
    ]


def _found(planner_fixture: PlannerFixture) -> list[str]:
    """The classes found in two looks; a third by a planner that was started again files nothing else."""
    ticks = planner_fixture.ticks(2)
    assert ticks[1] == []
    filed = len(planner_fixture.control_api.filed)
    planner_fixture.ticks()
    assert len(planner_fixture.control_api.filed) == filed
    return [entry["failure_class"] for entry in ticks[0]]


# -- after an outage


def _outage(
    planner_fixture: PlannerFixture,
    make: Any,
    *tags: str,
    runs: int = 8,
    again: float | None = -1,
    **changes: Any,
) -> None:
    """Hourly runs that piled up since two hours ago; the pool started one again `again` minutes from now."""
    planner_fixture.store.merge_deployments([_deployment(make, *tags)])
    late = [
        make.upcoming(-7200 + 600 * n, run_id=_id(n), state_id=f"s{n}", auto_scheduled=True, **changes)
        for n in range(runs)
    ]
    started = [] if again is None else [_completed(make, 99, again, deployment_id=OTHER)]
    planner_fixture.store.merge_runs([*late, *started])


def test_after_an_outage_the_newest_are_caught_up_where_the_owner_says_so(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _outage(planner_fixture, make, "pilotage:keep-newest:3")
    assert _found(planner_fixture) == ["overdue"]
    [caught] = planner_fixture.control_api.actions
    assert (caught["kind"], caught["deployment_id"], caught["keep"]) == ("catch_up", make.deployment_id, 3)
    [(_, case)] = planner_fixture.control_api.filed.values()
    assert "5 that they supersede are cancelled" in case.expected_effect


@pytest.mark.parametrize(
    ("tags", "changes", "why"),
    [
        ((), {}, "no tag pilotage:keep-newest"),
        (("pilotage:keep-newest:3",), {"auto_scheduled": False}, "people made them"),
        (("pilotage:keep-newest:50",), {}, "all of them are wanted"),
    ],
    ids=["nobody said", "made by people", "all wanted"],
)
def test_without_proof_that_older_runs_are_superseded_none_is_dropped(
    planner_fixture: PlannerFixture, make: Any, tags: tuple[str, ...], changes: dict[str, Any], why: str
) -> None:
    planner_fixture.store.merge_deployments([_deployment(make, *tags)])
    given = {"auto_scheduled": True} | changes
    planner_fixture.store.merge_runs(
        [make.upcoming(-7200 + 60 * n, run_id=_id(n), state_id=f"s{n}", **given) for n in range(8)]
        + [_completed(make, 99, -1, deployment_id=OTHER)]
    )
    assert _found(planner_fixture) == ["overdue"]
    assert planner_fixture.control_api.kinds_filed == ["spread_runs"]
    [(_, case)] = planner_fixture.control_api.filed.values()
    assert why in " ".join(case.alternatives)


def test_the_newest_of_runs_that_people_made_starts_first_and_none_is_dropped(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_deployments([_deployment(make, "pilotage:keep-newest:1")])
    made = [
        make.upcoming(-3000 + 60 * n, run_id=_id(n), state_id=f"s{n}", auto_scheduled=False) for n in range(8)
    ]
    planner_fixture.store.merge_runs([*made, _completed(make, 99, -1, deployment_id=OTHER)])
    assert _found(planner_fixture) == ["overdue"]
    [moved] = planner_fixture.control_api.actions
    assert (moved["kind"], moved["run_id"]) == ("reschedule_run", _id(7))


def test_runs_that_differ_do_not_stand_for_each_other(make: Any) -> None:
    runs = [make.upcoming(-60, auto_scheduled=True, parameters={"day": n}) for n in (1, 2)]
    assert not backlog_of(runs, None).alike
    assert backlog_of([runs[0], runs[0]], None).alike


@pytest.mark.parametrize(
    "outage",
    [{"again": None}, {"again": -115}, {"runs": 4}],
    ids=["still out", "it started soon", "few"],
)
def test_late_runs_without_an_outage_behind_them_are_left_alone(
    planner_fixture: PlannerFixture, make: Any, outage: Any
) -> None:
    _outage(planner_fixture, make, "pilotage:keep-newest:3", **outage)
    assert _found(planner_fixture) == []


def test_what_was_proposed_about_a_deployment_lately_is_not_proposed_again(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _outage(planner_fixture, make)
    subject = f"deployment:{make.deployment_id}"
    planner_fixture.store.add_decisions(
        _steps(make, subject, FailureClass.BACKLOG, "spread_runs", ("proposed", -180))
    )
    assert _found(planner_fixture) == []
    planner_fixture.now += timedelta(hours=4)
    planner_fixture.store.merge_runs([_completed(make, 98, 239, deployment_id=OTHER)])
    assert [entry["failure_class"] for entry in planner_fixture.ticks()[0]] == ["overdue"]


@pytest.mark.parametrize(
    "tag", ["pilotage:keep-newest:", "pilotage:keep-newest:-1", "pilotage:keep-newest:all"]
)
def test_a_number_of_runs_to_keep_that_cannot_be_read_keeps_all(tag: str) -> None:
    assert kept_by_owner([tag]) is None
    assert kept_by_owner([tag, "pilotage:keep-newest:2"]) is None
    assert kept_by_owner(["pilotage:keep-newest:2"]) == 2


# -- a backlog


def test_a_crowd_that_waits_for_one_limit_is_spread(planner_fixture: PlannerFixture, make: Any) -> None:
    waiting = {"state_name": "AwaitingConcurrencySlot", "deployment_id": OTHER}
    planner_fixture.store.merge_runs(
        [make.upcoming(20, run_id=_id(n), state_id=f"s{n}", **waiting) for n in range(1000)]
    )
    assert _found(planner_fixture) == ["blocked"]
    [spread] = planner_fixture.control_api.actions
    assert (spread["kind"], spread["deployment_id"], spread["wave"]) == ("spread_runs", OTHER, 17)


def test_as_many_runs_as_prefect_looks_at_are_no_crowd(planner_fixture: PlannerFixture, make: Any) -> None:
    waiting = {"state_name": "AwaitingConcurrencySlot", "deployment_id": OTHER}
    planner_fixture.store.merge_runs(
        [make.upcoming(20, run_id=_id(n), state_id=f"s{n}", **waiting) for n in range(200)]
    )
    assert _found(planner_fixture) == []


def test_a_crowd_that_has_gone_meanwhile_is_left_alone(make: Any) -> None:
    for kind in (FailureClass.BACKLOG, FailureClass.BLOCKED):
        s = make.incident_context(
            kind, run=None, subject=f"deployment:{OTHER}", around=Background(backlog=Backlog(waiting=2))
        )
        assert plan_for(s, ("spread_runs", "catch_up")).proposals == ()


# -- queues


def _sick_queue(planner_fixture: PlannerFixture, make: Any, **changes: Any) -> None:
    planner_fixture.store.add_queues([make.queue("default", 1, paused=bool(changes.pop("paused", False)))])
    planner_fixture.store.merge_runs(
        [
            make.run(
                **{
                    "run_id": _id(n),
                    "state_id": f"s{n}",
                    "state_type": StateType.CRASHED,
                    "state_name": "Crashed",
                    "state_message": f"{PLATFORM} 10.0.0.{n}",
                    "deployment_id": make.deployment_id if n % 2 else OTHER,
                    "ended": make.now - n * MINUTE,
                }
                | changes
            )
            for n in range(1, 7)
        ]
    )


def test_a_queue_where_every_run_meets_one_fault_of_the_platform_is_held(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _sick_queue(planner_fixture, make)
    assert "unhealthy" in _found(planner_fixture)
    held = [a for a in planner_fixture.control_api.actions if a["kind"] == "hold_queue"]
    assert held == [{"kind": "hold_queue", "pool": "pool", "queue": "default", "hold": "PT30M"}]
    [about] = [
        p
        for p, _ in planner_fixture.control_api.filed.values()
        if p.playbook == "hold-queue" and p.action.kind != "hold_queue"
    ]
    assert isinstance(about.action, NotifyOwner)
    assert about.action.run_id == _id(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment_id": OTHER},
        {"state_type": StateType.FAILED, "state_message": "Flow run encountered an exception: KeyError: 'a'"},
        {"paused": True},
    ],
    ids=["one deployment", "their own code", "held already"],
)
def test_a_queue_whose_faults_are_not_its_own_is_not_held(
    planner_fixture: PlannerFixture, make: Any, changes: dict[str, Any]
) -> None:
    _sick_queue(planner_fixture, make, **changes)
    planner_fixture.ticks()
    assert "hold_queue" not in planner_fixture.control_api.kinds_filed


def test_one_completed_run_or_another_fault_keeps_a_queue_open(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _sick_queue(planner_fixture, make)
    planner_fixture.store.merge_runs([_completed(make, 50, -9)])
    planner_fixture.ticks()
    assert "hold_queue" not in planner_fixture.control_api.kinds_filed


def test_a_queue_that_we_hold_is_released_once_the_same_deployments_complete(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    subject = "queue:pool/default"
    steps = _steps(make, subject, FailureClass.UNHEALTHY, "hold_queue", ("proposed", -9), ("injected", -8))
    _sick_queue(planner_fixture, make, paused=True, ended=make.now - 10 * MINUTE)
    planner_fixture.store.add_decisions(steps)
    planner_fixture.ticks()
    assert "release_queue" not in planner_fixture.control_api.kinds_filed  # nothing has completed yet
    planner_fixture.store.merge_runs([_completed(make, 50, -4, queue="elsewhere")])
    assert "mended" in _found(planner_fixture)
    assert planner_fixture.control_api.kinds_filed.count("release_queue") == 1


@pytest.mark.parametrize(
    "steps", [(), (("proposed", -9),), (("proposed", -9), ("injected", -8), ("undone", -2))]
)
def test_a_queue_that_others_hold_is_theirs_to_release(
    planner_fixture: PlannerFixture, make: Any, steps: tuple[tuple[str, float], ...]
) -> None:
    _sick_queue(planner_fixture, make, paused=True, ended=make.now - 10 * MINUTE)
    planner_fixture.store.merge_runs([_completed(make, 50, -4, queue="elsewhere")])
    planner_fixture.store.add_decisions(
        _steps(make, "queue:pool/default", FailureClass.UNHEALTHY, "hold_queue", *steps)
    )
    planner_fixture.ticks()
    assert "release_queue" not in planner_fixture.control_api.kinds_filed


# -- one run


def _blocked_by_hold(
    planner_fixture: PlannerFixture, make: Any, *tags: str, other_paused: bool = False
) -> None:
    deadline = make.now + timedelta(minutes=20)
    planner_fixture.store.add_queues(
        [
            make.queue("default", 1, paused=True, waiting=1),
            make.queue("spare", 3, paused=other_paused),
            make.queue("busy", 2, waiting=7, paused=other_paused),
        ]
    )
    planner_fixture.store.merge_runs([make.upcoming(-60, tags=(f"deadline:{deadline.isoformat()}", *tags))])


def test_a_run_before_its_deadline_is_moved_out_of_a_held_queue(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _blocked_by_hold(planner_fixture, make, "pilotage:may-move")
    assert _found(planner_fixture) == ["held_up"]
    assert planner_fixture.control_api.actions == [
        {"kind": "move_run", "run_id": make.run_id, "queue": "spare"}
    ]


@pytest.mark.parametrize(("tags", "other_paused"), [((), False), (("pilotage:may-move",), True)])
def test_a_hold_is_respected_where_nobody_lets_the_run_move_or_nothing_is_open(
    planner_fixture: PlannerFixture, make: Any, tags: tuple[str, ...], other_paused: bool
) -> None:
    _blocked_by_hold(planner_fixture, make, *tags, other_paused=other_paused)
    assert _found(planner_fixture) == []


def test_a_run_is_not_moved_out_of_a_queue_that_is_held_for_its_own_faults(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _blocked_by_hold(planner_fixture, make, "pilotage:may-move")
    planner_fixture.store.add_decisions(
        _steps(
            make,
            "queue:pool/default",
            FailureClass.UNHEALTHY,
            "hold_queue",
            ("proposed", -9),
            ("injected", -8),
        )
    )
    assert _found(planner_fixture) == []


def _running(
    planner_fixture: PlannerFixture, make: Any, retries: int | None = 0, message: str = "ConnectError: no way"
) -> None:
    planner_fixture.store.merge_runs(
        [
            make.run(
                run_id=_id(1), state_id="s1", state_type=StateType.RUNNING, state_name="Running",
                state_message="", ended=None, retries=retries,
            ),
            *(
                make.run(
                    run_id=_id(n), state_id=f"s{n}", ended=make.now - timedelta(hours=n),
                    state_message=f"Flow run encountered an exception: {message}",
                )
                for n in (2, 3, 4)
            ),
        ]
    )  # fmt: skip


def test_a_running_run_that_will_probably_fail_of_what_passes_gets_retries(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _running(planner_fixture, make)
    planner_fixture.forecaster = FixedForecaster(make.now, 0.9)
    assert "fragile" in _found(planner_fixture)
    assert [a for a in planner_fixture.control_api.actions if a["kind"] == "raise_retries"] == [
        {"kind": "raise_retries", "run_id": _id(1), "retries": 2, "delay": "PT10S"}
    ]


def test_what_is_forecast_while_forecasts_are_wrong_moves_nothing_and_is_one_incident(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _running(planner_fixture, make)
    muted = "a storm since 2026-01-01T00:00:00+00:00: of the newest 25 ended attempts 20 failed, 2 were expected to"
    planner_fixture.forecaster = FixedForecaster(make.now, 0.9, muted)
    found = _found(planner_fixture)
    assert "forecast_off" in found
    assert "fragile" not in found
    assert "raise_retries" not in planner_fixture.control_api.kinds_filed
    told = [a for a in planner_fixture.control_api.actions if a["kind"] == "notify_owner"]
    assert [(each["run_id"], each["severity"]) for each in told] == [(_id(1), "warning")]


@pytest.mark.parametrize(
    ("p_fail", "retries", "message"),
    [
        (0.1, 0, "ConnectError: no way"),
        (0.9, 3, "ConnectError: no way"),
        (0.9, None, "ConnectError: no way"),
        (0.9, 0, "KeyError: 'a'"),
    ],
    ids=["inverted forecast", "it has retries", "nobody knows its retries", "a fault that stays"],
)
def test_a_running_run_is_left_alone_without_need_or_hope(
    planner_fixture: PlannerFixture, make: Any, p_fail: float, retries: int | None, message: str
) -> None:
    _running(planner_fixture, make, retries, message)
    planner_fixture.forecaster = FixedForecaster(make.now, p_fail)
    planner_fixture.ticks()
    assert "raise_retries" not in planner_fixture.control_api.kinds_filed


def _family(
    planner_fixture: PlannerFixture, make: Any, parent: StateType, *tags: str, ago: float = 30
) -> None:
    planner_fixture.store.merge_deployments([_deployment(make, *tags, deployment_id=OTHER)])
    ended = make.now - ago * MINUTE
    planner_fixture.store.merge_runs(
        [
            make.run(
                state_type=parent,
                state_name=parent.title(),
                state_message="",
                ended=ended,
                deployment_id=None,
            ),
            make.upcoming(-60, run_id=_id(5), state_id="s5", deployment_id=OTHER, parent_task_run_id="t-1"),
        ]
    )
    planner_fixture.store.merge_task_runs(
        [
            TaskRunFact(
                task_run_id="t-1", run_id=make.run_id, name="child", task_key="child",
                state_type=StateType.RUNNING, state_name="Running", updated=make.now,
            )
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parent", "tags"),
    [(StateType.CANCELLED, ()), (StateType.CRASHED, ("pilotage:dies-with-parent",))],
    ids=["cancelled", "crashed"],
)
def test_what_a_dead_run_started_is_cancelled_with_it(
    planner_fixture: PlannerFixture, make: Any, parent: StateType, tags: tuple[str, ...]
) -> None:
    _family(planner_fixture, make, parent, *tags)
    assert "orphaned" in _found(planner_fixture)
    [cancel] = [p for p, _ in planner_fixture.control_api.filed.values() if p.action.kind == "cancel_tree"]
    assert isinstance(cancel.action, CancelTree)
    assert cancel.action.run_id == make.run_id
    assert cancel.expected_state_id == make.run().state_id


@pytest.mark.parametrize(
    ("parent", "ago"),
    [(StateType.CRASHED, 30), (StateType.CANCELLED, 5), (StateType.COMPLETED, 30), (StateType.FAILED, 30)],
    ids=["its children may live on", "just now", "completed", "failed"],
)
def test_children_that_may_go_on_are_left_alone(
    planner_fixture: PlannerFixture, make: Any, parent: StateType, ago: float
) -> None:
    _family(planner_fixture, make, parent, ago=ago)
    planner_fixture.ticks()
    assert "cancel_tree" not in planner_fixture.control_api.kinds_filed


# -- declared remedies


def _remedy(make: Any, *tags: str, deployment_id: str = OTHER) -> DeploymentFact:
    return _deployment(make, "pilotage:remediation", *tags, deployment_id=deployment_id, name="mend")


BUG = "Flow run encountered an exception: KeyError: 'a'"


@pytest.mark.parametrize("what", ["code_bug", "key-error", "fingerprint"])
def test_the_remedy_that_was_declared_for_a_fault_is_started(
    planner_fixture: PlannerFixture, make: Any, what: str
) -> None:
    run = make.run(state_message=BUG)
    planner_fixture.store.merge_runs([run])
    [[probe]] = planner_fixture.ticks()
    declared = {"code_bug": "code_bug", "key-error": probe["rule_id"], "fingerprint": probe["fingerprint"]}[
        what
    ]
    planner_fixture.store.merge_deployments(
        [_deployment(make), _remedy(make, f"pilotage:remedies:{declared}")]
    )
    planner_fixture.store.merge_runs(
        [make.run(state_message=BUG, state_id="again", run_count=2, updated=make.now)]
    )
    planner_fixture.ticks()
    launched = [a for a in planner_fixture.control_api.actions if a["kind"] == "launch_remediation"]
    assert launched == [
        {"kind": "launch_remediation", "run_id": run.run_id, "deployment_id": OTHER, "attempt": 2}
    ]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (("pilotage:remedies:auth",), BUG),
        (("pilotage:remedies:code_bug", "team:other"), BUG),
    ],
    ids=["another fault", "another team"],
)
def test_a_remedy_is_not_started_for_what_it_does_not_cure(
    planner_fixture: PlannerFixture, make: Any, tags: tuple[str, ...], message: str
) -> None:
    planner_fixture.store.merge_deployments([_deployment(make), _remedy(make, *tags)])
    planner_fixture.store.merge_runs([make.run(state_message=message)])
    planner_fixture.ticks()
    assert "launch_remediation" not in planner_fixture.control_api.kinds_filed


def test_two_declared_remedies_are_no_answer(make: Any) -> None:
    around = Background(
        remedies=tuple(Remedy(deployment_id=one, cures=frozenset({"code_bug"})) for one in (OTHER, _id(1)))
    )
    plan = plan_for(
        make.incident_context(FailureClass.CODE_BUG, around=around), ("launch_remediation", "notify_owner")
    )
    assert [p.action.kind for p, _ in plan.proposals] == ["notify_owner"]
    assert "2 remedies are declared" in " ".join(plan.alternatives)


# -- what another attempt does again


def test_a_retry_says_beforehand_which_tasks_are_done_again(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_runs([make.run()])
    tasks = {"run_id": make.run_id, "updated": make.now, "state_name": "", "attempt": 1}
    planner_fixture.store.merge_task_runs(
        [
            TaskRunFact(
                task_run_id="t-1", name="extract-0", task_key="extract-0a1b2c3d",
                state_type=StateType.COMPLETED, kept=True, **tasks,
            ),
            TaskRunFact(
                task_run_id="t-2", name="load-0", task_key="load-0a1b2c3d", state_type=StateType.FAILED, **tasks
            ),
        ]
    )  # fmt: skip
    planner_fixture.ticks()
    [(proposal, case)] = planner_fixture.control_api.filed.values()
    assert proposal.action.kind == "retry_run"
    assert case.expected_effect.endswith("load and what follows run again; extract taken from storage")
