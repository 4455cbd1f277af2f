"""Whoever is known and is refused a change leaves a row in the audit log, whichever layer said no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from tests.console.console_stack import ConsoleStack
from tests.console.web.test_http_access import signed_in

from pilotage.console.web.routes import router
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.refused_requests import MOST_A_MINUTE

NOBODYS = "p-000000000000"
READS = frozenset(
    {
        *(
            "consider",
            "offered",
            "whoami",
            "status",
            "incidents",
            "incident",
            "handover",
            "proposals",
            "proposal",
            "resolve",
            "why",
        ),
        *("audit_verify", "autonomy", "grants", "entries", "levers", "surroundings", "waits", "permissions"),
        *(
            "record_forecasts",
            "record_spans",
            "measures",
            "proposal_page",
            "proposal_choices",
            "incident_page",
            "audit_page",
            "holds",
        ),
    }
)
"""Operations that decide and carry out nothing."""
BODIES: tuple[Mapping[str, Any], ...] = (
    {},
    {"nonsense": 1},
    {"digest": "0" * 64, "decision": "approve", "reason": "x"},
    {"decision": "approve", "items": [{"proposal_id": NOBODYS, "digest": "0" * 64}]},
    {"to": "nobody", "hours": 1, "reason": "x"},
    {"reason": "x"},
    {"action": {"kind": "retry_run", "run_id": "r"}, "thread": "floor"},
)


def rows_of(port: ConsoleStack, name: str) -> list[dict[str, Any]]:
    """The refusals of this person in the audit log."""
    entries = port.ledger.entries(0, 10_000)
    return [dict(e) for e in entries if e["actor"] == name and "refused" in str(e["step"])]


def writing_routes() -> list[str]:
    fill = {"thread": "no-such-thread", "proposal_id": NOBODYS, "incident_id": "i-000000000000"}
    paths = [
        route.path.format(**fill)  # type: ignore[attr-defined]
        for route in router.routes
        if "POST" in route.methods  # type: ignore[attr-defined]
    ]
    return [path for path in paths if not path.endswith(("/sign-in", "/sign-out"))]


@pytest.mark.parametrize("path", writing_routes())
def test_each_route_that_writes(port: ConsoleStack, path: str) -> None:
    with port.client("vic") as client:
        for sent in BODIES:
            before = len(rows_of(port, "vic"))
            reply = client.post(path, json=sent)
            refused = reply.status_code >= 400 or not all(r["ok"] for r in reply.json().get("results", ()))
            assert len(rows_of(port, "vic")) - before == refused, (sent, reply.text)


def test_a_refused_vote_says_who_on_what_and_why(port: ConsoleStack) -> None:
    waiting = port.proposal()
    with port.client("vic") as client:
        vote = {"digest": waiting["digest"], "decision": "approve", "reason": ""}
        stale = {**vote, "digest": "0" * 64}
        assert client.post(f"/api/proposals/{waiting['proposal_id']}/vote", json=vote).status_code == 403
        assert client.post(f"/api/proposals/{waiting['proposal_id']}/vote", json=stale).status_code == 409
    by_policy, out_of_date = rows_of(port, "vic")
    assert (by_policy["step"], by_policy["proposal_id"]) == ("vote_refused", waiting["proposal_id"])
    assert out_of_date["detail"]["command"] == "POST /api/proposals/{proposal_id}/vote"
    assert (out_of_date["detail"]["kind"], out_of_date["detail"]["proposal"]) == (
        "stale",
        waiting["proposal_id"],
    )
    assert "Look at it again" in out_of_date["detail"]["verdict"]["reasons"][0]


def test_a_request_that_our_page_did_not_send_is_a_row_of_whose_session_it_used(port: ConsoleStack) -> None:
    with signed_in(port) as (client, csrf):
        assert client.post("/api/stop", json={"reason": "x"}).status_code == 403
        foreign = {"X-CSRF-Token": csrf, "Origin": "http://evil.example"}
        assert client.post("/api/stop", json={"reason": "x"}, headers=foreign).status_code == 403
    assert [row["detail"]["kind"] for row in rows_of(port, "pat")] == ["no-csrf", "foreign-origin"]


def test_nobody_leaves_no_row(port: ConsoleStack) -> None:
    before = port.ledger.entries(0, 10_000)
    with port.client() as client:
        assert client.post("/api/stop", json={"reason": "x"}).status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert client.post("/api/stop", json={"reason": "x"}, headers=wrong).status_code == 401
    assert port.ledger.entries(0, 10_000) == before


def test_each_operation_that_decides_is_marked_so(port: ConsoleStack) -> None:
    assert {name for name, each in port.operations.items() if not each.changes} == READS


def test_each_operation_that_decides(port: ConsoleStack) -> None:
    api = port.control_api("vic")
    for name, operation in port.operations.items():
        if not operation.changes:
            continue
        for arguments in ({}, {"proposal_id": NOBODYS}, {"nonsense": 1}):
            before = len(rows_of(port, "vic"))
            with pytest.raises(ApiRejection) as refusal:
                api.call(name, **arguments)
            assert (refusal.value.recorded, len(rows_of(port, "vic")) - before) == (True, 1), (
                name,
                arguments,
            )


def test_who_is_refused_without_end_does_not_fill_the_log(port: ConsoleStack) -> None:
    api = port.control_api("vic")
    for _ in range(MOST_A_MINUTE + 20):
        with pytest.raises(ApiRejection):
            api.call("vote")
    assert len(rows_of(port, "vic")) == MOST_A_MINUTE


def test_a_secret_in_a_refused_request_is_not_kept(port: ConsoleStack) -> None:
    with pytest.raises(ApiRejection):
        port.control_api("vic").call("vote", proposal_id="password=hunter2", digest="", decision="approve")
    assert "hunter2" not in str(rows_of(port, "vic"))


def test_what_only_reads_leaves_no_row(port: ConsoleStack) -> None:
    with port.client("vic") as client:
        replies: list[httpx.Response] = [
            client.get(f"/api/proposals/{NOBODYS}"),
            client.get("/api/show/nothing"),
            client.get("/api/threads/none/events"),
        ]
    assert [reply.status_code for reply in replies] == [404, 404, 404]
    assert rows_of(port, "vic") == []
