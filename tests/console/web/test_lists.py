"""The lists over HTTP and as commands: true counts, every row reachable, filters, what a person put off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.console.console_stack import ConsoleStack

from pilotage.console.session.commands.registry import COMMANDS
from pilotage.console.session.ports import User
from pilotage.flows.api.client import ApiRejection

MANY = 13


@pytest.fixture
def crowd(port: ConsoleStack) -> ConsoleStack:
    """A console with more that waits than fits on a page of five."""
    for number in range(MANY):
        port.proposal(
            port.failed_run(name=f"run-{number}"), p_fail=number / 100, error=f"error-{number:02d} came"
        )
    return port


def pages(port: ConsoleStack, name: str, path: str, **wanted: Any) -> list[dict[str, Any]]:
    """Every row of a list, page by page."""
    rows: list[dict[str, Any]] = []
    after = ""
    with port.client(name) as client:
        while True:
            reply = client.get(path, params={**wanted, "after": after, "limit": 5})
            assert reply.status_code == 200, reply.text
            page = reply.json()
            rows += page["rows"]
            if not (after := page["next"]):
                assert page["count"] == len(rows)
                return rows


def said(port: ConsoleStack, name: str, line: str) -> list[dict[str, Any]]:
    """The blocks of a command of this person."""
    command, _, rest = line.partition(" ")
    user = User(name=name, roles=frozenset(), token=port.tokens[name])
    setting = port.engine.setting(user)
    found = asyncio.run_coroutine_threadsafe(setting, port.loop).result(30)
    return COMMANDS[command].run(found, rest)


def test_every_proposal_is_reached_and_rows_differ(crowd: ConsoleStack) -> None:
    for sort in ("newest", "oldest", "expiry", "risk", "deployment"):
        rows = pages(crowd, "ann", "/api/lists/proposals", status="needs_approval", sort=sort)
        assert len({row["proposal_id"] for row in rows}) == MANY
        assert {row["run_name"] for row in rows} == {f"run-{number}" for number in range(MANY)}
    assert pages(crowd, "ann", "/api/lists/proposals", sort="risk")[0]["p_fail"] == 0.12
    (one,) = pages(crowd, "ann", "/api/lists/proposals", words="ERROR-07")
    assert (one["run_name"], one["deployment"], one["missing"]) == ("run-7", "etl/nightly", {"approver": 1})
    with crowd.client("ann") as client:
        assert client.get("/api/lists/choices", params={"status": "needs_approval"}).json()["deployment"] == {
            "etl/nightly": MANY
        }


def test_what_is_put_off_is_counted_apart(crowd: ConsoleStack) -> None:
    rows = pages(crowd, "ann", "/api/lists/proposals", status="needs_approval")
    with crowd.client("ann") as client:
        client.post(f"/api/proposals/{rows[0]['proposal_id']}/snooze", json={"minutes": 5})
        page = client.get("/api/lists/proposals", params={"status": "needs_approval", "limit": 3}).json()
        assert (page["count"], page["asleep"]) == (MANY - 1, 1)
        whole = {"status": "needs_approval", "snoozed": "true", "limit": "200"}
        shown = client.get("/api/lists/proposals", params=whole).json()
    assert (shown["count"], shown["asleep"]) == (MANY, 0)
    assert [row["snoozed_until"] is not None for row in shown["rows"]].count(True) == 1
    assert len(pages(crowd, "pat", "/api/lists/proposals", status="needs_approval")) == MANY


def test_what_waits_for_somebody_is_what_they_can_approve(crowd: ConsoleStack) -> None:
    for name, many in (("ann", MANY), ("vic", 0)):
        rows = pages(crowd, name, "/api/lists/proposals", status="needs_approval", mine=True)
        assert len(rows) == many
    row = pages(crowd, "ann", "/api/lists/proposals", status="needs_approval")[0]
    with crowd.client("vic") as client:
        card = client.get(f"/api/proposals/{row['proposal_id']}").json()
        assert "approver is needed" in card["you"]["approve"]
    with crowd.client("ann") as client:
        assert client.get(f"/api/proposals/{row['proposal_id']}").json()["you"]["approve"] == ""


def test_incidents_runs_and_the_audit_log_are_paged_too(crowd: ConsoleStack) -> None:
    incidents = pages(crowd, "vic", "/api/lists/incidents", state="open")
    assert len({row["incident_id"] for row in incidents}) == MANY
    assert incidents[0]["says"].startswith("transient of etl/nightly: error-")
    runs = pages(crowd, "vic", "/api/lists/runs", state="failed")
    assert len({row["run_id"] for row in runs}) == MANY
    assert pages(crowd, "vic", "/api/lists/runs", deployment="etl/other") == []
    entries = pages(crowd, "vic", "/api/lists/audit", changes=True)
    assert {row["step"] for row in entries} <= {"proposed", "mode_set"}
    every = pages(crowd, "vic", "/api/lists/audit")
    assert [row["seq"] for row in every] == sorted((row["seq"] for row in every), reverse=True)
    assert len(every) - len(entries) == MANY


@pytest.mark.parametrize(
    "path",
    [
        "proposals?after=x",
        "proposals?sort=x",
        "incidents?state=x",
        "audit?after=x",
        "runs?after=x",
        "runs?x=1",
    ],
)
def test_what_is_no_page_of_a_list_is_refused(port: ConsoleStack, path: str) -> None:
    with port.client("vic") as client:
        reply = client.get(f"/api/lists/{path}")
        assert reply.status_code in (400, 422), reply.text
        assert reply.json()["error"]["message"]


def test_commands_page_filter_and_count_truly(crowd: ConsoleStack) -> None:
    (table,) = said(crowd, "ann", "inbox sort=risk came")
    assert len(table["rows"]) == MANY
    assert table["digests"].keys() == {row[0]["text"] for row in table["rows"]}
    with pytest.raises(ApiRejection, match="this list knows"):
        said(crowd, "ann", "inbox colour=red")
    (incidents, counted) = said(crowd, "ann", "incidents state=open")
    assert len(incidents["rows"]) == MANY
    assert counted["text"].startswith(f"{MANY} open, 0 over.")
    (status, _) = said(crowd, "ann", "status")
    assert status["pairs"]["incidents open"].startswith(f"{MANY}, the oldest for ")
    (runs,) = said(crowd, "ann", "runs run-1 state=failed")
    assert {row[1]["text"] for row in runs["rows"]} == {"run-1", "run-10", "run-11", "run-12"}
