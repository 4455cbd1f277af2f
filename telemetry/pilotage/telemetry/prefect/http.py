"""How Prefect is asked: pages of its REST API, its event stream, and what its refusals mean.

Reading only: a request that would change something is not sent. The credential comes from Prefect's own settings
(`PREFECT_API_AUTH_STRING`, profiles); it is never looked at here. Foreign errors become
ours in `_translated` and nowhere else.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import PREFECT_API_URL

from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.prefect.answers import AnswerTimes
from pilotage.telemetry.prefect.pace import Pace
from pilotage.telemetry.prefect.reading import reading_only, refuse_writes
from pilotage.telemetry.prefect.servers import OLDEST_SERVER, USER_AGENT, unfit
from pilotage.telemetry.prefect.set_aside import Rows, SetAside, readable
from pilotage.telemetry.redaction import redact

PAGE = 200
"""Rows a page; Prefect refuses more."""
EVENT_PAGE = 50
"""Events a page; Prefect refuses more."""
EVENT_PREFIXES = ("prefect.", "pilotage.")
FLOW_RUNS = "/flow_runs/filter"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVersion:
    """Which Prefect answered."""

    version: str
    api_url: str
    """Without any password that its address may carry."""


def _translated(doing: str, exc: Exception) -> OrchestratorError:
    """The foreign error as ours: what was attempted, what was found, what to do."""
    match exc:
        case OrchestratorError():
            return exc
        case httpx.HTTPStatusError() if exc.response.status_code in (401, 403):
            return OrchestratorError(
                f"{doing}: the server refused the key (HTTP {exc.response.status_code}). "
                "Set PREFECT_API_AUTH_STRING to what the server was started with, or the right profile."
            )
        case httpx.HTTPStatusError():
            status = exc.response.status_code
            busy = status in (408, 429) or status >= 500
            todo = "It is asked again." if busy else "Check that this is the API of a Prefect 3 server."
            body = redact(exc.response.text[:200])
            return OrchestratorError(f"{doing}: HTTP {status} {body}. {todo}", transient=busy)
        case httpx.ConnectError() if "CERTIFICATE" in str(exc).upper():
            return OrchestratorError(
                f"{doing}: the server is there, but its certificate is not trusted ({redact(str(exc))}). "
                "Set PREFECT_API_SSL_CERT_FILE to the authority that signed it."
            )
        case json.JSONDecodeError():
            return OrchestratorError(
                f"{doing}: what answers there is no Prefect API, for its answer is not JSON. "
                "Correct PREFECT_API_URL; the address of a server of your own ends in /api."
            )
        case httpx.TransportError() | OSError():
            body = redact(str(exc)) or type(exc).__name__
            return OrchestratorError(
                f"{doing}: no answer ({body}). Start the server, or correct PREFECT_API_URL.", transient=True
            )
        case _ if "authenticate" in str(exc):
            return OrchestratorError(
                f"{doing}: the event stream refused the key. "
                "Set PREFECT_API_AUTH_STRING to what the server was started with."
            )
        case _:
            body = redact(str(exc))[:200]
            return OrchestratorError(
                f"{doing}: {type(exc).__name__} {body}. It is tried again.", transient=True
            )


def _api_url() -> str:
    url = PREFECT_API_URL.value()
    if not url:
        # without an address the client would quietly start a server of its own
        raise OrchestratorError(
            "Connecting to Prefect: no address is set. "
            "Set PREFECT_API_URL, or `prefect profile use` one that has."
        )
    return str(url)


def api_address() -> str:
    """Return the address of the active profile, without a password. Raises OrchestratorError when there is none."""
    return redact(_api_url())


class PrefectReader:
    """Prefect's API for reading, as an async context manager. Every failure is an OrchestratorError."""

    def __init__(self, client: httpx.AsyncClient | None = None) -> None:
        """`client` asks instead of one to the active profile's server. It must raise for replies that are errors."""
        self._given = reading_only(client) if client is not None else None
        self._stack = AsyncExitStack()
        self._client: PrefectClient | httpx.AsyncClient | None = None
        self.answers = AnswerTimes()
        """Is told how long each request took."""
        self.set_aside = SetAside()
        """Is told of the rows that Prefect cannot send."""
        self.pace = Pace()
        """Says when the next request may go."""
        self.requests = 0
        """How many were made."""

    async def __aenter__(self) -> Self:
        if self._given is not None:
            self._client = await self._stack.enter_async_context(self._given)
            return self
        doing = f"Connecting to Prefect at {redact(_api_url())}"
        try:
            self._client = await self._stack.enter_async_context(
                get_client(
                    httpx_settings={"event_hooks": {"request": [refuse_writes], "response": [self._heard]}}
                )
            )
        except Exception as exc:
            raise _translated(doing, exc) from exc
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None
        await self._stack.aclose()

    async def _heard(self, answer: httpx.Response) -> None:
        self.pace.hear(answer.status_code, answer.headers)

    async def _ask(self, method: Any, path: Any, **arguments: Any) -> Any:
        if self._client is None:
            raise OrchestratorError(
                f"Asking Prefect for {path}: not connected. Use `async with PrefectReader()`."
            )
        await self.pace.turn()
        began = time.monotonic()
        self.requests += 1
        try:
            headers = {"User-Agent": USER_AGENT}
            response = await self._client.request(method, path, headers=headers, **arguments)
            answer = response.json()
        except Exception as exc:
            if isinstance(exc, httpx.HTTPStatusError):
                await self._heard(exc.response)
            error = _translated(f"Asking Prefect for {path}", exc)
            self.answers.note(time.monotonic() - began, str(error)[:200] if error.transient else "")
            raise error from exc
        self.answers.note(time.monotonic() - began)
        return answer

    async def version(self) -> ServerVersion:
        """Which Prefect answers. Raises OrchestratorError when there is none, it is too old or refuses us."""
        url = redact(str(self._given.base_url) if self._given else _api_url())
        found = str(await self._ask("GET", "/admin/version"))
        if why := unfit(found):
            raise OrchestratorError(
                f"Connecting to Prefect at {url}: {why}. Use a server from {OLDEST_SERVER} up to the versions in "
                "docs/compatibility.md."
            )
        return ServerVersion(version=found, api_url=url)

    async def page(self, path: str, filters: Mapping[str, Any], **more: Any) -> list[dict[str, Any]]:
        """One page of a filter route, `limit` at most 200."""
        rows: list[dict[str, Any]] = await self._ask("POST", path, json={**filters, **more})
        return rows

    async def pages(
        self, path: str, filters: Mapping[str, Any], *, sort: str | None = None
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """All pages of a filter route, one after another, without the rows that Prefect cannot send."""
        order = {"sort": sort} if sort else {}
        if path == FLOW_RUNS and (known := self.set_aside.ids(path)):
            runs = dict(filters.get("flow_runs") or {})
            filters = {**filters, "flow_runs": {**runs, "id": {**(runs.get("id") or {}), "not_any_": known}}}

        async def places(first: int, count: int) -> Rows:
            return await self.page(path, filters, limit=count, offset=first, **order)

        offset = 0
        while True:
            rows, lost = await readable(places, offset, PAGE)
            for place in lost:
                self.set_aside.add(path, await self._id_at(path, filters, place, order))
            if rows:
                yield rows
            if len(rows) + len(lost) < PAGE:
                return
            offset += PAGE

    async def _id_at(
        self, path: str, filters: Mapping[str, Any], place: int, order: Mapping[str, str]
    ) -> str:
        """The id of the row at a place of a list; of a flow run Prefect's own page shows it without its parameters."""
        if path != FLOW_RUNS:
            return f"row {place + 1}"
        body = {**filters, **order, "limit": 1, "offset": place}
        rows = await self._ask("POST", "/ui/flow_runs/history", json=body)
        return str(rows[0]["id"]) if rows else f"row {place + 1}"

    async def every(
        self, path: str, filters: Mapping[str, Any], *, sort: str | None = None
    ) -> list[dict[str, Any]]:
        """All rows of a filter route."""
        return [row async for rows in self.pages(path, filters, sort=sort) for row in rows]

    async def by_id(self, path: str, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows that have these ids; ids that Prefect does not know, or whose rows it cannot send, are left out."""

        async def asked(first: int, count: int) -> Rows:
            some = {kind: {"id": {"any_": list(ids[first : first + max(count, 1)])}}}
            return await self.page(path, some, limit=min(count, PAGE))

        records: list[dict[str, Any]] = []
        for first in range(0, len(ids), PAGE):
            rows, lost = await readable(asked, first, min(PAGE, len(ids) - first))
            records += rows
            for place in lost:
                self.set_aside.add(path, ids[place])
            self.set_aside.clear(path, set(ids[first : first + PAGE]) - {ids[place] for place in lost})
        return records

    async def events(self, since: datetime, until: datetime) -> AsyncIterator[list[dict[str, Any]]]:
        """The events that occurred in [since, until], oldest first, one page after another."""
        wanted = {
            "occurred": {"since": since.isoformat(), "until": until.isoformat()},
            "event": {"prefix": list(EVENT_PREFIXES)},
            "order": "ASC",
        }
        answer = await self._ask("POST", "/events/filter", json={"filter": wanted, "limit": EVENT_PAGE})
        while True:
            if answer["events"]:
                yield answer["events"]
            if not answer.get("next_page"):
                return
            # only its token: the address in it is the server's own, not the one that a proxy gives us
            token = httpx.URL(answer["next_page"]).params["page-token"]
            answer = await self._ask("GET", "/events/filter/next", params={"page-token": token})


async def events_as_they_happen(connected: Callable[[], None]) -> AsyncIterator[dict[str, Any]]:
    """Events as they happen, until the connection ends. `connected()` is called when it stands.

    A hint only: the server drops what a slow reader has not taken, and a restart loses some.
    """
    wanted = EventFilter(event=EventNameFilter(prefix=list(EVENT_PREFIXES)))
    try:
        async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as subscriber:
            connected()
            async for event in subscriber:
                yield event.model_dump(mode="json")
    except Exception as exc:
        raise _translated("Listening to Prefect's event stream", exc) from exc


async def check_server(reader: Callable[[], PrefectReader] = PrefectReader) -> ServerVersion:
    """Return which Prefect this leads to, by default that of the active profile.

    Raises OrchestratorError, in words for a person, when it is unreachable
    (transient), too old, or refuses the key.
    """
    async with reader() as asked:
        return await asked.version()
