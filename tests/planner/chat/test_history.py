"""What a conversation remembers: over the death of its process, within a budget, one person's apart from another's,
and no secret."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from tests.planner.planner_fixture import NoApi

from pilotage.planner.chat.agent import ChatAgent
from pilotage.planner.chat.history import forgotten
from pilotage.planner.chat.parts import ChatPart
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.checkpoints import SqliteCheckpoints
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.llm.protocol import CHARS_PER_TOKEN
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import hang, text, tool
from pilotage.telemetry.store.duckdb import DuckDBStore

SECRET = "ghp_abcdefghijklmnopqrstuvwxyz012345"
RARER = "SK" + 2 * "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path, make: Any) -> Iterator[DuckDBStore]:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    store.merge_runs([make.run()])
    store.add_queues([make.queue("fast", 1, running=2, waiting=3)])
    yield store
    store.close()


def ask(
    base_url: str, store: DuckDBStore, file: Path, *questions: str, person: str = "ann", tokens: int = 8000
) -> list[ChatPart]:
    """The last part of each answer, by an agent that ends with them."""

    async def go() -> list[ChatPart]:
        model = OpenAIModel(base_url=base_url, api_key="k", model="m", max_retries=0, timeout=60)
        agent = ChatAgent(
            tools=Toolbox(store=store, control_api=cast("Any", NoApi())),
            model=model,
            memory=SqliteCheckpoints(file),
            remembered_tokens=tokens,
            person=person,
        )
        finals = []
        for question in questions:
            [*parts] = [part async for part in agent.answer(question, "t-1")]
            finals.append(parts[-1])
        await model.aclose()
        return finals

    return asyncio.run(go())


def shown(request: dict[str, Any]) -> list[str]:
    """What a model was shown, without our own prompt: who said it, and the words."""
    return [f"{m['role']}: {m['content']}" for m in request["messages"] if m["role"] != "system"]


CHILD = """
import sys
from pathlib import Path
from tests.planner.chat.test_history import ask
from pilotage.telemetry.store.duckdb import DuckDBStore
ask(sys.argv[1], DuckDBStore(Path(sys.argv[2])), Path(sys.argv[3]), *sys.argv[4:])
"""


def test_what_was_asked_first_is_known_after_the_process_was_killed(
    tmp_path: Path, store: DuckDBStore
) -> None:
    file = tmp_path / "agent" / "conversations.sqlite"
    first = f"how are the queues? my key is {SECRET} and {RARER}"
    script = [
        tool("queues", {}), text(f"One waits, {SECRET}."), tool("kpis", {}), hang(300),
        text("You asked about the queues."),
    ]  # fmt: skip
    with ScriptedLLM(script) as llm:
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                CHILD,
                llm.base_url,
                str(tmp_path / "other.duckdb"),
                str(file),
                first,
                "and the rest?",
            ],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        try:
            deadline = time.monotonic() + 120
            while len(llm.requests) < 4:
                assert child.poll() is None, "the first process ended by itself"
                assert time.monotonic() < deadline, "the first process asked nothing"
                time.sleep(0.02)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        [final] = ask(llm.base_url, store, file, "and what did I ask first?")
    assert final.text == "You asked about the queues."
    said = shown(llm.requests[-1])
    assert said[0].startswith("user: how are the queues?")
    assert [line for line in said if line.startswith("user: ")][1:] == [
        "user: and the rest?",
        "user: and what did I ask first?",
    ]
    called = [call["id"] for m in llm.requests[-1]["messages"] for call in m.get("tool_calls") or []]
    answered = [m["tool_call_id"] for m in llm.requests[-1]["messages"] if m["role"] == "tool"]
    assert called == answered
    assert len(called) == 2
    kept = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"how are the queues?" in kept
    assert SECRET.encode() not in kept
    assert RARER.encode() not in kept
    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}


def test_one_persons_words_stand_in_nobody_elses_prompt(tmp_path: Path, store: DuckDBStore) -> None:
    with ScriptedLLM([text("hello ann"), text("hello bob")]) as llm:
        ask(llm.base_url, store, tmp_path / "c.sqlite", "I am ann", person="ann")
        ask(llm.base_url, store, tmp_path / "c.sqlite", "I am bob", person="bob")
    assert shown(llm.requests[-1]) == ["user: I am bob"]


def test_a_long_conversation_is_shown_and_kept_within_its_budget(tmp_path: Path, store: DuckDBStore) -> None:
    file = tmp_path / "c.sqlite"
    asked = [f"question {number} " + "x" * 400 for number in range(12)]
    with ScriptedLLM([text(f"answer {number}") for number in range(12)]) as llm:
        ask(llm.base_url, store, file, *asked, tokens=300)
    words = [len("".join(shown(request)[:-1])) for request in llm.requests]
    assert max(words) < 300 * CHARS_PER_TOKEN + 100
    assert shown(llm.requests[-1])[-3].startswith("user: question 10 ")
    rows = _count(file, "checkpoints")
    assert rows == 1
    assert _count(file, "writes") == 0


def _count(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - the test's own


def test_a_memory_that_cannot_be_read_costs_what_was_said_before_and_nothing_else(
    tmp_path: Path, store: DuckDBStore
) -> None:
    file = tmp_path / "c.sqlite"
    file.write_bytes(b"this is no database, and it is long enough to be taken for one" * 20)
    with ScriptedLLM([text("One waits.")]) as llm:
        [final] = ask(llm.base_url, store, file, "how are the queues?")
    assert (final.text, final.by) == ("One waits.", "model")
    assert any("not known" in gap and "c.sqlite" in gap for gap in final.detail["gaps"])


# -- the budget itself


def turns(*sizes: tuple[int, int]) -> list[BaseMessage]:
    """For each (words, look-up) a turn of a question, a call with its result, and an answer."""
    made: list[BaseMessage] = []
    for number, (words, result) in enumerate(sizes):
        call = {"name": "queues", "args": {}, "id": f"c{number}", "type": "tool_call"}
        made += [
            HumanMessage("q" * words),
            AIMessage("", tool_calls=[call]),
            ToolMessage("r" * result, tool_call_id=f"c{number}"),
            AIMessage("a" * words),
        ]
    return made


def test_look_ups_are_forgotten_before_words() -> None:
    messages = turns((40, 4000), (40, 100))
    dropped = forgotten(messages, 100)
    assert dropped == messages[1:3]


def test_what_fits_is_not_forgotten() -> None:
    assert forgotten(turns((40, 100), (40, 100)), 1000) == []


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 900)), max_size=8), st.integers(0, 600))
def test_what_stays_fits_and_is_whole(sizes: list[tuple[int, int]], tokens: int) -> None:
    messages = turns(*sizes)
    gone = {id(m) for m in forgotten(messages, tokens)}
    kept = [m for m in messages if id(m) not in gone]
    assert sum(len(str(m.content)) for m in kept) <= tokens * CHARS_PER_TOKEN
    assert not kept or isinstance(kept[0], HumanMessage)
    called = [call["id"] for m in kept if isinstance(m, AIMessage) for call in m.tool_calls]
    assert called == [m.tool_call_id for m in kept if isinstance(m, ToolMessage)]
    words = [m for m in messages if isinstance(m, HumanMessage)]
    stayed = [m for m in kept if isinstance(m, HumanMessage)]
    assert stayed == (words[-len(stayed) :] if stayed else [])  # the oldest go first
