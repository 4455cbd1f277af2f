"""The append-only log of conversations: one SQLite file that the terminal, the server and others write together.

A number is given inside the write lock, so numbers are in the order of the commits: whoever has read up to `n`
has missed nothing before it. Rows are never changed; triggers see to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

from pilotage.console.session.events import ACTIVITY_FEED, Event, EventType, Thread
from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.redaction import redact, redact_json

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS threads (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, thread TEXT NOT NULL REFERENCES threads(id), type TEXT NOT NULL,
  by TEXT NOT NULL, at TEXT NOT NULL, payload TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_by_thread ON events (thread, seq);
CREATE INDEX IF NOT EXISTS events_of_people ON events (type, by) WHERE type = 'snoozed';
CREATE TABLE IF NOT EXISTS shown (
  proposal_id TEXT NOT NULL, thread TEXT NOT NULL, PRIMARY KEY (proposal_id, thread)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shares (
  thread TEXT NOT NULL REFERENCES threads(id), name TEXT NOT NULL, writes INTEGER NOT NULL, by TEXT NOT NULL,
  at TEXT NOT NULL, PRIMARY KEY (thread, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
"""
_STAY_THERE = """
CREATE TRIGGER IF NOT EXISTS events_stay_there BEFORE DELETE ON events
  BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
"""
_OF_A_THREAD = (("events", "thread"), ("shown", "thread"), ("shares", "thread"), ("threads", "id"))
_THREADS = (
    "SELECT t.id, t.by, t.at, coalesce(nullif(t.title, ''), (SELECT substr(json_extract(payload, '$.text'), 1, 80) "
    "FROM events e WHERE e.thread = t.id AND e.type = 'said' ORDER BY seq LIMIT 1), '') AS title, "
    "coalesce((SELECT max(seq) FROM events e WHERE e.thread = t.id), 0) AS last_seq, "
    "(SELECT json_group_object(name, writes) FROM shares s WHERE s.thread = t.id) AS shares FROM threads t"
)
AWAY = 1800.0
"""Seconds without a look after which somebody comes back rather than looks again."""
POLL = 0.1
"""Seconds between two looks for rows of other processes."""
PAGE = 500
"""Rows read at once."""


