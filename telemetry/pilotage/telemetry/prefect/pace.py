"""How fast Prefect may be asked: what it asked us to wait (`Retry-After`), and a budget of requests a minute.

Whoever collects waits for both. What acts is counted, and waits for `Retry-After` alone: a decision that was made must
not stand behind reading.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.times import utc_now

MINUTE = 60.0
LONGEST = 600.0
"""Seconds that an answer can have us wait; a proxy that says a year is asked again before."""
STANDS_BY = 5.0
"""Seconds that what acts waits for; for longer it gives its place back and is tried again."""
_BUSY = frozenset({429, 503})


class Pace:
    """One for all connections of a process to one Prefect."""

    def __init__(self, a_minute: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`a_minute` is the budget; 0 for none. `clock` says seconds."""
        self.a_minute = a_minute
        self._clock = clock
        self._asked: deque[float] = deque()
        self._not_before = 0.0

    def hear(self, status: int, headers: Any) -> None:
        """Take note of an answer: a busy server may have said how long it wants to be left alone."""
        if status in _BUSY and (seconds := _seconds(headers.get("Retry-After"))) is not None:
            self._not_before = max(self._not_before, self._clock() + min(seconds, LONGEST))

    def seconds_left(self) -> float:
        """Seconds for which Prefect asked to be left alone."""
        return max(0.0, self._not_before - self._clock())

    def last_minute(self) -> int:
        """Requests within the last minute."""
        while self._asked and self._asked[0] <= self._clock() - MINUTE:
            self._asked.popleft()
        return len(self._asked)

    async def turn(self) -> None:
        """Wait until a request fits, and count it."""
        while wait := max(self.seconds_left(), self._over_budget()):  # noqa: ASYNC110 - time alone makes room
            await asyncio.sleep(wait)
        self._count()

    async def act(self, doing: str) -> None:
        """Count a request of what acts; wait a little where Prefect asked for it.

        Raises OrchestratorError, transient, where it asked for longer.
        """
        if (left := self.seconds_left()) > STANDS_BY:
            raise OrchestratorError(
                f"{doing}: Prefect asked to be left alone for {left:.0f} s more (Retry-After). It is tried again.",
                transient=True,
            )
        if left:
            await asyncio.sleep(left)
        self._count()

    def _count(self) -> None:
        self._asked.append(self._clock())
        self.last_minute()  # forgets what is older, so that a year of requests is not kept

    def _over_budget(self) -> float:
        """Seconds until the oldest request of a full minute has left it."""
        if not self.a_minute or self.last_minute() < self.a_minute:
            return 0.0
        return max(self._asked[-self.a_minute] + MINUTE - self._clock(), 0.001)

    def in_words(self) -> dict[str, str]:
        """What `status` says of it: nothing where there is no budget and nobody asked us to wait."""
        said: dict[str, str] = {}
        if self.a_minute:
            said["requests_a_minute"] = f"{self.last_minute()} of {self.a_minute}"
        if left := self.seconds_left():
            said["asked_to_wait"] = f"{left:.0f} s more (Retry-After)"
        return said


def _seconds(value: str | None) -> float | None:
    """What a `Retry-After` says, a number of seconds or a date; None where it says nothing that can be read."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - utc_now()).total_seconds())
    except (ValueError, TypeError):
        return None
