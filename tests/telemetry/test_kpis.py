"""The numbers of the work are counted right, say how they were made, and are not told from too little."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.samples import a_run, an_event, at

from pilotage.telemetry.facts import DecisionFact, EventFact, StateType
from pilotage.telemetry.forecast.upcoming import last_forecast, riskiest
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.kpis import Kpi, measured, wilson
from pilotage.telemetry.store.duckdb import DuckDBStore

HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


def step(
    n: int, when: float, what: str, outcome: str = "", *, playbook: str = "", **more: Any
) -> DecisionFact:
    given: dict[str, Any] = {
        "decision_id": f"{n}-{what}-{when}",
        "at": at(when),
        "proposal_id": f"p-{n}",
        "incident_id": f"i-{n}",
        "run_id": f"r-{n}",
        "step": what,
        "action": "retry_run",
        "outcome": outcome,
        "detail": {"failure_class": "transient", "playbook": playbook},
    }
    return DecisionFact(**(given | more))


def events(n: int, *named: tuple[float, str]) -> list[EventFact]:
    return [
        an_event(event_id=f"{n}-{when}", run_id=f"r-{n}", occurred=at(when), name=f"prefect.flow-run.{name}")
        for when, name in named
    ]


def recovery(store: DuckDBStore, n: int, began: float, *, by_hand: bool = False, asked: bool = False) -> None:
    """A run that fails at `began`, is proposed about 2 s later and completes 30 s after its failure."""
    store.merge_runs([a_run(f"r-{n}", StateType.COMPLETED, ended=at(began + 30), deployment_id=f"d-{n % 3}")])
    store.add_events(
        events(
            n, (began - 9, "Running"), (began, "Failed"), (began + 20, "Running"), (began + 30, "Completed")
        )
    )
    steps = [
        step(n, began + 2, "proposed", playbook="person" if by_hand else "transient"),
        step(n, began + 3, "judged", "needs_approval" if asked else "allow"),
        step(n, began + 10, "injected", "done"),
        step(n, began + 31, "verified", "verified"),
    ]
    if asked:
        steps.append(step(n, began + 8, "approved"))
    store.add_decisions(steps)


def by_name(found: list[Kpi]) -> dict[str, Kpi]:
    return {each.name: each for each in found}


def test_an_empty_store_has_no_numbers_and_says_how_they_would_be_made(store: DuckDBStore) -> None:
    found = measured(store, at(0))
    assert [each.value for each in found] == [None] * len(found)
    assert [each.cases for each in found] == [0] * len(found)
    assert all(each.definition and each.formula for each in found)


def test_times_shares_and_hours_are_counted_from_what_happened(store: DuckDBStore) -> None:
    for n in range(4):
        recovery(store, n, 1000.0 * n, by_hand=n == 3, asked=n in (0, 1, 2))
    found = by_name(measured(store, at(-100), minutes_by_hand=30))
    assert found["time to detect"].value == pytest.approx(2)
    assert found["time to approve"].value == pytest.approx(5)
    assert found["time to recover"].value == pytest.approx(30)
    assert found["handled with no human"].value == 0
    assert found["promises kept"].value == 1
    assert found["success rate"].value == 1
    assert found["reclaimed hours"].value == pytest.approx(3 * 30 / 60)
    assert "30 min" in found["reclaimed hours"].formula
    # r-0 and r-3 are of one deployment, and r-3 failed an hour after r-0 was well
    assert (found["recurrence"].value, found["recurrence"].cases) == (0.25, 4)
    assert found["retry-hours wasted"].value is None


def test_an_attempt_after_the_first_that_fails_again_is_wasted(store: DuckDBStore) -> None:
    store.add_events(
        events(1, (0, "Running"), (HOUR, "Failed"), (2 * HOUR, "Retrying"), (2.5 * HOUR, "Crashed"))
        + events(2, (0, "Running"), (1, "Failed"), (2, "Running"), (HOUR, "Completed"))
    )
    wasted = by_name(measured(store, at(-1)))["retry-hours wasted"]
    assert wasted.value == pytest.approx(0.5)
    assert wasted.cases == 1


def test_what_no_person_touched_was_handled_alone(store: DuckDBStore) -> None:
    for n in range(4):
        recovery(store, n, 100_000.0 * n, asked=n == 0)
    alone = by_name(measured(store, at(-100)))["handled with no human"]
    assert (alone.value, alone.cases) == (0.75, 4)
    assert alone.low is not None
    assert alone.high is not None
    assert alone.low < 0.75 < alone.high


def test_a_proposal_that_a_person_edited_was_not_taken_as_it_was(store: DuckDBStore) -> None:
    for n, steps in enumerate(
        (["approved"], ["approved", "approved"], ["approved", "rejected"], ["replaced"], [])
    ):
        told = [step(n, 2 + 0.1 * nth, name) for nth, name in enumerate(steps)]
        store.add_decisions([step(n, 1, "proposed"), *told])
    taken = by_name(measured(store, at(0)))["taken as proposed"]
    assert (taken.value, taken.cases) == (0.5, 4)


def test_two_cases_are_an_anecdote(store: DuckDBStore) -> None:
    for n in range(2):
        recovery(store, n, 1000.0 * n)
    assert by_name(measured(store, at(-100)))["time to recover"].value is None


@pytest.mark.parametrize(("k", "n"), [(0, 3), (3, 3), (1, 2), (50, 100)])
def test_the_interval_holds_the_share_and_stays_a_share(k: int, n: int) -> None:
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert high > low


def test_the_riskiest_of_the_next_runs_come_first_with_their_newest_forecast(store: DuckDBStore) -> None:
    waiting = {"started": None, "ended": None}
    soon = [a_run(f"r-{n}", StateType.SCHEDULED, next_start=at(60 * n), **waiting) for n in range(3)]
    late = a_run("r-9", StateType.SCHEDULED, next_start=at(0) + timedelta(days=3), **waiting)
    store.merge_runs([*soon, late])
    chances = [("r-0", 0.9, 0), ("r-0", 0.1, 5), ("r-1", 0.4, 0), ("r-9", 0.99, 0)]
    store.add_forecasts(
        [Forecast(run_id=r, made_at=at(t), p_fail=p, model="ewma", trained_on=9) for r, p, t in chances]
    )
    found = riskiest(store, at(0))
    assert [(risk.run.run_id, risk.forecast.p_fail) for risk in found] == [("r-1", 0.4), ("r-0", 0.1)]
    newest = last_forecast(store, "r-0")
    assert newest is not None
    assert newest.p_fail == 0.1
    assert last_forecast(store, "r-2") is None
