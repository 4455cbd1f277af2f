"""How long an attempt usually takes, followed end by end: what is served live of durations, with a bound for each share.

A share's quantile is that of the deployment's newest durations, mixed with that of a log-normal whose mean and spread
lean on the owner's and the site's. Each is then moved by as much as those of the newest ended attempts missed, in spreads:
a conformal bound with normalised scores (Papadopoulos et al., 2008), which holds the share that it promises whatever the
true distribution is, as long as the site goes on as lately.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from pilotage.telemetry.forecast.counters import Keys, NamedCodes
from pilotage.telemetry.forecast.point_in_time import LEVELS
from pilotage.telemetry.forecast.run_history import Floats, Ints
from pilotage.telemetry.forecasts import DurationForecast

LEVELS_READ = ("site", "owner", "deployment")
"""The widest first: each leans on the one before."""
LEAN = 5.0
"""How many attempts the wider level counts for."""
OWN_LEAN = 3.0
"""How many of its own durations the log-normal counts for in a deployment's quantiles."""
NEWEST_COUNTS = 0.05
"""What the newest duration counts for once there are twenty; until then all count alike."""
WINDOW = 50
"""The newest durations of a deployment whose quantiles are taken."""
USUAL_LOG_S, USUAL_VARIANCE = math.log(600.0), 4.0
"""What attempts take where nothing is known: ten minutes, within a factor of seven."""
LEAST_VARIANCE = 0.01
NEWEST = 2_000
"""Ended attempts whose distance from what was expected moves the quantiles."""
SHRINK = 20
"""Ended attempts at which a quantile is moved half as far as they say."""
NORMAL = {0.05: -1.6449, 0.5: 0.0, 0.9: 1.2816, 0.95: 1.6449, 0.99: 2.3263, 0.995: 2.5758}
"""The shares that are asked for, with their quantiles of the normal distribution."""
LATEST = 0.995
"""The share of attempts that end before a run counts as overlong."""
LONGEST_S = 10 * 365 * 86_400.0
PLACE = LEVELS.index("deployment")


class _Newest:
    """The newest values, in order of size as well."""

    __slots__ = ("_most", "_newest", "ordered")

    def __init__(self, most: int) -> None:
        self._most = most
        self._newest: deque[float] = deque()
        self.ordered: list[float] = []

    def add(self, value: float) -> None:
        if len(self._newest) == self._most:
            del self.ordered[bisect_left(self.ordered, self._newest.popleft())]
        self._newest.append(value)
        insort(self.ordered, value)

    def quantile(self, share: float) -> float:
        place = share * (len(self.ordered) - 1)
        low = int(place)
        high = min(low + 1, len(self.ordered) - 1)
        return self.ordered[low] + (place - low) * (self.ordered[high] - self.ordered[low])

    def bound(self, share: float) -> float | None:
        """Return the conformal bound: rounded outwards; None where it lies beyond what so few values can tell."""
        count = len(self.ordered)
        place = (count + 1) * share - 1
        whole = round(place) if share == 0.5 else math.ceil(place) if share > 0.5 else math.floor(place)
        return self.ordered[whole] if 0 <= whole < count else None


@dataclass(slots=True)
class _Level:
    """Weighted mean and variance of log(1 + seconds)."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def add(self, log_s: float) -> None:
        self.count += 1
        weight = max(1.0 / self.count, NEWEST_COUNTS)
        moved = log_s - self.mean
        self.mean += weight * moved
        self.variance = (1 - weight) * (self.variance + weight * moved * moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of an attempt's log(1 + seconds), before it is moved."""

    quantiles: Mapping[float, float]
    spread: float
    runs: int
    """Completed attempts of its deployment that this rests on."""


