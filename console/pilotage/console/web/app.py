"""The ASGI app: routes, page, headers. `serve.py` composes and runs it; tests give it their own parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pilotage.console.session.engine import Engine
from pilotage.console.session.listening import LOOPBACK
from pilotage.console.session.ports import User
from pilotage.console.web import chart_routes, errors, list_routes, metrics
from pilotage.console.web.auth import Access, Reader
from pilotage.console.web.routes import router
from pilotage.console.web.sessions import Sessions
from pilotage.console.web.sse import Tail
from pilotage.flows.api.client import ApiRejection

PAGE = Path(__file__).with_name("static")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """How a browser is signed in by a team's identity provider; each raises ApiError."""

    offered: Callable[[], bool]
    """Whether there is a provider."""
    begin: Callable[[], Mapping[str, str]]
    """`{url, state}`: where the browser goes, and what it must bring back."""
    finish: Callable[[str, str], str]
    """The token for a state and a code. An empty one is refused, and the refusal written down: see `OidcSignIn.finish`."""


def _no_provider(*given: str) -> NoReturn:
    raise ApiRejection("no-provider", "Signing in: no identity provider is set (oidc.issuer).")


def create_app(
    engine: Engine,
    *,
    identify: Callable[[str], User],
    password: Callable[[str, str], str],
    sessions: Sessions | None = None,
    hosts: Sequence[str] = LOOPBACK,
    status: metrics.Status | None = None,
    federation: Federation | None = None,
) -> FastAPI:
    """The app over an engine.

    `identify` says whose a token is, `password` gives a token for a name and a password; both raise ApiRejection.
    `federation` signs in by a team's identity provider. `status` asks the controller how it goes, for `/readyz`.
    Requests for any other host than `hosts` are refused, so that no foreign name can be pointed at a loopback port.
    """
    tail = Tail(engine.log)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(tail.run())
        warming = asyncio.create_task(asyncio.to_thread(_warm))  # the first reader does not wait for it
        try:
            yield
        finally:
            tail.close()
            following.cancel()
            await asyncio.gather(following, warming, return_exceptions=True)

    app = FastAPI(
        title="pilotage console",
        description="Ask about runs, decide on proposals. Nothing is served without identity.",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.engine, app.state.tail, app.state.password = engine, tail, password
    app.state.status = status
    app.state.federation = federation or Federation(
        offered=lambda: False, begin=_no_provider, finish=_no_provider
    )
    app.state.access = Access(sessions or Sessions(), identify)
    errors.install(app)
    app.include_router(router)
    app.include_router(chart_routes.router)
    app.include_router(metrics.router)
    app.include_router(list_routes.router)

    @app.get("/api/openapi.json", include_in_schema=False)
    async def description(user: Reader) -> dict[str, object]:
        return app.openapi()

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")

    app.mount("/assets", StaticFiles(directory=PAGE, check_dir=False), name="assets")
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    app.add_middleware(SafeHeaders)
    return app


def _warm() -> None:
    """Import what every look-up needs."""
    import pilotage.flows.agent.chat  # noqa: F401


class SafeHeaders:
    """Adds the headers to every response, streams included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # the page asks each time whether its modules are still these, so that no two versions meet
                headers["Cache-Control"] = "no-store" if scope["path"].startswith("/api/") else "no-cache"
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)
