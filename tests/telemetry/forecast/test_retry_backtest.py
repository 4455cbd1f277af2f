"""Whether to retry is learned from outcomes that were known, from the log where there is one and without it."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.retry import best_threshold
from pilotage.telemetry.forecast.retry_backtest import retry_backtest, walk_retries
from pilotage.telemetry.forecast.retry_file import RetryDecisions, read_decisions, succeeded

HELPED = ("connection reset by peer", "node was lost", "timed out waiting for the registry")
HOPELESS = ("assertion failed in test_price", "could not compile module", "KeyError in load_orders")


@pytest.fixture(scope="module")
def decisions(tmp_path_factory: pytest.TempPathFactory) -> RetryDecisions:
    """Return 400 decisions of ten workflows; what the log says decides, nine times in ten."""
    path = tmp_path_factory.mktemp("attempts") / "attempts.csv"
    draw = random.Random(11)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("chain", "workflow", "attempt", "decided_at", "outcome", "log_tail"))
        for number in range(400):
            workflow = draw.randrange(10)
            passing = draw.random() < (0.8 if workflow < 4 else 0.2)
            words = draw.choice(HELPED if passing else HOPELESS)
            good = passing if draw.random() < 0.95 else not passing
            rows.writerow(
                (f"c{number}", f"w{workflow}", 1, 1.7e9 + number * 900, "success" if good else "failure",
                 f"step {number}\n{words}")
            )  # fmt: skip
    return read_decisions(path)


def test_the_log_says_most_and_the_history_something(decisions: RetryDecisions, tmp_path: Path) -> None:
    report = retry_backtest(decisions, "60%", tmp_path / "out.parquet")
    served, without, always = report["served"], report["without_logs"], report["candidates"]
    assert isinstance(served, dict)
    assert isinstance(without, dict)
    assert isinstance(always, dict)
    assert report["f1"] == served["f1"] > 0.85
    assert served["f1"] > without["f1"] > always["always"]["f1"]
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 160
    assert {"chain", "attempt", "p_served", "p_without_logs", "retry", "forecast_at"} <= set(
        table.column_names
    )


def test_outcomes_that_were_known_later_change_nothing_and_known_ones_do(decisions: RetryDecisions) -> None:
    moment = float(decisions.decided[320])
    later = decisions.known >= moment
    flipped = np.where(later, ~decisions.succeeded, decisions.succeeded)
    until = float(decisions.decided[240])
    one = walk_retries(decisions, decisions.succeeded, 240, until)
    other = walk_retries(decisions, flipped, 240, until)
    before = decisions.decided[240:] <= moment
    for name in one.made:
        assert np.array_equal(one.made[name][before], other.made[name][before]), name
        assert not np.array_equal(one.made[name][~before], other.made[name][~before]), name


def test_shuffled_outcomes_leave_nothing_to_find(decisions: RetryDecisions) -> None:
    shuffled = np.random.default_rng(2).permutation(decisions.succeeded)
    report = retry_backtest(replace(decisions, succeeded=shuffled))
    assert isinstance(report["served"], dict)
    assert 0.35 < report["served"]["roc_auc"] < 0.65


def test_an_outcome_is_known_when_its_chain_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "chain,workflow,attempt,decided_at,outcome\n"
        "c,w,1,1000,failure\nc,w,2,1600,success\nd,w,1,1100,cancelled\ne,w,1,1200,running\n"
    )
    read = read_decisions(tmp_path / "a.csv")
    assert list(read.known) == [1600, 4700, np.inf, 5200]
    assert list(read.succeeded) == [False, False, False, True]


@pytest.mark.parametrize(
    ("word", "means"), [("COMPLETED", True), ("1", True), ("regular", False), ("", None)]
)
def test_words_for_outcomes(word: str, means: bool | None) -> None:
    assert succeeded(word) is means


def test_an_outcome_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither success nor failure"):
        succeeded("purple")


def test_the_threshold_is_half_of_the_best_f1_that_is_expected() -> None:
    assert best_threshold(np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.5)
    assert best_threshold(np.full(10, 0.3)) == pytest.approx(0.3 / 1.3)
