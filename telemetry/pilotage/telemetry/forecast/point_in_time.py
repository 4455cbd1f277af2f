"""What was known of each run when it was submitted, for a whole history at once.

An outcome counts from the END of its run, and only strictly after it: a run that was submitted in the same
second knows nothing of it. Every end counts, also a cancellation. Statistics are taken for the deployment,
the owner, the shape of what was requested, the queue and the site, each over all of its history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, Matrix, RunHistory

LEVELS = ("site", "owner", "deployment", "shape", "queue")
"""What statistics are kept for. `shape` is the owner with the requested numbers."""
PARENT = {"owner": "site", "deployment": "owner", "shape": "owner", "queue": "site"}
"""Whose rate a level leans on while its own history is thin."""
FAST, SLOW = 0.3, 0.05
"""What the newest outcome counts for in the two exponentially weighted rates."""
BURST_S = 600.0
"""The window in which submissions count as a burst."""
RECENT_S = 3600.0
"""The window in which failures of siblings count as recent."""
LEAN = 2.0
"""How many runs the parent's rate counts for."""
PRIOR_RATE, PRIOR_RUNS = 0.05, 5.0
"""The failure rate that is expected of a site of which nothing is known, and how many runs that counts for."""
CLIP = 0.0005
"""No rate is nearer to 0 or 1 in log-odds."""
FEW_ENDS = 20_000
"""Ends below which weighted sums are taken one by one."""
DAY = 86400.0
NEVER_S = 4.85e8
"""The age of what never happened: fifteen years."""


class LevelStats(NamedTuple):
    """What had happened at one level when each run was submitted; an array element for each run."""

    ended: Floats
    failures: Floats
    """Ends with the outcome that is forecast."""
    completions: Floats
    failures_in_a_row: Floats
    others_in_a_row: Floats
    in_flight: Floats
    """Submitted before and not ended."""
    burst: Floats
    """Submitted in the last BURST_S."""
    recent_failures: Floats
    """Failures that ended in the last RECENT_S."""
    fast: Floats
    """The exponentially weighted sum of failures, before the parent's rate is mixed in."""
    slow: Floats
    slow_completed: Floats
    log_duration: Floats
    """Sum of log(1 + seconds) from start to end."""
    log_duration_squares: Floats
    last_log_duration: Floats
    """Of the newest end; 0 when there was none."""
    since_failure: Floats
    """Seconds since the newest failure's end; NaN when there was none. So the three below."""
    since_other: Floats
    since_end: Floats
    since_submitted: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The numbers that models learn from; row i was known when run i was submitted."""

    names: tuple[str, ...]
    rows: Matrix
    rate: Floats
    """The failure rate of the deployment, leaning on owner and site: the simplest forecast that is hard to beat."""
    ewma: Floats
    """The same, exponentially weighted."""


def shape_codes(history: RunHistory) -> Ints:
    """Return a code for each run's owner and requested numbers together."""
    code = history.owner
    for values in history.numbers.values():
        distinct = np.unique(np.nan_to_num(values, nan=-1.0), return_inverse=True)[1].reshape(-1)
        code = np.unique(code * (int(distinct.max(initial=0)) + 1) + distinct, return_inverse=True)[
            1
        ].reshape(-1)
    return code.astype(np.int64)


def level_codes(history: RunHistory) -> dict[str, Ints]:
    """Return the codes of each level that tells runs apart."""
    codes = {
        "site": np.zeros(len(history), np.int64),
        "owner": history.owner,
        "deployment": history.deployment,
    }
    if history.numbers:
        codes["shape"] = shape_codes(history)
    if len(history) and history.queue.max() > 0:
        codes["queue"] = history.queue
    return codes


def features(history: RunHistory, failed: Flags, codes: Mapping[str, Ints] | None = None) -> Features:
    """Return the features of every run of `history`; `failed` is looked at where a run has ended, and then only later.

    `codes` are the levels' codes where somebody has made them already.
    """
    stats = level_stats(history, failed, level_codes(history) if codes is None else codes)
    return assemble(stats, history.submitted, history.numbers, clock=history.clock)


def level_stats(history: RunHistory, failed: Flags, codes: Mapping[str, Ints]) -> dict[str, LevelStats]:
    """Return what each run knew at submission, by level; `codes` tell the keys of a level apart."""
    ended = history.has_ended()
    events = _Events(history, failed & ended, ended)
    return {level: events.stats(of_run) for level, of_run in codes.items()}


