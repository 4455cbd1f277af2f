"""The forecast that is served: forecasters that have been right lately count for more, and it takes few outcomes.

The forecasters are the mix of all that is remembered, a mix that remembers the newest hundred outcomes alone, and each
candidate as it is. On a steady site the first serves almost alone. In a storm the second takes over within some dozen
outcomes, and after it a candidate that the storm has not spoilt. Each counts by how probable it found the outcomes of
late (Herbster and Warmuth, Tracking the best expert, 1998), so that at no time the worst that serves is far from the
best in hindsight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pilotage.telemetry.forecast.candidates import CANDIDATES, SURE
from pilotage.telemetry.forecast.run_history import Flags, Floats, Matrix
from pilotage.telemetry.forecast.stacking import Evidence, Stack, fit_stack

LATELY, REMEMBERED = 100.0, 500
"""Outcomes after which one counts half in the mix that remembers little, and how many it is fitted on at most."""
WINDOW, STEP = 400, 20
"""The newest outcomes by which the forecasters are weighed, and in how many at a time."""
FEWEST = 100
"""Outcomes below which the one mix serves: of fewer nothing can be said of who is right."""
AT_FIRST = np.array([0.8, 0.1, *[0.1 / len(CANDIDATES)] * len(CANDIDATES)])
"""What each forecaster counts for before anything has shown who is right."""
SHARED = 0.02
"""What part of the weights is dealt out anew at each step, so that none is ever too small to come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The forecasters, and what each counts for; the weights sum to 1."""

    stack: Stack
    """The mix of all that is remembered."""
    lately: Stack
    weights: Floats
    """Of `stack`, of `lately`, and of each candidate."""

    def by_name(self) -> dict[str, float]:
        """Return what each forecaster counts for."""
        return dict(zip(("stack", "lately", *CANDIDATES), map(float, self.weights), strict=True))

    def chances(self, made: Mapping[str, Floats]) -> Floats:
        """Return the served forecast from those of the candidates."""
        each = np.array([self.stack.chances(made), self.lately.chances(made), *[made[n] for n in CANDIDATES]])
        served: Floats = np.clip(self.weights @ each, SURE, 1 - SURE)
        return served


def fit_mix(evidence: Evidence) -> Mix:
    """Return what serves after forecasts whose outcomes are known. Without any it is the plain rate."""
    stack, count = fit_stack(evidence), len(evidence)
    if count < FEWEST:
        return Mix(stack=stack, lately=stack, weights=AT_FIRST)
    first = max(FEWEST // 2, count - WINDOW)
    window = evidence.part(slice(first, count))
    # the mix that remembers little is scored on outcomes that it had not seen; the other hardly depends on them
    lately = np.concatenate(
        [
            _losses(_newest(evidence, begin, stack).chances(part.made), part.failed)
            for begin in range(first, count, STEP)
            for part in [evidence.part(slice(begin, min(begin + STEP, count)))]
        ]
    )
    singles = [_losses(window.made[name], window.failed) for name in CANDIDATES]
    losses: Matrix = np.array([_losses(stack.chances(window.made), window.failed), lately, *singles])
    return Mix(stack=stack, lately=_newest(evidence, count, stack), weights=_weighed(losses))


def _newest(evidence: Evidence, until: int, around: Stack) -> Stack:
    """Return the mix of the outcomes just before a place, pulled towards the mix of all."""
    return fit_stack(evidence.part(slice(max(0, until - REMEMBERED), until)), half_life=LATELY, around=around)


def _losses(chances: Floats, failed: Flags) -> Floats:
    """Return the log loss of each forecast."""
    losses: Floats = -np.where(failed, np.log(chances), np.log1p(-chances))
    return losses


def _weighed(losses: Matrix) -> Floats:
    """Return what each forecaster counts for after its losses, a row each in the order of time."""
    weights = AT_FIRST
    for begin in range(0, losses.shape[1], STEP):
        score = np.log(weights) - losses[:, begin : begin + STEP].sum(axis=1)
        right = np.exp(score - score.max())
        weights = (1 - SHARED) * right / right.sum() + SHARED * AT_FIRST
    return weights
