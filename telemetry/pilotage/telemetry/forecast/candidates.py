"""The models that compete: two trivial ones, logistic regression and boosted trees, all on the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

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
"""Rows that a model is fitted on. Of more, all of the rarer outcome are kept and the others are sampled and weighted."""
SMALL = 2_000
"""Ended runs below which the learned models are held simpler."""
SURE = 0.0005
"""No forecast is nearer to 0 or 1."""
THREADS = 1
"""Beside busy neighbours the boosting's threads wait for each other, and cost many times what they do alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModels:
    """The learned models as fitted at one moment; None where there was too little to learn from."""

    logistic: tuple[StandardScaler, LogisticRegression] | None
    boosting: HistGradientBoostingClassifier | None
    trained_on: int

    def chances(self, features: Features, chosen: Ints) -> Mapping[str, Floats]:
        """Return what each candidate forecasts of the chosen rows."""
        rows, rate = features.rows[chosen], features.rate[chosen]
        return {
            "rate": _clipped(rate),
            "ewma": _clipped(features.ewma[chosen]),
            "logistic": _clipped(self._logistic(rows) if self.logistic is not None else rate),
            "boosting": _clipped(self._boosting(rows) if self.boosting is not None else rate),
        }

    def _boosting(self, rows: Matrix) -> Floats:
        assert self.boosting is not None  # noqa: S101 - narrowed by the only caller
        with threadpool_limits(THREADS):
            chances: Floats = self.boosting.predict_proba(rows)[:, 1]
        return chances

    def _logistic(self, rows: Matrix) -> Floats:
        assert self.logistic is not None  # noqa: S101 - narrowed by the only caller
        scaler, model = self.logistic
        chances: Floats = model.predict_proba(np.clip(scaler.transform(np.nan_to_num(rows)), -5, 5))[:, 1]
        return chances


def _clipped(chances: Any) -> Floats:
    clipped: Floats = np.clip(np.asarray(chances, dtype=np.float64), SURE, 1 - SURE)
    return clipped


def fit(features: Features, failed: Flags, known: Ints, *, seed: int = 0) -> FittedModels:
    """Return the models fitted on the rows whose outcome is known."""
    outcomes = failed[known]
    rarer = min(int(outcomes.sum()), int((~outcomes).sum()))
    able = {name: len(known) >= FEWEST_ROWS[name] and rarer >= FEWEST_OF_A_KIND[name] for name in LEARNED}
    if not any(able.values()):
        return FittedModels(logistic=None, boosting=None, trained_on=len(known))
    chosen, weights = _sampled(known, outcomes, rarer, np.random.default_rng(seed))
    rows, labels = features.rows[chosen], failed[chosen]
    logistic = boosting = None
    if able["logistic"]:
        filled = np.nan_to_num(rows)
        scaler = StandardScaler().fit(filled)
        model = LogisticRegression(C=0.02 if len(known) < SMALL else 0.2, max_iter=200, tol=1e-3)
        logistic = (
            scaler,
            model.fit(np.clip(scaler.transform(filled), -5, 5), labels, sample_weight=weights),
        )
    if able["boosting"]:
        with threadpool_limits(THREADS):
            boosting = _boosting_for(len(known), seed).fit(rows, labels, sample_weight=weights)
    return FittedModels(logistic=logistic, boosting=boosting, trained_on=len(known))


def _boosting_for(count: int, seed: int) -> HistGradientBoostingClassifier:
    small = count < SMALL
    return HistGradientBoostingClassifier(
        learning_rate=0.06,
        max_iter=60 if small else 150,
        max_leaf_nodes=8 if small else 24,
        min_samples_leaf=20 if small else 40,
        l2_regularization=5.0,
        early_stopping=False,
        random_state=seed,
    )


def _sampled(known: Ints, outcomes: Flags, rarer: int, random: np.random.Generator) -> tuple[Ints, Floats]:
    if len(known) <= MOST_ROWS:
        return known, np.ones(len(known))
    rare = outcomes if outcomes.sum() <= rarer else ~outcomes
    kept_rare, common = known[rare], known[~rare]
    if len(kept_rare) > MOST_ROWS // 2:
        share = MOST_ROWS / len(known)
        chosen = np.sort(random.choice(known, MOST_ROWS, replace=False))
        return chosen, np.full(MOST_ROWS, 1 / share)
    some = random.choice(common, MOST_ROWS - len(kept_rare), replace=False)
    chosen = np.concatenate([kept_rare, some])
    weights = np.concatenate([np.ones(len(kept_rare)), np.full(len(some), len(common) / len(some))])
    order = np.argsort(chosen)
    return chosen[order], weights[order]
