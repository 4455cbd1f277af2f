"""What stands still, found as causes and not as runs: a pool that nobody serves is one finding, however many runs wait.

Each finding carries its cause key in `cause`: `ongoing:<cause>:<entity>`, where the entity is a pool, queue, limit,
deployment or Prefect itself. What comes by itself (a place, a slot) is found only after a longer wait than is usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from pilotage.planner.actions.types import NotifyOwner, ReleaseQueue, Severity
from pilotage.planner.detect.blockage import USUAL_TIMES, Blockage, Cause
from pilotage.planner.detect.holding import not_counted
from pilotage.planner.detect.ongoing import disproved_by, fingerprint_of, ongoing_finding
from pilotage.planner.detect.schedules import missed_starts, schedule_blockage
from pilotage.planner.detect.stand_ins import remediate_missed
from pilotage.planner.detect.waiting import is_due, prefect_slow, waits_since, why_waiting
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import DesiredAction, IncidentContext, Remediation, words_of
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.queries.site import SiteFacts

MEANT_TO_BE_OFF = "pilotage:meant-to-be-off"
"""A deployment's tag: that it is paused, or its schedule off, is no trouble."""
COMES_BY_ITSELF = frozenset(
    {
        Cause.QUEUE_FULL,
        Cause.POOL_FULL,
        Cause.DEPLOYMENT_LIMIT,
        Cause.TAG_LIMIT,
        Cause.GLOBAL_LIMIT,
        Cause.NOT_TAKEN,
    }
)
"""Causes that end when something else does."""
NEVER_FOUND = frozenset({Cause.FACTS_OLD, Cause.NO_SCHEDULE, Cause.PREFECT_SLOW, Cause.SILENT})
"""What is told to who asks and is no finding of a run here: it is found for the whole site, or with a lever of its own."""
PAUSE_NEWS = timedelta(days=2)
"""A pause that has stood for longer is known to whoever wanted to know."""
TOLD = 10
"""Waiting runs that are evidence."""


