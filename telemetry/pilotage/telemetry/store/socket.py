"""The store's front: readers of other processes ask SQL over a unix socket and get Arrow back.

A request is a 4-byte length and a JSON object `{"sql", "parameters", "token"}`, `{"ad_hoc", "asker", "token"}` for a
statement that nobody wrote beforehand, or `{"changes", "seconds", "token"}`, which is answered when something has
changed; a reply is an 8-byte length, one status byte (0 Arrow stream, 1 JSON error,
2 Arrow stream with rows cut off) and the body. An error is a reply: the connection lives on. The socket's mode lets only
its own user in.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.store.changes import Changes
from pilotage.telemetry.store.protocol import ServedStore
from pilotage.telemetry.store.rows import rows_of

LONGEST_REQUEST = 1 << 20
"""Bytes: a statement and its parameters, not a way to load rows."""
_WAITING_READERS = 128
"""Readers that may be at the door at once; one more is told that the store is busy."""
LONGEST_WAIT = 30.0
"""Seconds that a reader may wait for a change; then it hears that there was none, and asks again."""
REPLY_TIMEOUT = 60.0
"""Seconds a reader waits for an answer: twice what the owner lets a statement run."""


def _encoded(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$time": value.astimezone(UTC).isoformat()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | frozenset | set):
        return [_encoded(item) for item in value]
    return str(value)


def _decoded(value: Any) -> Any:
    match value:
        case {"$time": str(text)}:
            return datetime.fromisoformat(text)
        case list():
            return [_decoded(item) for item in value]
        case _:
            return value


def _exactly(connection: socket.socket, count: int) -> bytes:
    """The next `count` bytes; empty when the other side has gone."""
    parts: list[bytes] = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class StoreServer:
    """Serves a store on a unix socket, one thread for each reader, until `close`."""

    def __init__(
        self, store: ServedStore, path: Path, token: str | None = None, *, changes: Changes | None = None
    ) -> None:
        """Listens at once. Raises StoreError when another process already serves there."""
        self.path = path
        self._store = store
        self._changes = changes or Changes()
        self._token = token
        self._live: set[socket.socket] = set()
        self._live_lock = threading.Lock()
        _clear_stale(path)
        outer = self

        class Reader(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._converse(self.request)

        class Listener(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = _WAITING_READERS

        before = os.umask(0o177)  # mode 0600 from the first moment on
        try:
            self._listener = Listener(str(path), Reader)
        except OSError as exc:
            raise StoreError(
                f"Serving the telemetry store on {path}: {exc}. Check that its directory exists and is yours."
            ) from exc
        finally:
            os.umask(before)
        self._thread = threading.Thread(
            target=self._listener.serve_forever,
            kwargs={"poll_interval": 0.5},  # only `close` waits for it
            name="store-socket",
            daemon=True,
        )
        self._thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with self._live_lock:
            self._live.add(connection)
        try:
            while header := _exactly(connection, 4):
                (length,) = struct.unpack("!I", header)
                if length > LONGEST_REQUEST:
                    self._reply(
                        connection, 1, _error(f"a request of {length} bytes. Ask a shorter statement.")
                    )
                    return
                self._reply(connection, *self._answer(_exactly(connection, length)))
        except OSError:
            return  # the reader went away; nothing is owed to it
        finally:
            with self._live_lock:
                self._live.discard(connection)

    @staticmethod
    def _reply(connection: socket.socket, status: int, body: bytes | pa.Buffer) -> None:
        header = struct.pack("!QB", len(body), status)
        if isinstance(body, bytes):
            connection.sendall(header + body)
        else:
            connection.sendall(header)
            connection.sendall(body)

    def _answer(self, request: bytes) -> tuple[int, bytes | pa.Buffer]:
        try:
            asked = json.loads(request)
            if self._token is not None and not hmac.compare_digest(
                str(asked.get("token", "")).encode(), self._token.encode()
            ):
                return 1, _error("a wrong token. Use the one that the owner was started with.")
            cut = False
            if "changes" in asked:
                wait = min(float(asked["seconds"]), LONGEST_WAIT)
                count = self._changes.after(int(asked["changes"]), wait)
                table = pa.table({"changes": [count]})
            elif "ad_hoc" in asked:
                table, cut = self._store.ad_hoc(str(asked["ad_hoc"]), str(asked.get("asker", "")))
            else:
                parameters = [_decoded(item) for item in asked.get("parameters", ())]
                table = self._store.query(str(asked["sql"]), parameters)
            return 2 if cut else 0, _streamed(table)
        except StoreError as exc:
            return 1, json.dumps({"error": str(exc), "transient": exc.transient}).encode()
        except (ValueError, KeyError, AttributeError, TypeError) as exc:
            return 1, _error(f"a malformed request ({type(exc).__name__}). Send a JSON object with `sql`.")
        except Exception as exc:
            # the reader must not hang on a fault of ours, and must not end the owner
            return 1, _error(f"an unexpected {type(exc).__name__}. See the log of `pilotage up`.")

    def close(self) -> None:
        """Stops serving, hangs up on readers and takes the socket away; harmless when called twice."""
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join(timeout=5)
        with self._live_lock:
            for connection in self._live:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.path.unlink(missing_ok=True)


def _streamed(table: pa.Table) -> pa.Buffer:
    """The table as an Arrow stream, in memory of just its size: an answer to many readers is held many times."""
    length = pa.MockOutputStream()
    with pa.ipc.new_stream(length, table.schema) as stream:
        stream.write_table(table)
    body = pa.allocate_buffer(length.size())
    with pa.FixedSizeBufferWriter(body) as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return body


def _error(message: str) -> bytes:
    return json.dumps({"error": f"Asking the telemetry store: found {message}", "transient": False}).encode()


def _clear_stale(path: Path) -> None:
    """Takes away a socket that a dead owner left behind."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # so many are waiting there that it takes no more: somebody lives
    raise StoreError(
        f"Serving the telemetry store on {path}: another process answers there. "
        "Stop that one first; one state directory has one owner."
    )


