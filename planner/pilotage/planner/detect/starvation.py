"""Trouble that is not a failed run: starved queues, upcoming runs at risk, waiting runs with a near deadline.

Pure. Each finding carries an id made of its subject and its episode, so that one trouble is found as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pilotage.planner.detect.failures import incident_id
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import deadline_of, words_of
from pilotage.telemetry.facts import QueueFact, RunFact, StateType
from pilotage.telemetry.forecasts import DurationForecast, Forecast


def starved_queues(
    queues: Sequence[QueueFact], now: datetime, parameters: PlaybookParameters
) -> list[Finding]:
    """One finding for each queue with an overdue run while queues of higher priority hold every slot."""
    findings = []
    for queue in queues:
        if queue.paused or queue.waiting < 1 or queue.oldest_due is None:
            continue
        waited = now - queue.oldest_due
        busy = busy_queue(queue, queues)
        if busy is None or waited <= parameters.starved_after:
            continue
        subject = f"queue:{queue.pool}/{queue.queue}"
        findings.append(
            Finding(
                incident_id=incident_id(subject, f"starved since {queue.oldest_due.isoformat()}"),
                subject=subject,
                failure_class=FailureClass.STARVED,
                found_at=now,
                by="rule",
                rule_id="starved-queue",
                evidence=(
                    Evidence(
                        ref=subject,
                        note=f"{queue.waiting} due, the first waits {round(waited.total_seconds())} s",
                    ),
                    Evidence(
                        ref=f"queue:{busy.pool}/{busy.queue}",
                        note=f"priority {busy.priority} before {queue.priority}; holds {busy.running} of "
                        f"{queue.pool_limit} slots and has {busy.waiting} more waiting",
                    ),
                ),
            )
        )
    return findings


def busy_queue(starved: QueueFact, queues: Sequence[QueueFact]) -> QueueFact | None:
    """The queue of higher priority that holds most slots of a full pool and wants more, or None."""
    ahead = [q for q in queues if q.pool == starved.pool and q.priority < starved.priority and not q.paused]
    if starved.pool_limit is None or sum(q.running for q in ahead) < starved.pool_limit:
        return None
    wanting = [q for q in ahead if q.waiting > 0 and q.running > 0]
    return max(wanting, key=lambda q: (q.running, -q.priority, q.queue), default=None)


def at_risk_runs(
    runs: Sequence[RunFact], forecasts: Mapping[str, Forecast], now: datetime, parameters: PlaybookParameters
) -> list[Finding]:
    """One finding for each upcoming run that will probably fail and can still be moved; soonest first.

    The episode is the run itself: a run is held back once, whatever is forecast of it afterwards.
    """
    findings = []
    for run in sorted(runs, key=lambda r: (r.next_start or now, r.run_id)):
        forecast = forecasts.get(run.run_id)
        if run.state_type is not StateType.SCHEDULED or run.next_start is None or forecast is None:
            continue
        to_start = run.next_start - now
        if not parameters.minimum_notice <= to_start <= parameters.horizon:
            continue
        if not forecast.expects_failure(parameters.act_above) or run.run_count > 0:
            continue
        subject = f"run:{run.run_id}"
        findings.append(
            Finding(
                incident_id=incident_id(subject, "at risk"),
                subject=subject,
                failure_class=FailureClass.AT_RISK,
                found_at=now,
                by="forecast",
                evidence=(
                    Evidence(
                        ref=f"forecast:{run.run_id}",
                        note=f"{forecast.p_fail:.0%} chance of failing says {forecast.model}; starts in "
                        f"{round(to_start.total_seconds())} s",
                    ),
                ),
            )
        )
    return findings


def late_runs(
    waiting: Sequence[RunFact],
    expected: Mapping[str, DurationForecast],
    now: datetime,
    parameters: PlaybookParameters,
) -> list[Finding]:
    """One finding for each waiting run with a near deadline and others ahead in its queue; nearest first.

    What counts is when it must start at the latest: its deadline less what nine of ten of its like take, where that is
    forecast. `expected` is by run.
    """
    findings = []
    for run in waiting:
        deadline, forecast = deadline_of(run), expected.get(run.run_id)
        takes = forecast.p90 if forecast is not None and forecast.runs else timedelta(0)
        if deadline is None or not now < deadline <= now + parameters.deadline_near + takes:
            continue
        first = earliest_waiting(run, waiting)
        if run.state_type is not StateType.SCHEDULED or run.next_start is None or first is None:
            continue
        if first >= run.next_start:
            continue
        subject = f"run:{run.run_id}"
        findings.append(
            (
                deadline,
                Finding(
                    incident_id=incident_id(subject, f"late for {deadline.isoformat()}"),
                    subject=subject,
                    failure_class=FailureClass.LATE,
                    found_at=now,
                    by="rule",
                    rule_id="near-deadline",
                    evidence=(
                        Evidence(
                            ref=f"state:{run.state_id}",
                            note=f"its deadline is in {round((deadline - now).total_seconds())} s"
                            + (f", nine of ten of its like take up to {words_of(takes)}," if takes else "")
                            + f" and {_ahead(run, waiting)} runs wait ahead of it",
                        ),
                    ),
                ),
            )
        )
    return [finding for _, finding in sorted(findings, key=lambda pair: (pair[0], pair[1].subject))]


def earliest_waiting(run: RunFact, waiting: Sequence[RunFact]) -> datetime | None:
    """The start time of the first of the other runs in the same queue, or None when none waits."""
    return min(
        (r.next_start for r in _others(run, waiting) if r.next_start is not None),
        default=None,
    )


def _others(run: RunFact, waiting: Sequence[RunFact]) -> list[RunFact]:
    return [r for r in waiting if r.run_id != run.run_id and (r.pool, r.queue) == (run.pool, run.queue)]


def _ahead(run: RunFact, waiting: Sequence[RunFact]) -> int:
    mine = run.next_start
    return sum(
        1
        for r in _others(run, waiting)
        if r.next_start is not None and mine is not None and r.next_start < mine
    )
