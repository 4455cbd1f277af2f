"""The fake server: requests in, replies out, over a clock; and the httpx transport that carries them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import httpx

from pilotage.flows.dev.fake_prefect import limit_routes, record_routes, run_routes, work_routes
from pilotage.flows.dev.fake_prefect.calls import Call, Reply, RouteTable
from pilotage.flows.dev.fake_prefect.clock import Agenda, Clock, FrozenClock, SystemClock
from pilotage.flows.dev.fake_prefect.engine import Engine
from pilotage.flows.dev.fake_prefect.filters import BadRequest
from pilotage.flows.dev.fake_prefect.schedules import keep_scheduling
from pilotage.flows.dev.fake_prefect.tables import Tables

API_URL = "http://fake-prefect/api"
VERSION = "3.9.1"
ROUTES = RouteTable((*run_routes.ROUTES, *work_routes.ROUTES, *limit_routes.ROUTES, *record_routes.ROUTES))


class FakePrefect:
    """A Prefect server in memory. Thread-safe: one request at a time."""

    def __init__(self, clock: Clock | None = None, *, version: str = VERSION) -> None:
        self.clock: Clock = clock or SystemClock()
        self.version = version
        self.tables = Tables()
        self.agenda = Agenda()
        self.engine = Engine(self.tables, self.agenda, self.clock.now())
        self.engine.keep_leases()
        self.engine.keep_ready()
        keep_scheduling(self.engine)
        self.asked: Counter[str] = Counter()
        """How often each route was asked, such as `POST /flow_runs/filter`."""
        self._lock = threading.RLock()

    @property
    def transport(self) -> FakeTransport:
        """A transport to this server for `httpx.Client` and `httpx.AsyncClient`."""
        return FakeTransport(self)

    def advance(self, by: timedelta) -> datetime:
        """Move a frozen clock and do, at its own time, everything that falls due on the way.

        Raises TypeError with any other clock.
        """
        if not isinstance(self.clock, FrozenClock):
            raise TypeError("only a FrozenClock is moved; any other moves by itself")
        with self._lock:
            until = self.clock.now() + by
            while (due := self.agenda.next_due()) is not None and due <= until:
                # the clock is at the time of what happens, so that workers and scripts may ask it
                self.clock.advance(max(due - self.clock.now(), timedelta(0)))
                self.agenda.run_until(due)
            return self.clock.advance(until - self.clock.now())

    def catch_up(self) -> None:
        """Do everything that has fallen due already."""
        with self._lock:
            self.agenda.run_until(self.clock.now())

    def request(self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> Reply:
        """Answer one request; `path` is without the prefix `/api`, `body` from JSON."""
        with self._lock:
            now = self.clock.now()
            self.agenda.run_until(now)
            if (method, path.strip("/")) == ("GET", "admin/version"):
                return Reply(200, self.version)
            match = ROUTES.find(method, path)
            if match is None:
                return Reply(501, {"detail": f"the fake has no {method} {path}"})
            template, names, handler = match
            self.asked[f"{method} {template}"] += 1
            call = Call(engine=self.engine, now=now, path=names, query=query or {}, body=body)
            try:
                return handler(call)
            except BadRequest as error:
                return _refusal(error, body)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of a reply, for setting a scene. Raises ValueError when it is none of success."""
        reply = self.request(method, path, body)
        if reply.status >= 400:
            raise ValueError(f"{method} {path}: {reply.status} {reply.json}")
        return reply.json


def _refusal(error: BadRequest, body: Any) -> Reply:
    if error.status == httpx.codes.UNPROCESSABLE_ENTITY:
        said = {
            "exception_message": "Invalid request received.",
            "exception_detail": [{"msg": error.detail}],
            "request_body": body,
        }
        return Reply(422, said)
    return Reply(error.status, {"detail": error.detail})


class FakeTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Carries requests to a fake server, without a network."""

    def __init__(self, server: FakePrefect) -> None:
        self._server = server

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.BaseTransport`."""
        return self._answered(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.AsyncBaseTransport`. Others of the event loop get their turn, as with a network."""
        await asyncio.sleep(0)
        return self._answered(request, await request.aread())

    def _answered(self, request: httpx.Request, sent: bytes) -> httpx.Response:
        path = unquote(request.url.path.removeprefix("/api"))
        try:
            body = json.loads(sent) if sent else None
        except ValueError:
            return httpx.Response(
                422, json={"exception_message": "Invalid request received."}, request=request
            )
        reply = self._server.request(request.method, path, body, dict(request.url.params))
        if reply.text is not None:
            return httpx.Response(reply.status, text=reply.text, headers=reply.headers, request=request)
        if reply.status == httpx.codes.NO_CONTENT:
            return httpx.Response(reply.status, request=request)
        try:
            content = json.dumps(reply.json, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair is stored, and never sent
            error = {"exception_message": "Internal Server Error"}
            return httpx.Response(500, json=error, request=request)
        return httpx.Response(
            reply.status,
            content=content,
            headers={"content-type": "application/json", **reply.headers},
            request=request,
        )