def standing_still(
    site: SiteFacts,
    usual: Mapping[str, timedelta],
    parameters: PlaybookParameters,
    *,
    but: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Return one finding for each cause that keeps runs waiting for too long, the longest waiting first.

    `usual` has, by deployment, how long its runs waited before; `but` names subjects and runs (`run:<id>`) that are found
    otherwise.
    """
    by_cause: dict[str, tuple[Blockage, list[RunFact]]] = {}
    for run in site.live:
        found = why_waiting(run, site, parameters)
        if found is None or not found.trouble or found.cause in NEVER_FOUND:
            continue
        if found.entity in but or f"run:{run.run_id}" in but:
            continue
        if _waited(found, run, site) < _patience(found, run, usual, parameters):
            continue
        by_cause.setdefault(found.key, (found, []))[1].append(run)
    findings = [_of_runs(found, runs, site) for found, runs in by_cause.values()]
    uncounted = [found for limit in site.limits.values() if (found := not_counted(limit, site)) is not None]
    findings += [
        _finding(
            found, site, episode=",".join(sorted(found.holders)[:3]), witness=found.holders[0], evidence=()
        )
        for found in uncounted
        if found.entity not in but
    ]
    findings += _of_deployments(site, parameters, {finding.subject for finding in findings})
    if (slow := prefect_slow(site, parameters)) is not None:
        findings.append(_finding(slow, site, episode=f"{site.now:%Y-%m-%d}", witness="", evidence=()))
    return findings


def cannot_start(found: Blockage | None) -> bool:
    """Return whether nothing that waits for this would start at any time: nobody serves it, or it is paused."""
    return found is not None and found.cause in _NOTHING_STARTS


_NOTHING_STARTS = frozenset(
    {
        Cause.NO_WORKER,
        Cause.POOL_PAUSED,
        Cause.QUEUE_PAUSED,
        Cause.QUEUE_NOT_POLLED,
        Cause.POOL_GONE,
        Cause.QUEUE_GONE,
        Cause.NO_POOL,
    }
)


def _waited(found: Blockage, run: RunFact, site: SiteFacts) -> timedelta:
    """Return for how long a run has waited for this: for a pause since it began, and one that is under way, since it last
    did anything and the limit is full.

    What a child waits for is found for the child: its parent may have run for hours before.
    """
    if run.state_type is not StateType.RUNNING:
        opened = site.queue_last_open.get((run.pool or "", run.queue or ""))
        paused = found.cause is Cause.QUEUE_PAUSED and opened is not None
        return min(waits_since(run, site), site.now - opened) if paused and opened else waits_since(run, site)
    if found.cause not in _WHILE_RUNNING or found.entity.startswith("limit:deployment:"):
        return timedelta(0)
    full_since = None if found.cause is Cause.RING else found.since
    since = [moment for moment in (site.acted.get(run.run_id), full_since) if moment is not None]
    return min(waits_since(run, site), *(site.now - moment for moment in since))


_WHILE_RUNNING = frozenset({Cause.RING, Cause.TAG_LIMIT, Cause.GLOBAL_LIMIT, Cause.SLOTS_OF_NOBODY})
"""What a run waits for that is under way itself."""


def _patience(
    found: Blockage, run: RunFact, usual: Mapping[str, timedelta], parameters: PlaybookParameters
) -> timedelta:
    """Return for how long a run may wait for this before it is trouble."""
    if found.cause in COMES_BY_ITSELF:
        known = usual.get(run.deployment_id or "", timedelta(0))
        return max(parameters.full_after, USUAL_TIMES * known)
    if found.cause is Cause.SLOTS_OF_NOBODY and found.entity.startswith("limit:deployment:"):
        return parameters.slots_lost_after + timedelta(
            minutes=1
        )  # where none of it is held, it is found with a lever
    return parameters.person_after if found.cause is Cause.WAITS_FOR_PERSON else parameters.stands_after


def _of_runs(found: Blockage, runs: Sequence[RunFact], site: SiteFacts) -> Finding:
    runs = sorted(runs, key=lambda run: (-_waited(found, run, site), run.run_id))
    longest = _waited(found, runs[0], site)
    note = f"{len(runs)} runs stand still for this, the longest for {words_of(longest)}"
    evidence = [Evidence(ref=f"state:{run.state_id}", note=f"{run.state_name}") for run in runs[:TOLD]]
    began = site.now - longest
    return _finding(
        found,
        site,
        episode=f"{began:%Y-%m-%dT%H}",
        witness=runs[0].run_id,
        evidence=(Evidence(ref=found.entity, note=note), *evidence),
    )


def _of_deployments(site: SiteFacts, parameters: PlaybookParameters, seen: set[str]) -> list[Finding]:
    """Return what keeps deployments from having runs at all: news of a pause, hours of a wrong zone, runs not made."""
    findings: list[Finding] = []
    not_made: list[Finding] = []
    due = {run.deployment_id for run in site.live if is_due(run, site)}
    for deployment_id, deployment in sorted(site.deployments.items()):
        if deployment_id in due or MEANT_TO_BE_OFF in deployment.tags or deployment_id not in site.schedules:
            continue
        found = schedule_blockage(deployment, site, parameters)
        if found.doubts or found.ours or found.entity in seen:
            continue
        witness = site.last_run.get(deployment_id, "")
        schedules = list(site.schedules[deployment_id])
        if found.cause is Cause.DEPLOYMENT_PAUSED:
            news = deployment.paused_since
        elif found.cause is Cause.SCHEDULE_INACTIVE:
            news = max((each.inactive_since for each in schedules if each.inactive_since), default=None)
        elif found.cause in (Cause.WRONG_ZONE, Cause.NOT_MADE):
            episode = found.since.isoformat() if found.since else str(schedules[0].changed)
            one = _finding(found, site, episode=episode, witness=witness, evidence=())
            one = replace(one, missed=found.since) if found.cause is Cause.NOT_MADE else one
            (not_made if found.cause is Cause.NOT_MADE else findings).append(one)
            continue
        else:
            continue
        overdue = missed_starts(schedules, news, site)
        fresh = news is not None and parameters.stands_after <= site.now - news <= PAUSE_NEWS
        if news is not None and fresh and overdue:
            note = f"about {overdue} starts were missed since"
            evidence = (Evidence(ref=found.entity, note=note),)
            findings.append(
                _finding(found, site, episode=news.isoformat(), witness=witness, evidence=evidence)
            )
    # a scheduler that makes no runs makes none for anybody: that is one trouble
    by_cause = {finding.cause: finding for finding in reversed(not_made)}
    return [*findings, *by_cause.values()]


def _finding(
    found: Blockage, site: SiteFacts, *, episode: str, witness: str, evidence: Sequence[Evidence]
) -> Finding:
    first = Evidence(ref=found.entity, note=found.told())
    made = ongoing_finding(
        found.entity,
        FailureClass.STANDSTILL,
        site.now,
        episode=f"{found.cause} {episode}",
        rule_id=found.cause.value,
        evidence=(
            first,
            *evidence,
            *([disproved_by(found.entity, found.disproof)] if found.disproof else []),
        ),
    )
    return replace(
        made,
        fingerprint=fingerprint_of(found.key, FailureClass.STANDSTILL),
        cause=f"ongoing:{found.key}",
        witness=witness,
    )


def remediate_standstill(s: IncidentContext) -> Remediation:
    """The pause is taken back where it was ours; everything else is the owner's to mend, who is told what to do, once."""
    subject, cause = s.finding.subject, s.finding.rule_id
    ours = any("pilotage (" in evidence.note for evidence in s.finding.evidence[:1])
    if ours and cause in (Cause.QUEUE_PAUSED, Cause.POOL_PAUSED):
        pool, _, queue = subject.partition(":")[2].partition("/")
        release = ReleaseQueue(pool=pool, queue=queue)
        return Remediation(
            desired=(
                DesiredAction(action=release, effect="its runs start again; the pause was pilotage's own"),
            )
        )
    if cause == Cause.NOT_MADE and s.around.witness:
        return remediate_missed(s)
    no_lever = f"{_LEVERS.get(cause, 'notify_owner: no lever mends this')}"
    if not s.around.witness:
        return Remediation(alternatives=(f"notify_owner: no run of it is known, so no owner is; {no_lever}",))
    severity = Severity.WARNING if cause in _WARNINGS else Severity.ERROR
    told = NotifyOwner(run_id=s.around.witness, severity=severity)
    return Remediation(
        desired=(
            DesiredAction(
                action=told, effect="the owner knows the cause and what to do", bound_to_state=False
            ),
        ),
        alternatives=(no_lever,),
    )


_WARNINGS = frozenset(
    {
        *COMES_BY_ITSELF,
        Cause.WAITS_FOR_PERSON,
        Cause.NOT_COUNTED,
        Cause.WRONG_ZONE,
        Cause.DEPLOYMENT_PAUSED,
        Cause.SCHEDULE_INACTIVE,
    }
)
_LEVERS: Mapping[str, str] = {
    Cause.NO_WORKER: "spread_runs: other start times help nothing while nobody serves the pool",
    Cause.POOL_PAUSED: "release_queue: whoever paused it decides about that",
    Cause.QUEUE_PAUSED: "release_queue: whoever paused it decides about that",
    Cause.NEVER_STARTED: "retry_run: its infrastructure may still come, and then it would run twice",
    Cause.CANCELLING_TOO_LONG: "mark_crashed: its process may still run, and nothing proves that it has ended",
    Cause.RING: "cancel_run: which of them has the least to lose is the owner's to say",
    Cause.SLOTS_OF_NOBODY: "release_slot: without a holder nothing proves that the work is dead",
    Cause.NOT_COUNTED: "set_limit: another size does not make Prefect count what runs",
    Cause.WAITS_FOR_PERSON: "resume_run: what it waits for is a person's word",
    Cause.POOL_FULL: "set_limit: the limit is there for a reason that nobody has told",
    Cause.QUEUE_FULL: "set_limit: the limit is there for a reason that nobody has told",
    Cause.DEPLOYMENT_LIMIT: "set_limit: the limit is there for a reason that nobody has told",
    Cause.TAG_LIMIT: "set_limit: the limit is there for a reason that nobody has told",
    Cause.GLOBAL_LIMIT: "set_limit: the limit is there for a reason that nobody has told",
}
