"""The kill switch between two writes: what a delivery sends to Prefect is let through only while nobody has stopped it.

The token goes with the task, so that no lever passes it on and none can forget it. A write that is under way is not cut
off; the next is not begun. `finishing` is for writes that belong together, such as letting a queue go that was held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pilotage.telemetry.errors import StoppedError
from pilotage.telemetry.prefect.reading import only_reads

MOST_NOTED = 2000
"""Writes that are remembered of one delivery; levers make fewer."""
LOOK_EVERY = 0.25
"""Seconds after which a delivery that waits looks whether it was stopped."""


class StopToken:
    """Whether one delivery may go on writing, and what it has written."""

    def __init__(self, stopped: Callable[[], str]) -> None:
        """`stopped` says why everything stands still, or nothing while it does not."""
        self._stopped = stopped
        self._finishing = 0
        self.written: list[str] = []
        """What was sent and answered: method, route, and the runs of a write to many."""

    def pass_or_stop(self, method: str, route: str) -> None:
        """Return while the next write may be sent. Raises StoppedError."""
        if not self._finishing and (why := self._stopped()):
            raise StoppedError(
                f"Sending {method} {route} to Prefect: stopped ({why}) after {len(self.written)} writes. "
                "The rest is not begun; after `pilotage resume` it goes on from there."
            )

    def note(self, method: str, route: str, body: Any) -> None:
        """Remember a write that Prefect has answered."""
        if len(self.written) < MOST_NOTED:
            self.written += [f"{method} {route}{target}" for target in _targets(body)]
            del self.written[MOST_NOTED:]

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        self._finishing += 1
        try:
            yield
        finally:
            self._finishing -= 1


_TOKEN: ContextVar[StopToken | None] = ContextVar("pilotage_stop_token", default=None)


def current_token() -> StopToken | None:
    """The token of the delivery that this task is part of; None outside of one."""
    return _TOKEN.get()


@contextmanager
def stoppable(token: StopToken) -> Iterator[None]:
    """Within it every write to Prefect asks this token first."""
    before = _TOKEN.set(token)
    try:
        yield
    finally:
        _TOKEN.reset(before)


@contextmanager
def finishing() -> Iterator[None]:
    """Within it writes are sent although somebody has stopped: what is begun here would do harm half done."""
    token = _TOKEN.get()
    if token is None:
        yield
    else:
        with token._lasting():
            yield


async def pause(seconds: float) -> None:
    """Sleep before a further write. Raises StoppedError within `LOOK_EVERY` when somebody stops meanwhile."""
    token, over = _TOKEN.get(), time.monotonic() + seconds
    while (left := over - time.monotonic()) > 0:
        await asyncio.sleep(min(left, LOOK_EVERY))
        if token is not None:
            token.pass_or_stop("the next write", "after a pause")


def is_write(method: str, route: str) -> bool:
    """Whether a request may change something in Prefect."""
    return not only_reads(method, tuple(part for part in route.split("/") if part))


def _targets(body: Any) -> list[str]:
    """The runs that a write to many names, each after a blank; an empty text for a write to what its route names."""
    runs = body.get("flow_runs") if isinstance(body, Mapping) else None
    ids = (runs.get("id") or {}).get("any_") if isinstance(runs, Mapping) else None
    return [f" {run_id}" for run_id in ids] if ids else [""]
