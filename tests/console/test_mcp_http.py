"""MCP over HTTP: each request gets the tools of whoever its token proves at that moment, and nobody else's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.console.console_stack import ConsoleStack
from tests.console.mcp_served import mcp_over_http

from pilotage.planner.chat.tools import PROPOSING, READING

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def bearer(port: ConsoleStack, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {port.tokens[name]}"}


def tools_of(url: str, headers: dict[str, str], call: str = "", **arguments: Any) -> Any:
    """The names of the tools that these headers open, or what one of them gave."""

    async def go() -> Any:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            if not call:
                return {each.name for each in (await client.list_tools()).tools}
            return (await client.call_tool(call, arguments)).structured_content

    return asyncio.run(go())


def test_each_token_opens_its_persons_tools_at_one_address(port: ConsoleStack) -> None:
    run_id = port.failed_run()
    with mcp_over_http(port) as url:
        assert tools_of(url, bearer(port, "pat")) == {*READING, *PROPOSING}
        assert tools_of(url, bearer(port, "vic")) == set(READING)
        assert tools_of(url, bearer(port, "vic"), "why_run", run_id=run_id)["run_id"] == run_id
        filed = tools_of(url, bearer(port, "pat"), "propose", kind="retry_run", target=run_id)
    row = port.control_api("vic").call("proposal", proposal_id=filed["proposal_id"])
    assert row["proposal"]["on_behalf_of"] == "pat"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer nobody"}, {"Authorization": "Basic eDp5"}],
)
def test_nobody_without_a_token_is_answered(port: ConsoleStack, headers: dict[str, str]) -> None:
    with mcp_over_http(port) as url:
        reply = httpx.post(url, json=INITIALIZE, headers={**ACCEPT, **headers})
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert "serverInfo" not in reply.text


def test_a_token_that_was_taken_back_opens_nothing_from_the_next_request_on(port: ConsoleStack) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    token = port.book.add_token("pat", "agent", roles=("operator",), until=until)
    headers = {**ACCEPT, "Authorization": f"Bearer {token}"}
    with mcp_over_http(port) as url:
        assert httpx.post(url, json=INITIALIZE, headers=headers).status_code == 200
        text = port.paths.users.read_text()
        port.paths.users.write_text(text[: text.index('[users."pat".tokens')])
        assert httpx.post(url, json=INITIALIZE, headers=headers).status_code == 401


def test_a_foreign_name_or_page_that_points_at_the_port_gets_nothing(port: ConsoleStack) -> None:
    with mcp_over_http(port) as url:
        for foreign in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            reply = httpx.post(url, json=INITIALIZE, headers={**ACCEPT, **bearer(port, "pat"), **foreign})
            assert reply.status_code in (403, 421), foreign
            assert "serverInfo" not in reply.text
        huge = {**INITIALIZE, "params": {**INITIALIZE["params"], "x": "y" * (2 * 1024 * 1024)}}  # type: ignore[dict-item]
        assert httpx.post(url, json=huge, headers={**ACCEPT, **bearer(port, "pat")}).status_code == 413


def test_who_asked_the_longest_ago_gives_way_and_every_server_is_closed(
    port: ConsoleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.console.mcp.http.MOST", 2)
    closed: list[str] = []
    with mcp_over_http(port, closed=closed) as url:
        for name in ("pat", "vic", "pat", "ann"):
            assert (
                httpx.post(url, json=INITIALIZE, headers={**ACCEPT, **bearer(port, name)}).status_code == 200
            )
        assert closed == ["vic"]
        assert httpx.post(url, json=INITIALIZE, headers={**ACCEPT, **bearer(port, "vic")}).status_code == 200
        assert closed == ["vic", "pat"]
    assert sorted(closed) == ["ann", "pat", "vic", "vic"]
