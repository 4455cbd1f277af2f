"""What stands around a finding, counted from the store: rows of failures, memory, queues, who waits ahead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pilotage.planner.diagnosis import diagnose_run, fingerprint_of
from pilotage.planner.findings import FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks import Circumstances
from pilotage.planner.situations import earliest_waiting
from pilotage.telemetry import incidents
from pilotage.telemetry.facts import DeploymentFact, RunFact, StateType
from pilotage.telemetry.schema import facts_from_rows
from pilotage.telemetry.stores import Store

ENDED_RUNS_READ = 100
"""The newest ended runs of a deployment in which rows of failures are counted."""
_FAILED = frozenset({StateType.FAILED, StateType.CRASHED})


def circumstances_of(
    store: Store, run: RunFact | None, finding: Finding | None, now: datetime, parameters: PlaybookParameters
) -> Circumstances:
    """Everything a play looks at besides the run itself; reads the store."""
    queues = (
        tuple(incidents.floor(store)) if finding and finding.failure_class is FailureClass.STARVED else ()
    )
    if run is None:
        return Circumstances(queues=queues)
    deployment = incidents.deployment_of(store, run.run_id)
    ended = _ended_runs(store, run.deployment_id) if run.deployment_id else []
    late = finding is not None and finding.failure_class is FailureClass.LATE
    return Circumstances(
        failures_in_row=failures_in_row(ended),
        same_fault_in_row=same_fault_in_row(run, ended, now, parameters),
        deployment_paused=bool(deployment and deployment.paused),
        memory_mb=memory_of(run, deployment),
        earliest_waiting=earliest_waiting(run, incidents.waiting_runs(store, now)) if late else None,
        queues=queues,
    )


def failures_in_row(ended: Sequence[RunFact]) -> int:
    """How many of the newest ended runs failed without one that completed between them; newest first."""
    row = 0
    for run in ended:
        if run.state_type not in _FAILED:
            break
        row += 1
    return row


def same_fault_in_row(
    run: RunFact, ended: Sequence[RunFact], now: datetime, parameters: PlaybookParameters
) -> int:
    """How many of the newest ended runs failed with this run's fault, without a break and within the window.

    Other runs' faults are told from their messages alone: their logs are not read again for this.
    """
    if run.state_type not in _FAILED:
        return 0
    wanted = fingerprint_of(run, diagnose_run(run, (), now).failure_class)
    row = 0
    for other in ended:
        too_old = other.ended is None or other.ended < now - parameters.quarantine_window
        if too_old or other.state_type not in _FAILED:
            break
        if fingerprint_of(other, diagnose_run(other, (), now).failure_class) != wanted:
            break
        row += 1
    return row


def memory_of(run: RunFact, deployment: DeploymentFact | None) -> int | None:
    """The run's `memory_mb` in MiB: its own, or its deployment's; None when neither says a whole number."""
    for variables in (run.job_variables, deployment.job_variables if deployment else {}):
        value = variables.get("memory_mb")
        if isinstance(value, int | str | float) and not isinstance(value, bool):
            try:
                size = int(value)
            except ValueError:
                continue
            if size > 0:
                return size
    return None


def _ended_runs(store: Store, deployment_id: str) -> list[RunFact]:
    sql = (
        "SELECT * FROM runs WHERE deployment_id = ? AND ended IS NOT NULL "
        "AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED') ORDER BY ended DESC, run_id LIMIT ?"
    )
    return facts_from_rows(RunFact, store.rows(sql, [deployment_id, ENDED_RUNS_READ]))
