"""Boosted trees that learn quantiles of durations from what was known at submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from pilotage.telemetry.forecast.run_history import Floats, Ints, Matrix

FEWEST_ROWS = 200
"""Ended runs below which nothing is learned."""
MOST_ROWS = 40_000
"""Ended runs that a model is fitted on, the newest."""
ITERATIONS = 80
THREADS = 1


def one_thread() -> threadpool_limits:
    """Return a context in which models use one thread. Entering it takes a millisecond: not for each forecast."""
    return threadpool_limits(THREADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedDurations:
    """Models of the quantiles of log seconds."""

    models: Mapping[float, HistGradientBoostingRegressor]
    columns: Ints
    """The features that are read: those that were known of some run that was learned from."""

    def quantiles(self, rows: Matrix) -> dict[float, Floats]:
        """Return log seconds by quantile, in rising order for each row."""
        columns = np.sort(
            np.column_stack(
                [self.models[share].predict(rows[:, self.columns]) for share in sorted(self.models)]
            ),
            axis=1,
        )
        return {share: columns[:, place] for place, share in enumerate(sorted(self.models))}


def fit_durations(
    rows: Matrix, logs: Floats, known: Ints, shares: Sequence[float], *, iterations: int = ITERATIONS
) -> FittedDurations | None:
    """Return models of quantiles, learned from the runs `known`, ordered by end; None where they are too few."""
    chosen = known[-MOST_ROWS:]
    if len(chosen) < FEWEST_ROWS:
        return None
    # what is known of no run cannot be cut into bins
    columns = np.flatnonzero(np.isfinite(rows[chosen]).any(axis=0))
    models, learned = {}, rows[np.ix_(chosen, columns)]
    with one_thread():
        for share in shares:
            model = HistGradientBoostingRegressor(
                loss="quantile",
                quantile=share,
                learning_rate=0.1,
                max_iter=iterations,
                max_leaf_nodes=12,
                min_samples_leaf=max(20, min(60, len(chosen) // 100)),
                l2_regularization=1.0,
                early_stopping=False,
                random_state=0,
            )
            models[share] = model.fit(learned, logs[chosen])
    return FittedDurations(models=models, columns=columns)
