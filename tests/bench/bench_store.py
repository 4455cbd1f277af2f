"""The telemetry store (owner, socket and readers) beside sqlite3 in WAL mode with the same rows."""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import beside, in_turn, publish

from pilotage.telemetry.facts import EventFact
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.socket import SocketStore, StoreServer

EVENTS = 20_000
BATCH = 1_000
RUNS = 5
PEER = "sqlite3 WAL"
START = datetime(2026, 1, 1, tzinfo=UTC)
BODY = {
    "intended": {"from": "PENDING", "to": "RUNNING"},
    "task_run": {"task_inputs": {}, "tags": ["a"], "empirical_policy": {"retries": 3}},
    "text": "words that a flow wrote, much like those of the next " * 28,
}
COUNTS = "SELECT name, count(*) AS n FROM events GROUP BY name ORDER BY name"
ONE_RUN = "SELECT count(*) AS n FROM events WHERE run_id = ?"
COLUMNS = "event_id TEXT PRIMARY KEY, occurred REAL, name TEXT, resource_id TEXT, run_id TEXT, payload TEXT"


def events() -> list[EventFact]:
    """Events of 1.9 KB, 40 to a run, as a worker's runs send them."""
    return [
        EventFact(
            event_id=str(uuid.uuid4()),
            occurred=START + timedelta(seconds=number / 10),
            name=("prefect.flow-run.Running", "prefect.task-run.Running", "prefect.task-run.Completed")[
                number % 3
            ],
            resource_id=f"prefect.flow-run.{number // 40}",
            run_id=str(number // 40),
            payload={**BODY, "n": number},
        )
        for number in range(EVENTS)
    ]


class Sqlite:
    """The peer: one table with a primary key, in WAL mode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"CREATE TABLE events ({COLUMNS})")

    def add_events(self, some: list[EventFact]) -> None:
        """Adds a batch in one transaction."""
        rows = [
            (e.event_id, e.occurred.timestamp(), e.name, e.resource_id, e.run_id, json.dumps(e.payload))
            for e in some
        ]
        with self.connection:
            self.connection.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)


def rate(work: Callable[[list[EventFact]], object], some: list[EventFact]) -> float:
    """Rows a second."""
    began = time.perf_counter()
    for first in range(0, len(some), BATCH):
        work(some[first : first + BATCH])
    return len(some) / (time.perf_counter() - began)


def milliseconds(work: Callable[[], object], times: int = 20) -> float:
    """The mean of some calls, after one to warm up."""
    work()
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) * 1000 / times


@contextmanager
def readers(ask: Callable[[], Callable[[], object]], count: int) -> Iterator[None]:
    """So many readers that ask all the time, with 50 ms between."""
    stop = threading.Event()

    def read() -> None:
        once = ask()
        while not stop.is_set():
            once()
            stop.wait(0.05)

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def main() -> None:
    """Measures and publishes."""
    some = events()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def fresh() -> Path:
            return directory / uuid.uuid4().hex

        def ours_ingest() -> float:
            store = DuckDBStore(fresh())
            try:
                return rate(store.add_events, some)
            finally:
                store.close()

        def theirs_ingest() -> float:
            peer = Sqlite(fresh())
            try:
                return rate(peer.add_events, some)
            finally:
                peer.connection.close()

        def ours_watched() -> float:
            store = DuckDBStore(fresh())
            server = StoreServer(store, directory / "w.sock")
            clients = [SocketStore(directory / "w.sock") for _ in range(3)]
            waiting = iter(clients)
            try:
                with readers(lambda: (lambda client: lambda: client.query(COUNTS))(next(waiting)), 3):
                    return rate(store.add_events, some)
            finally:
                for client in clients:
                    client.close()
                server.close()
                store.close()

        def theirs_watched() -> float:
            peer = Sqlite(fresh())

            def ask() -> Callable[[], object]:
                own = sqlite3.connect(peer.path, check_same_thread=False)
                return lambda: own.execute(COUNTS).fetchall()

            try:
                with readers(ask, 3):
                    return rate(peer.add_events, some)
            finally:
                peer.connection.close()

        store = DuckDBStore(directory / "read.duckdb")
        server = StoreServer(store, directory / "r.sock")
        client = SocketStore(directory / "r.sock")
        peer = Sqlite(directory / "read.sqlite")
        for first in range(0, EVENTS, BATCH):
            store.add_events(some[first : first + BATCH])
            peer.add_events(some[first : first + BATCH])
        store.checkpoint()
        peer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sql = peer.connection.execute

        rows = []
        for measure, unit, ours, theirs in (
            ("ingest, nobody reading", "rows/s", ours_ingest, theirs_ingest),
            ("ingest, three readers", "rows/s", ours_watched, theirs_watched),
            (
                "count by name, through the socket",
                "ms",
                lambda: milliseconds(lambda: client.rows(COUNTS)),
                lambda: milliseconds(lambda: sql(COUNTS).fetchall()),
            ),
            (
                "events of one run, through the socket",
                "ms",
                lambda: milliseconds(lambda: client.rows(ONE_RUN, ["7"])),
                lambda: milliseconds(lambda: sql(ONE_RUN, ["7"]).fetchall()),
            ),
            (
                "second delivery of 1000 events",
                "ms",
                lambda: milliseconds(lambda: store.add_events(some[-BATCH:]), 5),
                lambda: milliseconds(lambda: peer.add_events(some[-BATCH:]), 5),
            ),
        ):
            found = in_turn({"ours": ours, PEER: theirs}, RUNS)
            rows.append(beside(measure, unit, RUNS, ours=found["ours"], peer=PEER, theirs=found[PEER]))
        sizes = [path.stat().st_size / EVENTS for path in (store.path, peer.path)]
        rows.append(beside("space of one 1.9 KB event", "B", 1, ours=sizes[0], peer=PEER, theirs=sizes[1]))
        client.close()
        server.close()
        store.close()
        peer.connection.close()
    publish("store", rows)


if __name__ == "__main__":
    main()
