"""The learned forecast: logistic regression on point-in-time numbers, with a public trace for a start.

While a site has few ended runs, most of what the model knows comes from a slice of Google's 2011 cell trace:
how much a history of failures says about the next run. On the public logs that were tried, logistic
regression stays within 0.01 ROC-AUC of boosting and answers in microseconds on plain arrays.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pilotage.telemetry.forecast.features import Attempt, FeatureMatrix, History, Matrix, Vector, replay

SLICE = Path(__file__).parent / "google2011_slice.parquet"
SLICE_RATE = 0.05
"""Near the failure rate of the shipped slice: what is expected of a site of which nothing is known."""
SLICE_WEIGHT = 100.0
"""How many runs of the site the whole slice counts for: its lead is gone after a few hundred of them."""
SLICE_WARM_UP = 2_000
"""Rows at the head of the slice that only build up history: their own would be empty for no reason of theirs."""
REGULARISATION = 0.3
"""Inverse strength; on a dozen runs of one site a weaker one is sure of what it cannot know."""


def slice_attempts() -> list[Attempt]:
    """The shipped slice as attempts, in the order of submission."""
    table = pq.read_table(SLICE)
    columns = (table[name].to_pylist() for name in ("workflow", "submitted", "ended", "failed"))
    return [
        Attempt(key=str(key), start=float(start), ended=float(ended), failed=failed, clock=False)
        for key, start, ended, failed in zip(*columns, strict=True)
    ]


@cache
def slice_features() -> FeatureMatrix:
    """The slice with its numbers; made once, in about half a second."""
    whole = replay(slice_attempts(), History(prior=SLICE_RATE))
    return FeatureMatrix(
        attempts=whole.attempts[SLICE_WARM_UP:],
        rows=whole.rows[SLICE_WARM_UP:],
        failed=whole.failed[SLICE_WARM_UP:],
        ended=whole.ended[SLICE_WARM_UP:],
        starts=whole.starts[SLICE_WARM_UP:],
    )


class LogisticModel:
    """A fitted logistic regression over standardised numbers."""

    def __init__(self, rows: Matrix, failed: Vector, weights: Vector) -> None:
        """Fits. `failed` must have both outcomes in it."""
        self._scaler = StandardScaler().fit(rows, sample_weight=weights)
        self._model = LogisticRegression(C=REGULARISATION, max_iter=500)
        self._model.fit(self._scaler.transform(rows), failed, sample_weight=weights)

    def chances(self, rows: Matrix) -> Vector:
        """The probability of failure of each row."""
        found: Vector = self._model.predict_proba(self._scaler.transform(rows))[:, 1]
        return found

    def contributions(self, row: Vector) -> Vector:
        """What each number adds to the log-odds, against an average run."""
        found: Vector = self._scaler.transform(row.reshape(1, -1))[0] * self._model.coef_[0]
        return found


def fitted(rows: Matrix, failed: Vector) -> LogisticModel:
    """A model of the site's rows and the shipped slice, each weighed by how much it says of this site."""
    start = slice_features()
    share = SLICE_WEIGHT / len(start.failed)
    return LogisticModel(
        np.vstack([start.rows, rows]),
        np.concatenate([start.failed, failed]),
        np.concatenate([np.full(len(start.failed), share), np.ones(len(failed))]),
    )
