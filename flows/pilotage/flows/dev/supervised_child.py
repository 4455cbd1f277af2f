"""Runs one module as a process that cannot outlive whoever started it.

`python -m pilotage.flows.dev.supervised_child PARENT MODULE ARGS…` behaves like `python -m MODULE ARGS…`, with two
differences: when the process PARENT, which started it, dies, even of SIGKILL, it ends its own process group;
and SIGINT works although a script that was started with `&` has it ignored (Prefect's worker forwards SIGTERM
to itself as SIGINT and would then never stop). It must lead its own group (`start_new_session=True`).
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_LOOK_EVERY = 0.5
"""Seconds between two looks at the parent."""
_GRACE = 5.0
"""Seconds between asking the group to end and killing it."""


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    os.killpg(0, signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Runs the module named by the second argument as `__main__`, tethered to the process id in the first."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.getpgrp() == os.getpid():  # otherwise the group is somebody else's
        threading.Thread(target=_watch, args=(int(sys.argv[1]),), daemon=True, name="tether").start()
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
