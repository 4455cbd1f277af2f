"""Starts that pile up are moved apart within their slack, where such minutes began late before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.planner.planner_fixture import FixedForecaster, PlannerFixture

from pilotage.planner.detect.pile_up import slack_of, staggered
from pilotage.planner.loop.planner import Planner
from pilotage.telemetry.facts import QueueFact, ScheduleFact, StateType
from pilotage.telemetry.forecasts import Forecast

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def _id(n: int) -> str:
    return f"{n:08d}-1111-4111-8111-111111111111"


def piled(
    fixture: PlannerFixture, make: Any, *, late: timedelta, runs: int = 25, spread: timedelta = timedelta(0)
) -> None:
    """Many deployments that are due at one minute each day, and began so late in the last days."""
    due = make.now + timedelta(minutes=40)
    rows = []
    for number in range(runs):
        deployment = f"d-{number}"
        for day in (1, 2, 3):
            start = due - day * DAY + number * spread
            rows.append(
                make.run(
                    run_id=_id(1000 * day + number),
                    deployment_id=deployment,
                    auto_scheduled=True,
                    state_type=StateType.COMPLETED,
                    run_count=1,
                    created=start - DAY,
                    expected_start=start,
                    started=start + late,
                    ended=start + late + 5 * MINUTE,
                    updated=start + late + 5 * MINUTE,
                )
            )
        rows.append(
            make.upcoming(
                2400 + number * spread.total_seconds(),
                run_id=_id(number),
                deployment_id=deployment,
                auto_scheduled=True,
            )
        )
    fixture.store.merge_runs(rows)
    fixture.store.replace(
        "schedules",
        [
            ScheduleFact(
                schedule_id=f"s-{number}",
                deployment_id=f"d-{number}",
                cron="0 2 * * *",
                # half of them run so often that they have no slack
                every=(DAY if number % 2 else 15 * MINUTE).total_seconds(),
                seen=make.now,
            )
            for number in range(runs)
        ],
    )


def moves(fixture: PlannerFixture) -> list[dict[str, Any]]:
    fixture.ticks(2)
    return [each for each in fixture.control_api.actions if each["kind"] == "reschedule_run"]


def test_of_starts_that_began_late_before_five_with_slack_are_moved_apart(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    piled(planner_fixture, make, late=4 * MINUTE)
    moved = moves(planner_fixture)
    assert len(moved) == 5
    due = make.now + timedelta(minutes=40)
    for each in moved:
        assert int(each["run_id"][:8]) % 2 == 1, "a run without slack was moved"
        assert MINUTE <= datetime.fromisoformat(each["start"]) - due <= 15 * MINUTE
    assert len({each["start"] for each in moved}) > 1
    causes = {case.causes for _, case in planner_fixture.control_api.filed.values()}
    assert causes == {(f"ongoing:pile_up:pool:{make.run().pool}",)}


@pytest.mark.parametrize(
    ("late", "runs", "spread"),
    [
        (30 * timedelta(seconds=1), 25, timedelta(0)),
        (4 * MINUTE, 10, timedelta(0)),
        (4 * MINUTE, 25, 2 * MINUTE),
    ],
    ids=["began in time before", "few", "spread already"],
)
def test_starts_together_that_do_no_harm_are_left_alone(
    planner_fixture: PlannerFixture, make: Any, late: timedelta, runs: int, spread: timedelta
) -> None:
    piled(planner_fixture, make, late=late, runs=runs, spread=spread)
    assert moves(planner_fixture) == []


class LateStarts(FixedForecaster):
    """The same chance of a late start for every run, from so many known waits."""

    def __init__(self, make: Any, p_late: float, known: int, muted: str) -> None:
        super().__init__(make.now, p_late, muted)
        self.known = known

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        return tuple(replace(each, trained_on=self.known) for each in super().forecast(run_ids))


@pytest.mark.parametrize(
    ("p_late", "known", "muted", "moved"),
    [(0.9, 500, "", 5), (0.1, 500, "", 0), (0.1, 50, "", 5), (0.1, 500, "a storm", 5)],
    ids=["late again", "in time by now", "too few known", "muted"],
)
def test_the_forecast_of_starts_decides_whether_a_pile_is_moved(
    planner_fixture: PlannerFixture, make: Any, p_late: float, known: int, muted: str, moved: int
) -> None:
    piled(planner_fixture, make, late=4 * MINUTE)
    made = planner_fixture.planner

    def planner() -> Planner:
        planner = made()
        planner._late_starts = LateStarts(make, p_late, known, muted)
        return planner

    planner_fixture.planner = planner  # type: ignore[method-assign]
    assert len(moves(planner_fixture)) == moved
    if p_late == 0.9:
        [case, *_] = [case for _, case in planner_fixture.control_api.filed.values()]
        assert "90% of these are expected to start late" in case.notes[0]


def test_behind_a_limit_runs_are_meant_to_wait(planner_fixture: PlannerFixture, make: Any) -> None:
    piled(planner_fixture, make, late=4 * MINUTE)
    here = make.run()
    queue = QueueFact(pool=here.pool, queue=here.queue, priority=1, limit=2, at=make.now)
    planner_fixture.store.add_queues([queue])
    assert moves(planner_fixture) == []


def test_a_deadline_leaves_what_twice_the_longest_run_does_not_take(make: Any) -> None:
    run = make.upcoming(3600, auto_scheduled=True, deployment_id="d")
    assert slack_of(run, DAY, ()) == 15 * MINUTE
    assert slack_of(run, 30 * MINUTE, ()) == 3 * MINUTE
    assert slack_of(run, 10 * MINUTE, ()) == timedelta(0)
    assert slack_of(run, None, ()) == timedelta(0)
    deadline = (run.next_start + 30 * MINUTE).isoformat()
    near = make.upcoming(3600, auto_scheduled=True, deployment_id="d", tags=(f"deadline:{deadline}",))
    assert slack_of(near, DAY, (10 * MINUTE, 5 * MINUTE)) == 10 * MINUTE
    assert slack_of(near, DAY, (15 * MINUTE,)) == timedelta(0)
    assert slack_of(near, DAY, ()) == timedelta(0)
    asked_for = make.upcoming(3600, auto_scheduled=False)
    assert slack_of(asked_for, DAY, ()) == timedelta(0)
    assert staggered(run, timedelta(0)) is None
    assert staggered(run, 15 * MINUTE) == staggered(run, 15 * MINUTE)
