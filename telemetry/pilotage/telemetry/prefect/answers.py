"""How quickly Prefect answers: the times of the last requests, whatever they asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

WINDOW = 300.0
"""Seconds that are looked back."""
MOST = 2000
"""Answers that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSummary:
    """The answers of the last five minutes."""

    requests: int = 0
    failures: int = 0
    """Those that timed out, found no connection, or were answered 5xx."""
    p95_ms: float = 0.0
    error: str = ""
    """The last failure in words, where one of the last ten requests failed."""


class AnswerTimes:
    """Remembers how long each request took and whether it was answered. Threads may share it."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, str]] = deque(maxlen=MOST)
        self._lock = threading.Lock()
        self.asked = 0
        """Requests since the start."""
        self.failed = 0
        """Those of them that were not answered."""
        self.seconds = 0.0
        """What all of them took."""

    def note(self, seconds: float, error: str = "") -> None:
        """Remember one request; `error` says in words why it was not answered."""
        with self._lock:
            self.asked += 1
            self.failed += bool(error)
            self.seconds += seconds
            self._seen.append((time.monotonic(), seconds * 1000, error))

    def summary(self) -> AnswerSummary:
        """Return what the last five minutes were like."""
        since = time.monotonic() - WINDOW
        with self._lock:
            seen = [each for each in self._seen if each[0] >= since]
        if not seen:
            return AnswerSummary()
        times = sorted(ms for _, ms, _ in seen)
        return AnswerSummary(
            requests=len(seen),
            failures=sum(bool(error) for _, _, error in seen),
            p95_ms=round(times[min(len(times) - 1, int(0.95 * len(times)))], 1),
            error=next((error for _, _, error in reversed(seen[-10:]) if error), ""),
        )
