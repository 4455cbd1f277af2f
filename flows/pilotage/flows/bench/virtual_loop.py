"""An asyncio event loop whose time is that of a frozen clock: when nothing is ready, time is moved to what is next.

Work that a coroutine gives to a thread is done at once, in a greenlet: it may wait for a coroutine of the same loop
with `awaited`, which a thread could not.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Generator
from datetime import datetime, timedelta
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")
_LEAST = timedelta(microseconds=1)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs in virtual time. `advance` moves the clock by a span and does what falls due on the way."""

    def __init__(self, now: Callable[[], datetime], advance: Callable[[timedelta], Any]) -> None:
        super().__init__()
        self._now = now
        self._advance = advance
        self._began = now()
        self._clock_resolution = 2e-6

    def time(self) -> float:
        """Return the seconds since the loop was made, of the frozen clock."""
        return (self._now() - self._began).total_seconds()

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].cancelled():
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not self._ready and scheduled and not self._stopping:  # type: ignore[attr-defined]
            left = scheduled[0].when() - self.time()
            if left > 0:
                self._advance(max(timedelta(seconds=left), _LEAST))
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Do it now, and return a future of its result; when it waits for a coroutine, a task does the rest."""
        future: asyncio.Future[T] = self.create_future()
        work = greenlet.greenlet(func)
        try:
            asked = work.switch(*args)
        except BaseException as exc:
            future.set_exception(exc)
            return future
        if work.dead:
            future.set_result(asked)
            return future
        return self.create_task(_rest(work, asked))

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 its base's
        """Do nothing: there is none."""


async def _rest(work: greenlet.greenlet, asked: Awaitable[Any]) -> Any:
    while True:
        work.parent = greenlet.getcurrent()
        try:
            answer = await asked
        except BaseException as exc:
            asked = work.throw(exc)
        else:
            asked = work.switch(answer)
        if work.dead:
            return asked


def awaited(work: Awaitable[T]) -> T:
    """Wait for a coroutine in work that was given to a thread. Raises RuntimeError elsewhere."""
    parent = greenlet.getcurrent().parent
    if parent is None:
        raise RuntimeError("only work that a virtual loop does in place of a thread can wait for a coroutine")
    answer: T = parent.switch(work)
    return answer


def as_steps(work: Callable[[], None]) -> Generator[Any, None, None]:
    """Yield what straight code hands out with `hand_out`, and go on in it afterwards. Raises what it raises."""
    running = greenlet.greenlet(work)
    while True:
        running.parent = greenlet.getcurrent()
        handed = running.switch()
        if running.dead:
            return
        yield handed


def hand_out(step: Any) -> None:
    """Hand a step to whoever drives the code that this is called in; see `as_steps`."""
    parent = greenlet.getcurrent().parent
    if parent is None:
        raise RuntimeError("nobody drives this code")
    parent.switch(step)
