"""The outside world of the demo: an HTTP server on loopback with a feed that hiccups, a ledger that refuses
our key, a warehouse with an outage, and the pager where owners are told. All faults in it are real answers."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class FakeServices:
    """A context manager; `url` is where flows find it."""

    def __init__(self) -> None:
        self.pages: list[dict[str, Any]] = []
        """What the pager received, in order."""
        self._calls: Counter[str] = Counter()
        self._outage = threading.Event()
        self._outage.set()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def url(self) -> str:
        """Without a trailing slash."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def end_outage(self) -> None:
        """The warehouse answers from now on."""
        self._outage.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, path: str) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self._calls[path] += 1
            count = self._calls[path]
        match path.strip("/").split("/"):
            case ["quotes", *_]:
                return (
                    (503, {"error": "upstream busy"})
                    if count == 1
                    else (200, {"EURUSD": 1.0842, "USDJPY": 151.32})
                )
            case ["ledger", *_]:
                return 401, {"error": "invalid credentials"}
            case ["warehouse", *_] if self._outage.is_set():
                return 503, {"error": "maintenance"}
            case ["warehouse", *_]:
                return 200, {"rows": 1204}
            case _:
                return 404, {"error": "no such thing"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        world = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it so
                """Stays silent; the demo's own progress is what people watch."""

            def do_GET(self) -> None:
                self._reply(*world._answer(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path != "/pager":
                    self._reply(*world._answer(self.path))
                    return
                try:
                    world.pages.append(json.loads(body))
                except ValueError:
                    self._reply(400, {"status": "invalid"})
                    return
                self._reply(202, {"status": "success"})

            def _reply(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler
