"""Queues and backlogs of the past: what the detectors would have found, as far as telemetry still tells.

Pure but for the store. It asks the same questions as the loop: `starved_queues`, `unhealthy_queues`, `overdue`
and `blocked`, each of the queue state as it was then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pilotage.planner.detect.backlog import backlog_of, blocked, overdue
from pilotage.planner.detect.queue_faults import unhealthy_queues
from pilotage.planner.detect.starvation import starved_queues
from pilotage.planner.findings import FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import Background, IncidentContext
from pilotage.telemetry.facts import DeploymentFact, RunFact, StateType
from pilotage.telemetry.queries import fleet
from pilotage.telemetry.queries.history import HistoricalFailure
from pilotage.telemetry.queries.queue_history import (
    QueueWait,
    begun_again,
    completed_then,
    pools_then,
    queue_then,
    waits_then,
)
from pilotage.telemetry.store.protocol import Store

ASSUMED = (
    "queues are as their snapshots tell; a run waited from the start it was made for until it started, since "
    "later changes of that start are not kept; what a hold or a wave would have changed afterwards is unknown",
    "not looked for in the past, since their state then is not kept: runs at risk, late for a deadline, of a wrong "
    "size, without retries, orphaned or kept by a held queue, and queues to be released again",
)
"""What looking at queues and crowds of the past has to suppose, in words for the report."""


def queue_detections(
    store: Store,
    failures: Sequence[HistoricalFailure],
    deployments: Mapping[str, DeploymentFact],
    since: datetime,
    parameters: PlaybookParameters,
) -> list[IncidentContext]:
    """One situation for each trouble of a queue or a backlog since a moment, oldest first."""
    incident_contexts = [
        *_starved(store, since, parameters),
        *_unhealthy(store, failures, since, parameters),
        *_backlogs(store, deployments, since, parameters),
    ]
    return sorted(incident_contexts, key=lambda s: (s.now, s.finding.subject))


def asked_then(store: Store, incident_context: IncidentContext) -> bool:
    """Whether something was proposed about the same standing trouble around then."""
    finding, near = incident_context.finding, incident_context.parameters.ask_again_after
    return bool(finding.fingerprint) and any(
        step.fingerprint == finding.fingerprint
        and step.step == "proposed"
        and step.at <= finding.found_at + near
        for step in fleet.steps_since(store, finding.found_at - near)
    )


def _starved(store: Store, since: datetime, parameters: PlaybookParameters) -> Iterator[IncidentContext]:
    known: set[str] = set()
    for at, queues in pools_then(store, since, parameters.starved_after):
        for finding in starved_queues(queues, at, parameters):
            if finding.incident_id not in known:
                known.add(finding.incident_id)
                yield _situation(finding, Background(queues=tuple(queues)), at, parameters)


def _unhealthy(
    store: Store, failures: Sequence[HistoricalFailure], since: datetime, parameters: PlaybookParameters
) -> Iterator[IncidentContext]:
    ended = [*(failure.run for failure in failures), *completed_then(store, since)]
    of_queue: dict[tuple[str, str], list[tuple[datetime, RunFact]]] = {}
    for run in ended:
        if run.pool and run.queue and run.ended is not None:
            of_queue.setdefault((run.pool, run.queue), []).append((run.ended, run))
    for place, ends in of_queue.items():
        asked = completed = datetime.min.replace(tzinfo=UTC)
        window: deque[RunFact] = deque()
        for at, run in sorted(ends, key=lambda end: (end[0], end[1].run_id)):
            if run.state_type is StateType.COMPLETED:
                completed = at
                continue
            window.append(run)
            begin = at - parameters.unhealthy_window
            while window[0].ended is None or window[0].ended <= begin:
                window.popleft()
            recent = list({run.run_id: run for run in reversed(window)}.values())
            if completed > begin or at - asked <= parameters.ask_again_after:
                continue
            if len(recent) < parameters.unhealthy_runs:
                continue
            queue = queue_then(store, *place, at)
            for finding in unhealthy_queues({place: recent}, [queue] if queue else [], at, parameters):
                asked = at
                yield _situation(finding, Background(witness=recent[0].run_id), at, parameters)


def _backlogs(
    store: Store,
    deployments: Mapping[str, DeploymentFact],
    since: datetime,
    parameters: PlaybookParameters,
) -> Iterator[IncidentContext]:
    waits = waits_then(store, since)
    asked: dict[str, datetime] = {}
    for at, backlogs, resumed in _moments(store, waits, since, parameters):
        late = overdue(backlogs, resumed, at, parameters)
        for finding in late or blocked(backlogs, at, parameters):
            before = asked.get(finding.subject)
            if before is not None and at - before <= parameters.ask_again_after:
                continue
            asked[finding.subject] = at
            deployment_id = finding.subject.removeprefix("deployment:")
            backlog = backlog_of(backlogs[deployment_id], deployments.get(deployment_id))
            yield _situation(finding, Background(backlog=backlog), at, parameters)


Moment = tuple[datetime, Mapping[str, Sequence[RunFact]], Mapping[str, datetime]]
"""When, who waited by deployment, and when the pool began again by deployment."""


def _moments(
    store: Store, waits: Mapping[str, Sequence[QueueWait]], since: datetime, parameters: PlaybookParameters
) -> list[Moment]:
    """When a pool began again, and when a backlog became one that hides others; oldest first."""
    moments: list[Moment] = []
    for pool, at in begun_again(store, since, parameters.outage):
        for deployment_id, each in waits.items():
            backlog = [_waiting(wait) for wait in each if wait.run.pool == pool and wait.at(at)]
            if len(backlog) >= parameters.backlog_runs:
                moments.append((at, {deployment_id: backlog}, {deployment_id: at}))
    for deployment_id, each in waits.items():
        if len(each) <= parameters.blocked_runs:
            continue
        for at in _passed(each, parameters.blocked_runs):
            if at > since:
                backlog = [
                    _waiting(wait)
                    for wait in each
                    if wait.due <= at and (wait.taken is None or wait.taken > at)
                ]
                moments.append((at, {deployment_id: backlog}, {}))
    return sorted(moments, key=lambda moment: moment[0])


def _passed(waits: Sequence[QueueWait], most: int) -> Iterator[datetime]:
    """Every moment at which more runs than that began to wait together."""
    steps = sorted(
        [(wait.due, 1) for wait in waits] + [(wait.taken, -1) for wait in waits if wait.taken is not None]
    )
    together = 0
    for at, step in steps:
        together += step
        if step > 0 and together == most + 1:
            yield at


def _waiting(wait: QueueWait) -> RunFact:
    """The run as it was while it waited."""
    return replace(
        wait.run,
        state_type=StateType.SCHEDULED,
        state_name="Late",
        next_start=wait.due,
        started=None,
        ended=None,
    )


def _situation(
    finding: Finding, around: Background, at: datetime, parameters: PlaybookParameters
) -> IncidentContext:
    return IncidentContext(
        finding=finding, run=None, forecast=None, around=around, now=at, parameters=parameters
    )


CLASSES = (FailureClass.STARVED, FailureClass.UNHEALTHY, FailureClass.BACKLOG, FailureClass.BLOCKED)
"""What is looked for."""
