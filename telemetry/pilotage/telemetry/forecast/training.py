"""Trains a forecast model from the telemetry store: walks through its history, scores all candidates, fits the last."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime

import numpy as np

from pilotage.telemetry.forecast.attempts import (
    FAILURES,
    RUN_ATTEMPTS,
    AttemptSource,
    StoredHistory,
    stored_history,
)
from pilotage.telemetry.forecast.backtest import walk_forward
from pilotage.telemetry.forecast.bundle import Bundle
from pilotage.telemetry.forecast.fitting import FEWEST_ROWS, fit
from pilotage.telemetry.forecast.scores import reliability, scores, threshold_costs
from pilotage.telemetry.store.protocol import Store

FEWEST = min(FEWEST_ROWS.values())
"""Ended attempts below which nothing is trained: the smoothed rate serves."""
SCORED_SHARE = 0.75
"""The newest attempts from here on are scored; each is forecast by models that had not seen it."""
EVIDENCE = 30_000
"""Forecasts with known outcomes that are kept for the mix, the newest: older ones count next to nothing."""


def train(store: Store, now: datetime, source: AttemptSource = RUN_ATTEMPTS) -> Bundle | None:
    """Return a model trained on what ended before `now`, or None while too little has ended. Raises StoreError."""
    return trained(stored_history(store, now, source), now, source.label)


def trained(history: StoredHistory, now: datetime, label: tuple[str, ...] = FAILURES) -> Bundle | None:
    """Return a model trained on a history, or None while too little of it has ended."""
    runs, failed = history.runs, history.failed
    known = np.flatnonzero(runs.has_ended())
    if len(known) < FEWEST or not 0 < failed[known].sum() < len(known):
        return None
    began = time.perf_counter()
    until = float(runs.submitted[int(len(runs) * SCORED_SHARE)])
    walk = walk_forward(runs, failed, until, {level: each.codes for level, each in history.levels.items()})
    models = fit(walk.found, failed, known)
    scored = runs.has_ended()[walk.rows]
    outcomes, served = failed[walk.rows][scored], walk.made["served"][scored]
    digest = hashlib.sha256(walk.found.rows[known].tobytes() + failed[known].tobytes()).hexdigest()
    return Bundle(
        model_id=f"m-{now.astimezone(UTC):%Y%m%dT%H%M%S}-{digest[:6]}",
        names=walk.found.names,
        models=models,
        evidence=walk.evidence.part(slice(-EVIDENCE, None)),
        trained_until=now.timestamp(),
        card={
            "label": list(label),
            "made_at": now.astimezone(UTC).isoformat(),
            "took_s": time.perf_counter() - began,
            "base_rate": float(outcomes.mean()) if len(outcomes) else 0.0,
            "counts": {
                "runs": len(runs),
                "train": len(known),
                "test_scored": int(scored.sum()),
                "deployments": len(history.levels["deployment"].names),
            },
            "candidates": {
                name: scores(outcomes, chances[scored])
                for name, chances in walk.made.items()
                if name != "served"
            },
            "served": scores(outcomes, served),
            "stack": {
                "intercept": walk.mix.stack.intercept,
                **walk.mix.stack.by_name(),
                "leans_on": walk.mix.stack.leans_on,
            },
            "weights": walk.mix.by_name(),
            "reliability": reliability(outcomes, served),
            "thresholds": threshold_costs(outcomes, served),
        },
    )
