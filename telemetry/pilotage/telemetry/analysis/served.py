"""Were the stored forecasts right, who served them, and what would acting above a chance have cost?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from pilotage.telemetry.forecast.scores import reliability, scores, threshold_costs
from pilotage.telemetry.store.protocol import Store

_SCORED = """
    SELECT p_fail, failed, ended, muted, CASE WHEN model_id = '' THEN model ELSE model_id END AS model
    FROM forecasts WHERE failed IS NOT NULL AND ended >= $1
    QUALIFY row_number() OVER (PARTITION BY run_id, ended ORDER BY made_at DESC) = 1 ORDER BY ended
"""
_BY_DAY = """
    SELECT date_trunc('day', made_at) AS day, CASE WHEN model_id = '' THEN model ELSE model_id END AS model,
        count(*) AS forecasts, count(*) FILTER (muted <> '') AS muted
    FROM forecasts WHERE made_at >= $1 GROUP BY ALL ORDER BY ALL
"""


def judged(store: Store, since: datetime) -> dict[str, Any] | None:
    """Return `scores`, `reliability` and `thresholds` of the forecasts whose attempts have ended, or None without any.

    Each attempt counts once, with its last forecast before it ended. Raises StoreError.
    """
    columns = store.query(_SCORED, [since]).to_pydict()
    failed = np.array(columns["failed"], dtype=bool)
    if not len(failed):
        return None
    chances = np.array(columns["p_fail"], dtype=np.float64)
    return {
        "forecasts": len(failed),
        "failed": int(failed.sum()),
        "muted": sum(1 for muted in columns["muted"] if muted),
        "scores": scores(failed, chances),
        "reliability": reliability(failed, chances),
        "thresholds": threshold_costs(failed, chances),
    }


def served_by(store: Store, since: datetime) -> list[dict[str, Any]]:
    """Return `day, model, forecasts, muted`: which model served when. Raises StoreError."""
    return store.rows(_BY_DAY, [since])
