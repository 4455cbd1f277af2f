"""How far the loop may go: what a start makes of the settings, of the last start and of what a person asked for.

The mode is kept in the ledger. A start without a mode goes on in the one before, the first one in shadow. A start
with a mode (flag, environment or settings file) takes that, but never goes further than what an admin asked for
last by `pilotage mode set`: neither a reboot nor an old setting ever goes further than somebody wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import Mode

FIRST = Mode.SHADOW
"""The mode of an installation that was never given one: everything is judged, nothing is done."""


class ModeSwitch:
    """The mode in force."""

    def __init__(self, ledger: Ledger, configured: Mode | None, clock: Callable[[], datetime]) -> None:
        """`configured` is what this start was given, None when it was given nothing."""
        self._ledger = ledger
        self._clock = clock
        asked, kept = ledger.asked_mode(), ledger.mode()
        wanted = configured or kept or FIRST
        self._mode = wanted if asked is None else Mode.strictest(wanted, asked)
        self.held_back = asked if asked is not None and configured not in (None, self._mode) else None
        """What a person asked for, when it is stricter than what is configured."""
        match configured, kept:
            case None, None:
                self.source = "the first start is always in shadow"
            case None, _:
                self.source = "kept from the last start"
            case _ if self.held_back is not None:
                self.source = "what a person asked for"
            case _:
                self.source = "as this start was told"

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
