"""How long the demo waits: longer on a machine that took longer for what was the same work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta

SERVER_START = 11.0
"""Seconds that a Prefect server needs to start on two idle cores."""
HISTORY = 15.0
"""Seconds that the runs of the history need there."""
FIRST_RUN = 5.0
"""Seconds from the start of the first incidents to the first end of one of their runs there."""
UNCHANGED = timedelta(seconds=75)
"""The demo gives up when nothing has changed for so long; no deliberate wait of it is longer than half of this."""
AT_MOST = timedelta(minutes=6)
"""The demo gives up after so long in any case."""


@dataclass(slots=True, kw_only=True)
class Patience:
    """How much slower than two idle cores this machine is, from what was measured on it, and what follows."""

    slowness: float = 1.0
    """At least 1. It only grows: a machine that was busy once may be so again."""
    _began: float = field(default_factory=time.monotonic)
    _changed: float = field(default_factory=time.monotonic)
    _last: object = None

    def learn(self, seconds: float, *, idle: float) -> None:
        """Take into account that something took `seconds` which takes `idle` seconds on an idle machine."""
        self.slowness = max(self.slowness, seconds / idle)

    def scaled(self, wait: timedelta) -> timedelta:
        """Return the wait for this machine, in whole seconds."""
        return timedelta(seconds=round(wait.total_seconds() * self.slowness))

    def begin(self) -> None:
        """Count from now on."""
        self._began = self._changed = time.monotonic()

    def has_run_out(self, state: object) -> bool:
        """Return whether to give up, `state` being all that could have changed since the last call."""
        now = time.monotonic()
        if state != self._last:
            self._last, self._changed = state, now
        return (
            now - self._changed > UNCHANGED.total_seconds() * self.slowness
            or now - self._began > AT_MOST.total_seconds() * self.slowness
        )
