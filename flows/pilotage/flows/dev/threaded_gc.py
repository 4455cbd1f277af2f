"""Runs one module whose event loop never collects cyclic garbage: a thread of its own does.

`python -m pilotage.flows.dev.threaded_gc MODULE ARGS…` behaves like `python -m MODULE ARGS…`. A Prefect server on SQLite
needs it. Its connections wait for the one write lock in threads, up to 60 s each, holding their connection's mutex. When
the collector, which runs wherever somebody happens to allocate, clears a forgotten cursor of such a connection on the
event loop's thread, the loop waits for that mutex, and whoever has the write lock waits for the loop to commit: the
server stands still for a minute at an idle CPU, again and again when many runs are due. In a thread of its own the
collector waits alone.
"""

from __future__ import annotations

import gc
import runpy
import sys
import threading
import time

_YOUNG_EVERY = 0.5
"""Seconds between two collections of what was made lately: some milliseconds each."""
_ALL_AFTER = 60
"""Young collections between two full ones."""


def _collect() -> None:
    while True:
        for _ in range(_ALL_AFTER):
            time.sleep(_YOUNG_EVERY)
            gc.collect(1)
        gc.collect()


def main() -> None:
    """Runs the module named by the first argument as `__main__`."""
    gc.disable()
    threading.Thread(target=_collect, daemon=True, name="collector").start()
    module, sys.argv = sys.argv[1], sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
