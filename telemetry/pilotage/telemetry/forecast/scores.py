"""How good forecasts of failure were, once their outcomes are known."""

from __future__ import annotations

import math

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from pilotage.telemetry.forecast.run_history import Flags, Floats

BINS = 15
BUDGET = 0.05
"""The share of runs about which people can be alerted."""


def scores(failed: Flags, chances: Floats) -> dict[str, float | None]:
    """Return the scores of one candidate; what needs both outcomes is None where there is one only."""
    both = 0 < int(failed.sum()) < len(failed)
    clipped = np.clip(chances, 1e-6, 1 - 1e-6)
    alerts = max(1, round(BUDGET * len(failed))) if len(failed) else 0
    alerted = np.argsort(-chances, kind="stable")[:alerts]
    caught = int(failed[alerted].sum())
    return {
        "roc_auc": float(roc_auc_score(failed, chances)) if both else None,
        "pr_auc": float(average_precision_score(failed, chances)) if both else None,
        "brier": _mean((chances - failed) ** 2),
        "ece": calibration_error(failed, chances),
        "log_loss": _mean(-np.where(failed, np.log(clipped), np.log1p(-clipped))),
        "precision_at_5_percent": caught / alerts if alerts else None,
        "recall_at_5_percent": caught / int(failed.sum()) if failed.any() else None,
    }


def calibration_error(failed: Flags, chances: Floats) -> float | None:
    """Return the expected calibration error over BINS bins of equal width."""
    if not len(failed):
        return None
    bins = np.minimum((chances * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=chances - failed, minlength=BINS)
    return float(np.abs(gaps).sum() / len(failed))


def reliability(failed: Flags, chances: Floats) -> list[dict[str, float]]:
    """Return what was said and what was, for each bin that holds runs."""
    bins = np.minimum((chances * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "runs": int((bins == number).sum()),
            "said": float(chances[bins == number].mean()),
            "was": float(failed[bins == number].mean()),
        }
        for number in range(BINS)
        if (bins == number).any()
    ]


def threshold_costs(failed: Flags, chances: Floats) -> list[dict[str, float]]:
    """Return what acting above each of some thresholds would have cost and caught."""
    return [
        {
            "act_above": threshold,
            "bad_runs_caught": int((failed & (chances >= threshold)).sum()),
            "good_runs_delayed": int((~failed & (chances >= threshold)).sum()),
        }
        for threshold in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    ]


def _mean(values: Floats) -> float | None:
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean if math.isfinite(mean) else None
