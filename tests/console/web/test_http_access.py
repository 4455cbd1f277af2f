"""Nothing is served without identity, and a browser's cookie alone changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from tests.console.console_stack import PASSWORD, ConsoleStack

from pilotage.console.session.ports import User
from pilotage.console.web.chart_routes import router as charts
from pilotage.console.web.list_routes import router as lists
from pilotage.console.web.routes import router
from pilotage.console.web.sessions import COOKIE, IDLE, LINK_LASTS, MOST, Sessions


def routes() -> list[tuple[str, str]]:
    """Every route of the API, with a value in each place of its path."""
    fill = {
        "thread": "floor",
        "proposal_id": "p-000000000000",
        "incident_id": "i-000000000000",
        "command": "status",
        "run_id": "00000000-0000-4000-8000-000000000000",
    }
    return [
        (method, route.path.format(**fill))  # type: ignore[attr-defined]
        for route in (*router.routes, *lists.routes, *charts.routes)
        for method in sorted(route.methods)  # type: ignore[attr-defined]
        if "/sign-in" not in route.path  # type: ignore[attr-defined]
    ]


@contextmanager
def signed_in(port: ConsoleStack, name: str = "pat") -> Iterator[tuple[httpx.Client, str]]:
    """A client with a browser's session, and the session's second secret."""
    with port.client() as client:
        reply = client.post("/api/sign-in", json={"code": port.sessions.issue_code(port.tokens[name])})
        assert reply.status_code == 200, reply.text
        yield client, reply.json()["csrf"]


def test_nothing_is_answered_without_identity(port: ConsoleStack) -> None:
    with port.client() as client:
        for method, path in routes():
            reply = client.request(method, path)
            assert reply.status_code == 401, (method, path, reply.text)
            assert set(reply.json()) == {"error"}
        assert client.get("/api/openapi.json").status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert client.get("/api/me", headers=wrong).status_code == 401


def test_a_one_time_link_signs_in_once(port: ConsoleStack) -> None:
    code = port.sessions.issue_code(port.tokens["pat"])
    with port.client() as first, port.client() as second:
        reply = first.post("/api/sign-in", json={"code": code})
        assert reply.json()["name"] == "pat"
        cookie = reply.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert first.get("/api/me").json()["roles"] == ["admin", "operator"]
        assert second.post("/api/sign-in", json={"code": code}).status_code == 401
        assert second.get("/api/me").status_code == 401


def test_a_password_signs_in_and_guessing_is_slowed_down(port: ConsoleStack) -> None:
    port.book.set_password("ann", PASSWORD)
    with port.client() as client:
        assert client.post("/api/sign-in", json={"name": "ann", "password": PASSWORD}).json()["name"] == "ann"
    with port.client() as client:
        for _ in range(5):
            assert client.post("/api/sign-in", json={"name": "ann", "password": "x"}).status_code == 401
        assert client.post("/api/sign-in", json={"name": "ann", "password": PASSWORD}).status_code == 429


def test_a_cookie_changes_nothing_without_the_second_secret(port: ConsoleStack) -> None:
    with signed_in(port) as (client, csrf):
        assert client.post("/api/threads", json={}).status_code == 403
        assert client.post("/api/threads", json={}, headers={"X-CSRF-Token": "x"}).status_code == 403
        foreign = {"X-CSRF-Token": csrf, "Origin": "http://evil.example"}
        assert (
            client.post("/api/threads", json={}, headers=foreign).json()["error"]["kind"] == "foreign-origin"
        )
        assert client.post("/api/threads", json={}, headers={"X-CSRF-Token": csrf}).status_code == 201


def test_another_site_can_neither_sign_somebody_in_nor_read(port: ConsoleStack) -> None:
    code = port.sessions.issue_code(port.tokens["pat"])
    with port.client() as client:
        foreign = {"Origin": "http://evil.example"}
        assert client.post("/api/sign-in", json={"code": code}, headers=foreign).status_code == 403
        assert client.post("/api/sign-in", json={"code": code}).status_code == 200


def test_who_is_taken_out_of_the_users_file_is_signed_out(
    port: ConsoleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.console.web.auth.KNOWN_FOR", 0.0)
    with signed_in(port, "vic") as (client, _):
        assert client.get("/api/threads").status_code == 200
        text = port.paths.users.read_text()
        port.paths.users.write_text(text.replace('[users."vic"]', '[users."gone"]'))
        assert client.get("/api/me").json().get("name") == "gone"
        port.paths.users.write_text(text[: text.index('[users."vic"]')])
        assert client.get("/api/threads").status_code == 401


def test_signing_out_ends_the_session(port: ConsoleStack) -> None:
    with signed_in(port) as (client, csrf):
        kept = client.cookies[COOKIE]
        assert client.post("/api/sign-out", headers={"X-CSRF-Token": csrf}).status_code == 204
        assert client.get("/api/me", headers={"Cookie": f"{COOKIE}={kept}"}).status_code == 401


def test_a_narrow_token_is_narrow(port: ConsoleStack) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    token = port.book.add_token("pat", "ci", roles=("operator",), until=until)
    port.tokens["ci"] = token
    with port.client("ci") as client:
        assert client.get("/api/me").json()["roles"] == ["operator"]
        assert client.post("/api/resume").status_code == 403


def test_only_our_own_host_names_are_served(port: ConsoleStack) -> None:
    with port.client("pat") as client:
        assert client.get("/api/me", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("path", ["/", "/api/me", "/api/nowhere"])
def test_every_answer_carries_the_strict_headers(port: ConsoleStack, path: str) -> None:
    with port.client("pat") as client:
        reply = client.get(path)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_sessions_and_codes_end() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    user = User(name="ann", roles=frozenset(), token="t")
    key, _ = sessions.open(user)
    code = sessions.issue_code("t")
    clock.now = LINK_LASTS
    assert sessions.redeem(code) is None
    assert sessions.find(key) is not None
    clock.now += IDLE
    assert sessions.find(key) is None


def test_sessions_do_not_grow_without_end() -> None:
    sessions = Sessions(Clock())
    user = User(name="ann", roles=frozenset(), token="t")
    keys = [sessions.open(user)[0] for _ in range(MOST + 5)]
    assert sum(sessions.find(key) is not None for key in keys) == MOST
