"""Statements that nobody wrote beforehand: a person's or a language model's SQL over the telemetry tables.

Each runs in a process of its own, on a file that it can only read, with limits of memory, CPU time and wall clock that
the system sets; whatever it does, the owner of the store only waits for an answer of bounded size, and ends it. What a
statement may consist of is in `adhoc_rules.py`. The owner enforces all of it, so a reader cannot ask for more.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from pilotage.telemetry.errors import InvariantError, StoreError
from pilotage.telemetry.store.adhoc_rules import text_objection

STARTING = 20.0
"""Seconds that the process may need before the statement begins: to start, and to read the write-ahead log."""
WALL = 4.0
"""Wall clock of a statement by its CPU time: its process gives way to all others of the machine."""
MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdHocLimits:
    """How much one such statement may take, and how many there may be."""

    rows: int = 1000
    """Rows that are returned; the rest is cut off and said to be."""
    time: timedelta = timedelta(seconds=5)
    """CPU time of the statement; its wall clock is four times as long."""
    memory: int = 256 * 1024 * 1024
    """Bytes that its process may grow by."""
    answer: int = 8 * 1024 * 1024
    """Bytes of an answer."""
    at_once: int = 2
    """Statements of one person that run at once."""
    a_minute: int = 30
    """Statements of one person that begin within a minute."""
    everybody: int = 3
    """Statements of all people that run at once."""


class AdHocTurns:
    """Counts who asks how much. Threads may share it."""

    def __init__(self, limits: AdHocLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, int] = defaultdict(int)
        self._begun: dict[str, deque[float]] = {}

    @contextlib.contextmanager
    def turn(self, asker: str) -> Iterator[None]:
        """Around one statement. Raises StoreError when the asker, or everybody together, has too many."""
        with self._lock:
            self._admit(asker)
            self._running[asker] += 1
            self._begun.setdefault(asker, deque()).append(self._clock())
        try:
            yield
        finally:
            with self._lock:
                self._running[asker] -= 1
                if not self._running[asker]:
                    del self._running[asker]

    def _admit(self, asker: str) -> None:
        limits, now = self._limits, self._clock()
        for name, begun in list(self._begun.items()):
            while begun and now - begun[0] >= MINUTE:
                begun.popleft()
            if not begun:
                del self._begun[name]
        if self._running.get(asker, 0) >= limits.at_once:
            raise _too_many(f"{limits.at_once} statements of yours that still run. Wait for them.")
        if len(self._begun.get(asker, ())) >= limits.a_minute:
            raise _too_many(f"{limits.a_minute} statements of yours within a minute. Wait a little.")
        if sum(self._running.values()) >= limits.everybody:
            raise _too_many(f"{limits.everybody} statements of others that still run. Try again in seconds.")


def _too_many(found: str) -> StoreError:
    return StoreError(f"Reading the telemetry store: found {found}", transient=True)


def answered(path: Path, sql: str, limits: AdHocLimits) -> tuple[pa.Table, bool]:
    """The rows of one SELECT over the file at `path`, and whether more were cut off.

    Raises StoreError for anything that is no such SELECT, and for what takes too much.
    """
    check_text(sql)
    status, body = _ask(path, sql, limits)
    match status:
        case b"A" | b"C":
            try:
                return pa.ipc.open_stream(pa.py_buffer(body)).read_all(), status == b"C"
            except pa.ArrowException:
                why = "its process ended in the middle of the answer."
        case b"R":
            raise _refused(bytes(body).decode(errors="replace"))
        case b"E":
            why = bytes(body).decode(errors="replace")
        case b"T":
            why = f"it took longer than {limits.time.total_seconds():g} s."
        case b"L":
            why = f"its answer has more than {limits.answer // 2**20} MiB."
        case _:
            why = f"it took more than {limits.memory // 2**20} MiB."
    raise StoreError(f"Reading the telemetry store: {why} Correct the statement, or ask for less.")


def check_text(sql: str) -> None:
    """Raises StoreError for a text that need not be parsed to be refused; no process is started for it."""
    if why := text_objection(sql):
        raise _refused(why)


def _refused(why: str) -> StoreError:
    return StoreError(f"Reading the telemetry store: found {why}. Ask one SELECT over the tables.")


def _ask(path: Path, sql: str, limits: AdHocLimits) -> tuple[bytes, bytes | memoryview]:
    """The process's status byte and body; `T` when its time is up, `L` when it says too much, `M` when it died."""
    cpu = limits.time.total_seconds()
    asked = {"path": str(path), "sql": sql, "rows": limits.rows, "memory": limits.memory, "cpu": cpu}
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "pilotage.telemetry.store.adhoc_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"ARROW_DEFAULT_MEMORY_POOL": "system"},
        cwd="/",
    )
    try:
        heard = _exchange(process, json.dumps(asked).encode(), limits)
        if heard[1:2]:
            return bytes(heard[1:2]), memoryview(heard)[2:]  # a copy would be as long as the longest answer
        code = process.wait(timeout=5)
    except (BrokenPipeError, TimeoutError):
        return b"T", b""
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()
    if not heard:
        return b"E", f"its process did not start (exit code {code}).".encode()
    return (b"T" if -code in (signal.SIGXCPU, signal.SIGKILL) else b"M"), b""


def _exchange(process: subprocess.Popen[bytes], asked: bytes, limits: AdHocLimits) -> bytes | bytearray:
    """All that the process said, `S` first. Raises TimeoutError when it does not end in time."""
    if process.stdin is None or process.stdout is None:
        raise InvariantError("Asking the process of a statement: it has no pipes. Open them.")
    process.stdin.write(asked)
    process.stdin.close()
    heard = bytearray()
    until = time.monotonic() + STARTING
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                return heard
            if not heard:
                until = time.monotonic() + WALL * limits.time.total_seconds()
            heard += part
            if len(heard) > limits.answer:
                return b"SL"
    raise TimeoutError
