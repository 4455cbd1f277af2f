"""How good the stored forecasts were, model by model, now that their runs have ended."""

from __future__ import annotations

from typing import Any

import numpy as np

from pilotage.telemetry.forecast.scores import scores
from pilotage.telemetry.store.protocol import Store

MOST = 400_000
"""The newest scored forecasts that are looked at."""
_SCORED = """
    SELECT CASE WHEN model_id = '' THEN model ELSE model_id END AS model_id, p_fail, failed FROM forecasts
    WHERE failed IS NOT NULL QUALIFY row_number() OVER (PARTITION BY run_id, ended ORDER BY made_at DESC) = 1
    ORDER BY ended DESC LIMIT $1
"""
"""The last forecast of each attempt before it ended."""


def stored_scores(store: Store) -> list[dict[str, Any]]:
    """Return for each model: `model_id`, `forecasts`, `base_rate` and the scores, the busiest first. Raises StoreError."""
    columns = store.query(_SCORED, [MOST]).to_pydict()
    models = np.array(columns["model_id"], dtype=object)
    chances = np.array(columns["p_fail"], dtype=np.float64)
    failed = np.array(columns["failed"], dtype=bool)
    found = []
    for model in sorted(set(columns["model_id"])):
        mine = models == model
        found.append(
            {
                "model_id": model,
                "forecasts": int(mine.sum()),
                "base_rate": float(failed[mine].mean()),
                **scores(failed[mine], chances[mine]),
            }
        )
    return sorted(found, key=lambda each: -int(each["forecasts"]))
