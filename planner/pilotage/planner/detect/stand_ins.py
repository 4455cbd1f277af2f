"""Runs that will not go on, and the runs that are made in their places: never begun, hung, missed by a schedule.

A run that will not go on is cancelled first, so that nothing of it can come up any more; then another is made that does
its work. Both are one trouble. What is found here is a suspicion: the controller looks it up in Prefect before it acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pilotage.planner.actions.types import CancelRun, NotifyOwner, Severity, StartRun
from pilotage.planner.detect.blockage import Cause
from pilotage.planner.detect.ongoing import ongoing_finding
from pilotage.planner.detect.waiting import UNSERVED, waits_since, why_waiting
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import DesiredAction, IncidentContext, Remediation, notify, run_of, words_of
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.queries.site import SiteFacts

HUNG = "hung"
"""The rule by which an overlong run does nothing but send heartbeats."""
ENDED = frozenset({FailureClass.NEVER_STARTED, FailureClass.OVERLONG})
"""Troubles for which a run is cancelled and made again."""
SERVED = "READY"
"""As Prefect calls a pool for which a worker asks."""
_EARLY = timedelta(seconds=30)


def never_started(site: SiteFacts, parameters: PlaybookParameters) -> list[Finding]:
    """One finding for each run that is Pending for too long on a served pool, and was never heard."""
    findings = []
    for run in site.live:
        if run.state_type is not StateType.PENDING or run.run_count or not run.deployment_id:
            continue
        pool = site.pools.get(run.pool or "")
        if pool is None or pool.type.endswith(UNSERVED) or run.run_id in site.handed_out:
            continue
        found = why_waiting(run, site, parameters)
        if found is None or found.cause is not Cause.NEVER_STARTED:
            continue
        heard = site.heard.get(run.run_id)
        if heard is not None and run.state_at is not None and heard > run.state_at + _EARLY:
            continue
        # somebody must be there who ends it, and starts the other
        if pool.status != SERVED:
            continue
        waited = words_of(waits_since(run, site))
        note = f"Pending for {waited}; no worker said that it started anything for it, and its process was never heard"
        findings.append(
            _of(
                run,
                FailureClass.NEVER_STARTED,
                site.now,
                rule="never-started",
                episode=run.state_id,
                note=note,
            )
        )
    return findings


def cancelled_by_us(ended: Mapping[FailureClass, Sequence[RunFact]], now: datetime) -> list[Finding]:
    """One finding for each run that was cancelled since it would not go on, and in whose place none stands yet."""
    rules = {FailureClass.NEVER_STARTED: "never-started", FailureClass.OVERLONG: HUNG}
    return [
        _of(run, kind, now, rule=rules[kind], episode=f"instead of {run.state_id}",
            note="it was cancelled since it would not go on, and its work is not done")
        for kind, runs in ended.items()
        for run in runs
    ]  # fmt: skip


def _of(run: RunFact, kind: FailureClass, now: datetime, *, rule: str, episode: str, note: str) -> Finding:
    evidence = (Evidence(ref=f"run:{run.run_id}", note=note),)
    found = ongoing_finding(f"run:{run.run_id}", kind, now, episode=episode, rule_id=rule, evidence=evidence)
    # what one lost worker left behind is one trouble, under the key by which `why` calls it
    key = f"ongoing:{Cause.NEVER_STARTED}:pool:{run.pool}"
    return replace(found, cause=key) if kind is FailureClass.NEVER_STARTED else found


def remediate_never_started(s: IncidentContext) -> Remediation:
    """The run is cancelled, and once it is another is made; its owner is told where it began after all."""
    run = run_of(s)
    if run.state_type is StateType.CANCELLED:
        return _instead(s)
    if run.state_type is not StateType.PENDING:
        return Remediation(alternatives=(f"cancel_run: it is {run.state_name} already",))
    return Remediation(
        desired=(
            DesiredAction(
                action=CancelRun(run_id=run.run_id),
                effect="nothing of it can come up any more; then another run is made that does its work",
                rests_on=(f"run:{run.run_id}",),
            ),
        ),
        alternatives=(
            "retry_run: what was meant to start it may still come up, and then it would run twice",
        ),
    )


def remediate_overlong(s: IncidentContext) -> Remediation:
    """A run that hangs is cancelled and made again where its owner says that this does no harm; else its owner is told."""
    run = run_of(s)
    if run.state_type is StateType.CANCELLED and s.finding.rule_id == HUNG:
        return _instead(s)
    if run.state_type is not StateType.RUNNING:
        return Remediation(alternatives=(f"notify_owner: the run is {run.state_name} already",))
    if s.finding.rule_id != HUNG or not s.around.may_be_repeated:
        why = (
            "only its owner knows whether what it does may take so long today"
            if s.finding.rule_id != HUNG
            else "nobody says that its work may be done again (tag `pilotage:repeatable`)"
        )
        return Remediation(desired=notify(s, Severity.WARNING), alternatives=(f"cancel_run: {why}",))
    return Remediation(
        desired=(
            DesiredAction(
                action=CancelRun(run_id=run.run_id),
                effect="it ends, and another run is made that does its work",
                rests_on=(f"run:{run.run_id}",),
            ),
        ),
        alternatives=("notify_owner: its owner said beforehand that it may be done again",),
    )


def _instead(s: IncidentContext) -> Remediation:
    start = StartRun(run_id=run_of(s).run_id)
    return Remediation(
        desired=(DesiredAction(action=start, effect="a run with the same parameters does its work"),),
        alternatives=("retry_run: what carried the cancelled run may still come up",),
    )


def remediate_missed(s: IncidentContext) -> Remediation:
    """A run is made for the start that was missed, and the owner is told: nothing here mends the scheduler."""
    told = NotifyOwner(run_id=s.around.witness, severity=Severity.ERROR)
    notice = DesiredAction(
        action=told, effect="the owner knows the cause and what to do", bound_to_state=False
    )
    if s.finding.missed is None or not s.finding.subject.startswith("deployment:"):
        return Remediation(desired=(notice,), alternatives=("start_run: it is no one schedule's trouble",))
    start = StartRun(run_id=s.around.witness, missed=s.finding.missed)
    return Remediation(
        desired=(
            DesiredAction(action=start, effect="the work of the missed start is done", bound_to_state=False),
            notice,
        )
    )
