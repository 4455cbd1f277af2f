"""The size that a deployment's next run should have, climbed from what its last runs needed.

Sizes go up when a run ran out of memory, which the retry does by itself (`more-memory`); what it completed with is
remembered here, so that the next run starts there and does not fail first. After enough good runs at a raised size
one run is tried a step lower. If that one runs out too, the size goes back up and twice as many good runs are
asked for before the next try. No step goes below what the deployment gives by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pilotage.planner.actions.types import SizeRun
from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.detect.ongoing import ongoing_finding
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import DesiredAction, IncidentContext, Remediation, SizingState, run_of
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.pool_memory import memory_of

MAX_BACKOFF = 8
"""How many times the usual number of good runs are asked for at most, after tries that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """One ended run of a deployment: what it had, and how it went."""

    size: int
    """MiB."""
    completed: bool
    raised: bool
    """Whether it got this size after it had run out of a smaller one."""


def sized(ended: Sequence[RunFact], default: int) -> tuple[Sized, ...]:
    """The ended runs, newest first, that say something about their size; oldest first."""
    sizes = []
    for run in reversed(ended):
        own = _own(run)
        if run.state_type is StateType.COMPLETED:
            sizes.append(Sized(size=own or default, completed=True, raised=bool(own) and run.run_count > 1))
        elif diagnose_run(run, (), run.updated).failure_class is FailureClass.OUT_OF_MEMORY:
            sizes.append(Sized(size=own or default, completed=False, raised=False))
    return tuple(sizes)


def sizing_state(past: Sequence[Sized], default: int, parameters: PlaybookParameters) -> SizingState:
    """Where a deployment stands after these runs, oldest first. Nothing is above what a run completed with."""
    size, good, backoff, tried = default, 0, 1, False
    for number, run in enumerate(past):
        due = size > default and good >= parameters.good_runs * backoff
        if not run.completed:
            if run.size < size:  # tried with less in vain, and given up
                backoff, good = min(backoff * 2, MAX_BACKOFF), 0
        elif run.raised and run.size >= size:
            if tried or (due and run.size == size):
                backoff = min(backoff * 2, MAX_BACKOFF)
            size, good, tried = run.size, int(run.size > size), False
        elif number == 0 and run.size > size:  # what raised it lies further back than is read
            size, good = run.size, 1
        elif run.size == size:
            good, tried = good + 1, tried and good < parameters.good_runs
        elif default <= run.size < size:  # less is proven to be enough
            size, good, tried = run.size, 1, True
        # more than was needed is somebody's own choice and says nothing
    due = size > default and good >= parameters.good_runs * backoff
    lower = step_down(size, default, parameters) if due else None
    return SizingState(size=size, good=good, backoff=backoff, lower=lower)


def only_memory(ended: Sequence[RunFact]) -> bool:
    """Whether none of these runs failed of anything but its memory."""
    return all(
        run.state_type is StateType.COMPLETED
        or diagnose_run(run, (), run.updated).failure_class is FailureClass.OUT_OF_MEMORY
        for run in ended
    )


def step_down(size: int, default: int, parameters: PlaybookParameters) -> int:
    """One memory step down from a size, in MiB, never below the deployment's own."""
    grain = parameters.memory_rounding_mb
    return max(default, math.floor(size / parameters.memory_step / grain) * grain)


def missized_runs(
    upcoming: Sequence[RunFact],
    sizings: Mapping[str, tuple[SizingState, int]],
    now: datetime,
    parameters: PlaybookParameters,
) -> list[Finding]:
    """One finding for each upcoming run that would start with another size than its like needed; soonest first.

    `rungs` has, by deployment, where it stands and what it gives by itself. Of the runs of one deployment only the
    soonest is tried with less.
    """
    findings = []
    tried: set[str] = set()
    for run in sorted(upcoming, key=lambda r: (r.next_start or now, r.run_id)):
        known = sizings.get(run.deployment_id or "")
        if known is None or run.next_start is None or run.run_count > 0:
            continue
        if run.next_start - now < parameters.minimum_notice:
            continue
        sizing, default = known
        first = str(run.deployment_id) not in tried
        tried.add(str(run.deployment_id))
        size = sizing.lower if first and sizing.lower is not None else sizing.size
        if size == (_own(run) or default):
            continue
        what = (
            f"the last {sizing.good} runs completed with {sizing.size} MiB, so one is tried with less"
            if size < sizing.size
            else f"its deployment gives {default} MiB, and its last runs needed {sizing.size} MiB"
        )
        findings.append(
            ongoing_finding(
                f"run:{run.run_id}",
                FailureClass.MISSIZED,
                now,
                episode=f"{size} MiB",
                rule_id="step-down" if size < sizing.size else "needed-lately",
                evidence=(Evidence(ref=f"deployment:{run.deployment_id}", note=what),),
            )
        )
    return findings


def remediate_missized(s: IncidentContext) -> Remediation:
    """The size its like needed, or one step less; none tried with less whose forecast is bad."""
    run, sizing, default = run_of(s), s.around.sizing, s.around.default_mb
    if sizing is None or default is None or run.state_type is not StateType.SCHEDULED:
        return Remediation(alternatives=("size_run: nothing speaks for another size any more",))
    less = s.finding.rule_id == "step-down" and sizing.lower is not None
    if less and _doubtful(s.forecast, s.parameters):
        bad = (
            f"size_run: not tried with less, the forecast is {s.forecast.p_fail:.0%} failure"
            if s.forecast
            else ""
        )
        return Remediation(alternatives=(bad,))
    size = sizing.lower if less and sizing.lower is not None else sizing.size
    if size == (_own(run) or default):
        return Remediation(alternatives=(f"size_run: it starts with {size} MiB already",))
    effect = (
        f"it completes with {size} MiB instead of {sizing.size} MiB"
        if less
        else f"it completes with {size} MiB at once, and does not run out of {_own(run) or default} MiB first"
    )
    return Remediation(
        desired=(
            DesiredAction(
                action=SizeRun(run_id=run.run_id, memory_mb=size), effect=effect, until=run.next_start
            ),
        )
    )


def _doubtful(forecast: Forecast | None, parameters: PlaybookParameters) -> bool:
    return forecast is not None and forecast.p_fail >= parameters.cautious_below


def _own(run: RunFact) -> int | None:
    return memory_of(run.job_variables)
