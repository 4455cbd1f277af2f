"""Which requests to Prefect only read, and a hook for HTTP clients that lets no other through."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

import httpx

from pilotage.telemetry.errors import OrchestratorError

_BY_GET = frozenset({"GET", "HEAD"})
_HISTORY = ("ui", "flow_runs", "history")


def parts_of(url: httpx.URL, base: str = "") -> tuple[str, ...]:
    """Return the segments of a path below `base`, each decoded alone: a slash within a name stays in it.

    What is not below the base has all its segments, and fits no route.
    """
    path = url.raw_path.partition(b"?")[0].decode("ascii")
    return tuple(unquote(part) for part in path.removeprefix(base).strip("/").split("/"))


def only_reads(method: str, parts: Sequence[str]) -> bool:
    """Return whether this request changes nothing: a GET, or a POST of a filter that is answered with a page of rows."""
    if method in _BY_GET:
        return True
    return method == "POST" and (parts[-1] == "filter" or tuple(parts[-3:]) == _HISTORY)


def beyond_reading(method: str, parts: Sequence[str], why: str) -> OrchestratorError:
    """Return the error for a request that was not sent, since it would have changed something in Prefect."""
    return OrchestratorError(
        f"{method} /{'/'.join(parts)}: not sent, for {why}. Every change of Prefect goes through the outbox."
    )


async def refuse_writes(request: httpx.Request) -> None:
    """Raise OrchestratorError before a request is sent that does not only read: a request hook of httpx clients."""
    parts = parts_of(request.url)
    if not only_reads(request.method, parts):
        raise beyond_reading(request.method, parts, "this connection is for reading only")


def reading_only(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return the client, which sends from now on only what reads."""
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "request": [*hooks.get("request", ()), refuse_writes]}
    return client
