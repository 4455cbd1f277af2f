"""The fake server on a loopback port, for clients that take an address and no transport."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pilotage.flows.dev.fake_prefect.server import FakePrefect

HOST = "127.0.0.1"


@contextmanager
def serving(fake: FakePrefect) -> Iterator[str]:
    """Serve a fake server until the context is left. Yields the address of its API, which ends in `/api`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            target = urlsplit(self.path)
            status, kind, payload = _answered(fake, self.command, target.path, target.query, content)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing: a test reads the server's own counts."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _answered(
    fake: FakePrefect, method: str, path: str, query: str, content: bytes
) -> tuple[int, str, bytes]:
    try:
        body = json.loads(content) if content else None
    except ValueError:
        return 422, "application/json", b'{"exception_message": "Invalid request received."}'
    reply = fake.request(method, unquote(path.removeprefix("/api")), body, dict(parse_qsl(query)))
    if reply.text is not None:
        return reply.status, "text/plain; charset=utf-8", reply.text.encode()
    if reply.status == 204:
        return reply.status, "application/json", b""
    return reply.status, "application/json", json.dumps(reply.json).encode()
