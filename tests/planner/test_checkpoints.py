"""Where the agent's memory is kept: which saver a setting names, and a real PostgreSQL under a conversation."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tests.planner.planner_fixture import PlannerFixture

from pilotage.planner.chat.agent import ChatAgent
from pilotage.planner.chat.parts import ChatPart
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.checkpoints import (
    Checkpoints,
    PostgresCheckpoints,
    SqliteCheckpoints,
    _first_id_of,
    checkpoints_at,
    forget_before,
)
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import text
from pilotage.telemetry.errors import CheckpointError, ConfigError
from pilotage.telemetry.store.duckdb import DuckDBStore

SECRET = "ghp_abcdefghijklmnopqrstuvwxyz012345"


def test_a_setting_chooses_the_saver(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    assert checkpoints_at("", file) == SqliteCheckpoints(file)
    made = checkpoints_at("postgresql://pilot:sesame@db/agent", file)
    assert isinstance(made, PostgresCheckpoints)
    assert "sesame" not in repr(made)


def test_another_database_is_no_memory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`agent_memory`.*postgresql://"):
        checkpoints_at("mysql://db/agent", tmp_path / "c.sqlite")


def test_without_the_extra_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "langgraph.checkpoint.postgres.aio", None)
    with pytest.raises(ConfigError, match=r"pip install 'pilotage\[postgres\]'"):
        checkpoints_at("postgresql://db/agent", tmp_path / "c.sqlite")


def test_a_thread_is_forgotten_when_nothing_was_kept_in_it_for_long(tmp_path: Path) -> None:
    from langgraph.checkpoint.base import empty_checkpoint

    async def story() -> tuple[int, int, set[str]]:
        now = datetime.now(UTC)
        async with SqliteCheckpoints(tmp_path / "c.sqlite").opened() as saver:
            for thread, checkpoint_id in (("old", _first_id_of(now - timedelta(days=9))), ("new", "")):
                config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
                kept = empty_checkpoint()
                kept["id"] = checkpoint_id or kept["id"]
                await saver.aput(config, kept, {}, {})
            first = await forget_before(saver, now - timedelta(days=10))
            second = await forget_before(saver, now - timedelta(days=8))
            left = {each.config["configurable"]["thread_id"] async for each in saver.alist(None)}
            return first, second, left

    assert asyncio.run(story()) == (0, 1, {"new"})


# -- a real server


def _postgres() -> Path | None:
    """Where the server's programs are."""
    found = shutil.which("initdb")
    paths = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return paths[-1] if paths else None


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of this module's own, on a unix socket, and its process."""
    programs = _postgres()
    if programs is None:
        pytest.skip("no PostgreSQL server is here: apt-get install postgresql")
    as_nobody: list[str] = []
    if (
        os.geteuid() == 0
    ):  # it refuses to run as root; in a namespace of its own it takes itself for somebody else
        as_nobody = ["unshare", "--user"]
        if subprocess.run([*as_nobody, "true"], check=False, capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there are no user namespaces here")
    root = tmp_path_factory.mktemp("pg")
    where = ["-D", str(root / "data")]
    how = ["-U", "pilot", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"]
    initdb = [*as_nobody, str(programs / "initdb"), *where, *how]
    subprocess.run(initdb, check=True, capture_output=True, timeout=120)
    server = subprocess.Popen(
        [
            *as_nobody, str(programs / "postgres"), *where, "-k", str(root), "-c", "listen_addresses=", "-c", "fsync=off",
            "-c", "max_connections=20", "-c", "shared_buffers=1MB",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"postgresql:///postgres?user=pilot&host={root}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert server.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        yield url, server
    finally:
        server.terminate()
        server.wait(60)


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error:
        return False
    return True


def ask(store: DuckDBStore, memory: Checkpoints, llm: ScriptedLLM, *sessions: str) -> list[ChatPart]:
    """The end of the answer to one question in each session, by one agent and all at once."""

    class NoApi:
        def permitted_kinds(self) -> tuple[Any, ...]:
            return ()

    async def one(agent: ChatAgent, session: str) -> ChatPart:
        [*parts] = [part async for part in agent.answer(f"what is new? {SECRET}", session)]
        return parts[-1]

    async def go() -> list[ChatPart]:
        model = OpenAIModel(base_url=llm.base_url, api_key="k", model="m", max_retries=0, timeout=60)
        agent = ChatAgent(
            tools=Toolbox(store=store, control_api=cast("Any", NoApi())), model=model, memory=memory
        )
        found = await asyncio.gather(*(one(agent, session) for session in sessions))
        await model.aclose()
        return list(found)

    return asyncio.run(go())


def test_conversations_are_kept_in_postgres_and_its_absence_is_told(
    database: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    import psycopg

    url, server = database
    memory = checkpoints_at(url, tmp_path / "unused.sqlite")
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    with ScriptedLLM([text("Nothing.")] * 5) as llm:
        ask(
            store, memory, llm, "t-1", "t-2", "t-3"
        )  # at once, and the first to come: the tables are made once
        ask(store, memory, llm, "t-1")
        said = [m["content"] for m in llm.requests[-1]["messages"] if m["role"] != "system"]
        with psycopg.connect(url) as connection:
            kept = connection.execute(
                "SELECT thread_id, count(*) FROM checkpoints GROUP BY 1 ORDER BY 1"
            ).fetchall()
            blobs = connection.execute("SELECT string_agg(blob, '') FROM checkpoint_blobs").fetchone()
        server.terminate()
        server.wait(60)
        [final] = ask(store, memory, llm, "t-1")
    store.close()
    assert [one[:12] for one in said] == ["what is new?", "Nothing.", "what is new?"]
    assert kept == [("chat:t-1", 1), ("chat:t-2", 1), ("chat:t-3", 1)]
    assert blobs is not None
    assert b"what is new?" in blobs[0]
    assert SECRET.encode() not in blobs[0]
    assert (final.text, final.by) == ("Nothing.", "model")
    assert any("PostgreSQL" in gap for gap in final.detail["gaps"])
    assert not (tmp_path / "unused.sqlite").exists()


def test_a_file_that_is_no_database_is_told_as_a_fault_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    file.write_bytes(b"no database at all" * 100)

    async def go() -> None:
        async with SqliteCheckpoints(file).opened():
            pass

    with pytest.raises(CheckpointError, match=r"memory in .*c\.sqlite: file is not a database") as told:
        asyncio.run(go())
    assert not told.value.transient


def test_a_planner_whose_checkpoints_are_broken_waits_until_they_are_mended(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    planner_fixture.store.merge_runs([make.run()])
    file = planner_fixture.path / "thoughts.sqlite"
    file.write_bytes(b"no database at all" * 100)

    async def go() -> list[dict[str, Any]]:
        async with planner_fixture.planner() as planner:
            with pytest.raises(CheckpointError):
                await planner.tick(planner_fixture.now)
            file.unlink()
            return await planner.tick(planner_fixture.now)

    [happened] = asyncio.run(go())
    assert (
        planner_fixture.control_api.kinds_filed
        == [filed["action"]["kind"] for filed in happened["filed"]]
        != []
    )
