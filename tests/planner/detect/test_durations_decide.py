"""What is forecast of a run's duration decides: which young deployment's run is overlong, and which deadline is near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.planner.planner_fixture import FixedForecaster, PlannerFixture

from pilotage.planner.detect.starvation import late_runs
from pilotage.planner.detect.unusual import overlong
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.forecast.live import LiveForecaster
from pilotage.telemetry.forecasts import DurationForecast

P = PlaybookParameters()
MINUTE = timedelta(minutes=1)
HANGS = "33333333-1111-4111-8111-111111111111"
OTHER = "22222222-1111-4111-8111-111111111111"


def takes(make: Any, run_id: str, minutes: float, **changes: Any) -> DurationForecast:
    made = DurationForecast(
        run_id=run_id,
        made_at=make.now,
        median=minutes / 2 * MINUTE,
        p90=minutes * MINUTE,
        latest=2 * minutes * MINUTE,
        runs=4,
        scored=500,
    )
    return replace(made, **changes)


class DurationsToo(FixedForecaster):
    """The same chance and the same duration for every run."""

    def __init__(self, make: Any, minutes: float) -> None:
        super().__init__(make.now)
        self.make, self.minutes = make, minutes

    def durations(self, run_ids: Sequence[str]) -> tuple[DurationForecast, ...]:
        return tuple(takes(self.make, run_id, self.minutes) for run_id in run_ids)


def test_a_run_of_a_young_deployment_is_overlong_by_what_is_forecast_of_it(make: Any) -> None:
    run = make.run(state_type=StateType.RUNNING, started=make.now - 45 * MINUTE, ended=None)
    for minutes, found in ((20.0, True), (25.0, False)):
        expected = {run.run_id: takes(make, run.run_id, minutes)}
        findings = overlong([run], {}, expected, make.now, P)
        assert bool(findings) is found
    [finding] = overlong([run], {}, {run.run_id: takes(make, run.run_id, 20)}, make.now, P)
    assert "995 of a thousand 40 min" in finding.evidence[0].note


@pytest.mark.parametrize("thin", [{"runs": 2}, {"scored": 199}], ids=["two runs", "a small site"])
def test_what_rests_on_too_little_finds_no_overlong_run(make: Any, thin: dict[str, int]) -> None:
    run = make.run(state_type=StateType.RUNNING, started=make.now - 45 * MINUTE, ended=None)
    expected = {run.run_id: takes(make, run.run_id, 1, **thin)}
    assert overlong([run], {}, expected, make.now, P) == []


def test_a_deployment_with_a_history_goes_by_its_own_longest(make: Any) -> None:
    run = make.run(state_type=StateType.RUNNING, started=make.now - 45 * MINUTE, ended=None)
    own = {run.deployment_id: [30 * MINUTE] * 8}
    assert overlong([run], own, {run.run_id: takes(make, run.run_id, 1)}, make.now, P) == []


def test_a_deadline_is_near_when_the_run_must_start_soon_to_meet_it(make: Any) -> None:
    deadline = make.now + 150 * MINUTE
    run = make.upcoming(-10, tags=(f"deadline:{deadline.isoformat()}",))
    ahead = make.upcoming(-60, run_id=OTHER)
    assert late_runs([run, ahead], {}, make.now, P) == []
    assert late_runs([run, ahead], {run.run_id: takes(make, run.run_id, 60)}, make.now, P) == []
    [finding] = late_runs([run, ahead], {run.run_id: takes(make, run.run_id, 100)}, make.now, P)
    assert "nine of ten of its like take up to 100 min" in finding.evidence[0].note


@pytest.mark.parametrize(("minutes", "boosted"), [(100.0, True), (10.0, False)])
def test_the_planner_boosts_a_run_by_how_long_it_takes(
    planner_fixture: PlannerFixture, make: Any, minutes: float, boosted: bool
) -> None:
    deadline = make.now + 150 * MINUTE
    run = make.upcoming(-10, tags=(f"deadline:{deadline.isoformat()}",))
    planner_fixture.store.merge_runs([run, make.upcoming(-60, run_id=OTHER)])
    planner_fixture.forecaster = DurationsToo(make, minutes)
    planner_fixture.ticks()
    assert ("reschedule_run" in planner_fixture.control_api.kinds_filed) is boosted


def test_the_live_forecast_finds_a_hanging_run_of_a_deployment_that_ran_four_times(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    def run_of(name: str, number: int, took: timedelta) -> Any:
        began = make.now - timedelta(hours=30) + number * 5 * MINUTE
        return make.run(
            run_id=f"{name}-{number}",
            deployment_id=name,
            flow_name="etl",
            state_type=StateType.COMPLETED,
            state_name="Completed",
            state_message="",
            started=began,
            ended=began + took,
            updated=began + took,
        )

    others = [run_of(f"d{n % 10}", n, (2 + n % 3) * MINUTE) for n in range(260)]
    young = [run_of("young", 300 + n, 3 * MINUTE) for n in range(4)]

    def running(run_id: str, minutes: float) -> Any:
        return make.run(
            run_id=run_id,
            deployment_id="young",
            state_type=StateType.RUNNING,
            state_name="Running",
            started=make.now - minutes * MINUTE,
            state_at=make.now - minutes * MINUTE,
            ended=None,
        )

    hangs, goes_on = running(HANGS, 180), running(OTHER, 9)
    planner_fixture.store.merge_runs([*others, *young, hangs, goes_on])
    planner_fixture.forecaster = LiveForecaster(planner_fixture.store, clock=lambda: make.now)
    [events] = planner_fixture.ticks()
    overlong_runs = [each["subject"] for each in events if each["failure_class"] == "overlong"]
    assert overlong_runs == [f"run:{HANGS}"]
