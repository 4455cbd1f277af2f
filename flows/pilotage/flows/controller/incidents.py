"""Keeps incidents true: a run is recovered when it has completed, whoever saw to it, and superseded when another did it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pilotage.policies.ledger.incidents import is_failure
from pilotage.policies.ledger.protocol import Ledger, RunState
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.queries.runs import done_by_later, runs_of
from pilotage.telemetry.store.protocol import Store


class IncidentKeeper:
    """Closes what is over, from what the store knows of the runs."""

    def __init__(self, *, ledger: Ledger, store: Store, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock

    async def keep(self) -> int:
        """How many runs were closed. Reads one page of the ledger and, where something is open, two queries."""
        return await asyncio.to_thread(self._keep)

    def _keep(self) -> int:
        rows = self._ledger.open_incident_runs()
        if not rows:
            return 0
        now = self._clock()
        ids = sorted({row["run_id"] for row in rows if row["run_id"]})
        runs = runs_of(self._store, ids)
        failed = [run_id for run_id, run in runs.items() if run.auto_scheduled and run.state_type in _FAILED]
        later = done_by_later(self._store, failed)
        closed = 0
        for row in {(row["incident_id"], row["subject"]): row for row in rows}.values():
            run = runs.get(row["run_id"])
            if run is None or (over := closed_as(row, run, later)) is None:
                continue
            state, why = over
            closed += self._ledger.close_run(row["incident_id"], row["subject"], state, why, "pilotage", now)
        self._ledger.settle_incidents(now)
        return closed


_FAILED = frozenset({StateType.FAILED, StateType.CRASHED})


def closed_as(row: Mapping[str, Any], run: RunFact, later: Mapping[str, str]) -> tuple[RunState, str] | None:
    """Return as what a run of an open incident is closed, and why; None while its work is not done."""
    if row["made"]:
        # the run itself stays as it is: whether the other one did the work is found when that is verified
        return None
    if not is_failure(row["failure_class"]):
        if run.state_type in _FAILED or run.state_type in (StateType.COMPLETED, StateType.CANCELLED):
            return "superseded", f"the run ended as {run.state_name}"
        return None
    if run.state_type is StateType.COMPLETED:
        return "recovered", "the run completed"
    if run.state_type is StateType.CANCELLED:
        return "superseded", "the run was cancelled"
    if (other := later.get(run.run_id)) is not None:
        return "superseded", f"run {other} of the same schedule did it"
    return None
