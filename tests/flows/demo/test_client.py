"""The demo asks a busy Prefect server again, for as long as it was told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pilotage.flows.demo.client import DemoClient
from pilotage.telemetry.errors import OrchestratorError


class BusyServer(HTTPServer):
    """Answers 503 `busy` times, then a run."""

    busy = 3
    asked = 0


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, BusyServer)
        server.asked += 1
        self.send_response(503 if server.asked <= server.busy else 200)
        body = json.dumps({"id": "r"}).encode()
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[BusyServer]:
    with BusyServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again_until_it_answers(server: BusyServer) -> None:
    with DemoClient(f"http://127.0.0.1:{server.server_port}/api", "u:p") as client:
        assert client.run("r") == {"id": "r"}
    assert server.asked == 4


def test_a_server_that_stays_busy_is_named_with_the_time(server: BusyServer) -> None:
    server.busy = 1000
    with (
        DemoClient(
            f"http://127.0.0.1:{server.server_port}/api", "u:p", within=timedelta(seconds=1)
        ) as client,
        pytest.raises(OrchestratorError, match="no answer within 1 s"),
    ):
        client.run("r")
    assert server.asked > 1
