"""The evaluation set without a model: most causes are right, every one is cited, and nothing forbidden is ever planned."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from tests.eval.scenarios import LEVELS, NOW, Scenario, fill, scenarios
from tests.eval.score import Scored, scored, summary

from pilotage.planner.actions.types import KINDS
from pilotage.planner.investigate.investigation import investigate
from pilotage.telemetry.store.duckdb import DuckDBStore

ALL = scenarios()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scored]:
    return {each.id: _played(each, tmp_path_factory.mktemp("scenario")) for each in ALL}


def _played(scenario: Scenario, path: Path) -> Scored:
    store = DuckDBStore(path / "telemetry.duckdb")
    try:
        filled = fill(store, scenario)
        found = investigate(store, filled.subject, NOW, permitted=KINDS)
        assert found is not None
        return scored(scenario, filled, found.conclusion, found.steps)
    finally:
        store.close()


@cache
def _ids() -> list[str]:
    return [each.id for each in ALL]


def test_there_are_enough_on_three_levels_with_red_herrings() -> None:
    assert len(set(_ids())) == len(ALL) >= 30
    assert min(Counter(each.level for each in ALL)[level] for level in LEVELS) >= 10
    assert sum("herring" in each.given for each in ALL) >= 10
    assert all(each.forbidden for each in ALL)


def test_most_causes_are_right_and_most_are_cited(rows: dict[str, Scored]) -> None:
    whole = summary(list(rows.values()))
    assert whole["cause"] >= 0.7, [row for row in rows.values() if not row.cause]
    assert whole["cited"] >= 0.9, [row for row in rows.values() if not row.cited]
    assert whole["plan"] >= 0.8, [row for row in rows.values() if row.plan is False]


@pytest.mark.parametrize("scenario", _ids())
def test_nothing_that_is_forbidden_is_planned(scenario: str, rows: dict[str, Scored]) -> None:
    assert rows[scenario].forbidden == (), rows[scenario]


def test_a_plan_says_what_would_show_that_each_step_worked(tmp_path: Path) -> None:
    for number, scenario in enumerate(ALL[:12]):
        store = DuckDBStore(tmp_path / f"{number}.duckdb")
        found = investigate(store, fill(store, scenario).subject, NOW, permitted=KINDS)
        store.close()
        assert found is not None
        assert all(step.shows for step in found.steps)


def test_what_is_not_permitted_is_not_planned(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    found = investigate(store, fill(store, ALL[0]).subject, NOW, permitted=("notify_owner",))
    store.close()
    assert found is not None
    assert {step.action["kind"] for step in found.steps} <= {"notify_owner"}


def test_what_is_not_known_is_not_investigated(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    assert investigate(store, "run:aaaaaaaa-0000-4000-8000-000000000001", NOW) is None
    assert investigate(store, "deployment:nobody", NOW) is None
    store.close()
