"""Queues in which every run meets one and the same fault of the platform, and queues that are held for one that is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pilotage.planner.actions.types import HoldQueue, NotifyOwner, ReleaseQueue, Severity
from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.detect.ongoing import fingerprint_of, ongoing_finding
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.log_templates import normalised
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import DesiredAction, IncidentContext, Remediation, words_of
from pilotage.telemetry.facts import QueueFact, RunFact
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.redaction import redact

OF_THE_PLATFORM = frozenset(
    {FailureClass.INFRASTRUCTURE, FailureClass.CRASHED, FailureClass.ENVIRONMENT, FailureClass.CAPACITY}
)


def unhealthy_queues(
    failing: Mapping[tuple[str, str], Sequence[RunFact]],
    queues: Sequence[QueueFact],
    now: datetime,
    parameters: PlaybookParameters,
) -> list[Finding]:
    """One finding for each open queue whose ended runs, of two deployments or more, all share one fault.

    `failing` has the ended runs of queues in which none completed, newest first.
    """
    is_open = {(q.pool, q.queue) for q in queues if not q.paused}
    findings = []
    for (pool, queue), runs in sorted(failing.items()):
        if (pool, queue) not in is_open or len(runs) < parameters.unhealthy_runs:
            continue
        if len({run.deployment_id for run in runs}) < 2 or one_fault(runs) is None:
            continue
        newest = runs[0]
        subject = f"queue:{pool}/{queue}"
        said = harmless(redact(newest.state_message), 120)
        findings.append(
            ongoing_finding(
                subject,
                FailureClass.UNHEALTHY,
                now,
                episode=runs[-1].state_id,
                rule_id="one-fault-of-the-platform",
                evidence=(
                    Evidence(
                        ref=subject,
                        note=f"the last {len(runs)} runs, of {len({run.deployment_id for run in runs})} deployments, "
                        "ended in one and the same fault of the platform, and none completed",
                    ),
                    Evidence(ref=f"state:{newest.state_id}", note=said, tainted=True),
                ),
            )
        )
    return findings


def one_fault(runs: Sequence[RunFact]) -> str | None:
    """What all these runs ended in, when it is one and the same fault of the platform; None otherwise."""
    faults = set()
    for run in runs:
        finding = diagnose_run(run, (), run.updated)
        if finding.failure_class not in OF_THE_PLATFORM:
            return None
        faults.add(f"{finding.failure_class} {finding.rule_id} {normalised(run.state_message)}")
    return faults.pop() if len(faults) == 1 else None


def recovered_queues(
    queues: Sequence[QueueFact],
    held_since: Mapping[str, datetime],
    cured_by: Mapping[str, RunFact],
    now: datetime,
) -> list[Finding]:
    """One finding for each queue that we hold for a fault which a later run of the same deployments did not meet.

    `held_since` says when, by the fingerprint of what the queue is held for; `cured_by` which run, by subject.
    """
    findings = []
    for queue in queues:
        subject = f"queue:{queue.pool}/{queue.queue}"
        since = held_since.get(fingerprint_of(subject, FailureClass.UNHEALTHY))
        cured = cured_by.get(subject)
        if not queue.paused or since is None or cured is None:
            continue
        findings.append(
            ongoing_finding(
                subject,
                FailureClass.RECOVERED_QUEUE,
                now,
                episode=since.isoformat(),
                rule_id="completed-since",
                evidence=(
                    Evidence(
                        ref=f"state:{cured.state_id}",
                        note=f"a run of the same deployments completed since the queue was held "
                        f"{words_of(now - since)} ago",
                    ),
                ),
            )
        )
    return findings


def remediate_unhealthy_queue(s: IncidentContext) -> Remediation:
    """The queue is held, so that no further run is lost to the fault, and an owner told."""
    pool, queue = _place(s)
    hold = HoldQueue(pool=pool, queue=queue, hold=s.parameters.queue_hold)
    effect = (
        f"no further run is lost to the fault; the queue is released after {words_of(hold.hold)}, or as soon as "
        "a run of the same deployments completes"
    )
    notices: tuple[DesiredAction, ...] = ()
    if s.around.witness:
        notify = NotifyOwner(run_id=s.around.witness, severity=Severity.CRITICAL)
        notices = (DesiredAction(action=notify, effect="the owner knows and can act", bound_to_state=False),)
    return Remediation(
        desired=(DesiredAction(action=hold, effect=effect), *notices),
        alternatives=("retry_run: the platform has to be mended first, another attempt would meet the same",),
    )


def remediate_recovered_queue(s: IncidentContext) -> Remediation:
    pool, queue = _place(s)
    if not any((q.pool, q.queue, q.paused) == (pool, queue, True) for q in s.around.queues):
        return Remediation(alternatives=("release_queue: it is open already",))
    release = ReleaseQueue(pool=pool, queue=queue)
    return Remediation(
        desired=(DesiredAction(action=release, effect="its runs start again; what it was held for is over"),)
    )


def _place(s: IncidentContext) -> tuple[str, str]:
    pool, _, queue = s.finding.subject.removeprefix("queue:").partition("/")
    return pool, queue
