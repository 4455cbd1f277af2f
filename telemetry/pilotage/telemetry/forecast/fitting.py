"""Learns the candidates' models from runs whose outcome is known."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pilotage.telemetry.forecast.candidates import (
    LEARNED,
    MOST_SPREADS,
    THREADS,
    FittedModels,
    LinearModel,
    Trees,
    threads,
    untrained,
)
from pilotage.telemetry.forecast.point_in_time import Features
from pilotage.telemetry.forecast.run_history import Flags, Ints, Matrix

FEWEST_ROWS = {"logistic": 60, "boosting": 300}
"""Ended runs below which a learned model is not fitted, and the rate stands in for it."""
FEWEST_OF_A_KIND = {"logistic": 5, "boosting": 20}
"""Failures, and as many others, below which it is not."""
MOST_ROWS = 80_000
"""Rows that a model is fitted on. Of more, all of the rarer outcome are kept and the others are sampled."""
SMALL = 2_000
"""Ended runs below which the learned models are held simpler."""


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
    with threads().limit(limits=THREADS):
        if able["logistic"]:
            logistic = _fit_logistic(rows, labels, small=len(known) < SMALL)
        if able["boosting"]:
            # a column that is known of no run cannot be cut into bins
            whole = np.where(np.isfinite(rows).any(axis=0), rows, 0)
            boosting = _boosting_for(len(known), seed).fit(whole, labels)
            trees = flattened(boosting)
    return FittedModels(
        logistic=logistic,
        boosting=boosting,
        trained_on=len(known),
        medians=np.nanmedian(np.nan_to_num(rows), axis=0).astype(np.float64),
        trees=trees,
        shift=shift,
    )


def _fit_logistic(rows: Matrix, labels: Flags, *, small: bool) -> LinearModel:
    filled = np.nan_to_num(rows)
    scaler = StandardScaler().fit(filled)
    model = LogisticRegression(C=0.02 if small else 0.2, max_iter=200, tol=1e-3)
    model.fit(np.clip(scaler.transform(filled), -MOST_SPREADS, MOST_SPREADS), labels)
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
