"""What was known of each run when it was submitted, for a whole history at once.

An outcome counts from the END of its run, and only strictly after it: a run that was submitted in the same
second knows nothing of it. Every end counts, also a cancellation. Statistics are taken for the deployment,
the owner, the shape of what was requested, the queue and the site, each over all of its history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import lfilter

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
DAY, WEEK = 86400.0, 604800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelStats:
    """What had happened at one level when each run was submitted; an array element for each run."""

    ended: Floats
    failures: Floats
    """Ends with the outcome that is forecast."""
    completions: Floats
    failures_in_a_row: Floats
    others_in_a_row: Floats
    fast: Floats
    """The exponentially weighted sum of failures, before the parent's rate is mixed in."""
    slow: Floats
    slow_completed: Floats
    since_failure: Floats
    """Seconds since the newest failure's end; NaN when there was none. So the three below."""
    since_other: Floats
    since_end: Floats
    since_submitted: Floats
    in_flight: Floats
    """Submitted before and not ended."""
    burst: Floats
    """Submitted in the last BURST_S."""
    recent_failures: Floats
    """Failures that ended in the last RECENT_S."""
    log_duration: Floats
    """Sum of log(1 + seconds) from start to end."""


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


def features(history: RunHistory, failed: Flags) -> Features:
    """Return the features of every run of `history`; `failed` is looked at where a run has ended, and then only later."""
    ended = history.has_ended()
    events = _Events(history, failed & ended, ended)
    stats = {level: events.stats(codes) for level, codes in level_codes(history).items()}
    return assemble(stats, history.submitted, history.numbers, clock=history.clock)


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
            positions = np.concatenate([[-1], np.maximum.accumulate(np.where(which, places, -1))])[back]
            return positions, positions >= begin

        def since(which: Flags) -> Floats:
            position, there = last(which)
            return np.where(there, times[back] - times[np.maximum(position, 0)], np.nan)

        def in_a_row(breaks: Flags) -> Floats:
            position, there = last(breaks)
            since_place = np.where(there, position + 1, begin)
            passed: Floats = (end_rank[back] - end_rank[since_place]).astype(float)
            return passed

        # exponentially weighted sums over the ends of each key: one filter over all, less what leaked in
        end_places = np.flatnonzero(is_end)
        nth = end_rank[end_places] - end_rank[begins[end_places]] + 1.0

        def weighted(which: Flags, weight: float) -> Floats:
            if not len(end_places):
                return np.zeros(self._count)
            whole = lfilter([weight], [1.0, weight - 1.0], which[end_places].astype(float))
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
        return LevelStats(
            ended=ends,
            failures=fails,
            completions=so_far(good.astype(float)),
            failures_in_a_row=in_a_row(other),
            others_in_a_row=in_a_row(fail),
            fast=weighted(fail, FAST),
            slow=weighted(fail, SLOW),
            slow_completed=weighted(good, SLOW),
            since_failure=since(fail),
            since_other=since(other),
            since_end=since(is_end),
            since_submitted=np.where(has_previous, at - asked[np.maximum(previous, 0)], np.nan),
            in_flight=so_far((~is_end).astype(float)) - ends,
            burst=(nth_ask - np.searchsorted(asked, at - BURST_S)).astype(float),
            recent_failures=(np.searchsorted(failing, at) - np.searchsorted(failing, at - RECENT_S)).astype(
                float
            ),
            log_duration=so_far(np.where(is_end, self._log_duration[rows], 0.0)),
        )


def assemble(
    stats: Mapping[str, LevelStats], moments: Floats, numbers: Mapping[str, Floats], *, clock: bool
) -> Features:
    """Return the models' numbers from the statistics of each level at `moments`."""
    columns: dict[str, Any] = {}
    rates: dict[str, Floats] = {}
    fast: dict[str, Floats] = {}
    for level in LEVELS:
        if (known := stats.get(level)) is None:
            continue
        if level == "site":
            rate = (known.failures + PRIOR_RUNS * PRIOR_RATE) / (known.ended + PRIOR_RUNS)
            lean = np.full_like(rate, PRIOR_RATE)
            lean_fast = rate
        else:
            lean, lean_fast = rates[PARENT[level]], fast[PARENT[level]]
            rate = (known.failures + LEAN * lean) / (known.ended + LEAN)
        slow_left = (1 - SLOW) ** known.ended
        fast_left = (1 - FAST) ** known.ended
        rates[level] = rate
        fast[level] = known.fast + fast_left * lean_fast
        slow = known.slow + slow_left * (lean if level == "site" else rates[PARENT[level]])
        columns |= {
            f"{level}_rate": log_odds(rate),
            f"{level}_fast": log_odds(fast[level]),
            f"{level}_slow": log_odds(slow),
            f"{level}_completed": known.slow_completed + slow_left * 0.8,
            f"{level}_ended": np.log1p(known.ended),
            f"{level}_failures": np.log1p(known.failures),
            f"{level}_in_flight": np.log1p(known.in_flight),
            f"{level}_burst": np.log1p(known.burst),
            f"{level}_recent_failures": np.log1p(known.recent_failures),
            f"{level}_since_failure": _age(known.since_failure),
        }
        if level != "site":
            columns |= {
                f"{level}_failures_in_a_row": np.log1p(known.failures_in_a_row),
                f"{level}_others_in_a_row": np.log1p(known.others_in_a_row),
                f"{level}_since_other": _age(known.since_other),
                f"{level}_since_end": _age(known.since_end),
                f"{level}_since_submitted": _age(known.since_submitted),
                f"{level}_duration": known.log_duration / np.maximum(known.ended, 1.0),
            }
    for name, values in numbers.items():
        columns[f"n_{name}"] = np.sign(values) * np.log1p(np.abs(values))
    if clock:
        angle = 2 * np.pi * (moments % DAY) / DAY
        # 1970-01-01 was a Thursday
        day = np.floor(moments / DAY + 3) % 7
        columns |= {
            "hour_sin": np.sin(angle),
            "hour_cos": np.cos(angle),
            "weekday": day,
            "weekend": (day >= 5) * 1.0,
        }
    return Features(
        names=tuple(columns),
        rows=np.column_stack([column.astype(np.float32) for column in columns.values()]),
        rate=rates["deployment"],
        ewma=fast["deployment"],
    )


def log_odds(chance: Floats) -> Floats:
    """Return log(p / (1 - p)), with p kept CLIP away from 0 and 1."""
    sure = np.clip(chance, CLIP, 1 - CLIP)
    return np.log(sure / (1 - sure))


def _age(seconds: Floats) -> Floats:
    """Return the log of an age; what never happened is older than anything that did."""
    return np.where(np.isnan(seconds), 20.0, np.log1p(np.maximum(seconds, 0.0)))
