"""The console: how long a command that only asks takes, and how soon many listeners hear of what happens.

`pilotage status` beside a bare interpreter that does nothing, and beside Prefect's own `prefect version`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, in_turn, publish
from tests.bench.streams import stream_rows

RUNS = 9


def wall(*arguments: str, state: Path) -> float:
    """Seconds that the command took, from its start to its end."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(state),
        "PILOTAGE_STATE_DIR": str(state),
        "PREFECT_HOME": str(state / "prefect"),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    began = time.perf_counter()
    subprocess.run(arguments, env=environment, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def status_rows(runs: int = RUNS) -> list[Row]:
    """`pilotage status` against an API that answers, in seconds of wall time."""
    from tests.console.console_stack import console_stack  # the API, the ledger and the store that it asks

    beside_us = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="b") as directory, console_stack(Path(directory) / "s") as port:
        state = port.paths.root
        found = in_turn(
            {
                "pilotage status": lambda: wall(str(beside_us / "pilotage"), "status", "--json", state=state),
                "python": lambda: wall(sys.executable, "-c", "pass", state=state),
                "prefect version": lambda: wall(str(beside_us / "prefect"), "version", state=state),
            },
            runs,
        )
    ours = found["pilotage status"]
    return [
        beside("status_wall", "s", runs, ours=ours, peer="python -c pass", theirs=found["python"]),
        beside("status_wall", "s", runs, ours=ours, peer="prefect version", theirs=found["prefect version"]),
    ]


def main() -> None:
    """Measures and publishes."""
    publish("console", [*status_rows(), *stream_rows()])


if __name__ == "__main__":
    main()
