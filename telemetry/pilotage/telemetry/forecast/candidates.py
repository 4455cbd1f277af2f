"""The models that compete: two trivial ones, logistic regression and boosted trees, all on the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

from pilotage.telemetry.forecast.point_in_time import Features
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, Matrix

TRIVIAL = ("rate", "ewma")
LEARNED = ("logistic", "boosting")
CANDIDATES = (*TRIVIAL, *LEARNED)
FEWEST_ROWS = {"logistic": 60, "boosting": 300}
"""Ended runs below which a learned model is not fitted, and the rate stands in for it."""
FEWEST_OF_A_KIND = {"logistic": 5, "boosting": 20}
"""Failures, and as many others, below which it is not."""
MOST_ROWS = 80_000
"""Rows that a model is fitted on. Of more, all of the rarer outcome are kept and the others are sampled."""
SMALL = 2_000
"""Ended runs below which the learned models are held simpler."""
SURE = 0.0005
"""No forecast is nearer to 0 or 1."""
FEW_ROWS = 32
"""Rows up to which the trees are walked as arrays."""
CHUNK = 4_000
"""Rows that boosted trees are asked for at once: a chunk stays in the processor's cache while every tree walks over it."""
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
        with _threads().limit(limits=THREADS):
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
        score = self.standardised(rows) @ self.weights + self.intercept
        made: Floats = 1 / (1 + np.exp(-np.clip(score, -30, 30)))
        return made

    def standardised(self, rows: Matrix) -> Matrix:
        """Return the numbers as multiples of their spread, none beyond five."""
        scaled: Matrix = np.clip((np.nan_to_num(rows) - self.mean) / self.scale, -5, 5)
        return scaled


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


def flattened(model: HistGradientBoostingClassifier) -> Trees:
    """Return the model's trees as arrays, read from scikit-learn's private nodes: a test holds them to its forecasts."""
    nodes = [predictors[0].nodes for predictors in model._predictors]
    begins = np.concatenate([[0], np.cumsum([len(tree) for tree in nodes])]).astype(np.int64)
    every = np.concatenate(nodes)
    own = np.arange(len(every))
    begin = np.repeat(begins[:-1], [len(tree) for tree in nodes])
    is_leaf = every["is_leaf"].astype(bool)
    return Trees(
        feature=np.where(is_leaf, 0, every["feature_idx"]).astype(np.int64),
        threshold=every["num_threshold"].astype(np.float64),
        left=np.where(is_leaf, own, every["left"] + begin).astype(np.int64),
        right=np.where(is_leaf, own, every["right"] + begin).astype(np.int64),
        missing_left=every["missing_go_to_left"].astype(bool),
        leaf=every["value"].astype(np.float64),
        roots=begins[:-1],
        depth=int(every["depth"].max()),
        baseline=float(np.ravel(model._baseline_prediction)[0]),
    )


@cache
def _threads() -> ThreadpoolController:
    """The libraries' thread pools; looking for them costs milliseconds."""
    return ThreadpoolController()


def _clipped(chances: Any) -> Floats:
    made: Floats = np.clip(np.asarray(chances, dtype=np.float64), SURE, 1 - SURE)
    return made


def fit(found: Features, failed: Flags, known: Ints, *, seed: int = 0) -> FittedModels:
    """Return the models fitted on the rows whose outcome is known."""
    outcomes = failed[known]
    rarer = min(int(outcomes.sum()), int((~outcomes).sum()))
    able = {name: len(known) >= FEWEST_ROWS[name] and rarer >= FEWEST_OF_A_KIND[name] for name in LEARNED}
    if not any(able.values()):
        return untrained(found.rows.shape[1], len(known))
    chosen, shift = _sampled(known, outcomes, rarer, np.random.default_rng(seed))
    rows, labels = found.rows[chosen], failed[chosen]
    logistic = boosting = trees = None
    with _threads().limit(limits=THREADS):
        if able["logistic"]:
            logistic = _fit_logistic(rows, labels, small=len(known) < SMALL)
        if able["boosting"]:
            boosting = _boosting_for(len(known), seed).fit(rows, labels)
            trees = flattened(boosting)
    return FittedModels(
        logistic=logistic,
        boosting=boosting,
        trained_on=len(known),
        medians=np.nanmedian(np.nan_to_num(rows), axis=0).astype(np.float64),
        trees=trees,
        shift=shift,
    )


def untrained(columns: int, trained_on: int = 0) -> FittedModels:
    """Return what serves while there is too little to learn from: the rate stands in for the learned models."""
    return FittedModels(logistic=None, boosting=None, trained_on=trained_on, medians=np.zeros(columns))


def _fit_logistic(rows: Matrix, labels: Flags, *, small: bool) -> LinearModel:
    filled = np.nan_to_num(rows)
    scaler = StandardScaler().fit(filled)
    model = LogisticRegression(C=0.02 if small else 0.2, max_iter=200, tol=1e-3)
    model.fit(np.clip(scaler.transform(filled), -5, 5), labels)
    return LinearModel(
        mean=np.asarray(scaler.mean_, dtype=np.float64),
        scale=np.asarray(scaler.scale_, dtype=np.float64),
        weights=np.asarray(model.coef_[0], dtype=np.float64),
        intercept=float(model.intercept_[0]),
    )


def _boosting_for(count: int, seed: int) -> HistGradientBoostingClassifier:
    small = count < SMALL
    return HistGradientBoostingClassifier(
        learning_rate=0.06 if small else 0.08,
        max_iter=60 if small else 110,
        max_leaf_nodes=8 if small else 24,
        min_samples_leaf=20 if small else 40,
        l2_regularization=5.0,
        early_stopping=False,
        random_state=seed,
    )


def _sampled(known: Ints, outcomes: Flags, rarer: int, random: np.random.Generator) -> tuple[Ints, float]:
    """Return the rows that are learned from, and what that adds to the log-odds that are learned from all of them."""
    if len(known) <= MOST_ROWS:
        return known, 0.0
    failures_are_rare = bool(outcomes.sum() <= rarer)
    rare = outcomes if failures_are_rare else ~outcomes
    kept_rare, common = known[rare], known[~rare]
    if len(kept_rare) > MOST_ROWS // 2:
        return np.sort(random.choice(known, MOST_ROWS, replace=False)), 0.0
    some = random.choice(common, MOST_ROWS - len(kept_rare), replace=False)
    left_out = float(np.log(len(some) / len(common)))
    return np.sort(np.concatenate([kept_rare, some])), left_out if failures_are_rare else -left_out
