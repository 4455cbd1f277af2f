"""Late starts are forecast as failures are: from waits that were over before, with what waits now as what is in flight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.console.cli.test_forecast_trials import say
from tests.telemetry.samples import a_run, at

from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecast.attempts import stored_history
from pilotage.telemetry.forecast.history_file import read_history
from pilotage.telemetry.forecast.lateness import starts, waits_of
from pilotage.telemetry.forecast.live import LiveForecaster
from pilotage.telemetry.forecast.point_in_time import features
from pilotage.telemetry.forecast.training import train
from pilotage.telemetry.store.duckdb import DuckDBStore

MINUTES = timedelta(minutes=5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


def begun(run_id: str, due: float, waited: float, queue: str = "default") -> RunFact:
    return a_run(
        run_id,
        StateType.COMPLETED,
        queue=queue,
        deployment_id=f"of-{queue}",
        created=at(due - 60),
        expected_start=at(due),
        started=at(due + waited),
        ended=at(due + waited + 30),
        updated=at(due + waited + 30),
    )


def waiting(run_id: str, due: float, queue: str = "default", deployment: str = "d-1") -> RunFact:
    return a_run(
        run_id, StateType.SCHEDULED, queue=queue, deployment_id=deployment, created=at(due - 60),
        expected_start=at(due), next_start=at(due), started=None, ended=None, run_count=0,
    )  # fmt: skip


def site_file(path: Path, runs: int = 400) -> Path:
    """A site whose queue jams every hundred runs: then each waits longer than the one before it."""
    rows = ["run_id,deployment,submitted_at,started_at,ended_at,outcome"]
    for number in range(runs):
        jammed = number % 100 >= 60
        waited = (number % 100 - 60) * 40 + 100 if jammed else number % 7
        begin = number * 60
        rows.append(f"r{number},d{number % 5},{begin},{begin + waited},{begin + waited + 20},COMPLETED")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_wait_ends_with_the_start_and_is_late_where_it_lasted_longer(tmp_path: Path) -> None:
    path = tmp_path / "waits.csv"
    path.write_text(
        "run_id,deployment,submitted_at,started_at,ended_at,outcome\n"
        "soon,d,0,10,999,FAILED\nlate,d,0,400,999,COMPLETED\ngiven-up,d,0,,500,CANCELLED\n"
        "withdrawn,d,0,,20,CANCELLED\nwaits,d,0,,,RUNNING\n"
    )
    history = read_history(path)
    waits, late = waits_of(history, MINUTES)
    by_run = {name: (bool(late[row]), float(waits.ended[row])) for row, name in enumerate(waits.run_id)}
    assert by_run == {
        "soon": (False, 10),
        "late": (True, 400),
        "given-up": (True, 500),
        "withdrawn": (False, 20),
        "waits": (False, np.inf),
    }


def test_a_start_that_comes_later_changes_no_feature_and_an_earlier_one_does(tmp_path: Path) -> None:
    waits, late = waits_of(read_history(site_file(tmp_path / "site.csv")), MINUTES)
    moment = waits.submitted[300]
    later = waits.ended >= moment
    upto = np.arange(301)

    def rows(labels: np.ndarray, ended: np.ndarray) -> np.ndarray:
        made: np.ndarray = features(replace(waits, ended=ended), labels).rows[upto]
        return made

    known = rows(late, waits.ended)
    assert np.array_equal(known, rows(np.where(later, ~late, late), waits.ended))
    assert np.array_equal(known, rows(late, np.where(later, waits.ended + 500, waits.ended)))
    assert not np.array_equal(known, rows(np.where(later, late, ~late), waits.ended))


def test_the_backtest_scores_what_would_have_been_served(tmp_path: Path) -> None:
    path, out = str(site_file(tmp_path / "site.csv")), tmp_path / "late.parquet"
    report = say("forecast", "lateness-backtest", path, "--late-after", "300", "--out", str(out))
    assert report["counts"]["test"] == 100
    assert report["served"]["roc_auc"] > 0.9
    assert {row["act_above"] for row in report["thresholds"]} >= {0.3, 0.5}
    assert out.is_file()


def test_a_store_is_read_as_waits(store: DuckDBStore) -> None:
    store.merge_runs(
        [begun("soon", 0, 5), begun("late", 100, 400), waiting("now", 450), waiting("soon-due", 9_000)]
    )
    source = starts(MINUTES)
    history = stored_history(store, at(600), source)
    assert {a.run_id: a.outcome for a in history.attempts} == {
        "soon": "COMPLETED",
        "late": "FAILED",
        "now": "RUNNING",
    }
    # a start that lies ahead is not known
    assert [a.run_id for a in stored_history(store, at(300), source).attempts] == ["soon"]
    assert set(source.following(store, ["soon-due"], at(600))) == {"soon-due"}


def test_the_live_forecast_of_starts_tells_a_jammed_queue_from_a_free_one(store: DuckDBStore) -> None:
    store.merge_runs([begun(f"j{n}", 20 * n, 900, "jammed") for n in range(60)])
    store.merge_runs([begun(f"f{n}", 20 * n, 3, "free") for n in range(60)])
    store.merge_runs([waiting("a", 9_000, "jammed", "of-jammed"), waiting("b", 9_000, "free", "of-free")])
    forecaster = LiveForecaster(store, source=starts(MINUTES), clock=lambda: at(3_000))
    found = {each.run_id: each.p_fail for each in forecaster.forecast(["a", "b"])}
    assert found["a"] > 0.8 > 0.5 > found["b"]
    bundle = train(store, at(3_000), starts(MINUTES))
    assert bundle is not None
    assert bundle.card["label"] == ["starts more than 300 s late"]
