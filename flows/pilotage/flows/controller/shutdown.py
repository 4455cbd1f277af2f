"""Ends `pilotage up` within two seconds of a signal, whatever it is waiting for.

What is cut off is safe to cut off: a delivery that was under way is found by its idempotency key at the next
start, and both databases commit whole transactions only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

FINISH_WITHIN = 0.9
"""Seconds that the parts get to end by themselves after a signal."""
CANCEL_WITHIN = 0.25
"""Seconds that they get after they were cancelled, and that the last words to Prefect may take."""
EXIT_WITHIN = 1.8
"""Seconds after the signal when the process ends at all costs: threads and sockets cannot be cancelled."""


async def run_until_signal(
    run: Callable[[asyncio.Event], Awaitable[Any]], *, exit_process: Callable[[int], Any] = os._exit
) -> None:
    """Run until it ends or SIGINT or SIGTERM arrives; then set the event, wait, and cancel.

    `exit_process` is called with 0 when even that has not ended `EXIT_WITHIN` seconds after the first signal,
    and with 130 at once by a second signal.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            exit_process(128 + signal.SIGINT)
        stop.set()
        last_resort = threading.Timer(EXIT_WITHIN, exit_process, args=(0,))
        last_resort.daemon = True
        last_resort.start()

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, on_signal)
    running = asyncio.ensure_future(run(stop))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await asyncio.wait({running}, timeout=FINISH_WITHIN + 2 * CANCEL_WITHIN)
        if not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=CANCEL_WITHIN)
        if running.done() and not running.cancelled():
            running.result()
    finally:
        stopping.cancel()


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work returned, or None when `stop` was set first; the work is cancelled then."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        stopping.cancel()


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Wait for tasks that were told to end, cancel those that do not, and wait a little for these."""
    _, late = await asyncio.wait(tasks, timeout=FINISH_WITHIN)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=CANCEL_WITHIN)
