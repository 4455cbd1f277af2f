"""How far the loop may go: what is configured, what a person asked for, and what a start makes of both.

A person's word changes the mode at once. After a restart the stricter of that word and the configured mode
holds, so that neither a reboot nor an old setting ever goes further than somebody wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pilotage.policies.ledgers import Ledger
from pilotage.policies.verdicts import Mode


class ModeSwitch:
    """The mode in force."""

    def __init__(self, ledger: Ledger, configured: Mode, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        asked = ledger.asked_mode()
        self._mode = configured if asked is None else Mode.strictest(configured, asked)
        self.held_back = asked if asked is not None and self._mode is not configured else None
        """What a person asked for, when it is stricter than what is configured."""

    def mode(self) -> Mode:
        """The mode in force."""
        return self._mode

    def begin(self) -> int:
        """How many open proposals lapsed because they were judged for another mode. To be called once, at a start."""
        before = self._ledger.mode()
        if before is self._mode:
            return 0
        self._ledger.set_mode(self._mode, "pilotage up", self._clock())
        return 0 if before is None else self._lapse(before)

    def ask(self, to: Mode, by: str, reason: str) -> int:
        """Changes the mode now, and says how many open proposals lapsed by it."""
        self._ledger.set_mode(to, by, self._clock(), reason=reason, asked=True)
        before, self._mode = self._mode, to
        return 0 if before is to else self._lapse(before)

    def _lapse(self, before: Mode) -> int:
        """Nobody expected what was judged for another mode to be done in this one."""
        why = f"the mode changed from {before.value} to {self._mode.value}"
        return len(self._ledger.lapse(self._clock(), why))
