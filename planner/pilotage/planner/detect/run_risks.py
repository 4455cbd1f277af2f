"""Trouble of one run that has not failed: running without a net, held up before a deadline, or orphaned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pilotage.planner.actions.types import CancelTree, MoveRun, NotifyOwner, RaiseRetries, Severity
from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.detect.ongoing import ongoing_finding
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import (
    DesiredAction,
    IncidentContext,
    Remediation,
    deadline_of,
    notify,
    run_of,
)
from pilotage.telemetry.facts import DeploymentFact, QueueFact, RunFact, StateType
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.queries.fleet import Orphan

MAY_MOVE = "pilotage:may-move"
"""A tag of a run or its deployment: its runs may be served from another queue of the pool."""
DIES_WITH_PARENT = "pilotage:dies-with-parent"
"""A deployment's tag: its runs are of no use once the run that started them has crashed."""
PASSING = frozenset(
    {
        FailureClass.TRANSIENT,
        FailureClass.RATE_LIMITED,
        FailureClass.CRASHED,
        FailureClass.DEPENDENCY,
        FailureClass.CAPACITY,
    }
)
LAST_FAILURES = 5
"""The failures of a deployment that say what its next one will probably be."""


def fragile_runs(
    running: Sequence[RunFact],
    forecasts: Mapping[str, Forecast],
    failures: Mapping[str, Sequence[RunFact]],
    now: datetime,
    parameters: PlaybookParameters,
) -> list[Finding]:
    """One finding for each running run without retries that will probably fail, and of a fault that passes.

    `failures` has the newest failed runs of each deployment; all of them, two at least, must have been passing ones.
    """
    findings = []
    for run in running:
        forecast = forecasts.get(run.run_id)
        if (
            forecast is None
            or not forecast.expects_failure(parameters.act_above)
            or run.deployment_id is None
        ):
            continue
        # without word of its retries nothing proves that it has none
        if run.retries is None or run.retries > 0 or run.state_type is not StateType.RUNNING:
            continue
        past = failures.get(run.deployment_id, ())[:LAST_FAILURES]
        if len(past) < 2 or any(
            diagnose_run(earlier, (), now).failure_class not in PASSING for earlier in past
        ):
            continue
        findings.append(
            ongoing_finding(
                f"run:{run.run_id}",
                FailureClass.FRAGILE,
                now,
                episode="running",
                rule_id="no-net",
                by="forecast",
                evidence=(
                    Evidence(
                        ref=f"forecast:{run.run_id}",
                        note=f"{forecast.p_fail:.0%} chance of failing says {forecast.model}; it has no retries, and "
                        f"the last {len(past)} failures of its deployment were passing ones",
                    ),
                ),
            )
        )
    return findings


def forecast_trouble(forecasts: Sequence[Forecast], now: datetime) -> list[Finding]:
    """The finding that forecasts and outcomes have parted; the run that is the likeliest to fail is its witness."""
    muted = [forecast for forecast in forecasts if forecast.muted]
    if not muted:
        return []
    worst = max(muted, key=lambda forecast: (forecast.p_fail, forecast.run_id))
    finding = ongoing_finding(
        "site:forecast",
        FailureClass.FORECAST_OFF,
        now,
        episode=worst.muted,
        rule_id="forecast-muted",
        by="forecast",
        evidence=(
            Evidence(
                ref=f"forecast:{worst.run_id}",
                note=f"{worst.muted}; until they agree no run is delayed, given retries or left untried for a forecast",
            ),
        ),
    )
    return [replace(finding, witness=worst.run_id)]


def remediate_forecast_trouble(s: IncidentContext) -> Remediation:
    """The owner of a run that is concerned is told, once: what acts on forecasts waits by itself."""
    if not s.around.witness:
        return Remediation(alternatives=("notify_owner: no run of it is known, so no owner is",))
    told = NotifyOwner(run_id=s.around.witness, severity=Severity.WARNING)
    return Remediation(
        desired=(
            DesiredAction(
                action=told, effect="somebody looks at what has changed at the site", bound_to_state=False
            ),
        ),
        alternatives=("reschedule_run: a forecast that is wrong now delays good runs",),
    )


def remediate_fragile(s: IncidentContext) -> Remediation:
    """Retries of its own for a run that is likely to fail of what passes; none where the forecast is good."""
    run = run_of(s)
    if run.state_type is not StateType.RUNNING:
        return Remediation(alternatives=(f"raise_retries: the run is {run.state_name} already",))
    if s.forecast is None or not s.forecast.expects_failure(s.parameters.act_above):
        return Remediation(alternatives=("raise_retries: the forecast does not expect it to fail any more",))
    retries = RaiseRetries(
        run_id=run.run_id, retries=s.parameters.raised_retries, delay=s.parameters.retry_delay
    )
    effect = f"if this attempt fails it is tried again at once, up to {retries.retries} times"
    return Remediation(
        desired=(DesiredAction(action=retries, effect=effect),),
        alternatives=("cancel_run: a forecast alone is no reason to drop work",),
    )


