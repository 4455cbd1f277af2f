"""MCP's public conformance suite against MCP over HTTP: `make mcp-conformance`.

Most of the suite asks for tools, resources and prompts of a server that was made for it; ours has tools of its own and
neither resources nor prompts. What it says of every server must pass.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.console.console_stack import ConsoleStack
from tests.console.mcp_served import mcp_over_http

SUITE = os.environ.get("PILOTAGE_MCP_CONFORMANCE", "")
pytestmark = [
    pytest.mark.skipif(not SUITE, reason="`make mcp-conformance` runs it, with npm"),
    pytest.mark.timeout(600),
]
OF_EVERY_SERVER = ("server-initialize", "ping", "tools-list", "dns-rebinding-protection")


@pytest.mark.parametrize("scenario", OF_EVERY_SERVER)
def test_the_suite_passes(port: ConsoleStack, tmp_path: Path, scenario: str) -> None:
    token = port.tokens["vic"].encode()

    def with_a_token(app: Any) -> Any:
        """As a proxy in front does: the suite sends no token."""

        async def proxy(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope = {**scope, "headers": [*scope["headers"], (b"authorization", b"Bearer " + token)]}
            await app(scope, receive, send)

        return proxy

    with mcp_over_http(port, around=with_a_token) as url:
        command = [*shlex.split(SUITE), "server", "--url", url, "--scenario", scenario, "--verbose"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert '"SUCCESS"' in done.stdout
    assert '"FAILURE"' not in done.stdout
