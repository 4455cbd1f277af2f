"""What it means for the chance of failure that a run still runs: failures and other ends come after times of their own.

By Bayes' rule the chance p becomes p F(t) / (p F(t) + (1 - p) G(t)), where F and G are the shares of failed and of
other attempts that last longer than t. Both are taken as log-normal, from the durations of the deployment, leaning on its
owner's and on the site's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pilotage.telemetry.forecast.counters import Keys, NamedCodes
from pilotage.telemetry.forecast.point_in_time import LEVELS
from pilotage.telemetry.forecast.run_history import Flags, Floats

LEVELS_READ = ("site", "owner", "deployment")
"""The widest first: each leans on the one before."""
LEAN, MOST = 2.0, 30
"""How many attempts the wider level counts for, and how many a level's own count for at most."""
USUAL_LOG_S, USUAL_VARIANCE = math.log(600.0), 4.0
"""What attempts take where nothing is known: ten minutes, within a factor of seven."""
LEAST_VARIANCE = 0.04
LEAST_SHARE = 0.02
"""However long a run runs, this share of either kind is taken to run longer."""


class DurationsByOutcome:
    """Count, sum and squares of the log durations of failed and of other attempts, by level and key."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, bool], tuple[float, float, float]] = {}

    def add(self, keys: Keys, *, failed: bool, log_duration: float) -> None:
        """Take the end of an attempt. `log_duration`: log(1 + seconds)."""
        for level in LEVELS_READ:
            key = (level, keys[LEVELS.index(level)], failed)
            count, total, squares = self._sums.get(key, (0.0, 0.0, 0.0))
            self._sums[key] = count + 1, total + log_duration, squares + log_duration**2

    def add_all(
        self, levels: Mapping[str, NamedCodes], failed: Flags, ended: Flags, log_duration: Floats
    ) -> None:
        """Take all ends of a history; an array element for each attempt."""
        for level in LEVELS_READ:
            names = levels[level].names
            for outcome in (True, False):
                rows = np.flatnonzero(ended & (failed == outcome))
                codes = levels[level].codes[rows]
                count, total, squares = (
                    np.bincount(codes, weights=log_duration[rows] ** power, minlength=len(names))
                    for power in (0, 1, 2)
                )
                for code in np.flatnonzero(count).tolist():
                    known = float(count[code]), float(total[code]), float(squares[code])
                    self._sums[level, names[code], outcome] = known

    def chance(self, chance: float, keys: Keys, age_s: float) -> float:
        """Return the chance of failure of an attempt that has run for `age_s` seconds, from what it was without that."""
        failing = chance * self._share_longer(keys, True, age_s)
        other = (1 - chance) * self._share_longer(keys, False, age_s)
        return failing / (failing + other)

    def _share_longer(self, keys: Keys, failed: bool, age_s: float) -> float:
        mean, variance = USUAL_LOG_S, USUAL_VARIANCE
        for level in LEVELS_READ:
            known = self._sums.get((level, keys[LEVELS.index(level)], failed))
            if known is None:
                continue
            count, total, squares = known
            own = total / count
            spread = max(squares / count - own * own, LEAST_VARIANCE)
            weight = min(count, MOST)
            apart = weight * LEAN / (weight + LEAN) * (own - mean) ** 2
            variance = (spread * weight + variance * LEAN + apart) / (weight + LEAN)
            mean = (own * weight + mean * LEAN) / (weight + LEAN)
        beyond = (math.log1p(max(age_s, 0.0)) - mean) / math.sqrt(2 * variance)
        return max(0.5 * math.erfc(beyond), LEAST_SHARE)