class _Events:
    """Submissions and ends of a history in the order of time, submissions first within an instant."""

    def __init__(self, history: RunHistory, failed: Flags, ended: Flags) -> None:
        count = len(history)
        ends = np.flatnonzero(ended)
        begun = np.where(np.isfinite(history.started), history.started, history.submitted)
        self._rows = np.concatenate([np.arange(count), ends])
        self._is_end = np.concatenate([np.zeros(count, bool), np.ones(len(ends), bool)])
        self._times = np.concatenate([history.submitted, history.ended[ends]])
        order = np.lexsort((self._is_end, self._times))
        self._rows, self._is_end, self._times = self._rows[order], self._is_end[order], self._times[order]
        self._zero = float(self._times[0]) if count else 0.0
        self._failed = failed
        self._completed = history.completed() & ended
        with np.errstate(invalid="ignore"):
            self._log_duration = np.where(ended, np.log1p(np.maximum(history.ended - begun, 0.0)), 0.0)
        self._count = count

    def stats(self, codes: Ints) -> LevelStats:
        """Return the statistics of one level, by run."""
        of_event = codes[self._rows]
        order = np.argsort(of_event, kind="stable")
        key, rows, is_end, times = of_event[order], self._rows[order], self._is_end[order], self._times[order]
        places = np.arange(len(key))
        begins = np.maximum.accumulate(np.where(np.diff(key, prepend=key[:1] - 1) != 0, places, 0))
        asks = np.flatnonzero(~is_end)
        back = np.empty(self._count, np.int64)
        back[rows[asks]] = asks
        begin = begins[back]  # by run: where its key's events begin, and where it stands itself

        def so_far(amount: Any) -> Floats:
            total = np.concatenate([[0.0], np.cumsum(amount)])
            passed: Floats = total[back] - total[begin]
            return passed

        fail = is_end & self._failed[rows]
        other = is_end & ~fail
        good = is_end & self._completed[rows]
        ends, fails = so_far(is_end.astype(float)), so_far(fail.astype(float))
        end_rank = np.concatenate([[0], np.cumsum(is_end)])

        def last(which: Flags) -> tuple[Ints, Flags]:
            found = np.concatenate([[-1], np.maximum.accumulate(np.where(which, places, -1))])[back]
            return found, found >= begin

        def since(which: Flags) -> Floats:
            found, there = last(which)
            return np.where(there, times[back] - times[np.maximum(found, 0)], np.nan)

        def in_a_row(breaks: Flags) -> Floats:
            found, there = last(breaks)
            since_place = np.where(there, found + 1, begin)
            passed: Floats = (end_rank[back] - end_rank[since_place]).astype(float)
            return passed

        # exponentially weighted sums over the ends of each key: one filter over all, less what leaked in
        end_places = np.flatnonzero(is_end)
        nth = end_rank[end_places] - end_rank[begins[end_places]] + 1.0

        def weighted(which: Flags, weight: float) -> Floats:
            if not len(end_places):
                return np.zeros(self._count)
            whole = _decayed(which[end_places].astype(float), weight)
            before = end_rank[begins[end_places]] - 1
            leaked = np.where(before >= 0, whole[np.maximum(before, 0)], 0.0)
            # rounded: the last digits of what leaked in are other keys' outcomes, also later ones
            own = np.round(whole - leaked * (1 - weight) ** nth, 12)
            known: Floats = np.where(ends > 0, own[np.maximum(end_rank[back] - 1, 0)], 0.0)
            return known

        # windows: keys laid end to end on one line, further apart than any window
        span = float(times.max(initial=self._zero)) - self._zero + RECENT_S + BURST_S + 1.0
        line = key * span + (times - self._zero)
        asked, failing = line[asks], line[fail]
        at = line[back]
        nth_ask = np.concatenate([[0], np.cumsum(~is_end)])[back]
        previous = nth_ask - 1
        has_previous = so_far((~is_end).astype(float)) > 0
        durations = np.where(is_end, self._log_duration[rows], 0.0)
        newest_end, ended_before = last(is_end)
        return LevelStats(
            ended=ends,
            failures=fails,
            completions=so_far(good.astype(float)),
            failures_in_a_row=in_a_row(other),
            others_in_a_row=in_a_row(fail),
            in_flight=so_far((~is_end).astype(float)) - ends,
            burst=(nth_ask - np.searchsorted(asked, at - BURST_S)).astype(float),
            recent_failures=(np.searchsorted(failing, at) - np.searchsorted(failing, at - RECENT_S)).astype(
                float
            ),
            fast=weighted(fail, FAST),
            slow=weighted(fail, SLOW),
            slow_completed=weighted(good, SLOW),
            log_duration=so_far(durations),
            log_duration_squares=so_far(durations**2),
            last_log_duration=np.where(ended_before, durations[np.maximum(newest_end, 0)], 0.0),
            since_failure=since(fail),
            since_other=since(other),
            since_end=since(is_end),
            since_submitted=np.where(has_previous, at - asked[np.maximum(previous, 0)], np.nan),
        )


