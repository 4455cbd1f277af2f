"""Sizes climb when a run needs it, come down after good runs one step at a time, and never below the deployment's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.planner_fixture import FixedForecaster, PlannerFixture

from pilotage.planner.detect.context import job_variables_of
from pilotage.planner.detect.memory_sizing import MAX_BACKOFF, Sized, sized, sizing_state, step_down
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.facts import DeploymentFact, PoolFact, StateType
from pilotage.telemetry.pool_memory import memory_of

P = PlaybookParameters(good_runs=3)
DEFAULT = 256
RAISED = Sized(size=384, completed=True, raised=True)
GOOD = Sized(size=384, completed=True, raised=False)
SMALL = Sized(size=DEFAULT, completed=True, raised=False)
KILLED = Sized(size=DEFAULT, completed=False, raised=False)


@pytest.mark.parametrize(
    ("past", "size", "lower"),
    [
        ([], DEFAULT, None),
        ([SMALL] * 9, DEFAULT, None),
        ([RAISED], 384, None),
        ([RAISED, GOOD], 384, None),
        ([RAISED, GOOD, GOOD], 384, DEFAULT),
        ([RAISED, GOOD, GOOD, SMALL], DEFAULT, None),
        ([RAISED, GOOD, GOOD, RAISED], 384, None),
        ([RAISED, GOOD, GOOD, RAISED, *[GOOD] * 5], 384, None),
        ([RAISED, GOOD, GOOD, RAISED, *[GOOD] * 6], 384, DEFAULT),
        ([RAISED, GOOD, KILLED, GOOD, GOOD, GOOD], 384, None),
        ([GOOD, GOOD, GOOD], 384, DEFAULT),
        ([SMALL, Sized(size=4096, completed=True, raised=False)], DEFAULT, None),
    ],
    ids=[
        "nothing known",
        "never raised",
        "just raised",
        "two good runs",
        "enough good runs",
        "less was enough",
        "less was not enough",
        "then twice as many are asked for",
        "and tried again",
        "one given up with less",
        "raised before what is read",
        "somebody's own choice",
    ],
)
def test_where_a_deployment_stands(past: list[Sized], size: int, lower: int | None) -> None:
    sizing = sizing_state(past, DEFAULT, P)
    assert (sizing.size, sizing.lower) == (size, lower)


RUNS = st.lists(
    st.builds(
        Sized, size=st.sampled_from([256, 384, 576, 864]), completed=st.booleans(), raised=st.booleans()
    ),
    max_size=40,
)


@given(RUNS)
def test_no_rung_is_below_the_deployments_own_or_above_what_completed(past: list[Sized]) -> None:
    sizing = sizing_state(past, DEFAULT, P)
    assert DEFAULT <= sizing.size <= max([DEFAULT, *(run.size for run in past if run.completed)])
    assert sizing.lower is None or DEFAULT <= sizing.lower < sizing.size
    assert 1 <= sizing.backoff <= MAX_BACKOFF


@pytest.mark.parametrize(("size", "down"), [(384, 256), (576, 384), (260, 256), (256, 256)])
def test_one_step_down_is_the_step_up_taken_back(size: int, down: int) -> None:
    assert step_down(size, DEFAULT, P) == down


# -- in stored telemetry


def _id(n: int) -> str:
    return f"{n:08d}-1111-4111-8111-111111111111"


def _past(planner_fixture: PlannerFixture, make: Any, *sizes: int, default: int = DEFAULT) -> None:
    """Completed runs, oldest first; the first had to be raised."""
    planner_fixture.parameters = P
    planner_fixture.store.merge_deployments(
        [
            DeploymentFact(
                deployment_id=make.deployment_id,
                name="nightly",
                flow_name="etl",
                job_variables={"memory_mb": default},
                updated=make.now,
            )
        ]
    )
    planner_fixture.store.merge_runs(
        [
            make.run(
                run_id=_id(n),
                state_id=f"s{n}",
                state_type=StateType.COMPLETED,
                state_name="Completed",
                state_message="",
                job_variables={"memory_mb": size},
                run_count=2 if n == 0 else 1,
                ended=make.now - timedelta(hours=24 - n),
            )
            for n, size in enumerate(sizes)
        ]
    )


def _sized(planner_fixture: PlannerFixture) -> list[tuple[str, int]]:
    planner_fixture.ticks(2)
    return [
        (a["run_id"], a["memory_mb"]) for a in planner_fixture.control_api.actions if a["kind"] == "size_run"
    ]


def test_the_next_run_starts_with_what_the_last_ones_needed(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _past(planner_fixture, make, 384)
    planner_fixture.store.merge_runs(
        [make.upcoming(600, run_id=_id(50)), make.upcoming(1200, run_id=_id(51))]
    )
    assert _sized(planner_fixture) == [(_id(50), 384), (_id(51), 384)]
    [(first, case), _] = planner_fixture.control_api.filed.values()
    assert "its last runs needed 384 MiB" in case.notes[0]
    assert first.expires_at == make.now + timedelta(seconds=600)


def test_after_good_runs_one_run_is_tried_with_less(planner_fixture: PlannerFixture, make: Any) -> None:
    _past(planner_fixture, make, 576, 576, 576)
    planner_fixture.store.merge_runs(
        [make.upcoming(600, run_id=_id(50)), make.upcoming(1200, run_id=_id(51))]
    )
    assert _sized(planner_fixture) == [(_id(50), 384), (_id(51), 576)]


def test_a_run_is_not_tried_with_less_when_it_will_probably_fail(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _past(planner_fixture, make, 576, 576, 576)
    planner_fixture.store.merge_runs([make.upcoming(600, run_id=_id(50))])
    planner_fixture.forecaster = FixedForecaster(make.now, 0.9)
    assert _sized(planner_fixture) == []
    planner_fixture.forecaster = FixedForecaster(make.now, 0.1)
    assert _sized(planner_fixture) == [(_id(50), 384)]


@pytest.mark.parametrize(
    ("p_fail", "kinds"),
    [(0.9, ["size_run"]), (0.1, ["size_run"])],
    ids=["likely to fail", "not likely"],
)
def test_a_run_likely_to_fail_that_is_given_what_it_needs_is_not_delayed_too(
    planner_fixture: PlannerFixture, make: Any, p_fail: float, kinds: list[str]
) -> None:
    _past(planner_fixture, make, 384)
    planner_fixture.store.merge_runs([make.upcoming(600, run_id=_id(50))])
    planner_fixture.forecaster = FixedForecaster(make.now, p_fail)
    planner_fixture.ticks(2)
    assert planner_fixture.control_api.kinds_filed == kinds


def test_where_runs_fail_of_something_else_too_a_run_at_risk_is_still_delayed(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    _past(planner_fixture, make, 384)
    planner_fixture.store.merge_runs(
        [make.upcoming(600, run_id=_id(50)), make.run(run_id=_id(60), ended=make.now - timedelta(hours=9))]
    )
    planner_fixture.forecaster = FixedForecaster(make.now, 0.9)
    planner_fixture.ticks()
    assert {"size_run", "reschedule_run"} <= set(planner_fixture.control_api.kinds_filed)


@pytest.mark.parametrize(
    ("seconds", "changes"),
    [(20, {}), (600, {"job_variables": {"memory_mb": 384}}), (600, {"run_count": 1})],
    ids=["about to start", "it has the size", "a retry that waits"],
)
def test_a_run_that_needs_no_other_size_is_left_alone(
    planner_fixture: PlannerFixture, make: Any, seconds: float, changes: dict[str, Any]
) -> None:
    _past(planner_fixture, make, 384)
    planner_fixture.store.merge_runs([make.upcoming(seconds, run_id=_id(50), **changes)])
    assert _sized(planner_fixture) == []


def test_what_ran_out_and_what_failed_otherwise_are_told_apart(make: Any) -> None:
    out = make.run(state_message="Flow run encountered an exception: MemoryError: ", job_variables={})
    bug = make.run(state_message="Flow run encountered an exception: KeyError: 'a'")
    assert sized([bug, out], DEFAULT) == (Sized(size=DEFAULT, completed=False, raised=False),)


@pytest.mark.parametrize(
    ("sizes", "of_deployment", "of_run", "mib"),
    [
        ({"memory_limit": "512Mi"}, {}, {}, 512),
        ({"memory_limit": "512Mi"}, {"memory_limit": "1Gi"}, {}, 1024),
        ({"memory_limit": "512Mi"}, {"memory_limit": "1Gi"}, {"memory_limit": "2Gi"}, 2048),
        ({"memory_limit": None}, {"memory": "1Gi"}, {}, None),
        ({}, {"memory_limit": "1Gi"}, {}, 1024),
    ],
)
def test_a_run_has_the_size_that_a_worker_would_merge(
    make: Any, sizes: dict[str, Any], of_deployment: dict[str, Any], of_run: dict[str, Any], mib: int | None
) -> None:
    pool = PoolFact(pool="pool", type="kubernetes", sizes=sizes, seen=make.now)
    deployment = DeploymentFact(
        deployment_id=make.deployment_id,
        name="n",
        flow_name="f",
        updated=make.now,
        job_variables=of_deployment,
    )
    merged = job_variables_of(make.run(job_variables=of_run), deployment, pool)
    assert memory_of(merged, pool.type) == mib
