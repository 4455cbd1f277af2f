"""Forecasts rest on what had ended, and the model that has been right lately serves."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry.samples import NOON, a_queue, a_run, an_event, at

from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecast import baseline, features, selection
from pilotage.telemetry.forecast.features import Attempt, History, replay
from pilotage.telemetry.forecast.logistic import SLICE, SLICE_RATE, slice_attempts, slice_features
from pilotage.telemetry.forecast.selection import ChampionForecaster
from pilotage.telemetry.forecasts import Forecaster
from pilotage.telemetry.store.duckdb import DuckDBStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


def ended_runs(deployment: str, outcomes: str, first: float = 0, every: float = 60) -> list[RunFact]:
    """One run for each letter: F failed, C crashed, anything else completed."""
    states = {"F": StateType.FAILED, "C": StateType.CRASHED}
    return [
        a_run(
            f"{deployment}-{number}",
            states.get(letter, StateType.COMPLETED),
            deployment_id=deployment,
            started=at(first + number * every),
            ended=at(first + number * every + 20),
        )
        for number, letter in enumerate(outcomes)
    ]


def scheduled(deployment: str) -> RunFact:
    return a_run(
        f"{deployment}-next", StateType.SCHEDULED, deployment_id=deployment, started=None, run_count=0
    )


def forecaster_at(store: DuckDBStore, moment: datetime) -> ChampionForecaster:
    return ChampionForecaster(store, clock=lambda: moment)


AFTERWARDS = NOON + timedelta(hours=2)


@pytest.mark.parametrize(
    ("bad", "good", "other"),
    [("FFFFF", "SSSSSSSS", "SFSSSFS"), ("FFFFFFF", "SSSSSSSS", "SSSSS"), ("CCCCC", "FSSSSSSSS", "SSSSFS")],
    ids=["mixed rest", "quiet rest", "crashes"],
)
def test_twenty_runs_suffice_to_tell_a_failing_deployment_from_a_healthy_one(
    store: DuckDBStore, bad: str, good: str, other: str
) -> None:
    runs = ended_runs("bad", bad) + ended_runs("good", good, 5) + ended_runs("other", other, 10)
    assert len(runs) == 20
    store.merge_runs([*runs, *map(scheduled, ("bad", "good", "other", "new"))])
    forecaster: Forecaster = forecaster_at(store, AFTERWARDS)
    found = {each.run_id: each for each in forecaster.forecast(["bad-next", "good-next", "new-next"])}
    assert found["bad-next"].p_fail >= 0.6
    assert found["good-next"].p_fail <= 0.3
    assert found["good-next"].p_fail < found["new-next"].p_fail < found["bad-next"].p_fail
    assert f"{len(bad)} failures in a row for this deployment" in found["bad-next"].reasons
    assert "successes in a row" in found["good-next"].reasons[0]
    assert "no ended run of this deployment yet" in found["new-next"].reasons[0]
    assert {each.trained_on for each in found.values()} == {20}


def test_unknown_runs_are_left_out_and_nothing_is_forecast_of_nothing(store: DuckDBStore) -> None:
    store.merge_runs([scheduled("d")])
    forecaster = forecaster_at(store, AFTERWARDS)
    assert [each.run_id for each in forecaster.forecast(["nobody", "d-next", "d-next"])] == ["d-next"]
    assert forecaster.forecast([]) == ()
    assert forecaster.forecast(["nobody"]) == ()


def test_an_empty_site_is_forecast_from_the_prior(store: DuckDBStore) -> None:
    store.merge_runs([scheduled("d")])
    (found,) = forecaster_at(store, AFTERWARDS).forecast(["d-next"])
    assert found.p_fail == pytest.approx(SLICE_RATE)
    assert (found.model, found.trained_on) == ("ewma", 0)
    assert type(found.p_fail) is float


def test_a_forecast_sees_nothing_that_ended_later(store: DuckDBStore) -> None:
    store.merge_runs([*ended_runs("d", "SSSSSS"), *ended_runs("d2", "SSSSS"), scheduled("d")])
    (before,) = forecaster_at(store, at(1000)).forecast(["d-next"])
    later = ended_runs("d", "F" * 30, first=2000)
    store.merge_runs([dataclasses.replace(run, run_id=f"later-{run.run_id}") for run in later])
    (again,) = forecaster_at(store, at(1000)).forecast(["d-next"])
    assert again == before
    (after,) = forecaster_at(store, at(9000)).forecast(["d-next"])
    assert after.p_fail > before.p_fail


def test_a_new_outcome_counts_without_a_new_training(store: DuckDBStore) -> None:
    store.merge_runs([*ended_runs("d", "SSSSSS"), scheduled("d")])
    moment = [at(1000)]
    forecaster = ChampionForecaster(store, clock=lambda: moment[0])
    (before,) = forecaster.forecast(["d-next"])
    store.merge_runs([a_run("x", deployment_id="d", started=at(1001), ended=at(1002))])
    moment[0] = at(1003)
    (after,) = forecaster.forecast(["d-next"])
    assert after.p_fail > before.p_fail


def test_a_failed_attempt_counts_although_its_run_completed_later(store: DuckDBStore) -> None:
    store.merge_runs([a_run("r", StateType.COMPLETED, started=at(0), ended=at(100), run_count=2)])
    names = [(1, "Running"), (50, "Failed"), (70, "AwaitingRetry"), (80, "Running"), (100, "Completed")]
    store.add_events(
        [
            an_event(second, name=f"prefect.flow-run.{name}", run_id="r", resource_id="prefect.flow-run.r")
            for second, name in names
        ]
    )
    attempts = sorted(features.ended_attempts(store, at(1000)), key=lambda attempt: attempt.ended)
    assert [(a.failed, a.earlier, a.start - NOON.timestamp()) for a in attempts] == [
        (True, 0, 1.0),
        (False, 1, 80.0),
    ]
    assert [a.memory_mb for a in attempts] == [0.0, 64.0], "the size of an earlier attempt is not known"


def test_attempts_of_a_subject_other_than_the_run_itself_do_not_count(store: DuckDBStore) -> None:
    store.merge_runs([a_run("r", StateType.RUNNING)])
    store.add_events(
        [an_event(5, name="prefect.flow-run.Failed", run_id="r", resource_id="prefect.flow-run.child")]
    )
    assert features.ended_attempts(store, at(1000)) == []


def test_the_queue_counts_as_it_was_then(store: DuckDBStore) -> None:
    store.add_queues([a_queue(0, waiting=1), a_queue(50, waiting=7), a_queue(500, waiting=100)])
    store.merge_runs([a_run("r", StateType.COMPLETED, started=at(60), ended=at(90)), scheduled("d-1")])
    (attempt,) = features.ended_attempts(store, at(1000))
    assert attempt.queue_depth == 7
    assert features.next_attempts(store, ["d-1-next"], at(450))["d-1-next"].queue_depth == 7


def random_attempts(seed: int, count: int) -> list[Attempt]:
    dice = random.Random(seed)
    attempts = []
    for _ in range(count):
        start = float(dice.randrange(1000))
        key = dice.choice("abc")
        attempts.append(
            Attempt(key=key, start=start, ended=start + dice.randrange(1, 300), failed=dice.random() < 0.3)
        )
    return attempts


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_a_row_is_made_of_exactly_what_had_ended_before_it(seed: int, count: int) -> None:
    attempts = random_attempts(seed, count)
    frame = replay(attempts, History(prior=SLICE_RATE))
    for attempt, row in zip(frame.attempts, frame.rows, strict=True):
        known = [one for one in attempts if one.key == attempt.key and one.ended < attempt.start]
        assert round(math.expm1(row[features.NAMES.index("count")])) == len(known)
        site = [one for one in attempts if one.ended < attempt.start]
        expected = baseline.site_rate(len(site), sum(one.failed for one in site), SLICE_RATE)
        assert row[features.NAMES.index("site_rate")] == pytest.approx(expected)


@given(st.integers(0, 10_000))
def test_outcomes_that_come_later_change_no_row(seed: int) -> None:
    attempts = random_attempts(seed, 40)
    flipped = [
        Attempt(key=a.key, start=a.start, ended=a.ended, failed=not a.failed) if a.ended >= 600 else a
        for a in attempts
    ]
    plain, other = (replay(some, History(prior=SLICE_RATE)) for some in (attempts, flipped))
    early = plain.starts < 600
    assert np.array_equal(plain.rows[early], other.rows[early])


def test_every_number_of_a_row_is_finite() -> None:
    assert np.isfinite(replay(random_attempts(1, 200), History(prior=SLICE_RATE)).rows).all()


def test_few_runs_lean_on_the_rate_of_the_site() -> None:
    assert baseline.shrunk(1.0, 0, 0.1) == pytest.approx(0.1)
    assert 0.1 < baseline.shrunk(1.0, 2, 0.1) < 1.0
    assert baseline.shrunk(1.0, baseline.ENOUGH, 0.1) == 1.0


def alternating(store: DuckDBStore) -> None:
    """Deployments whose past says one thing to an average and another to a model that knows streaks."""
    runs: list[RunFact] = []
    for number in range(8):
        runs += ended_runs(f"d{number}", "FS" * 25, first=number * 3, every=600)
    store.merge_runs(runs)


def test_a_challenger_that_is_clearly_better_serves(store: DuckDBStore) -> None:
    alternating(store)
    store.merge_runs([scheduled("d0")])
    forecaster = forecaster_at(store, NOON + timedelta(days=1))
    report = forecaster.train()
    assert report.champion == "logistic"
    assert report.losses["logistic"] < report.losses["ewma"] * (1 - selection.CLEARLY)
    assert (report.trained_on, report.scored) == (400, 394)
    (found,) = forecaster.forecast(["d0-next"])
    assert found.model == "logistic"
    assert found.p_fail > 0.5, "after a success comes a failure here"
    assert found.reasons


def test_the_average_serves_where_failure_comes_without_warning(store: DuckDBStore) -> None:
    dice = random.Random(5)
    outcomes = "".join(dice.choice("FSSSSSSSSS") for _ in range(60))
    store.merge_runs(ended_runs("d", outcomes))
    report = forecaster_at(store, AFTERWARDS).train()
    assert report.champion in ("ewma", "logistic")
    assert report.champion == "ewma" or report.losses["logistic"] < report.losses["ewma"] * (
        1 - selection.CLEARLY
    )
    assert "over 54 attempts" in report.reason


def test_the_log_loss_is_the_textbooks() -> None:
    chances, failed = np.array([0.9, 0.2]), np.array([1.0, 0.0])
    assert selection.log_loss(chances, failed) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)


def test_no_forecast_is_certain() -> None:
    assert selection.clipped(np.array([0.0, 1.0, np.nan])).tolist() == [0.001, 0.999, 0.5]


def test_the_shipped_slice_is_small_and_what_its_notice_says() -> None:
    attempts = slice_attempts()
    assert len(attempts) == 20_000
    assert SLICE.stat().st_size < 400_000
    assert all(attempt.ended >= attempt.start for attempt in attempts)
    assert abs(sum(attempt.failed for attempt in attempts) / 20_000 - SLICE_RATE) < 0.02
    assert len(slice_features().rows) == 18_000
    notice = (Path(__file__).parents[3] / "NOTICE").read_text()
    for said in ("clusterdata-2011-2", "CC-BY 4.0", SLICE.name):
        assert said in notice


def test_a_dozen_outcomes_make_no_champion() -> None:
    few, _ = selection.chosen({"ewma": 0.9, "logistic": 0.1}, selection.BELIEVED - 1)
    enough, _ = selection.chosen({"ewma": 0.9, "logistic": 0.1}, selection.BELIEVED)
    close, _ = selection.chosen({"ewma": 0.9, "logistic": 0.9 * (1 - selection.CLEARLY / 2)}, 200)
    assert (few, enough, close) == ("ewma", "logistic", "ewma")


def test_the_time_of_day_counts_only_after_a_week() -> None:
    history = History(prior=SLICE_RATE)
    start = NOON.timestamp()
    history.learn(Attempt(key="a", start=start, ended=start + 1))
    column = features.NAMES.index("hour_cos")
    early, late = (
        history.row(Attempt(key="a", start=start + days * 86400, ended=math.inf)) for days in (6, 8)
    )
    assert early[column] == 0
    assert late[column] == pytest.approx(-1)
