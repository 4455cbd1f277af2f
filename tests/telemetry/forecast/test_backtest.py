"""The backtest of the failure forecast looks at nothing that had not ended, and learns what there is to learn."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.backtest import backtest, walk_forward
from pilotage.telemetry.forecast.fitting import fit
from pilotage.telemetry.forecast.history_file import read_history
from pilotage.telemetry.forecast.point_in_time import Features, features
from pilotage.telemetry.forecast.run_history import RunHistory, canonical

COLUMNS = (
    "run_id",
    "deployment",
    "owner",
    "queue",
    "submitted_at",
    "started_at",
    "ended_at",
    "outcome",
    "procs",
)


def site(path: Path, runs: int = 420) -> RunHistory:
    """Write a site of twelve deployments, some of which fail most of the time, and read it back."""
    draw = random.Random(7)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for number in range(runs):
            deployment = draw.randrange(12)
            submitted = number * 60
            ended = submitted + 5 + draw.randrange(4000)
            outcome = "FAILED" if draw.random() < (0.7 if deployment < 3 else 0.05) else "COMPLETED"
            if draw.random() < 0.1:
                outcome = "CANCELLED"
            if number > runs - 5:
                outcome = "RUNNING"
            rows.writerow(
                (f"r{number}", f"d{deployment}", f"o{deployment % 3}", "", submitted, submitted + 5,
                 "" if outcome == "RUNNING" else ended, outcome, deployment)
            )  # fmt: skip
    return read_history(path)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    """Return the site's history."""
    return site(tmp_path_factory.mktemp("history") / "site.csv")


def same(left: Features, right: Features, rows: np.ndarray) -> bool:
    return bool(np.array_equal(left.rows[rows], right.rows[rows]))


def test_features_follow_their_definition_computed_one_run_at_a_time(history: RunHistory) -> None:
    failed, ended = history.failed(["FAILED"]), history.has_ended()
    found = features(history, failed)
    at = {name: place for place, name in enumerate(found.names)}
    for row in range(0, len(history), 17):
        mine = history.deployment == history.deployment[row]
        known = mine & ended & (history.ended < history.submitted[row])
        assert found.rows[row, at["deployment_ended"]] == pytest.approx(np.log1p(known.sum()), abs=1e-5)
        assert found.rows[row, at["deployment_failures"]] == pytest.approx(
            np.log1p((known & failed).sum()), abs=1e-5
        )
        before = mine & (np.arange(len(history)) < row)
        assert found.rows[row, at["deployment_in_flight"]] == pytest.approx(
            np.log1p(before.sum() - known.sum()), abs=1e-5
        )
        recent = known & failed & (history.ended >= history.submitted[row] - 3600)
        assert found.rows[row, at["deployment_recent_failures"]] == pytest.approx(
            np.log1p(recent.sum()), abs=1e-5
        )
        order = np.flatnonzero(known)[np.argsort(history.ended[known], kind="stable")]
        streak = 0
        for one in order[::-1]:
            if not failed[one]:
                break
            streak += 1
        assert found.rows[row, at["deployment_failures_in_a_row"]] == pytest.approx(
            np.log1p(streak), abs=1e-5
        )


def test_what_ends_later_changes_no_feature_and_what_ended_earlier_does(history: RunHistory) -> None:
    failed = history.failed(["FAILED"])
    row = 300
    moment = history.submitted[row]
    later, earlier = history.ended >= moment, history.ended < moment
    found = features(history, failed)
    upto = np.arange(row + 1)
    assert same(found, features(history, np.where(later, ~failed, failed)), upto)
    moved = replace(history, ended=np.where(later, history.ended + 5000.0, history.ended))
    assert same(found, features(moved, failed), upto)
    # the test can fail: what had ended is seen
    assert not same(found, features(history, np.where(earlier, ~failed, failed)), upto)


def test_a_run_that_ends_in_the_second_of_its_submission_does_not_know_its_own_end(
    history: RunHistory,
) -> None:
    instant = replace(history, ended=np.where(history.has_ended(), history.submitted, history.ended))
    failed = history.failed(["FAILED"])
    flipped = failed.copy()
    flipped[200] = ~flipped[200]
    first = np.arange(201)
    assert same(features(instant, failed), features(instant, flipped), first)
    assert not same(features(instant, failed), features(instant, flipped), np.arange(201, len(history)))


