"""Too many runs of one deployment at once: after an outage, or so many that others are not seen behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pilotage.planner.actions.types import CatchUp, RescheduleRun, SpreadRuns
from pilotage.planner.detect.ongoing import ongoing_finding
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import Backlog, DesiredAction, IncidentContext, Remediation, words_of
from pilotage.telemetry.facts import DeploymentFact, RunFact

KEEP_NEWEST = "pilotage:keep-newest:"
"""A deployment's tag: after an outage only its newest runs matter, so many of them."""
WHOLE_BACKLOG = timedelta(hours=1)
"""The last wave starts at most so long after the first."""
BEFORE = timedelta(seconds=1)
"""How far before the first of the others a run is put that is to start first: queues are served by start time."""
NOTICE = timedelta(minutes=1)
"""From the proposal to the first wave: time to judge, hold and write."""


def overdue(
    backlogs: Mapping[str, Sequence[RunFact]],
    resumed: Mapping[str, datetime],
    now: datetime,
    parameters: PlaybookParameters,
) -> list[Finding]:
    """One finding for each deployment whose runs piled up while nothing of their pool started.

    `resumed` has, for each deployment, when the first run of its pool started after the oldest of the backlog was
    due: a pool that still starts nothing is not helped by other start times.
    """
    findings = []
    for deployment_id, runs in sorted(backlogs.items()):
        late = [run for run in runs if run.next_start is not None and run.next_start < now]
        first_start = resumed.get(deployment_id)
        if len(late) < parameters.backlog_runs or first_start is None:
            continue
        since = min(run.next_start for run in late if run.next_start is not None)
        if first_start - since < parameters.outage:
            continue
        note = (
            f"{len(late)} runs are overdue, the oldest since {since.isoformat(timespec='seconds')}; nothing of its "
            f"pool started for {words_of(first_start - since)} after that"
        )
        findings.append(_finding(deployment_id, FailureClass.BACKLOG, "after-outage", late, note, now))
    return findings


def blocked(
    backlogs: Mapping[str, Sequence[RunFact]], now: datetime, parameters: PlaybookParameters
) -> list[Finding]:
    """One finding for each deployment with more waiting runs than Prefect looks at."""
    findings = []
    for deployment_id, runs in sorted(backlogs.items()):
        if len(runs) <= parameters.blocked_runs:
            continue
        held = sum(run.state_name == "AwaitingConcurrencySlot" for run in runs)
        note = (
            f"{len(runs)} runs wait, {held} of them for a concurrency slot; Prefect offers "
            f"{parameters.blocked_runs} runs at a time, so those of others are not seen"
        )
        findings.append(_finding(deployment_id, FailureClass.BLOCKED, "crowd", runs, note, now))
    return findings


def backlog_of(runs: Sequence[RunFact], deployment: DeploymentFact | None) -> Backlog:
    """What a playbook needs to know of the waiting runs of one deployment."""
    first = runs[0].parameters if runs else {}
    starts = [(run.next_start, run.run_id) for run in runs if run.next_start is not None]
    return Backlog(
        waiting=len(runs),
        keep=kept_by_owner(deployment.tags if deployment else ()),
        newest=max(starts, default=(None, ""))[1],
        earliest=min(starts, default=(None, ""))[0],
        alike=bool(runs) and all(run.auto_scheduled and run.parameters == first for run in runs),
    )


def kept_by_owner(tags: Sequence[str]) -> int | None:
    """The number in the tag `pilotage:keep-newest:<n>`; None without one, with two, or with no whole number."""
    said = {tag.removeprefix(KEEP_NEWEST) for tag in tags if tag.startswith(KEEP_NEWEST)}
    text = said.pop() if len(said) == 1 else ""
    return int(text) if text.isdecimal() and 1 <= int(text) <= 1000 else None


def remediate_backlog(s: IncidentContext) -> Remediation:
    """The newest in waves and the rest cancelled where the owner said so; all of them in waves otherwise."""
    backlog = s.around.backlog
    if backlog is None or backlog.waiting < s.parameters.backlog_runs:
        return Remediation(alternatives=("spread_runs: the runs have gone on by themselves",))
    if backlog.keep is None or not backlog.alike or backlog.waiting <= backlog.keep:
        why = "catch_up: " + (
            f"no tag {KEEP_NEWEST}<n> says that older runs are superseded"
            if backlog.keep is None
            else "all of them are wanted"
            if backlog.waiting <= backlog.keep
            else "the runs differ in their parameters, or people made them: none stands for another"
        )
        boost = _boost(s, backlog)
        return Remediation(desired=(boost or _spread(s, backlog),), alternatives=(why,))
    dropped = backlog.waiting - backlog.keep
    caught = CatchUp(
        deployment_id=_deployment(s),
        keep=backlog.keep,
        first=s.now + NOTICE,
        wave=_wave(backlog.keep, s.parameters),
        every=s.parameters.wave_every,
    )
    effect = f"the newest {backlog.keep} runs start in waves; {dropped} that they supersede are cancelled"
    return Remediation(
        desired=(DesiredAction(action=caught, effect=effect),),
        alternatives=("spread_runs: the owner wants the newest only",),
    )


def _boost(s: IncidentContext, backlog: Backlog) -> DesiredAction | None:
    """The newest run before all others, where its owner wants it and nothing says that the others are needless."""
    if backlog.keep != 1 or not backlog.newest or backlog.earliest is None:
        return None
    start = backlog.earliest - BEFORE
    if start < s.now - s.parameters.longest_boost:
        return None
    return DesiredAction(
        action=RescheduleRun(run_id=backlog.newest, start=start),
        effect=f"the newest starts first, as its owner wants; the {backlog.waiting - 1} others follow, and none is dropped",
    )


def remediate_blocked(s: IncidentContext) -> Remediation:
    backlog = s.around.backlog
    if backlog is None or backlog.waiting <= s.parameters.blocked_runs:
        return Remediation(alternatives=("spread_runs: the backlog has cleared",))
    return Remediation(
        desired=(_spread(s, backlog),), alternatives=("cancel_tree: a backlog is no reason to drop work",)
    )


def _spread(s: IncidentContext, backlog: Backlog) -> DesiredAction:
    wave = _wave(backlog.waiting, s.parameters)
    spread = SpreadRuns(
        deployment_id=_deployment(s), first=s.now + NOTICE, wave=wave, every=s.parameters.wave_every
    )
    effect = f"{backlog.waiting} runs start in waves of {wave}, and those of others in between"
    return DesiredAction(action=spread, effect=effect)


def _wave(runs: int, parameters: PlaybookParameters) -> int:
    waves = max(1, int(WHOLE_BACKLOG / parameters.wave_every))
    return min(200, max(parameters.wave, math.ceil(runs / waves)))


def _deployment(s: IncidentContext) -> str:
    return s.finding.subject.removeprefix("deployment:")


def _finding(
    deployment_id: str,
    failure_class: FailureClass,
    rule_id: str,
    runs: Sequence[RunFact],
    note: str,
    now: datetime,
) -> Finding:
    subject = f"deployment:{deployment_id}"
    return ongoing_finding(
        subject,
        failure_class,
        now,
        episode=now.date().isoformat(),
        rule_id=rule_id,
        evidence=(
            Evidence(ref=subject, note=note),
            Evidence(ref=f"state:{runs[0].state_id}", note="the first of them"),
        ),
    )
