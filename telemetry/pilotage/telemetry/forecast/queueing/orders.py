"""In which order waiting runs start. An order knows the moment, and of a run only what was known by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pilotage.telemetry.forecast.run_history import Floats, Ints

ORDERS = ("fifo", "sjf", "f1", "pilotage")
WIDTH = 0.7
"""The power of the slots that a run takes in the score, where others may pass it; its duration counts by its logarithm."""
FAIR, FAIR_IN_TURN = 1.3, 1.0
"""How often the longest wait in the order of submission a run waits before it goes first; where nobody may pass, less."""
REST = 0.5
"""Where nobody may pass, how long nobody goes first after one did, as a multiple of the time for which that held up all."""
LEAST_LIMIT_S = 60.0
"""No run goes first that has waited less."""
SHORTEST_S = 10.0
"""What is added to a duration: below, runs are alike."""
PRIORITY_STEP = 2.0
"""What one step of priority is worth, as a factor on the score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The runs that wait, an array element each."""

    run: Ints
    """Their places in the history: the smaller, the earlier submitted."""
    submitted: Floats
    slots: Floats
    """How many each takes."""
    requested_s: Floats
    """The time each asked for; what its deployment took before, where it asked for none."""
    deadline: Floats
    """Infinite where there is none."""
    priority: Floats
    """The smaller, the sooner; 0 where there is none."""


class Order(Protocol):
    """One way to choose."""

    def scores(self, now: float, waiting: Waiting) -> Floats:
        """Return a number for each waiting run: the lowest starts first, the earlier submitted where they are equal."""
        ...


class FirstComeFirstServed:
    """In the order of submission."""

    def scores(self, now: float, waiting: Waiting) -> Floats:
        """Return the order of submission."""
        return waiting.run.astype(np.float64)


class ShortestJobFirst:
    """The shortest requested time first."""

    def scores(self, now: float, waiting: Waiting) -> Floats:
        """Return the requested seconds."""
        return waiting.requested_s


@dataclass(frozen=True, slots=True)
class F1:
    """log10(r) n + 870 log10(s): Carastan-Santos and de Camargo, SC'17, equation F1; s counts from `zero`."""

    zero: float

    def scores(self, now: float, waiting: Waiting) -> Floats:
        """Return the published score."""
        since = np.maximum(waiting.submitted - self.zero, 1.0)
        size = np.log10(np.maximum(waiting.requested_s, 1.0)) * waiting.slots
        scores: Floats = size + 870.0 * np.log10(since)
        return scores


@dataclass(slots=True, kw_only=True)
class Pilotage:
    """Few slots and little time first; nobody waits much longer than in the order of submission.

    The score is log10(expected seconds) x slots^WIDTH, the shape of F1 with a duration that was learned. Without
    backfilling it is the time alone, halfway between expected and requested: slots stay idle for each wide run, and that
    is made no rarer by putting it off.
    A run goes before all others that would miss its deadline if it waited any longer; so does the one that has waited
    longest, once that is FAIR times as long as the order of submission would lately have let any run wait. One at a time,
    and without backfilling with a REST: each wide run for which slots are kept free costs all the others.
    """

    backfill: bool
    """Whether runs may pass one that does not fit yet."""
    expected_s: Callable[[Ints], Floats]
    """The expected seconds of runs, as known now."""
    fair_wait_s: Callable[[float], float]
    """The longest wait that the order of submission would lately have caused, at a moment."""
    _first: int = -1
    """The run that goes first for its wait."""
    _since: float = 0.0
    _rests_until: float = 0.0

    def scores(self, now: float, waiting: Waiting) -> Floats:
        """Return the score."""
        expected = np.maximum(self.expected_s(waiting.run), 1.0)
        lasts = expected if self.backfill else np.sqrt(expected * np.maximum(waiting.requested_s, 1.0))
        scores = np.log10(lasts + SHORTEST_S)
        if self.backfill:
            scores *= waiting.slots**WIDTH
        scores *= PRIORITY_STEP**waiting.priority
        pressing = (now + 1.5 * expected > waiting.deadline) & (now < waiting.deadline)
        # below every score of the others, the earliest deadline first
        scores[pressing] = waiting.deadline[pressing] - now - 1e12
        scores[waiting.run == self._longest_waiting(now, waiting)] = -np.inf
        return scores

    def _longest_waiting(self, now: float, waiting: Waiting) -> int:
        """Return the run that goes first because it has waited too long, or -1."""
        if self._first >= 0:
            if (waiting.run == self._first).any():
                return self._first
            if not self.backfill:
                self._rests_until = now + REST * (now - self._since)
            self._first = -1
        oldest = int(np.argmin(waiting.submitted))
        limit = max(LEAST_LIMIT_S, (FAIR if self.backfill else FAIR_IN_TURN) * self.fair_wait_s(now))
        if now >= self._rests_until and now - waiting.submitted[oldest] > limit:
            self._first, self._since = int(waiting.run[oldest]), now
        return self._first
