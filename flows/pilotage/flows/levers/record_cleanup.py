"""Deletes the records that levers left in Prefect once nobody needs them.

A change that was taken back leaves a tombstone, so that a delivery which comes late does not make it again. No
delivery comes a week late. A note on a change that still stands is never taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.execution.permits import clearing_notes
from pilotage.flows.levers.idempotency import PREFIX
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import moment

KEPT = timedelta(days=7)
"""How long a tombstone stands; proposals expire within a day."""
KEPT_ONCE = timedelta(days=30)
"""The same for a note on what cannot be taken back."""
ONCE = ("slots", "alert")
"""Purposes whose notes are never undone."""
EVERY = timedelta(hours=1)


class RecordCleanup:
    """Takes away old notes, once an hour at most."""

    def __init__(
        self, api: PrefectApi, *, writing: Callable[[], bool], clock: Callable[[], datetime]
    ) -> None:
        self._api = api
        self._writing = writing
        self._clock = clock
        self._next: datetime | None = None

    async def keep(self) -> int:
        """How many notes were taken away; none while nothing may be written."""
        now = self._clock()
        if not self._writing() or (self._next is not None and now < self._next):
            return 0
        self._next = now + EVERY
        notes = await self._api.variables_like(PREFIX)
        old = [name for name, note in notes.items() if name.startswith(PREFIX) and useless(name, note, now)]
        with clearing_notes():
            for name in old:
                await self._api.delete_variable(name)
        return len(old)


def useless(name: str, note: Any, now: datetime) -> bool:
    """Whether this variable is a note of ours that nobody will ask for again."""
    purpose, _, _ = name.removeprefix(PREFIX).partition("_")
    if not isinstance(note, Mapping):
        return False
    if undone := note.get("undone"):
        return moment(str(undone)) < now - KEPT
    if note.get("done") or purpose in ONCE:
        at = note.get("done") or note.get("at")
        return bool(at) and moment(str(at)) < now - KEPT_ONCE
    return False