class EventLog:
    """The log in one file. Thread-safe; several processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file, mode 0600. Raises StoreError when it is damaged or from a newer pilotage."""
        self._path = path
        self._lock = threading.Lock()
        self._wakers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=15)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"Opening the conversations in {path}: schema {version} is from a newer pilotage "
                    f"(this one knows {SCHEMA_VERSION}). Upgrade, or move the file away."
                )
            self._db.executescript(_SCHEMA)
            self._db.execute(_STAY_THERE)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._db.execute(
                "INSERT INTO threads VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET title = excluded.title",
                (ACTIVITY_FEED, "Activity", "pilotage", _now()),
            )
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(
                f"Opening the conversations in {path}: {exc}. Move the file away; a new one is made, "
                "and no decision is lost, for those are in the ledger."
            ) from exc

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    # -- threads

    def open_thread(self, by: str, title: str = "", thread: str = "") -> Thread:
        """A new thread, or the one so named when it is there already."""
        chosen, at = thread or f"t-{secrets.token_hex(6)}", _now()
        with self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO threads VALUES (?, ?, ?, ?)", (chosen, redact(title)[:200], by, at)
            )
        existing = self.thread(chosen)
        if existing is None:
            raise StoreError(f"Opening thread {chosen} in {self._path}: it was not kept. Look at the disk.")
        return existing

    def forget(self, before: datetime) -> int:
        """Delete the threads in which nothing was said since this moment; return how many. The activity feed loses
        its older events."""
        at = before.astimezone(UTC).isoformat()
        quiet = (
            "SELECT id FROM threads t WHERE id <> ? AND at < ? AND NOT EXISTS "
            "(SELECT 1 FROM events e WHERE e.thread = t.id AND e.at >= ?)"
        )
        with self._writing():
            threads = [row[0] for row in self._db.execute(quiet, (ACTIVITY_FEED, at, at))]
            old = self._db.execute(
                "SELECT 1 FROM events WHERE thread = ? AND at < ? LIMIT 1", (ACTIVITY_FEED, at)
            ).fetchone()
            if not threads and old is None:
                return 0
            self._db.execute("DROP TRIGGER events_stay_there")
            self._db.execute("DELETE FROM events WHERE thread = ? AND at < ?", (ACTIVITY_FEED, at))
            for thread in threads:
                for table, column in _OF_A_THREAD:
                    self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (thread,))  # noqa: S608
            self._db.execute(_STAY_THERE)
        return len(threads)

    def thread(self, thread: str) -> Thread | None:
        """The thread so named, or None."""
        return next(iter(self._threads("WHERE t.id = ?", (thread,))), None)

    def threads(
        self, limit: int = 100, search: str = "", *, seen: Callable[[Thread], bool] = lambda thread: True
    ) -> list[Thread]:
        """Those of the threads that are `seen`, the last active first; with `search`, in whose title or words it occurs."""
        where, values = "", tuple[str, ...]()
        if search:
            like = f"%{_literal(search)}%"
            where, values = (
                "WHERE t.title LIKE ? ESCAPE '\\' OR t.id IN (SELECT thread FROM events "
                "WHERE type IN ('said', 'answer') AND payload LIKE ? ESCAPE '\\')",
                (like, like),
            )
        chosen: list[Thread] = []
        for offset in count(0, PAGE):
            page = self._threads(where, values, PAGE, offset)
            chosen += filter(seen, page)
            if len(page) < PAGE or len(chosen) >= limit:
                break
        return chosen[:limit]

    def share(self, thread: str, name: str, by: str, *, writes: bool) -> None:
        """Let a person, or a team as `team:NAME`, read a thread, and write into it where `writes`."""
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO shares VALUES (?, ?, ?, ?, ?)", (thread, name, writes, by, _now())
            )

    def unshare(self, thread: str, name: str) -> bool:
        """Whether a thread was shared with this person or team; it is not any more."""
        with self._writing():
            where = "DELETE FROM shares WHERE thread = ? AND name = ?"
            return self._db.execute(where, (thread, name)).rowcount == 1

    def _threads(self, where: str, values: tuple[str, ...], limit: int = 1, offset: int = 0) -> list[Thread]:
        rows = self._read(
            f"{_THREADS} {where} ORDER BY last_seq DESC, t.at DESC LIMIT ? OFFSET ?", (*values, limit, offset)
        )
        return [
            Thread(
                id=row["id"],
                title=row["title"],
                by=row["by"],
                at=datetime.fromisoformat(row["at"]),
                last_seq=row["last_seq"],
                shares={name: bool(writes) for name, writes in json.loads(row["shares"]).items()},
            )
            for row in rows
        ]

    # -- events

    def append(self, thread: str, kind: EventType, by: str, payload: Mapping[str, Any]) -> Event:
        """Adds one row and wakes who waits. Raises StoreError when it cannot be kept or there is no such thread."""
        return self.append_all(thread, [(kind, by, payload)])[0]

    def append_all(
        self, thread: str, rows: Iterable[tuple[EventType, str, Mapping[str, Any]]]
    ) -> list[Event]:
        """Adds rows in one transaction, in order."""
        added: list[Event] = []
        with self._writing():
            for kind, by, given in rows:
                # everybody who may read sees it, for ever
                payload: Mapping[str, Any] = redact_json(for_all(kind, given))
                at = datetime.now(UTC)
                cursor = self._db.execute(
                    "INSERT INTO events (thread, type, by, at, payload) SELECT id, ?, ?, ?, ? FROM threads WHERE id = ?",
                    (kind, by, at.isoformat(), json.dumps(payload, default=str), thread),
                )
                if cursor.rowcount != 1 or cursor.lastrowid is None:
                    raise StoreError(
                        f"Writing to thread {thread}: there is none. Open it first, or see /history."
                    )
                added.append(
                    Event(seq=cursor.lastrowid, thread=thread, type=kind, by=by, at=at, payload=payload)
                )
                if kind == "card":
                    self._db.execute(
                        "INSERT OR IGNORE INTO shown VALUES (?, ?)", (payload["card"]["proposal_id"], thread)
                    )
        self._wake()
        return added

    def after(self, seq: int, thread: str | None = None, limit: int = PAGE) -> list[Event]:
        """The rows that follow, oldest first: of one thread, or of all."""
        if thread is None:
            rows = self._read("SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
        else:
            rows = self._read(
                "SELECT * FROM events WHERE thread = ? AND seq > ? ORDER BY seq LIMIT ?", (thread, seq, limit)
            )
        return [_event(row) for row in rows]

    def newest(self, thread: str, kind: EventType, limit: int = 50) -> list[Event]:
        """The newest rows of one type in a thread, the newest first."""
        rows = self._read(
            "SELECT * FROM events WHERE thread = ? AND type = ? ORDER BY seq DESC LIMIT ?",
            (thread, kind, limit),
        )
        return [_event(row) for row in rows]

    def last_card(self, thread: str, proposal_id: str) -> dict[str, Any] | None:
        """The card of a proposal as it was shown last in a thread, or None."""
        rows = self._read(
            "SELECT * FROM events WHERE thread = ? AND type = 'card' "
            "AND json_extract(payload, '$.card.proposal_id') = ? ORDER BY seq DESC LIMIT 1",
            (thread, proposal_id),
        )
        return dict(_event(rows[0]).payload["card"]) if rows else None

    def snoozed(self, by: str) -> dict[str, datetime]:
        """What a person put off, and until when; later words replace earlier ones."""
        rows = self._read("SELECT * FROM events WHERE type = 'snoozed' AND by = ? ORDER BY seq", (by,))
        said = [_event(row).payload for row in rows]
        return {each["proposal_id"]: datetime.fromisoformat(each["until"]) for each in said}

    def last_seq(self) -> int:
        """The number of the newest row, 0 when there is none."""
        return int(self._read("SELECT coalesce(max(seq), 0) AS n FROM events", ())[0]["n"])

    def threads_showing(self, proposal_id: str) -> list[str]:
        """The threads in which a card of the proposal was shown."""
        rows = self._read("SELECT thread FROM shown WHERE proposal_id = ? ORDER BY thread", (proposal_id,))
        return [row["thread"] for row in rows]

    async def follow(self, seq: int, thread: str | None = None) -> AsyncIterator[list[Event]]:
        """The rows that follow, in batches as they come, without end. An empty batch says that nothing came for a while."""
        waker = (asyncio.get_running_loop(), asyncio.Event())
        self._wakers.add(waker)
        try:
            quiet = 0.0
            while True:
                waker[1].clear()
                batch = await asyncio.to_thread(self.after, seq, thread)
                if batch or quiet >= HEARTBEAT:
                    quiet = 0.0
                    yield batch
                if batch:
                    seq = batch[-1].seq
                    continue
                try:
                    await asyncio.wait_for(waker[1].wait(), POLL)
                    quiet = 0.0
                except TimeoutError:
                    quiet += POLL
        finally:
            self._wakers.discard(waker)

    # -- marks

    def mark(self, name: str) -> int:
        """How far something has come, 0 at first."""
        rows = self._read("SELECT value FROM marks WHERE name = ?", (name,))
        return int(rows[0]["value"]) if rows else 0

    def advance(self, name: str, before: int, to: int) -> bool:
        """Moves a mark on, when it still is where the caller saw it: of several processes one does the work."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO marks VALUES (?, 0)", (name,))
            return (
                self._db.execute(
                    "UPDATE marks SET value = ? WHERE name = ? AND value = ?", (to, name, before)
                ).rowcount
                == 1
            )

    def visit(self, who: str, head: int, now: datetime, away: float = AWAY) -> int:
        """How far somebody had read when they were last here, as an entry's number; they have read up to `head` now.

        A look within `away` seconds of the one before is part of the same visit. -1 when they were never here.
        """
        names = [f"visit {part}:{who}" for part in ("from", "to", "at")]
        with self._writing():
            read = "SELECT value FROM marks WHERE name = ?"
            before, to, at = (self._db.execute(read, (name,)).fetchone() for name in names)
            since = -1 if at is None else int(before["value"])
            if at is not None and now.timestamp() - int(at["value"]) > away:
                since = int(to["value"])
            for name, value in zip(names, (since, head, int(now.timestamp())), strict=True):
                self._db.execute(
                    "INSERT INTO marks VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                    (name, value),
                )
        return since

    # -- shared

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as exc:
                raise StoreError(
                    f"Writing to the conversations in {self._path}: {exc}. Look at the disk and try again.",
                    transient=True,
                ) from exc

    def _read(self, query: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as exc:
                raise StoreError(
                    f"Reading the conversations in {self._path}: {exc}. Move the file away; no decision is in it."
                ) from exc

    def _wake(self) -> None:
        for loop, event in tuple(self._wakers):
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(event.set)


HEARTBEAT = 15.0
"""Seconds without a row after which a follower is told that it still follows."""


def _event(row: sqlite3.Row) -> Event:
    return Event(
        seq=row["seq"],
        thread=row["thread"],
        type=cast("EventType", row["type"]),
        by=row["by"],
        at=datetime.fromisoformat(row["at"]),
        payload=json.loads(row["payload"]),
    )


def for_all(kind: EventType, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without what is true for one reader only: whether this person may answer a card."""
    if kind != "card":
        return dict(payload)
    return {**payload, "card": {key: value for key, value in payload["card"].items() if key != "you"}}


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _now() -> str:
    return datetime.now(UTC).isoformat()
