"""A run history as columns: what ran, for whom, when, and how it ended. Times are seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from pilotage.telemetry.errors import ConfigError

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]

SAME_OUTCOME = {
    "COMPLETED": (
        "COMPLETE",
        "FINISH",
        "FINISHED",
        "SUCCESS",
        "SUCCEEDED",
        "SUCCESSFUL",
        "PASSED",
        "OK",
        "DONE",
    ),
    "FAILED": ("FAIL", "FAILURE", "ERROR", "ERRORED", "NODE_FAIL", "TIMEDOUT", "TIMED_OUT", "TIMEOUT"),
    "CRASHED": ("CRASH", "LOST"),
    "CANCELLED": ("CANCEL", "CANCELED", "KILL", "KILLED", "EVICT", "EVICTED", "ABORTED", "SKIPPED"),
    "RUNNING": (
        "PENDING",
        "SCHEDULED",
        "QUEUED",
        "STARTED",
        "IN_PROGRESS",
        "PAUSED",
        "CANCELLING",
        "UNKNOWN",
        "",
    ),
}
"""Words of other sources for Prefect's terminal states. A word that is not here is an outcome of its own."""
_CANONICAL = {word: name for name, words in SAME_OUTCOME.items() for word in (name, *words)}


def canonical(word: str) -> str:
    """Return Prefect's word for an outcome, or the word itself in capitals."""
    upper = word.strip().upper().replace("-", "_").replace(" ", "_")
    return _CANONICAL.get(upper, upper)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHistory:
    """Runs in the order of submission, one array element each."""

    run_id: tuple[str, ...]
    deployment: Ints
    """Codes from 0 on: equal codes, same deployment."""
    owner: Ints
    """As `deployment`; all 0 where the source names no owner."""
    queue: Ints
    submitted: Floats
    """Seconds since `epoch`'s zero; NaN does not occur."""
    started: Floats
    """NaN where unknown."""
    ended: Floats
    """Infinite while the run has not ended; never before `submitted`."""
    outcome: tuple[str, ...]
    """The source's own words, in capitals."""
    numbers: dict[str, Floats]
    """The numeric columns by name; NaN where unknown."""
    clock: bool
    """Whether `submitted` is a time of day in UTC; a trace that counts from its own start has none."""
    zero: float = 0.0
    """Epoch seconds at the source's own zero, for sources that count from a start which they name."""

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.run_id)

    def failed(self, labels: Sequence[str]) -> Flags:
        """Return which runs ended with one of `labels`, given in the source's words or in Prefect's.

        Raises ConfigError when no run did.
        """
        wanted = {label.strip().upper() for label in labels if label.strip()}
        same = {canonical(label) for label in wanted}
        words = set(self.outcome)
        exact = wanted & words
        hits = exact if exact >= wanted else {w for w in words if w in wanted or canonical(w) in same}
        if not hits:
            raise ConfigError(
                f"Looking for runs that ended {' or '.join(sorted(wanted)) or '(no label)'}: the history has none. "
                f"Its outcomes are {', '.join(sorted(words)[:20])}; name some of them with --label."
            )
        return self._with(hits)

    def has_ended(self) -> Flags:
        """Return which runs have an end and an outcome."""
        running = {word for word in set(self.outcome) if canonical(word) == "RUNNING"}
        return ~self._with(running) & np.isfinite(self.ended)

    def completed(self) -> Flags:
        """Return which runs completed."""
        return self._with({word for word in set(self.outcome) if canonical(word) == "COMPLETED"})

    def _with(self, words: Set[str]) -> Flags:
        return np.array([word in words for word in self.outcome], dtype=bool)

    def rows(self, chosen: Ints) -> RunHistory:
        """Return some of the runs, by position in ascending order."""
        return RunHistory(
            run_id=tuple(self.run_id[i] for i in chosen),
            deployment=self.deployment[chosen],
            owner=self.owner[chosen],
            queue=self.queue[chosen],
            submitted=self.submitted[chosen],
            started=self.started[chosen],
            ended=self.ended[chosen],
            outcome=tuple(self.outcome[i] for i in chosen),
            numbers={name: column[chosen] for name, column in self.numbers.items()},
            clock=self.clock,
            zero=self.zero,
        )

    def moment(self, text: str) -> float:
        """Return a moment given as ISO 8601, as the source's own seconds, or as a share of the runs (`75%`).

        Raises ConfigError when it is none of these, or lies outside the history.
        """
        words = text.strip()
        try:
            if words.endswith("%"):
                place = int(len(self) * float(words[:-1]) / 100)
                moment = float(self.submitted[min(max(place, 0), len(self) - 1)])
            else:
                moment = self._absolute(words)
        except ValueError as error:
            raise ConfigError(
                f"Reading the time {text!r}: {error}. Give ISO 8601 (2026-01-31T00:00:00Z), seconds as in the file, "
                "or a share of the runs such as 75%."
            ) from error
        if not self.submitted[0] < moment <= self.submitted[-1]:
            raise ConfigError(
                f"Training until {text}: the history's runs were submitted between {self.said(self.submitted[0])} and "
                f"{self.said(self.submitted[-1])}. Give a time between."
            )
        return moment

    def said(self, moment: float) -> str:
        """Return a moment as the history's own source would write it."""
        return datetime.fromtimestamp(moment, UTC).isoformat() if self.clock else f"{moment:.0f} s"

    def _absolute(self, words: str) -> float:
        try:
            seconds = float(words)
        except ValueError:
            at = datetime.fromisoformat(words)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        if not math.isfinite(seconds):
            raise ValueError("it is no moment")
        return seconds if not self.zero or seconds >= self.zero else self.zero + seconds


def coded(values: Sequence[object]) -> Ints:
    """Return the place of each value among the distinct ones, in order of first appearance."""
    place = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([place[value] for value in values], dtype=np.int64)
