"""The API: conversations, the stream, votes and what they come to, on a real API and ledger."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from tests.console.console_stack import ConsoleStack

from pilotage.console.web.sse import Tail
from pilotage.planner.actions.types import RetryRun


def frames(response: httpx.Response) -> Iterator[dict[str, str]]:
    """The server-sent events of a response."""
    found: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in found:
                yield found
            found = {}
        elif not line.startswith(":"):
            key, _, value = line.partition(": ")
            found[key] = value


def said_and_done(client: httpx.Client, thread: str, text: str) -> list[dict[str, object]]:
    """The events of one turn, once it has ended."""
    seq = client.post(f"/api/threads/{thread}/messages", json={"text": text}).json()["seq"]
    deadline = time.monotonic() + 60
    while True:
        events: list[dict[str, object]] = client.get(
            f"/api/threads/{thread}/events", params={"after": seq}
        ).json()
        if any(each["type"] in ("answer", "done") for each in events):
            return events
        assert time.monotonic() < deadline, events
        time.sleep(0.05)


def test_a_question_is_answered_in_its_thread(port: ConsoleStack) -> None:
    run_id = port.failed_run()
    with port.client("vic") as client:
        thread = client.post("/api/threads", json={"title": "what failed?"}).json()["id"]
        events = said_and_done(client, thread, f"why did {run_id} fail?")
        kinds = [each["type"] for each in events]
        assert kinds[-1] == "answer"
        assert "tool_call" in kinds
        answer = events[-1]["payload"]
        assert isinstance(answer, dict)
        assert run_id in answer["text"]
        assert answer["by"] == "rules"
        found = client.get("/api/threads", params={"search": "what failed"}).json()
        assert [each["id"] for each in found] == [thread]


def test_the_stream_resumes_where_a_reader_left_off(port: ConsoleStack) -> None:
    with port.client("pat") as client:
        thread = client.post("/api/threads", json={}).json()["id"]
        said_and_done(client, thread, "/whoami")
        whole: list[dict[str, str]] = []
        with client.stream("GET", "/api/stream", params={"thread": thread}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for found in frames(response):
                whole.append(found)
                if found["event"] == "done":
                    break
        middle = whole[0]["id"]
        with client.stream(
            "GET", "/api/stream", params={"thread": thread}, headers={"Last-Event-ID": middle}
        ) as response:
            first = next(frames(response))
        assert first == whole[1]
        assert [json.loads(each["data"])["seq"] for each in whole] == [int(each["id"]) for each in whole]


def test_a_stream_ends_by_itself_so_that_its_reader_proves_again_who_it_is(port: ConsoleStack) -> None:
    async def all_of_it() -> bytes:
        tail = Tail(port.engine.log)
        return b"".join([each async for each in tail.frames(0, None, lasts=0.0, seen=lambda thread: True)])

    assert b"listening" in asyncio.run(all_of_it())


def test_a_listener_far_behind_reads_the_file_and_then_the_memory(
    port: ConsoleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotage.console.web.sse.KEPT", 10)
    thread, other = (port.engine.log.open_thread("vic").id for _ in range(2))
    with port.client("vic") as client:
        with client.stream("GET", "/api/stream", params={"thread": thread}) as response:
            found = frames(response)
            for n in range(60):
                port.engine.log.append(thread if n % 2 else other, "delta", "pilotage", {"n": n})
            heard = [json.loads(next(found)["data"])["payload"]["n"] for _ in range(30)]
        with client.stream("GET", "/api/stream", params={"thread": thread}) as response:
            late = frames(response)
            again = [json.loads(next(late)["data"])["payload"]["n"] for _ in range(30)]
    assert heard == again == list(range(1, 60, 2))


def test_many_listeners_get_every_event_once_and_in_order(port: ConsoleStack) -> None:
    thread = port.engine.log.open_thread("vic").id
    total, heard = 300, {}
    ready = threading.Barrier(9)

    def listen(number: int) -> None:
        with (
            port.client("vic") as client,
            client.stream("GET", "/api/stream", params={"thread": thread}) as response,
        ):
            ready.wait(30)
            found = []
            for each in frames(response):
                found.append(json.loads(each["data"])["payload"]["n"])
                if found[-1] == total - 1:
                    break
            heard[number] = found

    threads = [threading.Thread(target=listen, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    ready.wait(30)
    for n in range(total):
        port.engine.log.append(thread, "delta", "pilotage", {"n": n})
    for each in threads:
        each.join(60)
    assert list(heard.values()) == [list(range(total))] * 8


def test_a_vote_is_counted_injected_and_verified_in_the_thread_that_shows_the_card(
    port: ConsoleStack,
) -> None:
    filed = port.proposal(port.failed_run())
    proposal_id = filed["proposal_id"]
    with port.client("ann") as ann:
        card = ann.get(f"/api/proposals/{proposal_id}").json()
        assert card["verdict"] == "needs_approval"
        assert card["open"]
        thread = ann.post("/api/threads", json={}).json()["id"]
        port.engine.log.append(thread, "card", "pilotage", {"card": card})
        voted = ann.post(
            f"/api/proposals/{proposal_id}/vote",
            json={"digest": card["digest"], "decision": "approve", "reason": "seen"},
        )
        assert voted.status_code == 200, voted.text
        assert voted.json()["status"] == "allowed"
        port.work()
        port.watch()
        events = ann.get(f"/api/threads/{thread}/events").json()
        steps = [each["payload"]["step"] for each in events if each["type"] == "step"]
        assert "verified" in steps
        cards = [each["payload"]["card"]["status"] for each in events if each["type"] == "card"]
        assert cards[-1] == "verified"
    assert port.lever.executed == 1


def test_a_viewer_is_refused_and_a_stale_card_as_well(port: ConsoleStack) -> None:
    proposal_id = port.proposal(port.failed_run())["proposal_id"]
    with port.client("vic") as vic, port.client("ann") as ann:
        card = vic.get(f"/api/proposals/{proposal_id}").json()
        vote = {"digest": card["digest"], "decision": "approve"}
        assert vic.post(f"/api/proposals/{proposal_id}/vote", json=vote).status_code == 403
        other = {"digest": "0" * 64, "decision": "approve"}
        stale = ann.post(f"/api/proposals/{proposal_id}/vote", json=other)
        assert (stale.status_code, stale.json()["error"]["kind"]) == (409, "stale")
        assert ann.post(f"/api/proposals/{proposal_id}/vote", json=vote).status_code == 200
        port.work()
        late = ann.post(f"/api/proposals/{proposal_id}/vote", json=vote)
        assert (late.status_code, late.json()["error"]["kind"]) == (409, "stale")


def test_one_answer_to_many_has_a_result_for_each(port: ConsoleStack) -> None:
    filed = [port.proposal(port.failed_run()) for _ in range(2)]
    items = [{"proposal_id": each["proposal_id"], "digest": each["digest"]} for each in filed]
    items.append({"proposal_id": "p-000000000000", "digest": "0" * 64})
    with port.client("ann") as ann:
        results = ann.post("/api/votes", json={"decision": "reject", "reason": "no", "items": items}).json()
    assert [each["ok"] for each in results["results"]] == [True, True, False]
    assert "there is none" in results["results"][2]["error"]


def test_the_plan_of_an_incident_gets_one_answer_as_it_was_seen(port: ConsoleStack) -> None:
    incident_id, _ = port.plan_of(3)
    with port.client("ann") as ann, port.client("vic") as vic:
        found = vic.get(f"/api/incidents/{incident_id}").json()
        seen = {row["proposal_id"]: row["digest"] for row in found["proposals"][:2]}
        given = {"decision": "approve", "seen": seen}
        assert not any(
            one["counted"]
            for one in vic.post(f"/api/incidents/{incident_id}/vote", json=given).json()["results"]
        )
        assert vic.post(f"/api/incidents/{incident_id}/ack", json={}).status_code == 403
        reply = ann.post(f"/api/incidents/{incident_id}/vote", json=given).json()
        assert [one["counted"] for one in reply["results"]] == [True, True]
        assert sorted(row["status"] for row in reply["incident"]["proposals"]) == [
            "allowed",
            "allowed",
            "needs_approval",
        ]
        looks = ann.post(f"/api/incidents/{incident_id}/ack", json={"reason": "at my desk"}).json()
        assert looks["acknowledged"]["by"] == "ann"
        assert ann.get("/api/incidents/i-ffffffffffff").status_code == 404


def test_an_edited_proposal_is_a_new_one_of_the_editor(port: ConsoleStack) -> None:
    run_id = port.failed_run()
    filed = port.proposal(action=RetryRun(run_id=run_id, delay=timedelta(seconds=30)))
    with port.client("pat") as pat:
        card = pat.get(f"/api/proposals/{filed['proposal_id']}").json()
        made = pat.post(
            f"/api/proposals/{filed['proposal_id']}/edit",
            json={"action": {**card["action"], "delay": "PT60S"}},
        )
        assert made.status_code == 201, made.text
        assert made.json()["proposal_id"] != filed["proposal_id"]
        assert made.json()["proposer"] == "pat"
        wrong = pat.post(f"/api/proposals/{filed['proposal_id']}/edit", json={"action": {"kind": "rm -rf"}})
        assert wrong.status_code in (400, 422)


def test_a_snoozed_card_is_a_row_for_its_person(port: ConsoleStack) -> None:
    proposal_id = port.proposal(port.failed_run())["proposal_id"]
    with port.client("ann") as ann:
        assert ann.post(f"/api/proposals/{proposal_id}/snooze", json={"minutes": 30}).status_code == 202
        events = ann.get("/api/threads/floor/events").json()
        assert (events[-1]["type"], events[-1]["by"]) == ("snoozed", "ann")


def test_an_approver_lends_the_right_to_approve(port: ConsoleStack) -> None:
    proposal_id = port.proposal(port.failed_run())["proposal_id"]
    with port.client("ann") as ann, port.client("vic") as vic:
        issue_session_token = {"to": "vic", "hours": 1, "reason": "asleep"}
        assert vic.post("/api/delegations", json={**issue_session_token, "to": "ann"}).status_code == 403
        assert ann.post("/api/delegations", json={**issue_session_token, "to": "nobody"}).status_code == 404
        assert ann.post("/api/delegations", json=issue_session_token).json()["taker"] == "vic"
        card = vic.get(f"/api/proposals/{proposal_id}").json()
        vote = {"digest": card["digest"], "decision": "approve"}
        assert vic.post(f"/api/proposals/{proposal_id}/vote", json=vote).json()["status"] == "allowed"


def test_the_kill_switch_is_shown_to_everybody(port: ConsoleStack) -> None:
    with port.client("pat") as pat, port.client("vic") as vic:
        assert "smoke" in pat.post("/api/stop", json={"reason": "smoke"}).json()["stopped"]
        assert "smoke" in vic.get("/api/me").json()["stopped"]
        port.watch()
        notices = [e for e in vic.get("/api/threads/floor/events").json() if e["type"] == "notice"]
        assert "smoke" in notices[-1]["payload"]["stopped"]


def test_what_is_not_there_is_404_and_what_is_malformed_422(port: ConsoleStack) -> None:
    with port.client("pat") as client:
        assert client.get("/api/threads/t-nowhere/events").status_code == 404
        assert client.get("/api/proposals/p-000000000000").status_code == 404
        assert client.get("/api/proposals/nonsense").status_code == 422
        assert client.get("/api/show/nothing").status_code == 404
        assert client.post("/api/threads/floor/messages", json={"text": ""}).status_code == 422
        assert client.post("/api/threads/floor/messages", content=b"{").status_code == 422
        assert client.get("/api/nowhere").json()["error"]["kind"] == "not-found"


@pytest.mark.parametrize("command", ["status", "incidents", "inbox", "whoami", "help"])
def test_what_only_reads_can_be_shown(port: ConsoleStack, command: str) -> None:
    with port.client("vic") as client:
        shown = client.get(f"/api/show/{command}")
    assert shown.status_code == 200, shown.text
    assert shown.json()["blocks"]


def test_what_changes_something_cannot_be_shown(port: ConsoleStack) -> None:
    with port.client("pat") as client:
        assert client.get("/api/show/stop").status_code == 404
        assert client.get("/api/me").json()["stopped"] == ""
