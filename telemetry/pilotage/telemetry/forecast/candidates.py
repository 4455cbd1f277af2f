"""The models that compete: two trivial ones, logistic regression and boosted trees, all on the same numbers.

They forecast here, from arrays; `fitting.py` learns them. What serves before a model is trained loads no scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from pilotage.telemetry.forecast.point_in_time import Features
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, Matrix

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

TRIVIAL = ("rate", "ewma")
LEARNED = ("logistic", "boosting")
CANDIDATES = (*TRIVIAL, *LEARNED)
SURE = 0.0005
"""No forecast is nearer to 0 or 1."""
FEW_ROWS = 32
"""Rows up to which the trees are walked as arrays."""
CHUNK = 4_000
"""Rows that a learned model is asked for at once: a chunk stays in the processor's cache."""
MOST_SPREADS = 5
"""No number counts as more spreads from its mean than this."""
THREADS = 1
"""Beside busy neighbours the boosting's threads wait for each other, and cost many times what they do alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModels:
    """The learned models as fitted at one moment; None where there was too little to learn from."""

    logistic: LinearModel | None
    boosting: HistGradientBoostingClassifier | None
    trained_on: int
    medians: Floats
    """Of each column over the rows that were learned from: what a run without peculiarities looks like."""
    trees: Trees | None = None
    """The boosting as arrays, for few rows at once."""
    shift: float = 0.0
    """What is added to the learned log-odds, where runs of the commoner outcome were left out."""

    def chances(self, found: Features, chosen: Ints | None = None) -> dict[str, Floats]:
        """Return what each candidate forecasts of the chosen rows, or of all."""
        rows, rate, ewma = found.rows, found.rate, found.ewma
        if chosen is not None:
            rows, rate, ewma = rows[chosen], rate[chosen], ewma[chosen]
        return {
            "rate": _clipped(rate),
            "ewma": _clipped(ewma),
            "logistic": self._corrected(self.logistic.chances(rows)) if self.logistic else _clipped(rate),
            "boosting": self._corrected(self._boosting(rows)) if self.boosting else _clipped(rate),
        }

    def _corrected(self, chances: Floats) -> Floats:
        if not self.shift:
            return _clipped(chances)
        factor = np.exp(self.shift)
        return _clipped(factor * chances / (1 + (factor - 1) * chances))

    def _boosting(self, rows: Matrix) -> Floats:
        assert self.boosting is not None  # noqa: S101 - narrowed by the only caller
        if self.trees is not None and len(rows) <= FEW_ROWS:
            return self.trees.chances(rows)
        made = np.empty(len(rows))
        with threads().limit(limits=THREADS):
            for begin in range(0, len(rows), CHUNK):
                # by column: each tree walks over all rows of a chunk
                chunk = np.asfortranarray(rows[begin : begin + CHUNK], dtype=np.float64)
                made[begin : begin + CHUNK] = self.boosting.predict_proba(chunk)[:, 1]
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """Logistic regression over standardised numbers, as its arrays."""

    mean: Floats
    scale: Floats
    weights: Floats
    intercept: float

    def chances(self, rows: Matrix) -> Floats:
        """Return the chance of failure of each row."""
        score = np.empty(len(rows))
        mean, scale = self.mean.astype(np.float32), self.scale.astype(np.float32)
        weights = self.weights.astype(np.float32)
        for begin in range(0, len(rows), CHUNK):
            chunk = np.array(rows[begin : begin + CHUNK], dtype=np.float32)
            np.nan_to_num(chunk, copy=False)
            chunk -= mean
            chunk /= scale
            np.clip(chunk, -MOST_SPREADS, MOST_SPREADS, out=chunk)
            score[begin : begin + CHUNK] = chunk @ weights
        made: Floats = 1 / (1 + np.exp(-np.clip(score + self.intercept, -30, 30)))
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """Boosted trees as flat arrays: every tree takes a step at a time, which for few rows beats a call for each tree."""

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: Flags
    leaf: Floats
    """The value of a node that is a leaf; a leaf's children are itself."""
    roots: Ints
    depth: int
    baseline: float

    def chances(self, rows: Matrix) -> Floats:
        """Return the chance of failure of each row."""
        count, width = rows.shape
        flat = np.ascontiguousarray(rows, dtype=np.float64).reshape(-1)
        node = np.tile(self.roots, (count, 1))
        offset = (np.arange(count) * width)[:, None]
        missing = bool(np.isnan(flat).any())
        for _ in range(self.depth):
            value = flat[offset + self.feature[node]]
            left = value <= self.threshold[node]
            if missing:
                left |= np.isnan(value) & self.missing_left[node]
            node = np.where(left, self.left[node], self.right[node])
        score = self.baseline + self.leaf[node].sum(axis=1)
        made: Floats = 1 / (1 + np.exp(-score))
        return made


@cache
def threads() -> ThreadpoolController:
    """The libraries' thread pools; looking for them costs milliseconds."""
    return ThreadpoolController()


def _clipped(chances: Any) -> Floats:
    made: Floats = np.clip(np.asarray(chances, dtype=np.float64), SURE, 1 - SURE)
    return made


def untrained(columns: int, trained_on: int = 0) -> FittedModels:
    """Return what serves while there is too little to learn from: the rate stands in for the learned models."""
    return FittedModels(logistic=None, boosting=None, trained_on=trained_on, medians=np.zeros(columns))
