"""Who may read, write into and interrupt a conversation: in the engine, over HTTP, in lists and in streams."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx
import pytest
from tests.console.console_stack import ConsoleStack

from pilotage.console.session.events import ACTIVITY_FEED, Thread
from pilotage.console.session.ports import User
from pilotage.console.session.services import user_with
from pilotage.console.session.thread_access import Deed, why_not
from pilotage.flows.api.client import ApiRejection
from pilotage.telemetry.times import utc_now

T = TypeVar("T")


def person(name: str, *roles: str, teams: tuple[str, ...] = ()) -> User:
    return User(name=name, roles=frozenset(roles or ("viewer",)), teams=frozenset(teams), token="t")


ANNS = Thread(id="t-1", title="", by="ann", at=utc_now())
READ = Thread(id="t-1", title="", by="ann", at=utc_now(), shares={"bob": False, "team:data": False})
WRITE = Thread(id="t-1", title="", by="ann", at=utc_now(), shares={"bob": True, "team:data": True})
FEED = Thread(id=ACTIVITY_FEED, title="", by="pilotage", at=utc_now())
ANN, BOB, DAN = person("ann"), person("bob"), person("dan", teams=("data",))
EVE, ROOT = person("eve", "approver", "operator", teams=("dat", "team:data")), person("root", "admin")


@pytest.mark.parametrize(
    ("thread", "deed", "may"),
    [
        (ANNS, "read", {"ann", "root"}),
        (ANNS, "write", {"ann"}),
        (ANNS, "interrupt", {"ann", "root"}),
        (READ, "read", {"ann", "bob", "dan", "root"}),
        (READ, "write", {"ann"}),
        (READ, "interrupt", {"ann", "root"}),
        (WRITE, "read", {"ann", "bob", "dan", "root"}),
        (WRITE, "write", {"ann", "bob", "dan"}),
        (WRITE, "interrupt", {"ann", "bob", "root"}),
        (FEED, "read", {"ann", "bob", "dan", "eve", "root"}),
        (FEED, "write", {"ann", "bob", "dan", "eve", "root"}),
        (FEED, "interrupt", {"bob", "root"}),
    ],
)
def test_the_table_of_who_may_do_what(thread: Thread, deed: Deed, may: set[str]) -> None:
    people = (ANN, BOB, DAN, EVE, ROOT)
    assert {who.name for who in people if not why_not(who, thread, deed, asked_by="bob")} == may
    assert "ann's" in why_not(EVE, ANNS, deed)


def on(port: ConsoleStack, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, port.loop).result(60)


def say(port: ConsoleStack, who: str, thread: str, words: str) -> list[Any]:
    user = user_with(port.paths, port.tokens[who])

    async def turn() -> int:
        said = await port.engine.say(user, thread, words)
        await port.engine.wait(thread)
        return said.seq

    return port.engine.log.after(on(port, turn()), thread)


def test_a_conversation_is_its_owners_until_it_is_shared(port: ConsoleStack) -> None:
    with port.client("ann") as ann, port.client("vic") as vic:
        thread = ann.post("/api/threads", json={"title": "a zebra"}).json()["id"]
        said = ann.post(f"/api/threads/{thread}/messages", json={"text": "/whoami"})
        assert said.status_code == 202
        assert vic.get(f"/api/threads/{thread}/events").status_code == 403
        assert vic.get("/api/threads", params={"search": "zebra"}).json() == []
        assert vic.get("/api/stream", params={"thread": thread}).status_code == 403
        for refused in (
            vic.post(f"/api/threads/{thread}/messages", json={"text": "hello"}),
            vic.post(f"/api/threads/{thread}/interrupt"),
        ):
            assert (refused.status_code, refused.json()["error"]["kind"]) == (403, "not-shared")
        say(port, "ann", thread, "/share vic read")
        assert [each["id"] for each in vic.get("/api/threads", params={"search": "zebra"}).json()] == [thread]
        assert vic.get(f"/api/threads/{thread}/events").status_code == 200
        assert vic.post(f"/api/threads/{thread}/messages", json={"text": "hello"}).status_code == 403
        say(port, "ann", thread, "/share vic")
        assert vic.post(f"/api/threads/{thread}/messages", json={"text": "/whoami"}).status_code == 202
        say(port, "ann", thread, "/unshare vic")
        assert vic.post(f"/api/threads/{thread}/messages", json={"text": "hello"}).status_code == 403
    rows = [dict(row) for row in port.ledger.entries(0, 10_000)]
    assert sum(row["actor"] == "vic" and "refused" in str(row["step"]) for row in rows) == 4


def test_only_its_owner_shares_a_conversation(port: ConsoleStack) -> None:
    thread = port.engine.log.open_thread("ann").id
    port.engine.log.share(thread, "vic", "ann", writes=True)
    (problem,) = [row for row in say(port, "vic", thread, "/share pat") if row.type == "error"]
    assert "ann's, who alone may share it" in problem.payload["text"]
    known = port.engine.log.thread(thread)
    assert known is not None
    assert dict(known.shares) == {"vic": True}


def test_nobody_forks_resumes_or_edits_into_a_conversation_that_is_not_theirs(port: ConsoleStack) -> None:
    vic = user_with(port.paths, port.tokens["vic"])
    thread = port.engine.log.open_thread("ann", "secret plans").id
    with pytest.raises(ApiRejection, match="ann's"):
        port.engine.fork(vic, thread)
    with pytest.raises(ApiRejection, match="ann's"):
        port.engine.open_thread(vic, "", thread)
    row = port.proposal(port.failed_run())
    with pytest.raises(ApiRejection, match="ann's"):
        on(port, port.engine.edit(vic, row["proposal_id"], {}, thread))
    assert not port.engine.log.after(0, thread)
    assert "secret plans" not in str([row.payload for row in say(port, "vic", ACTIVITY_FEED, "/history")])


def test_the_stream_of_everything_leaves_out_what_its_listener_may_not_read(port: ConsoleStack) -> None:
    log = port.engine.log
    hers, his, both = log.open_thread("ann").id, log.open_thread("vic").id, log.open_thread("ann").id
    log.share(both, "vic", "ann", writes=False)
    log.append(hers, "said", "ann", {"text": "before"})
    start, heard = log.last_seq(), []
    log.append(hers, "said", "ann", {"text": "kept"})  # behind the listener's start, and below in memory
    listening = threading.Event()

    def listen() -> None:
        with (
            port.client("vic") as client,
            client.stream("GET", "/api/stream", params={"after": start}) as response,
        ):
            for line in response.iter_lines():
                listening.set()
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
                    if heard[-1]["payload"].get("text") == "end":
                        return

    listener = threading.Thread(target=listen)
    listener.start()
    assert listening.wait(30)
    for thread in (hers, his, hers, both, ACTIVITY_FEED):
        log.append(thread, "said", "x", {"text": f"in {thread}"})
    log.append(his, "said", "vic", {"text": "end"})
    listener.join(60)
    assert {each["thread"] for each in heard} >= {his, both, ACTIVITY_FEED}
    assert hers not in {each["thread"] for each in heard}


def test_an_answer_is_interrupted_by_who_asked_or_owns_or_administers(port: ConsoleStack) -> None:
    thread = port.engine.log.open_thread("ann").id
    port.engine.log.share(thread, "vic", "ann", writes=True)
    began, go_on = threading.Event(), threading.Event()

    async def slow(*arguments: Any) -> None:
        began.set()
        while not go_on.is_set():
            await asyncio.sleep(0.01)

    ann = user_with(port.paths, port.tokens["ann"])
    on(port, port.engine._start(ann, thread, "a question", slow))
    assert began.wait(10)

    def interrupt(client: httpx.Client) -> int:
        return client.post(f"/api/threads/{thread}/interrupt").status_code

    with port.client("vic") as vic, port.client("pat") as admin:
        assert interrupt(vic) == 403
        assert interrupt(admin) == 204
    on(port, port.engine.wait(thread))
    assert not go_on.is_set()
    assert [row.payload.get("text") for row in port.engine.log.newest(thread, "answer")] == ["Stopped."]
