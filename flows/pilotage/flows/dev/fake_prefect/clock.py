"""Clocks of the fake server, and the agenda of what is due on them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

Work = Callable[[datetime], None]
"""What is done when its time has come; it is given that time."""


class Clock(Protocol):
    """What says the time."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        ...


class SystemClock:
    """The time of the machine."""

    def now(self) -> datetime:
        """As `Clock`."""
        return datetime.now(UTC)


class FrozenClock:
    """A time that stands still until it is moved. It never goes back."""

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """As `Clock`."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move the time forward and return it. Raises ValueError for a negative span."""
        if by < timedelta(0):
            raise ValueError(f"moving a clock by {by}: it only goes forward")
        self._now += by
        return self._now


class Agenda:
    """Work that is due at a time, done in the order of time and, at one time, of entry."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, Work]] = []
        self._number = count()
        self._running = False

    def at(self, moment: datetime, work: Work) -> None:
        """Enter work that is due at `moment`."""
        heapq.heappush(self._heap, (moment, next(self._number), work))

    def every(self, period: timedelta, start: datetime, work: Work) -> None:
        """Enter work that is due at `start` and then again after each `period`, for ever."""

        def again(moment: datetime) -> None:
            self.at(moment + period, again)
            work(moment)

        self.at(start, again)

    def next_due(self) -> datetime | None:
        """Return when the next work is due, or None when nothing is entered."""
        return self._heap[0][0] if self._heap else None

    def run_until(self, now: datetime) -> int:
        """Do all that is due by `now` and return how much that was.

        Work that asks the server something does not begin what is due besides: that keeps its turn.
        """
        if self._running:
            return 0
        self._running = True
        done = 0
        try:
            while self._heap and self._heap[0][0] <= now:
                moment, _, work = heapq.heappop(self._heap)
                work(moment)
                done += 1
        finally:
            self._running = False
        return done
