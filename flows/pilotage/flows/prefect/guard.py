"""Looks at each request before it is sent to Prefect, and refuses what nobody admitted.

A connection has one guard: `READING` for most of the controller, `TELLING` for notices, `AdmittedWrites` for the
levers. The last lets through what the permit of the moment admits, and a permit is opened for one admitted row of the
outbox (`pilotage.flows.execution.permits`) and ends with its delivery. What Prefect answered while a permit is open
tells it what belongs to its target; nobody else does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from pilotage.flows.prefect.writes import Asked, Reach, Write, artifact, own_events
from pilotage.telemetry.prefect.reading import beyond_reading, only_reads, parts_of


@dataclass(slots=True, kw_only=True)
class Permit:
    """What may be written now, and for what."""

    about: str
    """For messages, such as `retry_run of p-0123456789ab`."""
    writes: Sequence[Write]
    reach: Reach
    open: bool = True
    """False once the delivery has ended; whatever of it still runs may write no more."""

    def why_not(self, asked: Asked) -> str:
        """Why this write is not admitted, or an empty text."""
        if not self.open:
            return f"{self.about} has ended"
        if any(write.admits(asked, self.reach) for write in self.writes):
            return ""
        return f"{self.about} admits no such request to this target"


_now: ContextVar[Permit | None] = ContextVar("permit", default=None)


@contextmanager
def permitted(permit: Permit) -> Iterator[None]:
    """Let the levers of this task, and of tasks that it starts meanwhile, write what the permit admits."""
    token = _now.set(permit)
    try:
        yield
    finally:
        permit.open = False
        _now.reset(token)


class Guard(Protocol):
    """Decides about the requests of one connection."""

    def why_not(self, asked: Asked) -> str:
        """Why a request that would change something is not sent, or an empty text."""
        ...

    def answered(self, asked: Asked, reply: Any) -> None:
        """Take notice of what Prefect answered, from JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Always:
    """Admits the same writes at any time, whatever they are about."""

    writes: tuple[Write, ...]
    why: str

    def why_not(self, asked: Asked) -> str:
        """Why a request is not sent."""
        return "" if any(write.admits(asked, Reach()) for write in self.writes) else self.why

    def answered(self, asked: Asked, reply: Any) -> None:
        """Take no notice."""


class AdmittedWrites:
    """Admits what the permit of the moment does."""

    def why_not(self, asked: Asked) -> str:
        """Why a request is not sent."""
        permit = _now.get()
        return permit.why_not(asked) if permit else "no admitted row of the outbox is being delivered"

    def answered(self, asked: Asked, reply: Any) -> None:
        """Tell the permit of the moment."""
        if (permit := _now.get()) and permit.open:
            permit.reach.learn(asked, reply)


READING = Always((), "this connection is for reading only")
TELLING = Always((own_events(), artifact()), "this connection is for reading, and for pilotage's own notices")
ADMITTED = AdmittedWrites()


def hooks_of(guard: Guard, api_url: str) -> dict[str, list[Any]]:
    """Return the hooks of an asynchronous httpx client by which the guard sees its requests and their replies."""
    base, host = httpx.URL(api_url).raw_path.decode("ascii"), httpx.URL(api_url).host

    async def before(request: httpx.Request) -> None:
        parts = parts_of(request.url, base)
        if only_reads(request.method, parts):
            return
        elsewhere = request.url.host != host
        if why := "it would go to another host" if elsewhere else guard.why_not(_asked(request, parts)):
            raise beyond_reading(request.method, parts, why)

    async def after(response: httpx.Response) -> None:
        if not response.is_success or response.request.url.host != host:
            return
        await response.aread()
        try:
            reply = response.json()
        except ValueError:
            return
        guard.answered(_asked(response.request, parts_of(response.request.url, base)), reply)

    return {"request": [before], "response": [after]}


def _asked(request: httpx.Request, parts: tuple[str, ...]) -> Asked:
    body = json.loads(request.content) if request.content else None
    return Asked(method=request.method, parts=parts, body=body)
