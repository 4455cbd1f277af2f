"""Told that the store has changed, so that nobody has to ask it all the time."""

from __future__ import annotations

import threading


class Changes:
    """Counts changes. Threads may share it; it starts at 1, so that 0 has always seen nothing yet."""

    def __init__(self) -> None:
        self._count = 1
        self._condition = threading.Condition()

    def note(self) -> None:
        """Something changed that a planner would look at."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def after(self, seen: int, seconds: float) -> int:
        """The count as soon as it is no longer `seen`; after so many seconds `seen` itself."""
        with self._condition:
            self._condition.wait_for(lambda: self._count != seen, timeout=seconds)
            return self._count
