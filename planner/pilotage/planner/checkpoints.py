"""Where half-done thinking and the memory of conversations are kept: LangGraph's savers, told apart here only.

In files of the state directory, or in PostgreSQL where several machines share one memory (extra `pilotage[postgres]`).

Whoever needs one opens it for as long as a turn or a planner lasts. An open one that nobody closes keeps its process
from ending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pilotage.telemetry.errors import CheckpointError, ConfigError
from pilotage.telemetry.redaction import redact

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

log = logging.getLogger(__name__)

SETTING_UP = 7_304_115
"""The advisory lock under which the tables are made; any number that nobody else uses."""
CONNECTING = 10
"""Seconds that a connection to PostgreSQL may take."""
_FORGET_OLDER = (
    "DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = '' AND checkpoint_id < "
    "(SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '')"
)

_OLD_THREADS = "SELECT thread_id FROM checkpoints GROUP BY thread_id HAVING max(checkpoint_id) < {mark}"
_UUID_EPOCH = 0x01B21DD213814000
"""Tenths of a microsecond from October 1582, when UUIDs begin, to 1970."""


class Checkpoints(Protocol):
    """Somewhere that a graph's state is kept."""

    def opened(self) -> AbstractAsyncContextManager[BaseCheckpointSaver[Any]]:
        """The saver, until the context is left. Raises CheckpointError, also for what fails inside the context."""
        ...


class MemoryCheckpoints:
    """Kept as long as this object lives."""

    def __init__(self) -> None:
        self._saver: BaseCheckpointSaver[Any] | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[BaseCheckpointSaver[Any]]:
        """As `Checkpoints`."""
        from langgraph.checkpoint.memory import InMemorySaver  # start-up time: half a second

        self._saver = self._saver or InMemorySaver()
        yield self._saver


@dataclass(frozen=True, slots=True)
class SqliteCheckpoints:
    """Kept in a file of this user's own. Several processes may have it open."""

    path: Path

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[BaseCheckpointSaver[Any]]:
        """As `Checkpoints`."""
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # start-up time: half a second

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as exc:
            raise CheckpointError(
                f"Keeping the agent's memory in {self.path}: {exc}. Mend the directory, or name another state directory."
            ) from exc
        with _translated(f" in {self.path}"):
            async with AsyncSqliteSaver.from_conn_string(str(self.path)) as saver:
                await saver.setup()
                yield saver


@dataclass(frozen=True, slots=True)
class PostgresCheckpoints:
    """Kept in a PostgreSQL database, in tables that are made when they are not there."""

    url: str = field(repr=False)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[BaseCheckpointSaver[Any]]:
        """As `Checkpoints`."""
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # the extra `postgres`
        from psycopg.conninfo import make_conninfo

        with _translated(" in PostgreSQL"):
            where = make_conninfo(self.url, connect_timeout=CONNECTING)
            async with AsyncPostgresSaver.from_conn_string(where) as saver:
                await _set_up(saver)
                yield saver


async def _set_up(saver: Any) -> None:
    """The tables, made by one process at a time: two that make them at once stand in each other's way."""
    # waiting inside a statement would hold up the indexes that the other is making
    while not await _got_the_lock(saver):  # noqa: ASYNC110 - the other is another process
        await asyncio.sleep(0.05)
    try:
        await saver.setup()
    finally:
        await saver.conn.execute(f"SELECT pg_advisory_unlock({SETTING_UP})")


async def _got_the_lock(saver: Any) -> bool:
    cursor = await saver.conn.execute(f"SELECT pg_try_advisory_lock({SETTING_UP}) AS got")
    return bool((await cursor.fetchone())["got"])


def checkpoints_at(url: str, path: Path) -> Checkpoints:
    """Those in the database that the URL names, or in the file where there is none.

    Raises ConfigError when the URL is none of PostgreSQL, or the extra is not installed.
    """
    if not url:
        return SqliteCheckpoints(path)
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(
            "Reading `agent_memory`: it does not begin with postgresql://. Name a PostgreSQL database, or leave it out "
            "and the agent remembers in files of the state directory."
        )
    try:
        import langgraph.checkpoint.postgres.aio  # noqa: F401 - is the extra there?
    except ImportError as exc:
        raise ConfigError(
            f"Reading `agent_memory`: PostgreSQL needs the extra, and {exc.name or exc} is not installed. "
            "Run pip install 'pilotage[postgres]', or leave `agent_memory` out."
        ) from exc
    return PostgresCheckpoints(url)


def checkpoint_fault(error: BaseException) -> CheckpointError | None:
    """The fault of a saver as ours, or None for whatever is no fault of a saver."""
    return _fault(error, "")


def _fault(error: BaseException, where: str) -> CheckpointError | None:
    psycopg = sys.modules.get("psycopg")
    of_postgres = psycopg is not None and isinstance(error, psycopg.Error)
    if not (of_postgres or isinstance(error, sqlite3.Error)):
        return None
    what = redact(" ".join(str(error).split()) or type(error).__name__)
    return CheckpointError(
        f"Keeping the agent's memory{where}: {what}. Look at the disk or the database; a file may be moved away, and "
        "a new one is made. No decision is lost, for those are in the ledger.",
        transient="not a database" not in what and "malformed" not in what,
    )


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        if (fault := _fault(exc, where)) is not None:
            raise fault from exc
        raise


async def forget_before(saver: BaseCheckpointSaver[Any], moment: datetime) -> int:
    """Delete every thread in which nothing was kept since this moment; return how many. What is in memory only stays."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    before = _first_id_of(moment)
    if isinstance(saver, AsyncSqliteSaver):
        async with saver.lock, saver.conn.execute(_OLD_THREADS.format(mark="?"), (before,)) as found:
            threads = [str(row[0]) for row in await found.fetchall()]
    elif hasattr(saver, "conn"):
        cursor = await saver.conn.execute(_OLD_THREADS.format(mark="%s"), (before,))
        threads = [str(row["thread_id"]) for row in await cursor.fetchall()]
    else:
        return 0
    for thread in threads:
        await saver.adelete_thread(thread)
    if threads and isinstance(saver, AsyncSqliteSaver):
        async with saver.lock:
            await saver.conn.commit()
            await saver.conn.execute("VACUUM")
    return len(threads)


def _first_id_of(moment: datetime) -> str:
    """The smallest id of a checkpoint, a UUID of version 6, that was made at this moment."""
    ticks = int(moment.timestamp() * 10_000_000) + _UUID_EPOCH
    digits = f"{ticks:015x}"
    return f"{digits[:8]}-{digits[8:12]}-6{digits[12:]}"


async def keep_newest(saver: BaseCheckpointSaver[Any], thread: str) -> None:
    """Delete all checkpoints of this thread but the newest, where the saver keeps them for longer than itself.

    When that cannot be, more is left, which is told to the log alone.
    """
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    try:
        if isinstance(saver, AsyncSqliteSaver):  # it has no pruning of its own yet
            async with saver.lock:
                for table in ("writes", "checkpoints"):
                    await saver.conn.execute(_FORGET_OLDER.format(table=table), (thread, thread))
                await saver.conn.commit()
        else:
            with suppress(NotImplementedError):  # what is in memory only goes with it
                await saver.aprune([thread])
    except Exception as error:
        if checkpoint_fault(error) is None:
            raise
        log.warning("Older checkpoints of %s stay: %s", thread, error)
