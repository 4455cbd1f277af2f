"""A logistic mix of the candidates' log-odds, pulled towards the best trivial one.

It is fitted on forecasts that were made before their outcome was known, the newest counting most. With little
evidence it is the best trivial forecast itself; with more it becomes whatever has been right here lately.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pilotage.telemetry.forecast.candidates import CANDIDATES, SURE, TRIVIAL
from pilotage.telemetry.forecast.run_history import Flags, Floats, Matrix

PULL = 10.0
"""How hard the mix is held to the best trivial forecast: the strength of a squared penalty on log-odds."""
HALF_LIFE = 8_000
"""Ended forecasts after which one counts half; a site of a few hundred runs weighs all alike."""
STEPS, CLOSE = 30, 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Forecasts that were made before their outcome was known, the newest end last; an element for each."""

    made: Mapping[str, Floats]
    """By candidate."""
    failed: Flags
    ended: Floats
    """When the outcome became known, in seconds."""

    def __len__(self) -> int:
        """Return the number of forecasts."""
        return len(self.failed)

    def until(self, moment: float) -> Evidence:
        """Return what was known at a moment: only ends strictly before it."""
        return self.part(slice(0, int(np.searchsorted(self.ended, moment, side="left"))))

    def part(self, part: slice) -> Evidence:
        """Return some of the forecasts."""
        return Evidence(
            made={name: values[part] for name, values in self.made.items()},
            failed=self.failed[part],
            ended=self.ended[part],
        )


def no_evidence() -> Evidence:
    """Return the evidence of a new site."""
    return Evidence(
        made={name: np.empty(0) for name in CANDIDATES}, failed=np.empty(0, dtype=bool), ended=np.empty(0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The weights of the mix: an intercept, and one for the log-odds of each candidate."""

    intercept: float
    weights: Floats
    leans_on: str
    """The best trivial forecast of the recent past."""

    def by_name(self) -> dict[str, float]:
        """Return the weight of each candidate."""
        return dict(zip(CANDIDATES, map(float, self.weights), strict=True))

    def chances(self, made: Mapping[str, Floats]) -> Floats:
        """Return the served forecast from those of the candidates."""
        score = self.intercept + odds_of(made) @ self.weights
        served: Floats = np.clip(1 / (1 + np.exp(-np.clip(score, -30, 30))), SURE, 1 - SURE)
        return served


def odds_of(made: Mapping[str, Floats]) -> Matrix:
    """Return the log-odds of the candidates, a column each."""
    chances = np.column_stack([made[name] for name in CANDIDATES])
    odds: Matrix = np.log(chances / (1 - chances))
    return odds


def log_loss(chances: Floats, failed: Flags, weights: Floats) -> float:
    """Return the weighted mean log loss."""
    losses = -np.where(failed, np.log(chances), np.log1p(-chances))
    return float(np.average(losses, weights=weights))


def fit_stack(evidence: Evidence, *, half_life: float = HALF_LIFE, around: Stack | None = None) -> Stack:
    """Return the mix for forecasts whose outcomes are known. Without any it is the plain rate.

    It is pulled towards the best trivial forecast, or towards the mix `around`.
    """
    made, failed = evidence.made, evidence.failed
    count = len(failed)
    age = np.arange(count)[::-1]
    weights = 0.5 ** (age / half_life)
    losses = {name: log_loss(made[name], failed, weights) if count else 0.0 for name in TRIVIAL}
    best = min(TRIVIAL, key=lambda name: losses[name])
    prior = np.zeros(1 + len(CANDIDATES))
    prior[1 + CANDIDATES.index(best)] = 1.0
    if around is not None:
        prior = np.concatenate([[around.intercept], around.weights])
    if not count:
        return Stack(intercept=float(prior[0]), weights=prior[1:], leans_on=best)
    columns = np.column_stack([np.ones(count), odds_of(made)])
    found = _newton(columns, failed.astype(np.float64), weights, prior)
    return Stack(intercept=float(found[0]), weights=found[1:], leans_on=best)


def _newton(columns: Matrix, outcomes: Floats, weights: Floats, prior: Floats) -> Floats:
    """Minimise the weighted log loss plus PULL/2 * |b - prior|^2, by Newton's method with halved steps."""

    def cost(b: Floats) -> float:
        score = columns @ b
        return float(
            weights @ (np.logaddexp(0, score) - outcomes * score) + PULL / 2 * np.sum((b - prior) ** 2)
        )

    b = prior.copy()
    now = cost(b)
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(columns @ b, -30, 30)))
        slope = columns.T @ (weights * (chance - outcomes)) + PULL * (b - prior)
        bend = (columns * (weights * chance * (1 - chance))[:, None]).T @ columns + PULL * np.eye(len(b))
        step = np.linalg.solve(bend, slope)
        for _ in range(20):
            then = cost(b - step)
            if then <= now:
                break
            step = step / 2
        else:
            break
        b, gained, now = b - step, now - then, then
        if gained < CLOSE * max(1.0, now):
            break
    return b