@dataclass(slots=True)
class UsualDurations:
    """The durations of a site by level and key, and how far they lay from what was expected of them."""

    _levels: tuple[dict[str, _Level], ...] = field(default_factory=lambda: tuple({} for _ in LEVELS_READ))
    _own: dict[str, _Newest] = field(default_factory=dict)
    _missed: dict[float, _Newest] = field(
        default_factory=lambda: {share: _Newest(NEWEST) for share in NORMAL}
    )

    def expected(self, keys: Keys) -> Expected:
        """Return what is expected of an attempt, by what has been told so far."""
        mean, variance, runs = USUAL_LOG_S, USUAL_VARIANCE, 0
        for name, known in zip(LEVELS_READ, self._levels, strict=True):
            level = known.get(keys[LEVELS.index(name)])
            runs = level.count if level else 0
            if level is None:
                continue
            count = min(level.count, 1 / NEWEST_COUNTS)
            apart = count * LEAN / (count + LEAN) * (level.mean - mean) ** 2
            variance = (level.variance * count + variance * LEAN + apart) / (count + LEAN)
            mean = (level.mean * count + mean * LEAN) / (count + LEAN)
        spread = math.sqrt(max(variance, LEAST_VARIANCE))
        quantiles = {share: mean + beyond * spread for share, beyond in NORMAL.items()}
        if (own := self._own.get(keys[PLACE])) is not None:
            count = len(own.ordered)
            quantiles = {
                share: (count * own.quantile(share) + OWN_LEAN * normal) / (count + OWN_LEAN)
                for share, normal in quantiles.items()
            }
        return Expected(quantiles=quantiles, spread=spread, runs=runs)

    @property
    def scored(self) -> int:
        """Ended attempts that the quantiles have been held against."""
        return len(self._missed[0.5].ordered)

    def quantile_s(self, expected: Expected, share: float) -> float:
        """Return the seconds within which so large a share of such attempts ends: one of NORMAL's shares."""
        missed = self._missed[share]
        count, moved = len(missed.ordered), missed.bound(share)
        if moved is None:
            # so few cannot tell: no less than the outermost of them, and the log-normal's tail otherwise
            moved = (
                0.0
                if not count
                else min(missed.ordered[0], 0.0)
                if share < 0.5
                else max(missed.ordered[-1], 0.0)
            )
        moved *= count / (count + SHRINK)
        return max(0.0, math.expm1(min(expected.quantiles[share] + moved * expected.spread, 40.0)))

    def forecast(self, keys: Keys, run_id: str, now: datetime) -> DurationForecast:
        """Return the forecast of one attempt's duration."""
        expected = self.expected(keys)
        median, p90, latest = (self.quantile_s(expected, share) for share in (0.5, 0.9, LATEST))
        return DurationForecast(
            run_id=run_id,
            made_at=now,
            median=timedelta(seconds=min(median, LONGEST_S)),
            p90=timedelta(seconds=min(max(p90, median), LONGEST_S)),
            latest=timedelta(seconds=min(max(latest, p90), LONGEST_S)),
            runs=expected.runs,
            scored=self.scored,
        )

    def add(self, keys: Keys, log_s: float, expected: Expected | None = None) -> None:
        """Take the duration of an attempt that completed. `expected` is what was said of it when it began."""
        if expected is not None:
            for share, missed in self._missed.items():
                missed.add((log_s - expected.quantiles[share]) / expected.spread)
        for place, name in enumerate(LEVELS_READ):
            self._add(place, keys[LEVELS.index(name)], log_s)

    def _add(self, place: int, key: str, log_s: float) -> None:
        known = self._levels[place]
        level = known.get(key)
        if level is None:
            level = known[key] = _Level()
        level.add(log_s)
        if place == LEVELS_READ.index("deployment"):
            own = self._own.get(key)
            if own is None:
                own = self._own[key] = _Newest(WINDOW)
            own.add(log_s)

    def add_all(self, levels: Mapping[str, NamedCodes], ended: Floats, log_s: Floats, rows: Ints) -> None:
        """Take the completed attempts `rows` of a long history: the newest of each key, in the order of their ends.

        The newest NEWEST of all are forecast, from what ended before, and held against what they took.
        """
        order = rows[np.argsort(ended[rows], kind="stable")]
        told = np.zeros((len(LEVELS_READ), len(order)), dtype=bool)
        for place, name in enumerate(LEVELS_READ):
            codes = levels[name].codes[order]
            by_key = np.argsort(codes, kind="stable")
            ends = np.append(np.flatnonzero(np.diff(codes[by_key])) + 1, len(by_key))
            lengths = np.diff(np.append(0, ends))
            from_end = np.repeat(ends, lengths) - np.arange(len(by_key))
            told[place, by_key[from_end <= 2 * WINDOW]] = True
            # what is scored is told to every level, else the newest would know less than they did
            told[place, -NEWEST:] = True
        first_scored = len(order) - NEWEST
        for at in np.flatnonzero(told.any(axis=0)).tolist():
            row = int(order[at])
            took = float(log_s[row])
            keys = tuple(str(levels[name].names[levels[name].codes[row]]) for name in LEVELS)
            if at >= first_scored:
                expected = self.expected(keys)
                for share, missed in self._missed.items():
                    missed.add((took - expected.quantiles[share]) / expected.spread)
            for place, name in enumerate(LEVELS_READ):
                if told[place, at]:
                    self._add(place, keys[LEVELS.index(name)], took)