def test_forecasts_do_not_change_when_outcomes_that_came_later_are_shuffled(history: RunHistory) -> None:
    failed = history.failed(["FAILED"])
    until = history.moment("75%")
    moment = float(history.submitted[370])
    later = history.ended >= moment
    shuffled = failed.copy()
    shuffled[later] = np.random.default_rng(1).permutation(failed[later])
    assert (shuffled != failed).any()
    one, other = walk_forward(history, failed, until), walk_forward(history, shuffled, until)
    made_before = one.history.submitted[one.rows] <= moment
    for name in one.made:
        assert np.allclose(one.made[name][made_before], other.made[name][made_before], rtol=0, atol=1e-9), (
            name
        )
    assert not np.allclose(one.made["rate"], other.made["rate"], rtol=0, atol=1e-9)


def test_shuffled_labels_leave_nothing_to_find_and_the_true_ones_do(history: RunHistory) -> None:
    failed, ended = history.failed(["FAILED"]), history.has_ended()
    from sklearn.metrics import roc_auc_score

    def auc(labels: np.ndarray) -> float:
        walk = walk_forward(history, labels, history.moment("70%"))
        scored = ended[walk.rows]
        return float(roc_auc_score(labels[walk.rows][scored], walk.made["served"][scored]))

    assert auc(failed) > 0.75
    assert 0.35 < auc(np.random.default_rng(3).permutation(failed)) < 0.65


def test_the_report_has_each_candidate_and_the_forecasts_a_row_for_each_run(
    history: RunHistory, tmp_path: Path
) -> None:
    report = backtest(history, ["FAILED"], "75%", tmp_path / "forecasts.parquet")
    table = pq.read_table(tmp_path / "forecasts.parquet")
    until = history.moment("75%")
    assert table["run_id"].to_pylist() == [
        name for name, at in zip(history.run_id, history.submitted, strict=True) if at >= until
    ]
    names = {"rate", "ewma", "logistic", "boosting"}
    assert set(table.column_names) == {"run_id", "forecast_at", "p_served", *(f"p_{name}" for name in names)}
    assert isinstance(report["candidates"], dict)
    assert set(report["candidates"]) == names
    assert isinstance(report["served"], dict)
    assert {"roc_auc", "pr_auc", "brier", "ece", "log_loss"} <= set(report["served"])


def test_a_label_that_never_occurs_is_refused_with_those_that_do(history: RunHistory) -> None:
    with pytest.raises(ConfigError, match="CANCELLED, COMPLETED, FAILED"):
        backtest(history, ["EXPLODED"], "75%")


def test_a_file_without_the_columns_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("run_id,outcome\n1,FAILED\n")
    with pytest.raises(ConfigError, match="deployment, submitted_at"):
        read_history(tmp_path / "x.csv")


def test_swf_is_read_with_its_clock_and_its_requests(tmp_path: Path) -> None:
    (tmp_path / "x.swf").write_text(
        "; UnixStartTime: 843467400\n"
        "1 10 5 100 4 -1 -1 4 600 -1 1 7 1 -1 1 -1 -1 -1\n"
        "2 20 0 50 8 -1 -1 8 300 -1 0 7 1 -1 1 -1 -1 -1\n"
    )
    read = read_history(tmp_path / "x.swf")
    assert read.clock
    assert list(read.submitted) == [843467410, 843467420]
    assert list(read.ended) == [843467515, 843467470]
    assert read.outcome == ("COMPLETED", "FAILED")
    assert list(read.numbers["procs"]) == [4, 8]
    assert read.moment("20") == 843467420


def test_times_may_be_timestamps(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "run_id,deployment,submitted_at,ended_at,outcome\n"
        "a,d,2026-01-01T00:00:00Z,2026-01-01T00:01:00Z,success\nb,d,2026-01-01T01:00:00Z,,running\n"
    )
    read = read_history(tmp_path / "x.csv")
    assert read.ended[0] - read.submitted[0] == 60
    assert list(read.has_ended()) == [True, False]
    assert list(read.completed()) == [True, False]


@pytest.mark.parametrize(
    ("word", "means"), [("FINISH", "COMPLETED"), ("kill", "CANCELLED"), ("Weird", "WEIRD")]
)
def test_words_of_other_sources_are_understood(word: str, means: str) -> None:
    assert canonical(word) == means


def test_numbers_that_no_run_has_keep_no_model_from_being_fitted() -> None:
    count = 3_000
    random = np.random.default_rng(1)
    rows = np.column_stack([random.random(count), np.full(count, np.nan)])
    failed = rows[:, 0] > random.random(count)
    flat = np.full(count, failed.mean())
    models = fit(
        Features(names=("known", "never"), rows=rows, rate=flat, ewma=flat), failed, np.arange(count)
    )
    assert models.boosting is not None
    assert np.isfinite(models.boosting.predict_proba(rows)).all()
