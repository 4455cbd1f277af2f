"""Where half-done thinking and the memory of conversations are kept: LangGraph's savers, told apart here only.

Whoever needs one opens it for as long as a turn or a planner lasts. An open one that nobody closes keeps its process
from ending.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pilotage.telemetry.errors import CheckpointError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

_FORGET_OLDER = (
    "DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = '' AND checkpoint_id < "
    "(SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '')"
)


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
            raise self._error(exc) from exc
        try:
            async with AsyncSqliteSaver.from_conn_string(str(self.path)) as saver:
                await saver.setup()
                yield saver
        except sqlite3.Error as exc:
            raise self._error(exc) from exc

    def _error(self, found: Exception) -> CheckpointError:
        locked = "locked" in str(found)
        return CheckpointError(
            f"Keeping the agent's memory in {self.path}: {found}. Look at the disk, or move the file away: a new one "
            "is made, and no decision is lost, for those are in the ledger.",
            transient=locked,
        )


async def keep_newest(saver: BaseCheckpointSaver[Any], thread: str) -> None:
    """Nothing; of this thread only the newest checkpoint is left, where the saver keeps them for longer than itself."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    if isinstance(saver, AsyncSqliteSaver):  # it has no pruning of its own yet
        async with saver.lock:
            for table in ("writes", "checkpoints"):
                await saver.conn.execute(_FORGET_OLDER.format(table=table), (thread, thread))
            await saver.conn.commit()
