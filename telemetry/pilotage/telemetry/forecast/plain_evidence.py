"""What the mix starts from while no model has been trained: the plain forecasts of the newest ended attempts."""

from __future__ import annotations

import numpy as np

from pilotage.telemetry.forecast.attempts import StoredHistory
from pilotage.telemetry.forecast.candidates import untrained
from pilotage.telemetry.forecast.point_in_time import features
from pilotage.telemetry.forecast.stacking import Evidence, no_evidence

WITHOUT_MODEL = 5_000
"""The newest ended attempts whose plain forecasts the mix starts from."""


def plain_evidence(history: StoredHistory) -> Evidence:
    """Return what the plain forecasts would have said of the newest ended attempts."""
    runs = history.runs
    if not len(runs):
        return no_evidence()
    found = features(runs, history.failed, {level: each.codes for level, each in history.levels.items()})
    known = np.flatnonzero(runs.has_ended())
    known = known[np.argsort(runs.ended[known], kind="stable")][-WITHOUT_MODEL:]
    made = untrained(found.rows.shape[1]).chances(found, known)
    return Evidence(made=made, failed=history.failed[known], ended=runs.ended[known])