class ChangeListener:
    """Waits for changes on a connection of its own, for a reader that has an event loop."""

    def __init__(self, path: Path, token: str | None = None) -> None:
        self._path, self._token = path, token
        self._seen = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def next(self, seconds: float) -> bool:
        """Whether the store has changed since the last call; returns then, or after so many seconds.

        Where the owner does not answer it waits all the time and says False: asking it will tell why.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(seconds + 1):
                seen, self._seen = self._seen, await self._ask(seconds)
        except (OSError, EOFError, ValueError, KeyError, TimeoutError):
            self.close()
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - started)))
            return False
        return seen != self._seen

    async def _ask(self, seconds: float) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(str(self._path))
        reader, writer = self._streams
        asked = {"changes": self._seen, "seconds": seconds, "token": self._token}
        message = json.dumps(asked).encode()
        writer.write(struct.pack("!I", len(message)) + message)
        length, status = struct.unpack("!QB", await reader.readexactly(9))
        body = await reader.readexactly(length)
        if status == 1:
            raise ValueError(body)
        return int(pa.ipc.open_stream(body).read_all()["changes"][0].as_py())

    def close(self) -> None:
        """Hang up; the next call connects again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class SocketStore:
    """A `Store` on the other side of the owner's socket. Reconnects once when the owner was restarted."""

    def __init__(
        self, path: Path, token: str | None = None, timeout: float = REPLY_TIMEOUT, *, asker: str = ""
    ) -> None:
        """`asker` is the person in whose name ad hoc statements are counted."""
        self.path = path
        self._token = token
        self._timeout = timeout
        self._asker = asker
        self._connection: socket.socket | None = None
        self._closed = False
        self._lock = threading.Lock()

    def ping(self) -> None:
        """Returns when the owner answers. Raises StoreError when it does not."""
        self.query("SELECT 1")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of one SELECT as an Arrow table. Raises StoreError on anything else."""
        message = self._message({"sql": sql, "parameters": [_encoded(item) for item in parameters]})
        with self._lock:
            self._check_open()
            try:
                return _read(*self._ask(message))[0]
            except TimeoutError as exc:  # the owner still works at it: asking again would only add to that
                self._hang_up()
                raise self._gone(exc) from exc
            except OSError:
                self._hang_up()
            try:  # the owner was restarted, and one of our own SELECTs may be asked twice
                return _read(*self._ask(message))[0]
            except OSError as exc:
                self._hang_up()
                raise self._gone(exc) from exc

    def ad_hoc(self, sql: str) -> tuple[pa.Table, bool]:
        """The result of a SELECT that nobody wrote beforehand, and whether rows were cut off.

        It has a connection of its own, so that nobody waits behind it, and is never asked twice.
        """
        self._check_open()
        try:
            with self._connected() as connection:
                return _read(*_conversed(connection, self._message({"ad_hoc": sql, "asker": self._asker})))
        except OSError as exc:
            raise self._gone(exc) from exc

    def _message(self, request: Mapping[str, Any]) -> bytes:
        return json.dumps({**request, "token": self._token}).encode()

    def _check_open(self) -> None:
        if self._closed:  # a thread that was still at work when the process began to end
            raise StoreError(f"Asking the telemetry store at {self.path}: this reader was closed.")

    def _gone(self, exc: OSError) -> StoreError:
        return StoreError(
            f"Asking the telemetry store at {self.path}: {exc}. Start `pilotage up`, or wait for it.",
            transient=True,
        )

    def _connected(self) -> socket.socket:
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh.settimeout(self._timeout)
        try:
            fresh.connect(str(self.path))
        except OSError:
            fresh.close()
            raise
        return fresh

    def _ask(self, message: bytes) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connected()
        return _conversed(self._connection, message)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The same result as plain dictionaries, times as aware UTC datetimes."""
        return rows_of(self.query(sql, parameters))

    def close(self) -> None:
        """Hang up for good: a later question raises StoreError. Harmless when called twice."""
        with self._lock:
            self._closed = True
            self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _conversed(connection: socket.socket, message: bytes) -> tuple[int, bytes]:
    """Status and body of the reply. Raises OSError when the other side goes, TimeoutError when it takes too long."""
    connection.sendall(struct.pack("!I", len(message)) + message)
    header = _exactly(connection, 9)
    if not header:
        raise ConnectionResetError("the owner hung up")
    length, status = struct.unpack("!QB", header)
    body = _exactly(connection, length)
    if length and not body:
        raise ConnectionResetError("the owner hung up in the middle of an answer")
    return status, body


def _read(status: int, body: bytes) -> tuple[pa.Table, bool]:
    if status == 1:
        message = json.loads(body)
        raise StoreError(message["error"], transient=message["transient"])
    return pa.ipc.open_stream(body).read_all(), status == 2
