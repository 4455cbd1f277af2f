"""The forecast of durations rests on runs that had ended, and its interval holds what it says."""

from __future__ import annotations

import csv
import random
from dataclasses import replace

import numpy as np
import pytest

from pilotage.telemetry.forecast.duration_backtest import duration_backtest, walk_durations
from pilotage.telemetry.forecast.durations import DurationHistory, durations_of
from pilotage.telemetry.forecast.history_file import read_history
from pilotage.telemetry.forecast.run_history import RunHistory


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    """Return 900 runs of twenty deployments whose length is its own, times a requested size, times noise."""
    path = tmp_path_factory.mktemp("history") / "site.csv"
    draw = random.Random(5)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("run_id", "deployment", "submitted_at", "ended_at", "outcome", "size"))
        for number in range(900):
            deployment, size = draw.randrange(20), draw.choice((1, 2, 8))
            lasts = 20 * (1 + deployment) * size * draw.lognormvariate(0, 0.3)
            rows.writerow(
                (f"r{number}", f"d{deployment}", number * 50, number * 50 + lasts, "COMPLETED", size)
            )
    return read_history(path)


def test_the_interval_holds_what_it_says_and_the_quantiles_beat_the_deployments_own(
    history: RunHistory,
) -> None:
    report = duration_backtest(history, "60%")
    assert isinstance(report["coverage"], float)
    assert 0.84 <= report["coverage"] <= 0.96
    assert isinstance(report["pinball_gain"], dict)
    assert report["pinball_gain"]["mean"] > 0.1


def test_a_duration_that_is_known_later_changes_nothing_and_one_that_is_known_does(
    history: RunHistory,
) -> None:
    until = history.moment("60%")
    moment = float(history.submitted[700])
    later = history.ended >= moment
    seconds = durations_of(history)
    longer = replace(history, ended=np.where(later, history.ended + 9_000.0, history.ended))
    one = walk_durations(history, seconds, until)
    other = walk_durations(longer, durations_of(longer), until)
    before = history.submitted[one.rows] <= moment
    for share in (0.5, 0.9):
        assert np.array_equal(one.served[share][before], other.served[share][before])
    assert np.array_equal(one.low[before], other.low[before])
    assert np.array_equal(one.high[before], other.high[before])
    # the test can fail: later forecasts do see them
    assert not np.array_equal(one.served[0.5][~before], other.served[0.5][~before])


def test_a_runs_own_duration_is_not_among_what_is_known_of_it(history: RunHistory) -> None:
    past = DurationHistory(history)
    for run in range(50):
        past.add(run, 100.0)
    changed = replace(history, ended=history.ended + 77.0, started=history.submitted + 5.0)
    other = DurationHistory(changed)
    for run in range(50):
        other.add(run, 100.0)
    assert np.array_equal(past.row(60, 3000.0), other.row(60, 3000.0), equal_nan=True)
    other.add(51, 9_999.0)
    assert not np.array_equal(past.row(60, 3000.0), other.row(60, 3000.0), equal_nan=True)
