"""MCP over HTTP on a free port of loopback, beside a console's stack."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from tests.console.console_stack import ConsoleStack

from pilotage.console.mcp.http import PATH, application
from pilotage.console.mcp.server import mcp_server
from pilotage.flows.agent.chat import toolbox
from pilotage.flows.api.client import ApiClient

LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


@contextmanager
def mcp_over_http(
    port: ConsoleStack, *, around: Callable[[Any], Any] = lambda app: app, closed: list[str] | None = None
) -> Iterator[str]:
    """Its address; `around` wraps the application as a proxy would, `closed` is told whose server was ended."""

    def whose(token: str) -> str:
        return str(ApiClient(port.paths.api_socket, token).call("whoami")["name"])

    def opened(token: str) -> tuple[Any, Callable[[], None]]:
        tools, name = toolbox(port.paths, ApiClient(port.paths.api_socket, token), whose(token)), whose(token)

        def close() -> None:
            tools.store.close()
            if closed is not None:
                closed.append(name)

        return mcp_server(tools), close

    with socket.create_server(("127.0.0.1", 0)) as sock:
        app = around(application(whose, opened, LOOPBACK))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}{PATH}"
        finally:
            server.should_exit = True
            thread.join(30)
