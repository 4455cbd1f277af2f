"""Durations that are followed end by end: bounds that hold what they promise, the same at a start as when followed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.telemetry.samples import a_run, at

from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecast.counters import NamedCodes
from pilotage.telemetry.forecast.live import LiveForecaster
from pilotage.telemetry.forecast.point_in_time import LEVELS
from pilotage.telemetry.forecast.usual_durations import WINDOW, UsualDurations
from pilotage.telemetry.forecasts import DurationForecast, DurationForecaster
from pilotage.telemetry.store.duckdb import DuckDBStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


def keys_of(deployment: str) -> tuple[str, ...]:
    of_level = {"site": "", "deployment": deployment, "owner": f"o{deployment[-1]}"}
    return tuple(of_level.get(level, "") for level in LEVELS)


@pytest.mark.parametrize("law", ["log-normal", "two lengths", "heavy tail"])
def test_bounds_hold_the_share_that_they_promise_whatever_the_law(law: str) -> None:
    draw = np.random.default_rng(5)
    usual, inside, many = UsualDurations(), {0.5: 0, 0.9: 0, 0.995: 0}, 3_000
    for number in range(1_000 + many):
        which = int(draw.integers(0, 30))
        base = 3 + which % 5
        log_s = {
            "log-normal": base + 0.4 * draw.standard_normal(),
            "two lengths": base + 2 * (draw.random() < 0.3) + 0.05 * draw.standard_normal(),
            "heavy tail": base + 0.3 * draw.standard_t(3),
        }[law]
        keys = keys_of(f"d{which}")
        expected = usual.expected(keys)
        if number >= 1_000:
            for share in inside:
                inside[share] += math.expm1(log_s) <= usual.quantile_s(expected, share)
        usual.add(keys, log_s, expected)
    assert inside[0.9] / many == pytest.approx(0.9, abs=0.015)
    assert inside[0.995] / many == pytest.approx(0.995, abs=0.004)
    assert inside[0.5] / many == pytest.approx(0.5, abs=0.07)


def test_a_young_deployment_leans_on_its_owner_and_then_on_itself() -> None:
    usual = UsualDurations()
    for _ in range(30):
        usual.add(keys_of("d1"), math.log1p(60))
        usual.add(keys_of("d2"), math.log1p(6_000))
    new = usual.quantile_s(usual.expected(keys_of("x1")), 0.5)
    assert 50 < new < 200
    for _ in range(15):
        usual.add(keys_of("x1"), math.log1p(1_000))
    assert 800 < usual.quantile_s(usual.expected(keys_of("x1")), 0.5) < 1_100


def test_at_a_start_the_newest_of_a_long_history_say_what_following_it_would_have_said() -> None:
    draw = np.random.default_rng(2)
    count = 3_000
    deployment = draw.integers(0, 12, count)
    names = {
        "site": [""],
        "owner": [f"o{n}" for n in range(3)],
        "deployment": [f"d{n}" for n in range(12)],
        "shape": [""],
        "queue": [""],
    }
    codes = {
        "site": np.zeros(count, int),
        "owner": deployment % 3,
        "deployment": deployment,
        "shape": np.zeros(count, int),
        "queue": np.zeros(count, int),
    }
    took = deployment % 4 + 4 + 0.3 * draw.standard_normal(count)
    ended = np.sort(draw.uniform(0, 1e6, count))
    shuffled = draw.permutation(count)
    followed, read = UsualDurations(), UsualDurations()
    for row in range(count):
        keys = tuple(names[level][codes[level][row]] for level in LEVELS)
        followed.add(keys, float(took[row]), followed.expected(keys))
    levels = {level: NamedCodes(codes=codes[level], names=names[level]) for level in LEVELS}
    read.add_all(levels, ended, took, np.sort(shuffled))
    assert read.scored == followed.scored == 2_000
    for row in range(12):
        keys = tuple(
            names[level][codes[level][int(np.flatnonzero(deployment == row)[0])]] for level in LEVELS
        )
        one, other = followed.expected(keys), read.expected(keys)
        for share in (0.5, 0.9, 0.995):
            # what more than WINDOW newer ones have covered counts next to nothing
            assert read.quantile_s(other, share) == pytest.approx(followed.quantile_s(one, share), rel=5e-2)
        assert len(read._own[f"d{row}"].ordered) == WINDOW


def past(deployment: str, seconds: list[float], state: StateType = StateType.COMPLETED) -> list[RunFact]:
    return [
        a_run(
            f"{deployment}-{number}",
            state,
            deployment_id=deployment,
            flow_name=deployment,
            started=at(number * 60),
            ended=at(number * 60 + took),
            updated=at(number * 60 + took),
        )
        for number, took in enumerate(seconds)
    ]


def test_the_live_forecast_is_of_the_running_attempt_and_knows_only_what_completed(
    store: DuckDBStore,
) -> None:
    runs = [
        *past("quick", [20.0, 21, 22, 20, 19] * 8),
        *past("slow", [900.0, 950, 1000] * 8),
        *past("fails", [1.0] * 20, StateType.FAILED),
    ]
    running = a_run(
        "now", StateType.RUNNING, deployment_id="quick", flow_name="quick", started=at(6_000), ended=None
    )
    due = a_run("due", StateType.SCHEDULED, deployment_id="slow", flow_name="slow", started=None, run_count=0)
    again = a_run(
        "again", StateType.SCHEDULED, deployment_id="fails", flow_name="fails", started=None, run_count=0
    )
    store.merge_runs([*runs, running, due, again])
    forecaster = LiveForecaster(store, clock=lambda: at(6_010))
    assert isinstance(forecaster, DurationForecaster)
    found = {each.run_id: each for each in forecaster.durations(["due", "now", "nobody", "now"])}
    assert list(found) == ["due", "now"]
    quick, slow = found["now"], found["due"]
    assert timedelta(seconds=18) < quick.median < timedelta(seconds=24)
    assert timedelta(seconds=800) < slow.median < slow.p90 <= slow.latest
    assert (quick.runs, slow.runs, quick.scored) == (40, 24, 64)
    # what fails at once says nothing of how long it takes to complete
    [failing] = forecaster.durations(["again"])
    assert (failing.runs, failing.median > timedelta(seconds=10)) == (0, True)


def test_what_ends_later_changes_no_forecast_and_what_ended_earlier_does(tmp_path: Path) -> None:
    def said(long_until: float, then: float) -> DurationForecast:
        opened = DuckDBStore(tmp_path / f"{long_until}-{then}.duckdb")
        long = a_run("other", StateType.COMPLETED, deployment_id="d", flow_name="d", ended=at(long_until))
        runs = [*past("d", [60.0] * 30), long]
        opened.merge_runs(
            [*runs, a_run("due", StateType.SCHEDULED, deployment_id="d", flow_name="d", started=None)]
        )
        [made] = LiveForecaster(opened, clock=lambda: at(then)).durations(["due"])
        opened.close()
        return made

    assert said(9_000, 5_000) == said(20_000, 5_000)
    assert said(9_000, 10_000).latest != said(4_000, 10_000).latest


def test_following_end_by_end_holds_each_forecast_against_its_own_end(store: DuckDBStore) -> None:
    moment = [at(0)]
    forecaster = LiveForecaster(store, clock=lambda: moment[0])
    forecaster.follow(moment[0])
    for number in range(8):
        begin, end = at(number * 100), at(number * 100 + 50)
        run = a_run(f"r{number}", StateType.RUNNING, started=begin, ended=None, updated=begin)
        store.merge_runs([run])
        moment[0] = at(number * 100 + 1)
        forecaster.follow(moment[0])
        store.merge_runs([a_run(f"r{number}", StateType.COMPLETED, started=begin, ended=end, updated=end)])
        moment[0] = at(number * 100 + 60)
        forecaster.follow(moment[0])
    store.merge_runs([a_run("due", StateType.SCHEDULED, started=None, run_count=0)])
    [made] = forecaster.durations(["due"])
    assert (made.runs, made.scored) == (8, 8)
    assert timedelta(seconds=45) < made.median < timedelta(seconds=100)
