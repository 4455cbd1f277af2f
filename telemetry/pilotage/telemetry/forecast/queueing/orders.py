"""In which order waiting runs start. An order knows the moment, and of a run only what was known by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pilotage.telemetry.forecast.run_history import Floats, Ints

ORDERS = ("fifo", "sjf", "f1", "pilotage")
SOONEST_S = 60.0
"""What is added to a wait: below, waits are alike."""
AGEING = 0.5
"""The power of the wait in the score: 0 is the smallest first, 1 lets waiting count as much as size."""
WIDTH = 0.75
"""The power of the slots that a run takes; at 1 a wide run counts as its area."""
PRIORITY_STEP = 2.0
"""What one step of priority is worth, as a factor on the expected work."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilotage:
    """Little expected work first, growing more urgent with its wait, its deadline and its priority.

    The score is expected seconds x slots^WIDTH / (wait + SOONEST_S)^AGEING. A run that would miss its deadline
    if it waited any longer, and one that has waited longer than runs would lately have waited at most
    in the order of submission, goes before all others, the oldest first: so nothing starves.
    """

    expected_s: Callable[[Ints], Floats]
    """The expected seconds of runs, as known now."""
    fair_wait_s: Callable[[], float]
    """The longest wait that the order of submission would lately have caused."""
    typical_s: Callable[[], float]
    """The expected seconds of a typical run of the site: no run goes first that has waited less."""

    def scores(self, now: float, waiting: Waiting) -> Floats:
        """Return the score."""
        expected = np.maximum(self.expected_s(waiting.run), 1.0)
        waited = np.maximum(now - waiting.submitted, 0.0)
        work = expected * waiting.slots**WIDTH * PRIORITY_STEP**waiting.priority
        scores = np.log(work) - AGEING * np.log(waited + SOONEST_S)
        limit = max(self.typical_s(), self.fair_wait_s())
        late = (waited > limit) | (now + 1.5 * expected > waiting.deadline) & (now < waiting.deadline)
        # below every score of the others
        urgent: Floats = np.where(late, waiting.submitted - now - 1e12, scores)
        return urgent
