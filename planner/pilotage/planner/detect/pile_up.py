"""Starts that pile up: so many runs of a pool at one minute that such minutes began late before. They are moved apart,
each within its own slack.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pilotage.planner.actions.types import RescheduleRun
from pilotage.planner.detect.ongoing import fingerprint_of, ongoing_finding
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import (
    DesiredAction,
    IncidentContext,
    Remediation,
    deadline_of,
    run_of,
    words_of,
)
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecasts import Forecast

SLACK_SHARE = 0.1
"""Of the time to its next start, a scheduled run may be moved by so much where nothing else is said."""
LONGEST = timedelta(minutes=15)
"""No run is moved by more."""
SHORTEST = timedelta(minutes=2)
"""With less slack a run stays where it is."""
MOVED = 5
"""Runs of one pile that are moved; the next look sees whether it helped."""


def slack_of(run: RunFact, gap: timedelta | None, took: Sequence[timedelta]) -> timedelta:
    """Return by how much a run may start later: what its schedule and, where it has one, its deadline leave.

    `gap` is the time from one start of its schedule to the next, `took` how long its like took. 0 for runs that people
    or other runs asked for.
    """
    if not run.auto_scheduled or run.parent_task_run_id is not None or gap is None or run.next_start is None:
        return timedelta(0)
    slack = min(SLACK_SHARE * gap, LONGEST)
    deadline = deadline_of(run)
    if deadline is not None:
        # without word of how long it takes, nothing says what the deadline leaves
        slack = min(slack, deadline - run.next_start - 2 * max(took)) if took else timedelta(0)
    return slack if slack >= SHORTEST else timedelta(0)


def staggered(run: RunFact, slack: timedelta) -> datetime | None:
    """Return another start within the slack, the same one each time; None where there is none."""
    minutes = int(slack / timedelta(minutes=1))
    if minutes < 1 or run.next_start is None:
        return None
    return run.next_start + timedelta(
        minutes=1 + zlib.crc32((run.deployment_id or run.run_id).encode()) % minutes
    )


def piles(
    upcoming: Sequence[RunFact], parameters: PlaybookParameters
) -> dict[tuple[str, datetime], list[RunFact]]:
    """Return the scheduled runs of a pool at one minute, where they are many enough."""
    found: dict[tuple[str, datetime], list[RunFact]] = {}
    for run in upcoming:
        if run.state_type is StateType.SCHEDULED and run.pool and run.next_start is not None:
            found.setdefault((run.pool, run.next_start.replace(second=0, microsecond=0)), []).append(run)
    return {place: runs for place, runs in sorted(found.items()) if len(runs) >= parameters.pile_up_runs}


def expected_late(
    runs: Sequence[RunFact], chances: Mapping[str, Forecast], parameters: PlaybookParameters
) -> float | None:
    """Return the share of runs that are expected to start late; None where the forecast knows too few waits or is muted."""
    known = [chances[run.run_id] for run in runs if run.run_id in chances]
    told = [each for each in known if not each.muted and each.trained_on >= parameters.pile_up_known]
    return sum(each.p_fail for each in told) / len(told) if told else None


def pile_ups(
    upcoming: Sequence[RunFact],
    late: Mapping[str, timedelta],
    slack: Mapping[str, timedelta],
    chances: Mapping[str, Forecast],
    now: datetime,
    parameters: PlaybookParameters,
) -> list[Finding]:
    """One finding for each run that is to be moved, those with the most slack; one cause for each pool.

    `late` has, by pool, by how much the runs of such minutes began late before; `slack` and `chances` are by run. Where
    few of a pile are expected to start late, nothing is moved, whatever was before.
    """
    findings = []
    for (pool, minute), runs in piles(upcoming, parameters).items():
        usual = late.get(pool, timedelta(0))
        if usual < parameters.pile_up_late or minute - now < parameters.minimum_notice:
            continue
        share = expected_late(runs, chances, parameters)
        if share is not None and share < parameters.pile_up_share:
            continue
        free = sorted(
            (run for run in runs if slack.get(run.run_id)), key=lambda run: (-slack[run.run_id], run.run_id)
        )
        note = (
            f"{len(runs)} runs of the pool {pool} are due at one minute; in such minutes before runs began "
            f"{words_of(usual)} late in the median"
        )
        if share is not None:
            note += f", and {share:.0%} of these are expected to start late"
        for run in free[:MOVED]:
            made = ongoing_finding(
                f"run:{run.run_id}",
                FailureClass.PILE_UP,
                now,
                episode="pile-up",
                rule_id="pile-up",
                evidence=(
                    Evidence(ref=f"pool:{pool}", note=note),
                    Evidence(ref=f"state:{run.state_id}", note=f"its slack is {words_of(slack[run.run_id])}"),
                ),
            )
            place = f"deployment:{run.deployment_id}"
            findings.append(
                replace(
                    made,
                    fingerprint=fingerprint_of(place, FailureClass.PILE_UP),
                    cause=f"ongoing:{FailureClass.PILE_UP}:pool:{pool}",
                )
            )
    return findings


def remediate_pile_up(s: IncidentContext) -> Remediation:
    """Another minute for this run, within its slack; its schedule is its owner's to change."""
    run, later = run_of(s), s.around.later_start
    if run.state_type is not StateType.SCHEDULED or run.next_start is None:
        return Remediation(alternatives=(f"reschedule_run: the run is {run.state_name} already",))
    if later is None or run.next_start - s.now < s.parameters.minimum_notice:
        return Remediation(alternatives=("reschedule_run: it has no slack left",))
    moved = RescheduleRun(run_id=run.run_id, start=later)
    effect = f"it starts {words_of(later - run.next_start)} later, beside the others instead of with them"
    return Remediation(
        desired=(DesiredAction(action=moved, effect=effect, until=run.next_start),),
        alternatives=("spread_runs: the runs are of many deployments, each with a schedule of its own",),
    )
