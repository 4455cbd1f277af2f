"""How long a run will take: what its deployment, owner and site took before.

`DurationHistory` is told of ends one at a time and knows nothing else, so that a number can only rest on
what has ended: the backtest, the replay of a queue and a live loop feed the same class.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pilotage.telemetry.forecast.point_in_time import level_codes
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, RunHistory

LEVELS = ("deployment", "shape", "owner", "queue", "site")
"""What durations are kept for, the closest first."""
FAST, SLOW = 0.5, 0.1
"""What the newest duration counts for in the two exponentially weighted means of the logarithm."""
WINDOW = 1_000
"""Durations of a level whose quantiles are taken: the newest."""
SHORTEST_S = 1.0
"""Durations below count as this: their logarithm would outweigh everything."""
LEAN = 2.0
"""How many runs the wider level counts for in an expected duration."""
TRUSTED = 10
"""How many runs a level counts for at most: the weighted mean rests on about so many."""
DAY_S = 86_400.0


@dataclass(slots=True)
class _Level:
    """The durations of one deployment, owner or site."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    fast: float = 0.0
    slow: float = 0.0
    last: float = math.nan
    before_last: float = math.nan
    used: float = math.nan
    """The weighted mean of log(duration / requested)."""
    ordered: list[float] = field(default_factory=list)
    newest: deque[float] = field(default_factory=deque)

    def add(self, log_s: float, log_used: float) -> None:
        self.count += 1
        self.total += log_s
        self.squares += log_s * log_s
        first = self.count == 1
        self.fast = log_s if first else self.fast + FAST * (log_s - self.fast)
        self.slow = log_s if first else self.slow + SLOW * (log_s - self.slow)
        self.before_last, self.last = self.last, log_s
        if not math.isnan(log_used):
            self.used = log_used if math.isnan(self.used) else self.used + 0.2 * (log_used - self.used)
        if len(self.newest) == WINDOW:
            del self.ordered[bisect_left(self.ordered, self.newest.popleft())]
        self.newest.append(log_s)
        insort(self.ordered, log_s)

    def quantile(self, share: float) -> float:
        place = share * (len(self.ordered) - 1)
        low = int(place)
        high = min(low + 1, len(self.ordered) - 1)
        return self.ordered[low] + (place - low) * (self.ordered[high] - self.ordered[low])


def log_seconds(seconds: Floats) -> Floats:
    """Return the logarithm that models learn."""
    logs: Floats = np.log(np.maximum(seconds, SHORTEST_S))
    return logs


def durations_of(history: RunHistory) -> Floats:
    """Return the seconds from start to end; from submission where no start is known, NaN where there is no end."""
    begun = np.where(np.isfinite(history.started), history.started, history.submitted)
    return np.where(history.has_ended(), np.maximum(history.ended - begun, 0.0), np.nan)


class DurationHistory:
    """The durations that have been told so far, and the features of a run at this moment."""

    def __init__(self, history: RunHistory) -> None:
        """`history` is asked for what is known of a run at submission only, never for its times or its end."""
        codes = level_codes(history)
        self._levels = tuple(level for level in LEVELS if level in codes)
        self._codes = [codes[level].tolist() for level in self._levels]
        self._known: list[dict[int, _Level]] = [{} for _ in self._levels]
        numbers = [np.sign(v) * np.log1p(np.abs(v)) for v in history.numbers.values()]
        self._numbers = np.column_stack(numbers).tolist() if numbers else [()] * len(history)
        requested = history.numbers.get("requested_s")
        self._requested = None if requested is None else log_seconds(requested).tolist()
        self._clock = history.clock

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that tell runs of this history apart."""
        return self._levels

    def add(self, run: int, seconds: float) -> None:
        """Take the duration of a run that has ended."""
        log_s = math.log(max(seconds, SHORTEST_S))
        used = math.nan if self._requested is None else log_s - self._requested[run]
        for codes, known in zip(self._codes, self._known, strict=True):
            code = codes[run]
            if (level := known.get(code)) is None:
                level = known[code] = _Level()
            level.add(log_s, used)

    def own(self, run: int, shares: Sequence[float]) -> list[float]:
        """Return quantiles of the deployment's own durations, of its owner's or the site's where it has none: log s."""
        for codes, known in zip(self._codes, self._known, strict=True):
            if (level := known.get(codes[run])) is not None:
                return [level.quantile(share) for share in shares]
        requested = math.nan if self._requested is None else self._requested[run]
        return [0.0 if math.isnan(requested) else requested] * len(shares)

    def expected(self, run: int) -> float:
        """Return the mean of log seconds that the levels tell, each leaning on the wider one."""
        requested = math.nan if self._requested is None else self._requested[run]
        asks = not math.isnan(requested)
        mean = requested if asks else 0.0
        for codes, known in zip(reversed(self._codes), reversed(self._known), strict=True):
            level = known.get(codes[run])
            if level is None:
                continue
            seen = level.slow
            if asks and not math.isnan(level.used):
                seen = requested + level.used
            count = min(level.count, TRUSTED)
            mean += (seen - mean) * count / (count + LEAN)
        return mean

    def row(self, run: int, moment: float) -> list[float]:
        """Return the features of a run at `moment`, in epoch seconds; NaN is what is not known."""
        row: list[float] = [*self._numbers[run]]
        for codes, known in zip(self._codes, self._known, strict=True):
            level = known.get(codes[run])
            if level is None:
                row += [0.0] + [math.nan] * 8
                continue
            mean = level.total / level.count
            spread = math.sqrt(max(level.squares / level.count - mean * mean, 0.0))
            row += [
                math.log1p(level.count),
                mean,
                spread if level.count > 1 else math.nan,
                level.fast,
                level.slow,
                level.last,
                level.before_last,
                level.quantile(0.9),
                level.used,
            ]
        if self._clock:
            angle = 2 * math.pi * (moment % DAY_S) / DAY_S
            row += [math.sin(angle), math.cos(angle), (moment / DAY_S + 3) % 7]
        return row


class ExpectedDurations:
    """How long runs are expected to last, from running statistics alone; for a queue that is replayed.

    The geometric mean of a level's durations leans on the mean of the level above as on LEAN runs. Where runs ask for a
    time, the share of it that was used is averaged instead.
    """

    def __init__(self, history: RunHistory) -> None:
        """`history` tells what is known of each run at submission."""
        self._past = DurationHistory(history)

    def ended(self, run: int, seconds: float) -> None:
        """Learn the duration of a run that has ended."""
        self._past.add(run, seconds)

    def typical_s(self, run: int) -> float:
        """Return the median seconds that its deployment took until now."""
        [median] = self._past.own(run, (0.5,))
        return math.exp(median)

    def expected_s(self, run: int) -> float:
        """Return the expected seconds of a run, as known now."""
        return math.exp(self._past.expected(run))


def known_before(history: RunHistory, ended: Flags, moment: float) -> Ints:
    """Return the runs that had ended strictly before a moment, ordered by end."""
    runs = np.flatnonzero(ended & (history.ended < moment))
    return runs[np.argsort(history.ended[runs], kind="stable")]
