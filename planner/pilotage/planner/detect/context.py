"""What stands around a finding, counted from the store: rows of failures, memory, queues, who waits ahead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pilotage.planner.detect.backlog import backlog_of
from pilotage.planner.detect.failures import diagnose_run, fingerprint_of
from pilotage.planner.detect.memory_sizing import sized, sizing_state
from pilotage.planner.detect.pile_up import slack_of, staggered
from pilotage.planner.detect.starvation import earliest_waiting
from pilotage.planner.detect.unusual import failing_value
from pilotage.planner.findings import FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import SAFE_TO_REPEAT, Background, Backlog, Remedy
from pilotage.telemetry.facts import DecisionFact, DeploymentFact, PoolFact, RunFact, StateType
from pilotage.telemetry.pool_memory import allowed_sizes, effective, memory_of
from pilotage.telemetry.queries import fleet, heartbeats
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries import unusual as unusual_queries
from pilotage.telemetry.queries.retry_impact import retry_impact_of
from pilotage.telemetry.store.protocol import Store

ENDED_RUNS_READ = 100
"""The newest ended runs of a deployment in which rows of failures are counted."""
REPEATABLE = "pilotage:repeatable"
"""A deployment's tag: running it twice does no harm."""
REMEDIATION = "pilotage:remediation"
"""A deployment's tag: it is there to help the runs of others."""
REMEDIES = "pilotage:remedies:"
"""A remediation's tag: what it is the remedy for."""
NEEDS_QUEUES = frozenset({FailureClass.STARVED, FailureClass.RECOVERED_QUEUE, FailureClass.BLOCKED_BY_HOLD})
NEEDS_BACKLOG = frozenset({FailureClass.BACKLOG, FailureClass.BLOCKED})
_FAILED = frozenset({StateType.FAILED, StateType.CRASHED})


def background_of(
    store: Store, run: RunFact | None, finding: Finding | None, now: datetime, parameters: PlaybookParameters
) -> Background:
    """Everything a playbook looks at besides the run itself; reads the store."""
    kind = finding.failure_class if finding else None
    queues = tuple(run_queries.queue_snapshots(store)) if kind in NEEDS_QUEUES else ()
    if run is None:
        return Background(
            queues=queues,
            backlog=_backlog(store, finding, now) if finding and kind in NEEDS_BACKLOG else None,
            witness=(finding.witness or _witness(finding, store, now, parameters)) if finding else "",
        )
    deployment = run_queries.deployment_of(store, run.run_id)
    pool = fleet.pool_of(store, run, deployment)
    pool_type = pool.type if pool else ""
    job_variables = job_variables_of(run, deployment, pool)
    crashed = run.state_type is StateType.CRASHED
    death = heartbeats.signs_of_death(store, run, now) if crashed else heartbeats.DeathSigns()
    missized = kind is FailureClass.MISSIZED
    ended = fleet.last_ended(store, run.deployment_id, ENDED_RUNS_READ) if run.deployment_id else []
    default = memory_of(job_variables_of(None, deployment, pool), pool_type) if deployment else None
    children = fleet.failed_children(store, run) if run.state_type in _FAILED else []
    parent = fleet.parent_of(store, run) if run.state_type in _FAILED else None
    return Background(
        **remedied_of(store, run, ended),
        witness=finding.witness if finding else "",
        later_start=staggered(run, slack_in(store, [run]).get(run.run_id, timedelta(0)))
        if kind is FailureClass.PILE_UP
        else None,
        failed_children=tuple(child.run_id for child in children),
        parent_ended="badly" if parent and parent.state_type in _FAILED and parent.deployment_id else "",
        sizing=sizing_state(sized(ended, default), default, parameters) if default and missized else None,
        default_mb=default,
        failures_in_row=failures_in_row(ended),
        failing_for=failing_for(ended, now),
        same_fault_in_row=same_fault_in_row(run, ended, now, parameters),
        failing_value=failing_value(run, ended, parameters) if run.state_type in _FAILED else "",
        deployment_paused=bool(deployment and deployment.paused),
        safe_to_repeat=safe_to_repeat(deployment, parameters),
        may_be_repeated=bool(deployment and {REPEATABLE, SAFE_TO_REPEAT} & set(deployment.tags)),
        memory_mb=memory_of(job_variables, pool_type),
        memory_sizes=allowed_sizes(job_variables, pool_type),
        earliest_waiting=earliest_waiting(run, run_queries.waiting_runs(store, now))
        if kind is FailureClass.LATE
        else None,
        queues=queues,
        remedies=remedies_offered(deployment, fleet.deployments(store)) if run.state_type in _FAILED else (),
        retry_impact=retry_impact_of(fleet.task_runs_of(store, run.run_id))
        if run.state_type in _FAILED
        else None,
        death_signs=tuple(sign for sign in (death.silent, death.carrier) if sign),
        heard_after_end=death.heard_after is not None,
        newest_failure=not ended or ended[0].run_id == run.run_id,
    )


