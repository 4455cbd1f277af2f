"""What is served live of durations, walked through a history, and what telling of overlong runs would have cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pilotage.telemetry.forecast.durations import known_before
from pilotage.telemetry.forecast.point_in_time import LEVELS, level_codes
from pilotage.telemetry.forecast.run_history import Floats, Ints, RunHistory
from pilotage.telemetry.forecast.usual_durations import NORMAL, Expected, UsualDurations

FLOOR_S = 600.0
"""No run that takes less is overlong, as in the planner."""
TOLD_AT = (0.9, 0.95, 0.99, 0.995)
"""Shares of the runs that end sooner, above which a run could be told as overlong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDurations:
    """Live forecasts of runs that completed; NaN for the others. Seconds; an element for each of the rows."""

    quantiles: Mapping[float, Floats]

    @property
    def latest(self) -> Floats:
        """Within which all but the longest end."""
        return self.quantiles[max(self.quantiles)]


def live_durations(history: RunHistory, seconds: Floats, rows: Ints) -> LiveDurations:
    """Return what would have been served of each of `rows` at its submission, from runs that had completed before."""
    good = history.has_ended() & history.completed()
    by_end = known_before(history, good, np.inf)
    ends = history.ended[by_end].tolist()
    codes, usual = level_codes(history), UsualDurations()
    nothing = np.zeros(len(history), dtype=np.int64)
    columns = [codes.get(level, nothing).tolist() for level in LEVELS]
    said: dict[int, Expected] = {}
    place = 0
    places = {int(row): at for at, row in enumerate(rows)}
    quantiles = {share: np.full(len(rows), np.nan) for share in NORMAL}
    for run, moment in enumerate(history.submitted.tolist()):
        while place < len(ends) and ends[place] < moment:
            ended = int(by_end[place])
            place += 1
            keys = tuple(str(column[ended]) for column in columns)
            usual.add(keys, math.log1p(float(seconds[ended])), said.pop(ended, None))
        if not good[run]:
            continue
        expected = said[run] = usual.expected(tuple(str(column[run]) for column in columns))
        if (at := places.get(run)) is not None:
            for share, made in quantiles.items():
                made[at] = usual.quantile_s(expected, share)
    return LiveDurations(quantiles=quantiles)


def overlong_costs(live: LiveDurations, seconds: Floats) -> list[dict[str, float]]:
    """Return for each share what telling of runs beyond it would have cost: good runs told, hours until one is told."""
    known = np.isfinite(live.latest)
    took, rows = seconds[known], []
    for share in TOLD_AT:
        bound = np.maximum(live.quantiles[share][known], FLOOR_S)
        told = took > bound
        rows.append(
            {
                "told_above": share,
                "good_runs_told": int(told.sum()),
                "share_of_good_runs": float(told.mean()) if len(took) else 0.0,
                "median_hours_until_told": float(np.median(bound)) / 3600 if len(took) else 0.0,
            }
        )
    return rows
