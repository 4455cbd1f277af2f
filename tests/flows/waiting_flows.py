"""Flow runs that really wait: for a limit by tag, for a global limit, for each other. Runs them all in one process.

`python -m tests.flows.waiting_flows '{"part": "<flow run id>", ...}'`: the parts are those of `PARTS`, and each is one
thread with a flow run that exists already. It goes on until it is killed.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from uuid import UUID

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.flow_engine import run_flow

RED, BLUE, ROWS, GHOST, TAG = "red", "blue", "rows", "ghost", "db"
PARTS = {
    "ring_a": (BLUE, RED, BLUE),
    "ring_b": (RED, BLUE, RED),
    "rows_holder": ("", ROWS, ""),
    "rows_waiter": (ROWS, "", ROWS),
    "ghost_waiter": (GHOST, "", GHOST),
    "tag_holder": ("", "tag", ""),
    "tag_waiter": ("", "", "tag"),
}
"""By part: the limit that it takes and gives back, then the one that it keeps, then the one that it wants."""
FOR_EVER = threading.Event()


def run_all(runs: dict[str, str]) -> None:
    """Run each part's flow run in a thread of its own, step by step with the others. Never returns."""
    steps = threading.Barrier(len(runs))

    @task(tags=[TAG])
    def with_tag(waits: bool) -> None:
        if not waits:
            steps.wait()  # the slot is held
        FOR_EVER.wait()

    def take(name: str) -> AbstractContextManager[None]:
        return concurrency(name, occupy=1) if name else nullcontext()

    @flow
    def waits(part: str) -> None:
        first, kept, wanted = PARTS[part]
        with take(first):
            pass
        steps.wait()
        if part == "ghost_waiter":
            with get_client(sync_client=True) as client:  # somebody took a slot and is gone
                client.increment_concurrency_slots(names=[GHOST], slots=1, mode="concurrency")
        if kept == "tag":
            with_tag(waits=False)
        with take(kept):
            steps.wait()
            if wanted == "tag":
                with_tag(waits=True)
            with take(wanted):
                FOR_EVER.wait()

    def one(part: str, run_id: str) -> None:
        with get_client(sync_client=True) as client:
            run_flow(waits, flow_run=client.read_flow_run(UUID(run_id)), parameters={"part": part})

    for part, run_id in runs.items():
        threading.Thread(target=one, args=(part, run_id), daemon=True).start()
    FOR_EVER.wait()


if __name__ == "__main__":
    run_all(json.loads(sys.argv[1]))
