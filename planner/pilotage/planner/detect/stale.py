"""Trouble that something was left behind: a dead run, slots that nobody holds, an alert about what is over.

What is found here is a suspicion only where it is about the dead: the store hears less than Prefect keeps. Policy looks
the proof up when it decides, and the lever again when it acts; an unproven death is refused by both.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pilotage.planner.actions.types import LimitScope, MarkCrashed, ReleaseSlot, ResolveAlert
from pilotage.planner.detect.ongoing import ongoing_finding
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.remediation import DesiredAction, IncidentContext, Remediation, run_of, words_of
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.queries.heartbeats import Heartbeat, LeakedSlots, ResolvedAlert, silence_of


def silent_runs(heartbeats: Sequence[Heartbeat], now: datetime) -> list[Finding]:
    """One finding for each RUNNING or CANCELLING run that has been silent for longer than a living one is.

    The episode is the last word of the run: one that speaks and falls silent again is another trouble.
    """
    return [
        ongoing_finding(
            f"run:{heartbeat.run.run_id}",
            FailureClass.SILENT,
            now,
            episode=heartbeat.heard.isoformat(),
            rule_id="missed-heartbeats",
            evidence=(
                Evidence(
                    ref=f"run:{heartbeat.run.run_id}",
                    note=f"{heartbeat.run.state_name} by its state, silent for {words_of(now - heartbeat.heard)}; "
                    "it sent a heartbeat each "
                    f"{words_of(heartbeat.every)}, and others were heard all the while",
                ),
            ),
        )
        for heartbeat in heartbeats
        if now - heartbeat.heard > silence_of(heartbeat)
    ]


def remediate_silent(s: IncidentContext) -> Remediation:
    """The dead run is marked Crashed; what is tried again after that is the playbook of any crashed run."""
    run = run_of(s)
    if run.state_type not in (StateType.RUNNING, StateType.CANCELLING):
        return Remediation(alternatives=(f"mark_crashed: the run is {run.state_name} already",))
    mark = MarkCrashed(run_id=run.run_id)
    effect = (
        "it is Crashed, the slot that it holds is free, and it is tried again like any crashed run"
        if run.state_type is StateType.RUNNING
        else "it is Cancelled as somebody asked, and the slot that it holds is free"
    )
    return Remediation(
        desired=(DesiredAction(action=mark, effect=effect),),
        alternatives=("cancel_run: nobody is there who would hear it",),
    )


def leaked_slots(stuck: Sequence[LeakedSlots], now: datetime) -> list[Finding]:
    """One finding for each deployment whose runs wait for slots that none of its runs holds."""
    return [
        ongoing_finding(
            f"deployment:{slot.deployment_id}",
            FailureClass.LEAKED,
            now,
            episode=slot.since.isoformat(),
            rule_id="slots-of-nobody",
            evidence=(
                Evidence(
                    ref=f"state:{slot.witness}",
                    note=f"{slot.waiting} runs wait for a slot of the deployment's limit, the first for "
                    f"{words_of(now - slot.since)}, and none of its runs is under way",
                ),
            ),
        )
        for slot in stuck
    ]


def remediate_leaked_slot(s: IncidentContext) -> Remediation:
    release = ReleaseSlot(scope=LimitScope.DEPLOYMENT, name=s.finding.subject.removeprefix("deployment:"))
    return Remediation(
        desired=(
            DesiredAction(
                action=release, effect="the slots that no run holds are free, and the waiting runs start"
            ),
        ),
        alternatives=("set_limit: a higher limit would let too many run once the lost slots lapse",),
    )


def closed_alerts(closed: Sequence[ResolvedAlert], now: datetime) -> list[Finding]:
    """One finding for each run that completed after its owner was told; told again is another trouble."""
    return [
        ongoing_finding(
            f"run:{alert.run.run_id}",
            FailureClass.RECOVERED,
            now,
            episode=alert.told.isoformat(),
            rule_id="completed-since-told",
            evidence=(
                Evidence(
                    ref=f"state:{alert.run.state_id}",
                    note=f"it completed; its owner was told of trouble {words_of(now - alert.told)} ago",
                ),
            ),
        )
        for alert in closed
    ]


def remediate_resolved_alert(s: IncidentContext) -> Remediation:
    run = run_of(s)
    if run.state_type is not StateType.COMPLETED:
        return Remediation(alternatives=(f"resolve_alert: the run is {run.state_name} already",))
    return Remediation(
        desired=(
            DesiredAction(action=ResolveAlert(run_id=run.run_id), effect="the owner knows that it is over"),
        )
    )
