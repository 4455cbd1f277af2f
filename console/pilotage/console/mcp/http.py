"""MCP over streamable HTTP beside standard input and output: each request proves by a bearer token whose tools it gets.

One server for each person who asks, without sessions: no request rests on an earlier one, so that a token which was
revoked opens nothing from the next request on, and nobody's session can be taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pilotage.flows.api.client import ApiRejection
from pilotage.telemetry.errors import AdapterError, PilotageError

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

PATH = "/mcp"
MOST = 100
"""People served at once; who asked the longest ago gives way, and is served anew when they ask again."""
BODY = 1024 * 1024
"""Bytes of one request."""


@dataclass(slots=True, kw_only=True)
class Served:
    """The server of one person, as its own task keeps it."""

    close: Callable[[], None]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    manager: Any = None
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why somebody is served nothing."""

    status: int
    why: str

    async def send(self, send: Send) -> None:
        """Answer so."""
        kind = "unauthorized" if self.status == 401 else "refused"
        body = json.dumps({"error": {"kind": kind, "message": self.why}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_NO_TOKEN = Refused(401, "Send a bearer token; `pilotage users token` makes one.")


class McpOverHttp:
    """The ASGI application. `open_server` gives whose tools a token opens, and what to close in the end."""

    def __init__(
        self,
        known: Callable[[str], object],
        open_server: Callable[[str], tuple[MCPServer, Callable[[], None]]],
        hosts: list[str],
    ) -> None:
        """`known` raises ApiRejection for a token that is nobody's; it is asked before each request."""
        self._known = known
        self._open_server = open_server
        self._hosts = hosts
        self._served: dict[str, Served] = {}
        self._opening = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as whoever its token proves."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        scheme, _, token = headers.get("authorization", "").partition(" ")
        served = await self._served_to(token.strip()) if scheme.lower() == "bearer" else _NO_TOKEN
        if isinstance(served, Refused):
            await served.send(send)
        else:
            await served.manager.handle_request(scope, receive, send)

    async def _served_to(self, token: str) -> Served | Refused:
        if not token:
            return _NO_TOKEN
        try:
            await asyncio.to_thread(self._known, token)
            return await self._server_of(token)
        except ApiRejection as exc:
            return Refused(401 if exc.kind == "unknown-identity" else 403, str(exc))
        except PilotageError as exc:
            return Refused(503 if isinstance(exc, AdapterError) else 500, str(exc))

    async def close(self) -> None:
        """End every server."""
        for served in list(self._served.values()):
            await self._end(served)
        self._served.clear()

    async def _server_of(self, token: str) -> Served:
        key = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        async with self._opening:
            served = self._served.pop(key, None)
            if served is None:
                while len(self._served) >= MOST:
                    await self._end(self._served.pop(next(iter(self._served))))
                served = await self._begin(token)
            self._served[key] = served  # last: whoever asks is the newest
            return served

    async def _begin(self, token: str) -> Served:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
        from mcp.server.transport_security import TransportSecuritySettings

        server, close = await asyncio.to_thread(self._open_server, token)
        served = Served(close=close)
        served.manager = StreamableHTTPSessionManager(
            server._lowlevel_server,
            stateless=True,
            json_response=True,
            max_request_body_size=BODY,
            security_settings=TransportSecuritySettings(
                enable_dns_rebinding_protection=True,
                allowed_hosts=[each for host in self._hosts for each in (host, f"{host}:*")],
                # a page of ours may ask, and no other: what a token opens is nothing for a page that found a port
                allowed_origins=[
                    f"{scheme}://{name}"
                    for scheme in ("http", "https")
                    for host in self._hosts
                    for name in (host, f"{host}:*")
                ],
            ),
        )

        async def keep() -> None:
            # its tasks begin and end in this one
            try:
                async with served.manager.run():
                    served.ready.set()
                    await served.ended.wait()
            finally:
                await asyncio.to_thread(close)

        served.task = asyncio.create_task(keep(), name="mcp of one person")
        await served.ready.wait()
        return served

    async def _end(self, served: Served) -> None:
        served.ended.set()
        if served.task is not None:
            await asyncio.gather(served.task, return_exceptions=True)


def application(
    known: Callable[[str], object],
    open_server: Callable[[str], tuple[MCPServer, Callable[[], None]]],
    hosts: list[str],
) -> Starlette:
    """Return the application with its one route."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    endpoint = McpOverHttp(known, open_server, hosts)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await endpoint.close()

    return Starlette(
        routes=[Route(PATH, endpoint=endpoint, methods=["GET", "POST", "DELETE"])], lifespan=lifespan
    )