def runs_blocked_by_hold(
    waiting: Sequence[RunFact],
    queues: Sequence[QueueFact],
    deployments: Mapping[str, DeploymentFact],
    now: datetime,
    parameters: PlaybookParameters,
    *,
    faulty: frozenset[str] = frozenset(),
) -> list[Finding]:
    """One finding for each due run with a near deadline whose queue is held, and whose owner lets it be moved.

    `faulty` names the queues that we hold for a fault of the platform: their runs would meet it elsewhere too.
    """
    known = {(q.pool, q.queue): q for q in queues}
    findings = []
    for run in waiting:
        deadline, here = deadline_of(run), known.get((run.pool or "", run.queue or ""))
        if deadline is None or not now < deadline <= now + parameters.deadline_near or here is None:
            continue
        subject = f"queue:{here.pool}/{here.queue}"
        governing = deployments.get(run.deployment_id or "")
        tags = (*run.tags, *(governing.tags if governing else ()))
        if not here.paused or subject in faulty or MAY_MOVE not in tags or other_queue(here, queues) is None:
            continue
        minutes = round((deadline - now).total_seconds() / 60)
        findings.append(
            ongoing_finding(
                f"run:{run.run_id}",
                FailureClass.BLOCKED_BY_HOLD,
                now,
                episode=deadline.isoformat(),
                rule_id="held-before-deadline",
                evidence=(Evidence(ref=subject, note=f"held, and the run's deadline is in {minutes} min"),),
            )
        )
    return findings


def other_queue(held: QueueFact, queues: Sequence[QueueFact]) -> QueueFact | None:
    """The open queue of the same pool with the fewest runs waiting; of equals the one served last. None if none."""
    others = [q for q in queues if q.pool == held.pool and q.queue != held.queue and not q.paused]
    return min(others, key=lambda q: (q.waiting, -q.priority, q.queue), default=None)


def remediate_blocked_by_hold(s: IncidentContext) -> Remediation:
    run = run_of(s)
    here = next((q for q in s.around.queues if (q.pool, q.queue) == (run.pool, run.queue)), None)
    target = other_queue(here, s.around.queues) if here and here.paused else None
    if target is None:
        return Remediation(alternatives=("move_run: its queue is open again, or no other is",))
    move = MoveRun(run_id=run.run_id, queue=target.queue)
    return Remediation(
        desired=(DesiredAction(action=move, effect=f"it is served from {target.queue}, before its deadline",
                     until=deadline_of(run)),),
        alternatives=("release_queue: whoever held the queue decides about that",),
    )  # fmt: skip


def orphaned(
    pairs: Sequence[Orphan], deployments: Mapping[str, DeploymentFact], now: datetime
) -> list[Finding]:
    """One finding for each dead parent: cancelled, or crashed with children whose owner says they die with it."""
    families: dict[str, list[Orphan]] = {}
    for pair in pairs:
        governing = deployments.get(pair.child.deployment_id or "")
        dies = DIES_WITH_PARENT in (governing.tags if governing else ())
        if pair.parent.state_type is StateType.CANCELLED or dies:
            families.setdefault(pair.parent.run_id, []).append(pair)
    return [
        ongoing_finding(
            f"run:{parent_id}",
            FailureClass.ORPHANED,
            now,
            episode=family[0].parent.state_id,
            rule_id="parent-gone",
            evidence=(
                Evidence(
                    ref=f"state:{family[0].parent.state_id}",
                    note=f"{family[0].parent.state_type}, and {len(family)} runs that it started go on",
                ),
                *(
                    Evidence(ref=f"state:{pair.child.state_id}", note=pair.child.state_type)
                    for pair in family[:10]
                ),
            ),
        )
        for parent_id, family in sorted(families.items())
    ]


def remediate_orphaned(s: IncidentContext) -> Remediation:
    """The whole tree below the dead run is cancelled; one that was taken up again meanwhile is left alone."""
    run = run_of(s)
    if run.state_type not in (StateType.CRASHED, StateType.CANCELLED):
        return Remediation(alternatives=(f"cancel_tree: the run is {run.state_name} again",))
    cancel = CancelTree(run_id=run.run_id)
    return Remediation(
        desired=(
            DesiredAction(action=cancel, effect="nothing goes on that nobody waits for"),
            *notify(s, Severity.WARNING),
        )
    )
