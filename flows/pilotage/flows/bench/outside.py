"""The outside of the bench: keeps effects, and answers the calls of flows by what their worlds say."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx

from pilotage.flows.bench.world import Answer, Record, Request

RUN, ATTEMPT = "x-bench-run", "x-bench-attempt"
"""Headers by which a flow says who calls."""
EFFECTS, PAGER = "effects", "pager"


def address_of(key: str) -> str:
    """Return the address of the other side of an incident: what unrelated faults share must not be a host."""
    return f"http://{key}.outside/{key}"


Answerer = Callable[[Request], Answer]


class Outside:
    """Effects by incident, pages, and who answers for which incident. Thread-safe."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self.records: dict[str, list[Record]] = defaultdict(list)
        """By incident."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """By incident and key."""
        self.first_call: dict[str, datetime] = {}
        """When the first attempt of an incident began, by incident."""
        self.pages: list[dict[str, Any]] = []
        """What the pager received, with `at`."""
        self.answerers: dict[str, Answerer] = {}

    def handle(self, method: str, path: str, body: Any, run_id: str, attempt: int) -> Answer:
        """Answer one call; the first part of the path says whose it is."""
        key, _, rest = path.strip("/").partition("/")
        with self._lock:
            now = self._clock()
            if key == PAGER:
                self.pages.append({"at": now, **(body if isinstance(body, dict) else {})})
                return Answer(status=202, body={"status": "success"})
            if key not in self.answerers:
                return Answer(status=404, body={"detail": "no such incident"})
            if rest == "begin":
                self.first_call.setdefault(key, now)
                return Answer(status=204)
            if rest == EFFECTS:
                self.record(key, str(body["key"]), run_id, now)
                return Answer(status=201, body={})
            request = Request(
                method=method, path=f"/{rest}", body=body, run_id=run_id, attempt=attempt, now=now
            )
            return self.answerers[key](request)

    def record(self, key: str, effect: str, run_id: str, now: datetime | None = None) -> None:
        """Keep an effect of an incident."""
        with self._lock:
            self.records[key].append(Record(at=now or self._clock(), key=effect, run_id=run_id))
            self.counts[key, effect] += 1


class OutsideTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Carries calls to the outside without a network."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.BaseTransport`."""
        content = request.read()
        answer = self._outside.handle(
            request.method,
            request.url.path,
            json.loads(content) if content else None,
            request.headers.get(RUN, ""),
            int(request.headers.get(ATTEMPT, "0")),
        )
        body = b"" if answer.body is None else json.dumps(answer.body).encode()
        return httpx.Response(answer.status, headers=dict(answer.headers), content=body, request=request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.AsyncBaseTransport`."""
        await request.aread()
        return self.handle_request(request)


class ToOutside(httpx.BaseTransport):
    """Carries calls to `address_of` to the port where the outside listens."""

    def __init__(self, url: str) -> None:
        self._server = httpx.URL(url)
        self._network = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.BaseTransport`."""
        url = request.url.copy_with(scheme="http", host=self._server.host, port=self._server.port)
        sent = httpx.Request(
            request.method, url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )
        return self._network.handle_request(sent)

    def close(self) -> None:
        """As `httpx.BaseTransport`."""
        self._network.close()


class OutsideServer:
    """The outside on a loopback port, as a context manager."""

    def __init__(self, outside: Outside) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it so
                """Say nothing."""

            def _reply(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                answer = outside.handle(
                    self.command,
                    self.path,
                    json.loads(content) if content else None,
                    self.headers.get(RUN, ""),
                    int(self.headers.get(ATTEMPT, "0")),
                )
                body = b"" if answer.body is None else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _reply  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def url(self) -> str:
        """Without a trailing slash."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
