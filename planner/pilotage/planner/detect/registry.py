"""Where the planner looks for trouble that is not a failed run: one row a look, each reads the store and decides nothing.

What was proposed about a deployment or a queue lately is not found again, whatever became of it: whoever decided
then has decided. A run is found under an id of its own and needs no such memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from pilotage.planner.detect.backlog import blocked, overdue
from pilotage.planner.detect.context import ENDED_RUNS_READ, job_variables_of, slack_in
from pilotage.planner.detect.memory_sizing import missized_runs, only_memory, sized, sizing_state
from pilotage.planner.detect.ongoing import fingerprint_of
from pilotage.planner.detect.pile_up import pile_ups, piles
from pilotage.planner.detect.queue_faults import recovered_queues, unhealthy_queues
from pilotage.planner.detect.run_risks import (
    forecast_trouble,
    fragile_runs,
    orphaned,
    runs_blocked_by_hold,
)
from pilotage.planner.detect.stale import closed_alerts, leaked_slots, silent_runs
from pilotage.planner.detect.stand_ins import ENDED, cancelled_by_us, never_started
from pilotage.planner.detect.standstill import cannot_start, standing_still
from pilotage.planner.detect.starvation import at_risk_runs, late_runs, starved_queues
from pilotage.planner.detect.unusual import (
    bad_values,
    creeping,
    executed_twice,
    hidden_failures,
    overlong,
    twins,
)
from pilotage.planner.detect.waiting import why_waiting
from pilotage.planner.findings import FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.plugins import plugins
from pilotage.planner.remediation import deadline_of
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecasts import DurationForecast, DurationForecaster, Forecast, Forecaster
from pilotage.telemetry.pool_memory import memory_of
from pilotage.telemetry.queries import fleet, heartbeats
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries import unusual as unusual_queries
from pilotage.telemetry.queries.site import site_facts
from pilotage.telemetry.store.protocol import Store

ALERTS_LAST = timedelta(days=7)
"""Prefect keeps events for so long by default; what is not among them cannot be resolved."""
USUAL_SINCE = timedelta(days=14)
"""Runs that say how long their deployment's runs usually wait."""
HIDDEN_SINCE = timedelta(hours=6)
"""Runs that ended since are news."""
FAILURES_READ = 20
"""Ended runs of a deployment in which its last failures are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSnapshot:
    """What a look works with."""

    store: Store
    forecaster: Forecaster
    parameters: PlaybookParameters
    now: datetime
    late_starts: Forecaster | None = None
    """Forecasts of starts: `p_fail` is the chance that a run begins late."""

    def forecasts(self, run_ids: Sequence[str]) -> Mapping[str, Forecast]:
        """By run; none for runs that the forecaster does not know."""
        return (
            {forecast.run_id: forecast for forecast in self.forecaster.forecast(list(run_ids))}
            if run_ids
            else {}
        )

    def durations(self, run_ids: Sequence[str]) -> Mapping[str, DurationForecast]:
        """By run; none where nobody forecasts durations."""
        if not run_ids or not isinstance(self.forecaster, DurationForecaster):
            return {}
        return {each.run_id: each for each in self.forecaster.durations(list(run_ids))}

    def held_for_a_fault(self) -> dict[str, datetime]:
        """Since when we hold which queue, by the fingerprint of what it is held for."""
        held: dict[str, datetime] = {}
        for step in fleet.steps_since(self.store, self.now - timedelta(hours=24)):
            if step.action == "hold_queue" and step.step == "injected":
                held[step.fingerprint] = step.at
            if (step.action, step.step) in (("hold_queue", "undone"), ("release_queue", "injected")):
                held.pop(step.fingerprint, None)
        return held


def waiting(at: DetectorSnapshot) -> list[Finding]:
    """Starved queues, runs near their deadlines, runs that a held queue keeps from theirs."""
    queues = run_queries.queue_snapshots(at.store)
    due = run_queries.waiting_runs(at.store, at.now)
    faulty = at.held_for_a_fault() if any(q.paused for q in queues) else {}
    deployments = {d.deployment_id: d for d in fleet.deployments(at.store)} if due else {}
    with_deadline = [run.run_id for run in due if deadline_of(run) is not None]
    held = frozenset(
        subject
        for q in queues
        if fingerprint_of(subject := f"queue:{q.pool}/{q.queue}", FailureClass.UNHEALTHY) in faulty
    )
    return [
        *starved_queues(queues, at.now, at.parameters),
        *late_runs(due, at.durations(with_deadline), at.now, at.parameters),
        *runs_blocked_by_hold(due, queues, deployments, at.now, at.parameters, faulty=held),
    ]


def backlogs(at: DetectorSnapshot) -> list[Finding]:
    """Deployments with too many runs waiting at once."""
    found = fleet.backlogged(at.store, at.now, at.parameters.backlog_runs)
    resumed = {}
    for deployment_id, runs in found.items():
        oldest = min((run.next_start for run in runs if run.next_start is not None), default=None)
        pool = runs[0].pool
        restarted = fleet.first_start_after(at.store, pool, oldest) if pool and oldest else None
        if restarted is not None:
            resumed[deployment_id] = restarted
    late = overdue(found, resumed, at.now, at.parameters)
    # one backlog is one trouble: what an outage explains is not explained twice
    explained = {finding.subject for finding in late}
    many = [finding for finding in blocked(found, at.now, at.parameters) if finding.subject not in explained]
    if many:
        # where nobody serves the pool, or it is paused, other start times help nothing
        site = site_facts(at.store, at.now)
        served = {
            each.deployment_id
            for each in site.live
            if not cannot_start(why_waiting(each, site, at.parameters))
        }
        many = [each for each in many if each.subject.removeprefix("deployment:") in served]
    return _not_asked_lately(at, [*late, *many])


def queues(at: DetectorSnapshot) -> list[Finding]:
    """Queues to hold for a fault of the platform, and queues to release because it is over."""
    queue_snapshots = run_queries.queue_snapshots(at.store)
    since = at.now - at.parameters.unhealthy_window
    failing = fleet.failing_queues(at.store, since, at.parameters.unhealthy_runs)
    sick = unhealthy_queues(failing, queue_snapshots, at.now, at.parameters)
    return [*_not_asked_lately(at, sick), *_mended(at)]


def _mended(at: DetectorSnapshot) -> list[Finding]:
    queue_snapshots = [q for q in run_queries.queue_snapshots(at.store) if q.paused]
    held = at.held_for_a_fault() if queue_snapshots else {}
    cured = {}
    for q in queue_snapshots:
        subject = f"queue:{q.pool}/{q.queue}"
        began = held.get(fingerprint_of(subject, FailureClass.UNHEALTHY))
        if began is None:
            continue
        failed = fleet.failing_queues(at.store, began - at.parameters.unhealthy_window, 1)
        concerned = {run.deployment_id for run in failed.get((q.pool, q.queue), ()) if run.deployment_id}
        if run := fleet.completed_since(at.store, sorted(concerned), began):
            cured[subject] = run
    return recovered_queues(queue_snapshots, held, cured, at.now)


def upcoming(at: DetectorSnapshot) -> list[Finding]:
    """Upcoming runs of a wrong size, and upcoming runs that will probably fail.

    A run that is given what its like needed is not delayed as well: what they failed of is seen to.
    """
    soon = run_queries.upcoming_runs(at.store, at.now, at.parameters.horizon)
    if not soon:
        return []
    past = _past_of_sized(at, soon)
    sizings = {
        deployment_id: (sizing_state(sized(ended, own), own, at.parameters), own)
        for deployment_id, (ended, own) in past.items()
    }
    missized = missized_runs(soon, sizings, at.now, at.parameters)
    seen_to = {
        deployment_id
        for deployment_id, (sizing, own) in sizings.items()
        if sizing.size > own and only_memory(past[deployment_id][0][:FAILURES_READ])
    }
    # what has failed is seen to as such: until its trouble is over, a forecast of the next runs says the same again
    concerned = {run.deployment_id for run in soon if run.deployment_id}
    fresh = at.now - 2 * at.parameters.evidence_wait
    seen_to |= fleet.seen_to_now(at.store, at.now - at.parameters.passing_lasts, fresh)
    # that the runs of others fail says too little to hold the runs of a deployment back of which none ever failed
    seen_to |= concerned - fleet.with_failed_runs(at.store, concerned)
    others = [run for run in soon if run.deployment_id not in seen_to]
    forecasts = at.forecasts([run.run_id for run in others])
    return [*missized, *_one_a_deployment(at, at_risk_runs(others, forecasts, at.now, at.parameters), others)]


def _past_of_sized(at: DetectorSnapshot, runs: Sequence[RunFact]) -> dict[str, tuple[list[RunFact], int]]:
    """The ended runs, newest first, of the deployments of these runs that say what they give, in MiB.

    Only of those that had runs of another size: nothing is to be said of the others.
    """
    concerned = {run.deployment_id for run in runs if run.deployment_id}
    if concerned:
        concerned &= fleet.with_sizes_of_their_own(at.store)
    known = {d.deployment_id: d for d in fleet.deployments(at.store)} if concerned else {}
    pools = fleet.pools(at.store) if concerned else {}
    past = {}
    for deployment_id in sorted(str(deployment_id) for deployment_id in concerned):
        if (deployment := known.get(deployment_id)) is None:
            continue
        pool = pools.get(deployment.pool or "")
        own = memory_of(job_variables_of(None, deployment, pool), pool.type if pool else "")
        if own is not None:
            past[deployment_id] = (fleet.last_ended(at.store, deployment_id, ENDED_RUNS_READ), own)
    return past


def crowded_starts(at: DetectorSnapshot) -> list[Finding]:
    """Upcoming runs that start with too many others, where that made them late before."""
    late = unusual_queries.late_minutes(at.store, at.now - USUAL_SINCE, at.parameters.pile_up_runs)
    # behind a limit, runs are meant to wait for each other
    limited = {
        q.pool for q in run_queries.queue_snapshots(at.store) if (q.limit, q.pool_limit) != (None, None)
    }
    late = {pool: each for pool, each in late.items() if pool not in limited}
    if not any(each >= at.parameters.pile_up_late for each in late.values()):
        return []
    soon = run_queries.upcoming_runs(at.store, at.now, at.parameters.horizon)
    piled = [run.run_id for runs in piles(soon, at.parameters).values() for run in runs]
    chances = (
        {each.run_id: each for each in at.late_starts.forecast(piled)} if at.late_starts and piled else {}
    )
    return _not_asked_lately(
        at, pile_ups(soon, late, slack_in(at.store, soon), chances, at.now, at.parameters)
    )


def under_way(at: DetectorSnapshot) -> list[Finding]:
    """Running runs that will probably fail and have no retry."""
    bare = [run for run in fleet.running(at.store) if run.retries == 0 and run.deployment_id]
    forecasts = at.forecasts([run.run_id for run in bare])
    doubtful = [
        run
        for run in bare
        if run.run_id in forecasts and forecasts[run.run_id].expects_failure(at.parameters.act_above)
    ]
    failures = {}
    for deployment_id in {str(run.deployment_id) for run in doubtful}:
        ended = fleet.last_ended(at.store, deployment_id, FAILURES_READ)
        failures[deployment_id] = [run for run in ended if run.state_type is not StateType.COMPLETED]
    return _one_a_deployment(at, fragile_runs(doubtful, forecasts, failures, at.now, at.parameters), doubtful)


def muted_forecast(at: DetectorSnapshot) -> list[Finding]:
    """That forecasts have stopped being right, so that nothing acts on them for now."""
    soon = run_queries.upcoming_runs(at.store, at.now, at.parameters.horizon)
    forecasts = at.forecasts([run.run_id for run in (*soon, *fleet.running(at.store))])
    return _not_asked_lately(at, forecast_trouble(list(forecasts.values()), at.now))


def orphans(at: DetectorSnapshot) -> list[Finding]:
    """Dead runs whose children go on."""
    pairs = fleet.orphans(at.store, at.now - at.parameters.orphan_after)
    known = {d.deployment_id: d for d in fleet.deployments(at.store)} if pairs else {}
    return orphaned(pairs, known, at.now)


def stale_resources(at: DetectorSnapshot) -> list[Finding]:
    """Runs that may be dead, slots that nobody seems to hold, alerts about runs that have completed."""
    stuck = heartbeats.stuck_at_their_limit(at.store, at.now - at.parameters.slots_lost_after)
    closed = heartbeats.told_and_completed(at.store, at.now - ALERTS_LAST)
    return [
        *silent_runs(heartbeats.silent(at.store, at.now), at.now),
        *_not_asked_lately(at, leaked_slots(stuck, at.now)),
        *closed_alerts(closed, at.now),
    ]


def standing(at: DetectorSnapshot) -> list[Finding]:
    """Causes for which runs stand still or are not made, one finding each."""
    site = site_facts(at.store, at.now)
    usual = unusual_queries.usual_waits(at.store, at.now - USUAL_SINCE)
    starved = starved_queues(tuple(site.queues.values()), at.now, at.parameters)
    busy = {f"pool:{finding.subject.removeprefix('queue:').partition('/')[0]}" for finding in starved}
    lost = heartbeats.stuck_at_their_limit(at.store, at.now - at.parameters.slots_lost_after)
    leaked = {f"limit:deployment:{each.deployment_id}" for each in lost}
    # a starved queue, a deployment's lost slots, silent runs and runs that never began are found with a lever of their own
    unborn = never_started(site, at.parameters)
    silent = {f"run:{run_id}" for run_id in site.silent}
    elsewhere = frozenset(busy | leaked | silent | {finding.subject for finding in unborn})
    found = standing_still(site, usual, at.parameters, but=elsewhere)
    return [*unborn, *_not_asked_lately(at, found)]


def stand_ins(at: DetectorSnapshot) -> list[Finding]:
    """Runs that were cancelled since they would not go on, in whose places others are to be made."""
    rows = fleet.cancelled_for(at.store, at.now - ALERTS_LAST, sorted(kind.value for kind in ENDED))
    runs = {run.run_id: run for run in fleet.runs_of(at.store, sorted({run_id for run_id, _ in rows}))}
    ended: dict[FailureClass, list[RunFact]] = {}
    for run_id, kind in rows:
        if run_id in runs and runs[run_id].state_type is StateType.CANCELLED:
            ended.setdefault(FailureClass(kind), []).append(runs[run_id])
    return cancelled_by_us(ended, at.now)


def unlike_before(at: DetectorSnapshot) -> list[Finding]:
    """Twins, runs that take far longer than before, failures inside good runs, values that always fail."""
    running = fleet.running(at.store)
    concerned = sorted({run.deployment_id for run in running if run.deployment_id})
    took = unusual_queries.durations(at.store, concerned)
    # what has a history of its own, or has hardly begun, needs no forecast
    young = [
        run.run_id
        for run in running
        if len(took.get(run.deployment_id or "", ())) < at.parameters.overlong_runs
        and at.now - (run.state_at or run.started or at.now) > at.parameters.overlong_floor
    ]
    expected = at.durations(young)
    long = overlong(running, took, expected, at.now, at.parameters)
    if long:
        # what waits for something else is found as that
        site = site_facts(at.store, at.now)
        long = overlong(running, took, expected, at.now, at.parameters, site.acted)
        waits = {run.run_id: why_waiting(run, site, at.parameters) for run in site.live}
        held = {f"run:{run_id}" for run_id, found in waits.items() if found is not None and found.trouble}
        long = [finding for finding in long if finding.subject not in held]
    taken = unusual_queries.taken_by(at.store, [run.run_id for run in running])
    hidden = unusual_queries.hidden_failures(at.store, at.now - HIDDEN_SINCE)
    return [
        *twins(unusual_queries.twins(at.store, at.now), at.now),
        *executed_twice(taken, running, at.now),
        *long,
        *_not_asked_lately(at, hidden_failures(hidden, at.now, at.parameters)),
        *_not_asked_lately(at, _by_history(at)),
    ]


def _by_history(at: DetectorSnapshot) -> list[Finding]:
    """What shows in the history of a deployment that ran lately: durations that creep, a value that always fails."""
    since = at.now - HIDDEN_SINCE
    lately = sorted(unusual_queries.ended_since(at.store, since))
    schedules = site_facts(at.store, at.now).schedules
    allowed = {
        deployment_id: timedelta(seconds=min(gaps))
        for deployment_id in lately
        if (gaps := [each.every for each in schedules.get(deployment_id, ()) if each.every and each.active])
    }
    limits = unusual_queries.time_limits(at.store)
    allowed |= {name: limits[name] for name in lately if name in limits}
    took = unusual_queries.durations(at.store, sorted(allowed))
    newest = {name: ended[0].run_id for name, ended in fleet.last_ended_of(at.store, lately, 1).items()}
    failing = unusual_queries.failed_since(at.store, since, at.parameters.bad_value_runs)
    ended = fleet.last_ended_of(at.store, sorted(failing), ENDED_RUNS_READ)
    return [*creeping(took, allowed, newest, at.now), *bad_values(ended, at.now, at.parameters)]


class Detector(Protocol):
    """A function that reads the store and returns what it finds; `__name__` says in the log which one it was."""

    __name__: str

    def __call__(self, at: DetectorSnapshot, /) -> list[Finding]:
        """Return the findings of this moment. Raises StoreError when the store cannot be read."""
        ...


GROUP = "pilotage.detectors"
DETECTORS: tuple[Detector, ...] = (
    waiting,
    queues,
    backlogs,
    upcoming,
    crowded_starts,
    under_way,
    muted_forecast,
    orphans,
    stale_resources,
    standing,
    unlike_before,
    stand_ins,
    *(detector for _, detector in plugins(GROUP)),
)
"""In the order in which their findings are filed; those of installed packages come last."""


def _one_a_deployment(
    at: DetectorSnapshot, found: Sequence[Finding], runs: Sequence[RunFact]
) -> list[Finding]:
    """Of what is forecast the first finding of each deployment, where nothing was proposed about that lately."""
    places = {f"run:{run.run_id}": run.deployment_id or run.flow_name for run in runs}
    first: dict[tuple[str, FailureClass], Finding] = {}
    for finding in found:
        place = places.get(finding.subject, finding.subject)
        one = replace(finding, fingerprint=fingerprint_of(f"deployment:{place}", finding.failure_class))
        first.setdefault((place, finding.failure_class), one)
    return _not_asked_lately(at, list(first.values()))


def _not_asked_lately(at: DetectorSnapshot, findings: Sequence[Finding]) -> list[Finding]:
    if not findings:
        return []
    steps = fleet.steps_since(at.store, at.now - at.parameters.ask_again_after)
    asked = {step.fingerprint for step in steps if step.step == "proposed"}
    return [finding for finding in findings if finding.fingerprint not in asked]
