"""What has happened so far at each level, kept up to date with every submission and end: the live loop's memory.

It holds the same statistics as `point_in_time.features` computes for a whole history at once, for each key of
each level: an update touches five keys, however long the history is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pilotage.telemetry.forecast.point_in_time import (
    BURST_S,
    FAST,
    LEVELS,
    RECENT_S,
    SLOW,
    LevelStats,
    level_stats,
)
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, RunHistory

Keys = tuple[str, ...]
"""One key for each of LEVELS."""


class KeyState:
    """The statistics of one key. Times are epoch seconds, and NaN for what never happened."""

    __slots__ = (
        "burst",
        "completions",
        "ended",
        "failures",
        "failures_in_a_row",
        "fast",
        "last_end",
        "last_failure",
        "last_log_duration",
        "last_other",
        "last_submitted",
        "log_duration",
        "log_duration_squares",
        "others_in_a_row",
        "recent",
        "slow",
        "slow_completed",
        "submitted",
    )

    def __init__(self) -> None:
        self.submitted = self.ended = self.failures = self.completions = 0
        self.failures_in_a_row = self.others_in_a_row = 0
        self.fast = self.slow = self.slow_completed = 0.0
        self.log_duration = self.log_duration_squares = self.last_log_duration = 0.0
        self.last_failure = self.last_other = self.last_end = self.last_submitted = math.nan
        self.burst: deque[float] = deque()
        self.recent: deque[float] = deque()

    def values(self, moment: float) -> tuple[float, ...]:
        """Return the fields of `LevelStats` at a moment that lies after everything that was counted."""
        burst, recent = self.burst, self.recent
        while burst and burst[0] < moment - BURST_S:
            burst.popleft()
        while recent and recent[0] < moment - RECENT_S:
            recent.popleft()
        return (
            self.ended,
            self.failures,
            self.completions,
            self.failures_in_a_row,
            self.others_in_a_row,
            self.submitted - self.ended,
            len(burst),
            len(recent),
            self.fast,
            self.slow,
            self.slow_completed,
            self.log_duration,
            self.log_duration_squares,
            self.last_log_duration,
            moment - self.last_failure,
            moment - self.last_other,
            moment - self.last_end,
            moment - self.last_submitted,
        )


NOTHING = KeyState()


class Counters:
    """The statistics of a site by level and key. Not thread-safe."""

    def __init__(self) -> None:
        self._levels: tuple[dict[str, KeyState], ...] = tuple({} for _ in LEVELS)

    def submitted(self, keys: Keys, at: float) -> None:
        """Count a submission. Events come in the order of time, submissions first within an instant."""
        for states, key in zip(self._levels, keys, strict=True):
            state = states.get(key)
            if state is None:
                state = states[key] = KeyState()
            state.submitted += 1
            state.last_submitted = at
            burst = state.burst
            burst.append(at)
            while burst[0] < at - BURST_S:
                burst.popleft()

    def ended(self, keys: Keys, at: float, *, failed: bool, completed: bool, log_duration: float) -> None:
        """Count the end of a run whose submission was counted. `log_duration`: log(1 + seconds)."""
        squared = log_duration * log_duration
        for states, key in zip(self._levels, keys, strict=True):
            state = states[key]
            state.ended += 1
            state.last_end = at
            state.completions += completed
            state.slow_completed += SLOW * (completed - state.slow_completed)
            state.log_duration += log_duration
            state.log_duration_squares += squared
            state.last_log_duration = log_duration
            if failed:
                state.failures += 1
                state.failures_in_a_row += 1
                state.others_in_a_row = 0
                state.last_failure = at
                state.fast += FAST * (1.0 - state.fast)
                state.slow += SLOW * (1.0 - state.slow)
                recent = state.recent
                recent.append(at)
                while recent[0] < at - RECENT_S:
                    recent.popleft()
            else:
                state.failures_in_a_row = 0
                state.others_in_a_row += 1
                state.last_other = at
                state.fast -= FAST * state.fast
                state.slow -= SLOW * state.slow

    def vanished(self, keys: Keys) -> None:
        """Take back a submission whose run will never end: it is gone from Prefect."""
        for states, key in zip(self._levels, keys, strict=True):
            states[key].submitted -= 1

    def of(self, level: str, key: str) -> KeyState:
        """Return the state of one key; that of a key of which nothing is known is empty."""
        return self._levels[LEVELS.index(level)].get(key, NOTHING)

    def values(self, keys: Keys, moment: float) -> tuple[tuple[float, ...], ...]:
        """Return the fields of `LevelStats` for each level at a moment."""
        return tuple(
            states.get(key, NOTHING).values(moment) for states, key in zip(self._levels, keys, strict=True)
        )


def stats_from(values: Sequence[tuple[tuple[float, ...], ...]]) -> dict[str, LevelStats]:
    """Return the statistics by level from what `Counters.values` said of each run."""
    cube = np.array(values, dtype=np.float64)  # runs, levels, fields
    return {level: LevelStats(*cube[:, place].T) for place, level in enumerate(LEVELS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCodes:
    """The keys of one level: the code of each run, and the key that each code stands for."""

    codes: Ints
    names: Sequence[str]


def counters_of(
    history: RunHistory, failed: Flags, levels: Mapping[str, NamedCodes], moment: float
) -> Counters:
    """Return the counters as they stand at `moment` after all of a history, computed in bulk.

    A run that begins at `moment` is added for each key of a level: what it would know is the key's state.
    """
    counters = Counters()
    ended, end = history.has_ended(), len(history)
    late = np.flatnonzero(history.submitted >= moment - BURST_S)
    failures = np.flatnonzero(failed & ended & (history.ended >= moment - RECENT_S))
    failures = failures[np.argsort(history.ended[failures], kind="stable")]
    for states, level in zip(counters._levels, LEVELS, strict=True):
        codes, names = levels[level].codes, levels[level].names
        probes = np.arange(len(names))
        longer = _with_probes(history, len(names), moment)
        labels = np.concatenate([failed, np.zeros(len(names), bool)])
        found = level_stats(longer, labels, {level: np.concatenate([codes, probes])})[level]
        at = LevelStats(*(field[end:] for field in found))
        for code, name in enumerate(names):
            states[name] = _state(at, code, moment)
        for row in late:
            states[names[codes[row]]].burst.append(float(history.submitted[row]))
        for row in failures:
            states[names[codes[row]]].recent.append(float(history.ended[row]))
    return counters


def _state(at: LevelStats, code: int, moment: float) -> KeyState:
    state = KeyState()
    state.ended, state.failures = int(at.ended[code]), int(at.failures[code])
    state.completions = int(at.completions[code])
    state.submitted = state.ended + int(at.in_flight[code])
    state.failures_in_a_row = int(at.failures_in_a_row[code])
    state.others_in_a_row = int(at.others_in_a_row[code])
    state.fast, state.slow = float(at.fast[code]), float(at.slow[code])
    state.slow_completed = float(at.slow_completed[code])
    state.log_duration = float(at.log_duration[code])
    state.log_duration_squares = float(at.log_duration_squares[code])
    state.last_log_duration = float(at.last_log_duration[code])
    state.last_failure = moment - float(at.since_failure[code])
    state.last_other = moment - float(at.since_other[code])
    state.last_end = moment - float(at.since_end[code])
    state.last_submitted = moment - float(at.since_submitted[code])
    return state


def _with_probes(history: RunHistory, count: int, moment: float) -> RunHistory:
    def longer(column: Floats, value: float) -> Floats:
        return np.concatenate([column, np.full(count, value)])

    nobody = np.zeros(count, np.int64)
    return replace(
        history,
        run_id=(*history.run_id, *("",) * count),
        deployment=np.concatenate([history.deployment, nobody]),
        owner=np.concatenate([history.owner, nobody]),
        queue=np.concatenate([history.queue, nobody]),
        submitted=longer(history.submitted, moment),
        started=longer(history.started, math.nan),
        ended=longer(history.ended, math.inf),
        outcome=(*history.outcome, *("RUNNING",) * count),
        numbers={},
    )