def slack_in(store: Store, runs: Sequence[RunFact]) -> dict[str, timedelta]:
    """By run, by how much it may start later; nothing for those that have no slack."""
    gaps = unusual_queries.schedule_gaps(store)
    took = unusual_queries.durations(store, sorted({run.deployment_id for run in runs if run.deployment_id}))
    found = {
        run.run_id: slack_of(run, gaps.get(run.deployment_id or ""), took.get(run.deployment_id or "", ()))
        for run in runs
    }
    return {run_id: slack for run_id, slack in found.items() if slack}


def remedied_of(store: Store, run: RunFact, ended: Sequence[RunFact] = ()) -> dict[str, Any]:
    """What is known of the remedy of a failed run: `remedied` and `remedy_helped`.

    `ended` are the newest ended runs of its deployment, newest first. A remedy that ended for one of the runs that
    fail in a row with this one, before this one started, did not help.
    """
    if run.state_type not in _FAILED:
        return {}
    own = _remedies_ended(run_queries.decisions_about(store, run.run_id))
    if own:
        last = own[-1]
        well = last.step == "verified" and last.outcome == "verified"
        since = run.ended or run.updated
        return {
            "remedied": "it ended well" if well else "it did not end well",
            "remedy_helped": well and last.at > since,
        }
    row = [other.run_id for other in ended[: failures_in_row(ended)] if other.run_id != run.run_id]
    began = run.started or run.created
    others = _remedies_ended(run_queries.decisions_about(store, *row)) if row else []
    if any(one.at < began for one in others):
        return {"remedied": "the deployment failed again after it"}
    return {}


def _remedies_ended(steps: Sequence[DecisionFact]) -> list[DecisionFact]:
    return [
        one
        for one in steps
        if one.action == "launch_remediation"
        and one.step in ("verified", "refused", "failed")
        and one.outcome != "needs_approval"
    ]


def remedies_offered(own: DeploymentFact | None, everyone: Sequence[DeploymentFact]) -> tuple[Remedy, ...]:
    """What the owners of a deployment declared as remedies; what belongs to another team is none of theirs."""
    if own is None:
        return ()
    return tuple(
        Remedy(
            deployment_id=other.deployment_id,
            cures=frozenset(tag.removeprefix(REMEDIES) for tag in other.tags if tag.startswith(REMEDIES)),
        )
        for other in everyone
        if REMEDIATION in other.tags
        and _team(other) == _team(own)
        and other.deployment_id != own.deployment_id
    )


def _team(deployment: DeploymentFact) -> str:
    return next((tag for tag in deployment.tags if tag.startswith("team:")), "")


def _backlog(store: Store, finding: Finding, now: datetime) -> Backlog:
    deployment_id = finding.subject.removeprefix("deployment:")
    runs = fleet.due_of(store, deployment_id, now)
    if finding.failure_class is FailureClass.BACKLOG:
        runs = [run for run in runs if run.next_start is not None and run.next_start < now]
    known = {d.deployment_id: d for d in fleet.deployments(store)}
    return backlog_of(runs, known.get(deployment_id))


def _witness(finding: Finding, store: Store, now: datetime, parameters: PlaybookParameters) -> str:
    """The newest of the runs that failed in an unhealthy queue; empty for any other trouble."""
    if finding.failure_class is not FailureClass.UNHEALTHY:
        return ""
    pool, _, queue = finding.subject.removeprefix("queue:").partition("/")
    failing = fleet.failing_queues(store, now - parameters.unhealthy_window, 1).get((pool, queue))
    return failing[0].run_id if failing else ""


def failures_in_row(ended: Sequence[RunFact]) -> int:
    """How many of the newest ended runs failed without one that completed between them; newest first."""
    row = 0
    for run in ended:
        if run.state_type not in _FAILED:
            break
        row += 1
    return row


def failing_for(ended: Sequence[RunFact], now: datetime) -> timedelta:
    """How long ago the first of the newest runs that failed in a row ended; newest first."""
    row = ended[: failures_in_row(ended)]
    ends = [run.ended for run in row if run.ended is not None]
    return now - min(ends) if ends else timedelta(0)


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


def job_variables_of(
    run: RunFact | None, deployment: DeploymentFact | None, pool: PoolFact | None = None
) -> dict[str, Any]:
    """Return the job variables that a worker merges: of a run, behind them its deployment's, then its pool's defaults.

    Where the pool is known, only what its template has: Prefect drops the rest. Without a run, those of the deployment.
    """
    of_deployment = deployment.job_variables if deployment else {}
    of_run = run.job_variables if run else {}
    if pool is None or not pool.sizes:
        return {**of_deployment, **of_run}
    template = {name: {"default": default} for name, default in pool.sizes.items()}
    return effective(template, of_deployment, of_run)


def safe_to_repeat(deployment: DeploymentFact | None, parameters: PlaybookParameters) -> bool:
    """Return whether owners declared a deployment safe to repeat, or its `env:` tag says that it is not production."""
    if deployment is None:
        return False
    harmless = {name.lower() for name in parameters.non_production}
    envs = {tag.removeprefix("env:").strip().lower() for tag in deployment.tags if tag.startswith("env:")}
    return SAFE_TO_REPEAT in deployment.tags or (bool(envs) and envs <= harmless)
