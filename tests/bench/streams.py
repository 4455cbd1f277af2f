"""How soon 50 listeners to the event stream hear of 200 events a second, beside bare sockets that get the same bytes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.report import Row, beside
from tests.console.console_stack import ConsoleStack, console_stack

LISTENERS, RATE, SECONDS, RUNS = 50, 200, 5, 3
EVENTS = RATE * SECONDS


def heard(url: str, token: str, thread: str, write: Callable[[int], None]) -> dict[str, float]:
    """What the listeners heard while `write` was called `RATE` times a second: p50 and p95 in ms, lost, out of order."""
    command = [sys.executable, str(Path(__file__).with_name("listeners.py"))]
    listeners = subprocess.Popen(
        [*command, url, token, thread, str(LISTENERS), str(EVENTS)], stdout=subprocess.PIPE, text=True
    )
    assert listeners.stdout is not None
    assert listeners.stdout.readline().strip() == "ready"
    begin = time.perf_counter()
    for n in range(EVENTS):
        time.sleep(max(0.0, begin + n / RATE - time.perf_counter()))
        write(n)
    took = time.perf_counter() - begin
    found = json.loads(listeners.stdout.readline())
    assert listeners.wait(30) == 0
    delays = found["delays"]
    return {
        "p50": delays[len(delays) // 2] * 1000,
        "p95": delays[int(len(delays) * 0.95)] * 1000,
        "lost": found["lost"],
        "out_of_order": found["out_of_order"],
        "rate": EVENTS / took,
    }


def through_the_console(port: ConsoleStack) -> dict[str, float]:
    """The log, the tail and the HTTP API, as `pilotage serve` has them."""
    thread = port.engine.log.open_thread("pat").id

    def write(n: int) -> None:
        port.engine.log.append(thread, "delta", "pilotage", {"n": n, "sent": time.time()})

    return heard(port.url, port.tokens["vic"], thread, write)


def through_bare_sockets() -> dict[str, float]:
    """The lower bound: the same bytes to as many sockets from one asyncio loop; nothing is kept or checked."""
    with _bare() as (url, send):
        return heard(url, "-", "", send)


@contextmanager
def _bare() -> Iterator[tuple[str, Callable[[int], None]]]:
    loop = asyncio.new_event_loop()
    writers: list[asyncio.StreamWriter] = []
    address: list[int] = []
    ready = threading.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: listening\n\n")
        writers.append(writer)

    async def start() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address.append(server.sockets[0].getsockname()[1])
        ready.set()

    def write(n: int) -> None:
        row = {"seq": n, "thread": "t", "type": "delta", "by": "pilotage", "at": "2026-01-01T00:00:00+00:00"}
        text = json.dumps(row | {"payload": {"n": n, "sent": time.time()}})
        frame = f"id: {n}\nevent: delta\ndata: {text}\n\n".encode()
        loop.call_soon_threadsafe(send, frame)

    def send(frame: bytes) -> None:
        for each in writers:
            each.write(frame)

    def hang_up() -> None:
        for each in writers:
            each.close()
        loop.stop()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    loop.call_soon_threadsafe(lambda: asyncio.ensure_future(start(), loop=loop))
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{address[0]}", write
    finally:
        loop.call_soon_threadsafe(hang_up)
        thread.join(10)


def stream_rows() -> list[Row]:
    """Delay of each event for each listener, how many were lost or out of order, and the rate that was reached."""
    ours: list[dict[str, float]] = []
    bound: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="b") as root, console_stack(Path(root) / "s") as port:
        for _ in range(RUNS):
            bound.append(through_bare_sockets())
            ours.append(through_the_console(port))
    rows = [
        beside(
            f"stream_{LISTENERS}_listeners_{RATE}_events_s_{mark}", "ms", RUNS,
            ours=_middle(ours, mark), peer="bare asyncio sockets", theirs=_middle(bound, mark),
        )
        for mark in ("p50", "p95")
    ]  # fmt: skip
    rows += [
        Row(measure=f"stream_{what}", value=sum(each[what] for each in ours), unit="events", runs=RUNS)
        for what in ("lost", "out_of_order")
    ]
    rows.append(Row(measure="stream_rate_reached", value=_middle(ours, "rate"), unit="events/s", runs=RUNS))
    return rows


def _middle(found: list[dict[str, float]], what: str) -> float:
    return sorted(each[what] for each in found)[len(found) // 2]
