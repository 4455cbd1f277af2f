"""The event log as server-sent events: read once for all who listen, resumed from any number.

One task follows the log and keeps the newest rows, encoded, in memory. A listener that is further behind than
that reads the file until it has caught up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from pilotage.console.session.events import Event
from pilotage.console.session.log import EventLog
from pilotage.console.session.ports import User
from pilotage.console.session.thread_access import why_not

KEPT = 4000
"""Rows in memory."""
BEAT = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""
LASTS = 300.0
"""Seconds after which a listener must come again, and prove again who it is; browsers do so by themselves."""
_PAGE = 500
STALE = 1.0
"""Seconds for which it is not asked again whether a listener may read a thread."""


def frame(event: Event) -> bytes:
    """The event as one server-sent event. JSON has no line breaks, so one data line is enough."""
    return f"id: {event.seq}\nevent: {event.type}\ndata: {event.as_json()}\n\n".encode()


class Seen:
    """Which threads a listener may read, looked up again after `STALE` seconds."""

    def __init__(self, log: EventLog, user: User) -> None:
        self._log = log
        self._user = user
        self._known: dict[str, tuple[bool, float]] = {}

    def __call__(self, thread: str) -> bool:
        """Whether the listener may read it now."""
        seen, since = self._known.get(thread, (False, 0.0))
        now = time.monotonic()
        if thread not in self._known or now - since > STALE:
            there = self._log.thread(thread)
            seen = there is not None and not why_not(self._user, there, "read")
            self._known[thread] = seen, now
        return seen


class Tail:
    """The newest rows of the log, for every listener of this process."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._rows: deque[tuple[int, str, bytes]] = deque()
        self._floor = self._head = log.last_seq()
        self._news = asyncio.Event()
        self._closed = False

    async def run(self) -> None:
        """Follows the log until cancelled."""
        async for batch in self._log.follow(self._head):
            self._take(batch)

    def close(self) -> None:
        """Ends every listener."""
        self._closed = True
        self._news.set()

    async def frames(
        self, after: int, thread: str | None, lasts: float = LASTS, *, seen: Callable[[str], bool]
    ) -> AsyncIterator[bytes]:
        """What follows `after` in threads that are `seen`, in order and without a gap.

        Ends when the tail is closed or `lasts` seconds have passed.
        """
        yield b"retry: 500\n: listening\n\n"
        until = time.monotonic() + lasts
        while not self._closed and time.monotonic() < until:
            news, head = self._news, self._head
            if after < self._floor:
                events = await asyncio.to_thread(self._log.after, after, thread, _PAGE)
                # all rows up to `head` were there before this read, so a short page means: nothing else up to there
                after = events[-1].seq if len(events) == _PAGE else max(after, head, *(e.seq for e in events))
                rows = [(event.thread, frame(event)) for event in events]
                if shown := await asyncio.to_thread(_joined, rows, seen):
                    yield shown
                continue
            rows = self._since(after, thread)
            if after < head:
                after = head
                if shown := await asyncio.to_thread(_joined, rows, seen):
                    yield shown
                continue
            try:
                await asyncio.wait_for(news.wait(), BEAT)
            except TimeoutError:
                yield b": still here\n\n"

    def _since(self, after: int, thread: str | None) -> list[tuple[str, bytes]]:
        wanted: list[tuple[str, bytes]] = []
        for seq, of, encoded in reversed(self._rows):
            if seq <= after:
                break
            if thread in (None, of):
                wanted.append((of, encoded))
        return wanted[::-1]

    def _take(self, batch: Iterable[Event]) -> None:
        for event in batch:
            self._rows.append((event.seq, event.thread, frame(event)))
            self._head = event.seq
        while len(self._rows) > KEPT:
            self._floor = self._rows.popleft()[0]
        self._news.set()
        self._news = asyncio.Event()


def _joined(rows: Iterable[tuple[str, bytes]], seen: Callable[[str], bool]) -> bytes:
    return b"".join(encoded for of, encoded in rows if seen(of))