def _decayed(values: Floats, weight: float) -> Floats:
    """Return the exponentially weighted sums of a series: s[i] = weight * values[i] + (1 - weight) * s[i - 1]."""
    if len(values) < FEW_ENDS:
        passed = accumulate(
            values.tolist(), lambda so_far, value: so_far + weight * (value - so_far), initial=0.0
        )
        return np.array(list(passed)[1:])
    from scipy.signal import lfilter  # start-up time: half a second, for which a young site need not wait

    sums: Floats = lfilter([weight], [1.0, weight - 1.0], values)
    return sums


COUNTS = (
    "ended",
    "failures",
    "in_flight",
    "burst",
    "recent_failures",
    "failures_in_a_row",
    "others_in_a_row",
)
AGES = ("since_failure", "since_other", "since_end", "since_submitted")
OF_SITE = {"rate", "fast", "slow", "completed", *COUNTS[:5], AGES[0]}
"""What of the site's own statistics the models see; the rest differs too little from run to run."""
BLOCK = ("rate", "fast", "slow", "completed", "duration", "duration_z", *COUNTS, *AGES)
"""The columns of one level, in order."""
_OF_SITE = np.array([name in OF_SITE for name in BLOCK])


@cache
def feature_names(levels: tuple[str, ...], numbers: tuple[str, ...], clock: bool) -> tuple[str, ...]:
    """Return the names of the columns that `assemble` makes."""
    return (
        *(f"{level}_{name}" for level in levels for name in BLOCK if level != "site" or name in OF_SITE),
        *(f"n_{name}" for name in numbers),
        *(("hour_sin", "hour_cos", "weekday", "weekend") if clock else ()),
    )


def assemble(
    stats: Mapping[str, LevelStats], moments: Floats, numbers: Mapping[str, Floats], *, clock: bool
) -> Features:
    """Return the models' numbers from the statistics of each level at `moments`.

    The live loop calls it with one run and a backtest with all: whole blocks of columns are computed at once.
    """
    levels = tuple(level for level in LEVELS if level in stats)
    names = feature_names(levels, tuple(numbers), clock)
    rows: Any = np.empty((len(moments), len(names)), np.float32)
    rates: dict[str, Any] = {}
    place = 0
    for level in levels:
        known = stats[level]
        if level == "site":
            rate = (known.failures + PRIOR_RUNS * PRIOR_RATE) / (known.ended + PRIOR_RUNS)
            lean_fast, lean_slow = rate, PRIOR_RATE
        else:
            lean_slow, lean_fast = rates[PARENT[level]]
            rate = (known.failures + LEAN * lean_slow) / (known.ended + LEAN)
        slow_left = (1 - SLOW) ** known.ended
        fast = known.fast + (1 - FAST) ** known.ended * lean_fast
        rates[level] = rate, fast
        ended = np.maximum(known.ended, 1.0)
        mean = known.log_duration / ended
        spread = np.sqrt(np.maximum(known.log_duration_squares / ended - mean**2, 0.0))
        block = np.concatenate(
            [
                log_odds(np.array([rate, fast, known.slow + slow_left * lean_slow])),
                [known.slow_completed + slow_left * 0.8, mean],
                # of two runs the spread says nothing yet
                [np.where(known.ended > 2, (known.last_log_duration - mean) / (spread + 0.1), 0.0)],
                np.log1p(np.array([getattr(known, name) for name in COUNTS])),
                _age(np.array([getattr(known, name) for name in AGES])),
            ]
        )
        if level == "site":
            block = block[_OF_SITE]
        rows[:, place : place + len(block)] = block.T
        place += len(block)
    for values in numbers.values():
        rows[:, place] = np.sign(values) * np.log1p(np.abs(values))
        place += 1
    if clock:
        angle = 2 * np.pi * (moments % DAY) / DAY
        # 1970-01-01 was a Thursday
        day = np.floor(moments / DAY + 3) % 7
        rows[:, place:] = np.column_stack([np.sin(angle), np.cos(angle), day, day >= 5])
    rate, ewma = rates["deployment"]
    return Features(names=names, rows=rows, rate=rate, ewma=ewma)


def log_odds(chance: Any) -> Any:
    """Return log(p / (1 - p)), with p kept CLIP away from 0 and 1."""
    sure = np.clip(chance, CLIP, 1 - CLIP)
    return np.log(sure / (1 - sure))


def _age(seconds: Any) -> Any:
    """Return the log of an age; what never happened is older than anything that did."""
    return np.log1p(np.maximum(np.where(np.isnan(seconds), NEVER_S, seconds), 0.0))
