"""Other processes read through the owner's socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.telemetry.samples import a_queue, a_run, an_event, at

from pilotage.telemetry.errors import ConfigError, StoreError
from pilotage.telemetry.store.connect import connect
from pilotage.telemetry.store.duckdb import DuckDBFile, DuckDBStore
from pilotage.telemetry.store.paths import (
    LONGEST_SOCKET_PATH,
    STORE_FILE,
    STORE_SOCKET,
    socket_path,
    state_directory,
)
from pilotage.telemetry.store.socket import ChangeListener, SocketStore, StoreServer


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def owner(state: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore(state / STORE_FILE)
    store.merge_runs([a_run()])
    yield store
    store.close()


@pytest.fixture
def served(owner: DuckDBStore, state: Path) -> Iterator[Path]:
    path = socket_path(state, STORE_SOCKET)
    server = StoreServer(owner, path)
    yield path
    server.close()


@pytest.fixture
def client(served: Path) -> Iterator[SocketStore]:
    store = SocketStore(served)
    yield store
    store.close()


def test_the_socket_gives_what_the_store_gives(client: SocketStore, owner: DuckDBStore) -> None:
    sql = "SELECT * FROM runs"
    assert client.query(sql).equals(owner.query(sql))
    assert client.rows(sql) == owner.rows(sql)


@pytest.mark.parametrize(
    "value",
    [at(1.5), 7, 2.5, True, None, "it's", uuid.UUID(int=5), ["a", "b"]],
    ids=lambda value: type(value).__name__,
)
def test_a_parameter_arrives_as_what_it_was(client: SocketStore, owner: DuckDBStore, value: object) -> None:
    local = value if not isinstance(value, uuid.UUID) else str(value)
    assert client.rows("SELECT ? AS x", [value]) == owner.rows("SELECT ? AS x", [local])


def test_a_time_parameter_compares_with_times(client: SocketStore) -> None:
    assert client.rows("SELECT run_id FROM runs WHERE ended > ?", [at(59)]) == [{"run_id": "r-1"}]
    assert client.rows("SELECT run_id FROM runs WHERE ended > ?", [at(61)]) == []


def test_an_error_is_an_answer_and_the_connection_lives_on(client: SocketStore) -> None:
    with pytest.raises(StoreError, match="where one SELECT is allowed"):
        client.query("DELETE FROM runs")
    with pytest.raises(StoreError, match="nonsense"):
        client.query("SELECT nonsense FROM runs")
    assert client.rows("SELECT count(*) AS n FROM runs") == [{"n": 1}]


def raw(path: Path, body: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(struct.pack("!I", len(body)) + body)
        return connection.recv(4096)


@pytest.mark.parametrize("body", [b"not json", b"[]", b"{}", b'{"sql": 1}', b'"x"', b"\xff\xfe"])
def test_a_malformed_request_is_told_so(served: Path, client: SocketStore, body: bytes) -> None:
    reply = raw(served, body)
    assert reply[8] == 1
    assert "error" in json.loads(reply[9:])
    client.ping()


def test_an_enormous_request_is_refused_unread(served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(served))
        connection.sendall(struct.pack("!I", 1 << 31))
        assert b"shorter" in connection.recv(4096)


def test_a_wrong_token_is_refused(owner: DuckDBStore, state: Path) -> None:
    path = socket_path(state, "other")
    server = StoreServer(owner, path, token="right")
    right, wrong, none = (SocketStore(path, token=token) for token in ("right", "wrong", None))
    try:
        right.ping()
        for refused in (wrong, none):
            with pytest.raises(StoreError, match="wrong token"):
                refused.ping()
    finally:
        for store in (right, wrong, none):
            store.close()
        server.close()


def test_only_the_owner_may_open_the_socket(served: Path) -> None:
    assert served.stat().st_mode & 0o777 == 0o600


def test_a_reader_reconnects_when_the_owner_was_restarted(owner: DuckDBStore, state: Path) -> None:
    path = socket_path(state, STORE_SOCKET)
    first = StoreServer(owner, path)
    client = SocketStore(path)
    client.ping()
    first.close()
    with pytest.raises(StoreError, match="Start `pilotage up`") as refused:
        client.ping()
    assert refused.value.transient
    second = StoreServer(owner, path)
    try:
        client.ping()
        second.close()
        second = StoreServer(owner, path)
        client.ping()  # the old connection is dead, and nobody notices
    finally:
        client.close()
        second.close()


def test_a_second_owner_is_refused_and_a_dead_ones_socket_is_taken_over(
    owner: DuckDBStore, state: Path
) -> None:
    path = socket_path(state, STORE_SOCKET)
    server = StoreServer(owner, path)
    with pytest.raises(StoreError, match="another process answers"):
        StoreServer(owner, path)
    server.close()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    assert path.exists()
    again = StoreServer(owner, path)
    again.close()
    assert not path.exists()


def test_an_owner_with_a_crowd_at_its_door_is_not_taken_for_dead(owner: DuckDBStore, state: Path) -> None:
    path = state / "crowded.sock"
    with contextlib.ExitStack() as open_sockets:
        living = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
        living.bind(str(path))
        living.listen(0)
        for _ in range(50):
            waiting = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(StoreError, match="another process answers"):
            StoreServer(owner, path)
    assert path.exists()


def test_many_readers_are_served_while_the_owner_writes(served: Path, owner: DuckDBStore) -> None:
    faults: list[BaseException] = []

    def read() -> None:
        store = SocketStore(served)
        try:
            for _ in range(20):
                store.rows("SELECT name, count(*) AS n FROM events GROUP BY name")
        except BaseException as exc:
            faults.append(exc)
        finally:
            store.close()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for first in range(0, 500, 50):
        owner.add_events([an_event(number) for number in range(first, first + 50)])
    for thread in threads:
        thread.join(timeout=60)
    assert not faults


def test_connect_asks_the_owner_when_one_answers(served: Path, state: Path) -> None:
    store = connect(state)
    try:
        assert isinstance(store, SocketStore)
        assert store.rows("SELECT run_id FROM runs") == [{"run_id": "r-1"}]
    finally:
        store.close()


def test_connect_opens_the_file_when_nobody_answers(state: Path) -> None:
    DuckDBStore(state / STORE_FILE).close()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(socket_path(state, STORE_SOCKET)))
    dead.close()
    store = connect(state)
    assert isinstance(store, DuckDBFile)
    assert store.rows("SELECT count(*) AS n FROM runs") == [{"n": 0}]


def test_connect_says_how_to_start_when_there_is_nothing(state: Path) -> None:
    with pytest.raises(StoreError, match="Start `pilotage up`"):
        connect(state)


def test_another_process_reads_by_the_environment(served: Path, state: Path) -> None:
    script = "from pilotage.telemetry import connect; print(connect().rows('SELECT run_id FROM runs'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PILOTAGE_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "[{'run_id': 'r-1'}]\n", done.stderr


def test_importing_the_room_stays_light() -> None:
    script = (
        "import sys, pilotage.telemetry, pilotage.telemetry.store.paths, pilotage.telemetry.errors\n"
        "print([m for m in ('prefect', 'sklearn', 'pyarrow', 'duckdb', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_the_state_directory_is_the_argument_then_the_environment_then_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PILOTAGE_STATE_DIR", "/srv/a")
    assert state_directory("/srv/b") == Path("/srv/b")
    assert state_directory() == Path("/srv/a")
    monkeypatch.delenv("PILOTAGE_STATE_DIR")
    assert state_directory() == Path.home() / ".pilotage"


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory whose path is short whatever pytest's own are: a socket's path fits below it."""
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as directory:
        monkeypatch.setattr("tempfile.gettempdir", lambda: directory)
        yield Path(directory)


