"""Who serves: the mix of all on a steady site, in a storm what has been right lately, and after it what is not spoilt."""

from __future__ import annotations

import numpy as np
import pytest

from pilotage.telemetry.forecast.candidates import CANDIDATES
from pilotage.telemetry.forecast.mixing import FEWEST, fit_mix
from pilotage.telemetry.forecast.run_history import Flags, Floats
from pilotage.telemetry.forecast.stacking import Evidence, fit_stack, no_evidence

CALM, STORM, AFTER = 2_000, 150, 600


def site(seed: int, storm: float = 0.9) -> tuple[Evidence, Floats]:
    """Return forecasts of a site with a storm, and the true chances; the averages run away in it, the rate does not."""
    draw = np.random.default_rng(seed)
    count = CALM + STORM + AFTER
    own = draw.choice([0.02, 0.05, 0.3, 0.5], count, p=[0.5, 0.3, 0.1, 0.1])
    at = np.arange(count)
    true = np.where((at >= CALM) & (at < CALM + STORM), storm, own)
    failed = draw.random(count) < true
    drift = np.convolve(failed, np.full(20, 1 / 20))[:count]
    seen = np.concatenate([[0.1], drift[:-1]])
    blurred = np.clip(own * draw.lognormal(0, 0.3, count), 0.01, 0.95)
    spoilt = np.clip(blurred + np.where(at >= CALM + STORM, 0.4, 0.0), 0.01, 0.95)
    made = {
        "rate": blurred,
        "ewma": np.clip(0.5 * blurred + 0.5 * seen, 0.01, 0.95),
        "logistic": blurred,
        "boosting": spoilt,
    }
    return Evidence(made=made, failed=failed, ended=at.astype(np.float64)), true


def served(evidence: Evidence, begin: int, end: int, step: int = 10) -> Floats:
    """Return what is served of each of these runs, from the outcomes before it."""
    said = []
    for place in range(begin, end, step):
        mix = fit_mix(evidence.part(slice(0, place)))
        said.append(mix.chances(evidence.part(slice(place, min(place + step, end))).made))
    return np.concatenate(said)


def alone(evidence: Evidence, begin: int, end: int, step: int = 10) -> Floats:
    """Return what the mix that remembers everything would say of each."""
    return np.concatenate(
        [
            fit_stack(evidence.part(slice(0, at))).chances(evidence.part(slice(at, min(at + step, end))).made)
            for at in range(begin, end, step)
        ]
    )


def loss(chances: Floats, failed: Flags) -> float:
    return float(-np.where(failed, np.log(chances), np.log1p(-chances)).mean())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_storm_is_followed_within_some_dozen_outcomes_and_does_not_spoil_what_comes_after(
    seed: int,
) -> None:
    evidence, _ = site(seed)
    ends = {"storm": CALM + STORM, "after": CALM + STORM + AFTER}
    begins = {"storm": CALM, "after": CALM + STORM + 50}
    for part, begin in begins.items():
        rows = slice(begin, ends[part])
        said, failed = served(evidence, begin, ends[part]), evidence.failed[rows]
        best = min(loss(evidence.made[name][rows], failed) for name in CANDIDATES)
        assert loss(said, failed) < best + 0.03, part
    # the mix that remembers everything alone stays behind through both
    rows = slice(CALM, CALM + STORM + AFTER)
    slow = alone(evidence, rows.start, rows.stop)
    assert loss(served(evidence, rows.start, rows.stop), evidence.failed[rows]) < 0.95 * loss(
        slow, evidence.failed[rows]
    )


def test_on_a_steady_site_the_mix_of_all_serves_and_nothing_is_lost() -> None:
    evidence, _ = site(4, storm=0.1)
    rows = slice(1_000, CALM)
    mix = fit_mix(evidence.part(slice(0, CALM)))
    assert mix.by_name()["stack"] > 0.5
    assert sum(mix.by_name().values()) == pytest.approx(1)
    said = served(evidence, 1_000, CALM)
    slow = alone(evidence, 1_000, CALM)
    assert loss(said, evidence.failed[rows]) < loss(slow, evidence.failed[rows]) + 0.003


def test_of_few_outcomes_nothing_is_said_of_who_is_right() -> None:
    evidence, _ = site(5)
    few = evidence.part(slice(0, FEWEST - 1))
    made = evidence.part(slice(FEWEST, FEWEST + 5)).made
    assert fit_mix(few).weights == pytest.approx(fit_mix(no_evidence()).weights)
    rate = fit_mix(no_evidence()).chances(made)
    assert rate == pytest.approx(made["rate"], rel=0.3)
