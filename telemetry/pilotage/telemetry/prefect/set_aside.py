"""Rows that Prefect stores and cannot send, found by halving the request that holds them and then left out.

A parameter with half a surrogate pair, or nested beyond what the server's encoder takes, is stored, and from then on
every page with its run is answered 500. The rest of the page is still wanted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx

from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.times import utc_now

logger = logging.getLogger("pilotage.telemetry")

AGAIN = timedelta(minutes=1)
"""How long until Prefect is asked again for a row that it could not send: its owner may have mended it."""

Rows = list[dict[str, Any]]
Part = Callable[[int, int], Awaitable[Rows]]
"""Asks for the rows of places `first` to `first + count`; a count of 0 asks whether the route answers at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """One row that Prefect cannot send."""

    route: str
    row_id: str
    """Its id, or its place on the list where the route names none."""
    since: datetime


class SetAside:
    """The rows that were set aside. Threads may share it."""

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str], Unreadable] = {}
        self._asked = clock()
        self._lock = threading.Lock()

    def add(self, route: str, row_id: str) -> None:
        """Set a row aside, and say so the first time."""
        with self._lock:
            new = (route, row_id) not in self._rows
            if new:
                row = Unreadable(route=route, row_id=row_id, since=self._clock())
                self._rows[route, row_id] = row
        if new:
            logger.warning(
                "Prefect cannot send %s of %s (HTTP 500), or its JSON is nested too deeply; it is set aside and the rest "
                "is read. Look at its parameters, or delete it.",
                row_id,
                route,
            )

    def clear(self, route: str, row_ids: set[str]) -> None:
        """Take back rows that Prefect sends again, or has no more."""
        with self._lock:
            for row_id in row_ids:
                self._rows.pop((route, row_id), None)

    def ids(self, route: str) -> list[str]:
        """Return what is set aside of a route, the oldest first."""
        with self._lock:
            return [row.row_id for row in self._rows.values() if row.route == route]

    def rows(self) -> tuple[Unreadable, ...]:
        """Return all that is set aside, the oldest first."""
        with self._lock:
            return tuple(self._rows.values())

    def due(self, route: str) -> list[str]:
        """Return the ids of a route that should be asked for again now; at most once a minute there are any."""
        now = self._clock()
        if now - self._asked < AGAIN:
            return []
        self._asked = now
        return self.ids(route)


def cannot_be_sent(error: OrchestratorError) -> bool:
    """Return whether one row is at fault: the server fails at it (HTTP 500), or its JSON is nested beyond reading."""
    cause = error.__cause__
    if isinstance(cause, RecursionError):
        return True
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == 500


async def readable(ask: Part, first: int, count: int) -> tuple[Rows, list[int]]:
    """Return the rows of `count` places from `first`, and the places whose row the server cannot send.

    Raises OrchestratorError for any other failure, and where the route does not answer without that row either.
    """
    try:
        return await ask(first, count), []
    except OrchestratorError as error:
        if not cannot_be_sent(error):
            raise
        if count == 1:
            await ask(first, 0)
            return [], [first]
    half = count // 2
    rows, lost = await readable(ask, first, half)
    more, also_lost = await readable(ask, first + half, count - half)
    return rows + more, lost + also_lost