def test_a_long_state_directory_gets_a_short_private_socket(short_tmp: Path) -> None:
    assert socket_path(Path("/srv/x"), "store") == Path("/srv/x/store.sock")
    long = Path("/srv") / ("long" * 30)
    path = socket_path(long, "store")
    assert path.is_relative_to(short_tmp)
    assert len(os.fsencode(path)) <= LONGEST_SOCKET_PATH
    assert path == socket_path(long, "store")
    assert path.parent != socket_path(long / "other", "store").parent
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o755)
    with pytest.raises(ConfigError, match="only this user can enter"):
        socket_path(long, "store")


def test_a_closed_reader_refuses_instead_of_opening_another_connection(served: Path) -> None:
    store = SocketStore(served)
    store.ping()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.ping()


def test_a_planner_hears_of_a_change_at_once_and_of_snapshots_not_at_all(
    owner: DuckDBStore, state: Path
) -> None:
    path = socket_path(state, STORE_SOCKET)
    server = StoreServer(owner, path, changes=owner.changes)

    async def listened() -> list[bool]:
        listener = ChangeListener(path)
        heard = [await listener.next(30), await listener.next(0.05)]
        owner.add_queues([a_queue()])
        heard.append(await listener.next(0.05))
        waiting = asyncio.create_task(listener.next(30))
        await asyncio.sleep(0)
        owner.merge_runs([a_run(run_id=str(uuid.uuid4()))])
        heard.append(await waiting)
        owner.merge_runs([a_run()])  # known already
        heard.append(await listener.next(0.05))
        server.close()
        heard.append(await listener.next(0.05))
        listener.close()
        return heard

    try:
        assert asyncio.run(listened()) == [True, False, False, True, False, False]
    finally:
        server.close()
