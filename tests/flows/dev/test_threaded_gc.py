"""A collector on the event loop's thread can stand the loop still until a lock times out; one beside it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FORGETFUL = """
import asyncio, sqlite3, sys, threading, weakref

class Forgotten:
    pass

async def main(path, patience):
    connect = lambda: sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    holder, waiter = connect(), connect()
    holder.execute("PRAGMA journal_mode=WAL")
    holder.execute("BEGIN IMMEDIATE")
    it = Forgotten()
    it.itself, it.cursor = it, waiter.execute("VALUES (1), (2)")  # not read to its end
    begun, collected = threading.Event(), threading.Event()
    weakref.finalize(it, collected.set)
    waiter.set_trace_callback(lambda _: begun.set())
    waiting = asyncio.get_running_loop().run_in_executor(None, waiter.execute, "BEGIN IMMEDIATE")
    begun.wait()
    del it
    while not collected.is_set():
        garbage = []
        garbage.append(garbage)
        await asyncio.sleep(0)
    print("stood still" if waiting.done() else "went on")
    holder.execute("COMMIT")
    await asyncio.wait([waiting])
    waiting.exception()

asyncio.run(main(sys.argv[1], float(sys.argv[2])))
"""


def ran(tmp_path: Path, patience: float, *through: str) -> str:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    return subprocess.run(
        [sys.executable, "-m", *through, "forgetful", str(tmp_path / "t.db"), str(patience)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout.strip()


def test_a_loop_that_collects_waits_for_a_lock_that_only_it_can_release(tmp_path: Path) -> None:
    assert ran(tmp_path, 1) == "stood still"


def test_a_loop_whose_garbage_is_collected_beside_it_goes_on(tmp_path: Path) -> None:
    assert ran(tmp_path, 60, "pilotage.flows.dev.threaded_gc") == "went on"
