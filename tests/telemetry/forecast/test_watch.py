"""A storm and a lost calibration are noticed within a stated number of runs, and a steady site is left alone."""

from __future__ import annotations

import random

import pytest

from pilotage.telemetry.forecast.watch import DRIFT_RUNS, STORM_RUNS, ForecastWatch


def outcomes(
    watch: ForecastWatch, draw: random.Random, runs: int, chance: float, factor: float = 1.0
) -> list[str]:
    """Feed runs that fail `factor` times as often as said; what the watch says after each."""
    told = []
    for number in range(runs):
        said = min(0.95, chance * draw.uniform(0.5, 1.5))
        watch.add(said, draw.random() < min(1.0, said * factor), 1.7e9 + number)
        told.append(watch.reason)
    return told


@pytest.mark.parametrize("chance", [0.01, 0.1, 0.4])
def test_right_forecasts_are_never_muted(chance: float) -> None:
    assert not any(outcomes(ForecastWatch(), random.Random(3), 20_000, chance))


def test_a_storm_is_noticed_within_its_window_and_is_over_when_it_is() -> None:
    watch, draw = ForecastWatch(), random.Random(4)
    outcomes(watch, draw, 500, 0.05)
    storm = outcomes(watch, draw, 60, 0.05, 18.0)
    noticed = next(number for number, reason in enumerate(storm) if reason)
    assert noticed < STORM_RUNS
    assert storm[noticed].startswith("a storm since 2023-11-14T")
    assert len(set(storm[noticed:])) == 1, "one incident, told in the same words"
    after = outcomes(watch, draw, 2 * STORM_RUNS + DRIFT_RUNS, 0.05)
    assert not after[-1]


@pytest.mark.parametrize(("chance", "factor"), [(0.15, 3.0), (0.5, 0.25)], ids=["too low", "too high"])
def test_chances_that_outcomes_have_left_behind_are_noticed(chance: float, factor: float) -> None:
    watch, draw = ForecastWatch(), random.Random(5)
    outcomes(watch, draw, 400, chance)
    told = outcomes(watch, draw, DRIFT_RUNS, chance, factor)
    assert told[-1]
    assert "of the newest" in told[-1]
