"""Runs unlike those before them: twins, runs that take far longer, failures inside good runs, a value that always fails."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from pilotage.planner.actions.types import CancelRun, NotifyOwner, Severity
from pilotage.planner.detect.ongoing import fingerprint_of, ongoing_finding
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import (
    DesiredAction,
    IncidentContext,
    Remediation,
    notify,
    run_of,
    words_of,
)
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecasts import DurationForecast
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.queries.unusual import HiddenFailures, Twin

MAD_TO_SIGMA = 1.4826
"""Of a normal distribution: its standard deviation in median absolute deviations."""
FAR = 6
"""Standard deviations, robustly measured, that no usual run is away from the median."""
FEWEST = 4
"""Completed runs of a deployment without which nothing is said of how long its runs take."""
CREEP = 1.3
"""By so much the newest runs take longer than those before, when durations creep."""
NEAR_LIMIT = 0.8
"""So near to the time that they have they are in danger."""
MOST_VALUES = 50
"""Different values of one parameter; with more it is an id, and tells nothing."""


def twins(pairs: Sequence[Twin], now: datetime) -> list[Finding]:
    """One finding for each waiting run that another of the same deployment, start and parameters makes needless."""
    return [
        ongoing_finding(
            f"run:{pair.later.run_id}",
            FailureClass.DUPLICATE,
            now,
            episode="twin",
            rule_id="twin",
            evidence=(
                Evidence(
                    ref=f"run:{pair.first.run_id}",
                    note=f"another run of its deployment has the same start and parameters and is {pair.first.state_name}",
                ),
                Evidence(
                    ref=f"run:{pair.later.run_id}", note="the later one of the two, and it has not begun"
                ),
            ),
        )
        for pair in pairs
    ]


def remediate_duplicate(s: IncidentContext) -> Remediation:
    """The later twin is cancelled while it has not begun; two executions of one run are told."""
    run = run_of(s)
    if s.finding.rule_id != "twin":
        return Remediation(
            desired=notify(s, Severity.CRITICAL),
            alternatives=("retry_run: two processes may be working on it already",),
        )
    if run.state_type is not StateType.SCHEDULED:
        return Remediation(
            desired=notify(s, Severity.WARNING),
            alternatives=(
                f"cancel_run: it is {run.state_name} already, and only a person knows which of the two counts",
            ),
        )
    cancel = CancelRun(run_id=run.run_id)
    return Remediation(
        desired=(DesiredAction(action=cancel, effect="the same work is done once; the other run does it"),),
    )


def executed_twice(
    runs: Mapping[str, Sequence[str]], known: Iterable[RunFact], now: datetime
) -> list[Finding]:
    """One finding for each RUNNING run that more workers took than it has attempts."""
    return [
        ongoing_finding(
            f"run:{run.run_id}",
            FailureClass.DUPLICATE,
            now,
            episode=run.state_id,
            rule_id="executed-twice",
            evidence=(
                Evidence(
                    ref=f"state:{run.state_id}",
                    note=f"{len(workers)} workers took it ({', '.join(harmless(each, 60) for each in workers[:4])}) for "
                    f"{max(run.run_count, 1)} attempts: it may be running twice",
                ),
            ),
        )
        for run in known
        if (workers := runs.get(run.run_id, ())) and len(workers) > max(run.run_count, 1)
    ]


def longest_usual(durations: Sequence[timedelta], parameters: PlaybookParameters) -> timedelta | None:
    """Return how long a run may take by those that completed before it, or None where these are too few."""
    if len(durations) < parameters.overlong_runs:
        return None
    return _bound(durations, parameters.overlong_factor, parameters)


def longest_of_few(durations: Sequence[timedelta], parameters: PlaybookParameters) -> timedelta | None:
    """Return the same by few that completed, which tell less of what is usual: twice as far away counts."""
    if len(durations) < FEWEST:
        return None
    return _bound(durations, 2 * parameters.overlong_factor, parameters)


def _bound(durations: Sequence[timedelta], factor: float, parameters: PlaybookParameters) -> timedelta:
    seconds = [each.total_seconds() for each in durations]
    middle = statistics.median(seconds)
    spread = MAD_TO_SIGMA * statistics.median(abs(each - middle) for each in seconds)
    bound = max(factor * max(seconds), middle + FAR * spread)
    return max(timedelta(seconds=bound), parameters.overlong_floor)


def _median(spans: Sequence[timedelta]) -> timedelta:
    return timedelta(seconds=statistics.median(each.total_seconds() for each in spans))


def latest_end(expected: DurationForecast | None, parameters: PlaybookParameters) -> timedelta | None:
    """Return how long a run may take by what is forecast of it, or None where that rests on too little."""
    if (
        expected is None
        or expected.runs < parameters.overlong_first
        or expected.scored < parameters.overlong_scored
    ):
        return None
    return max(expected.latest, parameters.overlong_floor)


def overlong(
    running: Sequence[RunFact],
    history: Mapping[str, Sequence[timedelta]],
    expected: Mapping[str, DurationForecast],
    now: datetime,
    parameters: PlaybookParameters,
    acted: Mapping[str, datetime] = MappingProxyType({}),
) -> list[Finding]:
    """One finding for each run that is RUNNING far longer than any of its deployment before.

    Where too few of these have completed to go by, than what is forecast of it; `expected` is by run.
    `acted` says when each was last heard otherwise than by a heartbeat: one that did nothing for as long hangs.
    """
    findings = []
    for run in running:
        began = run.state_at or run.started
        past = history.get(run.deployment_id or "", ())
        forecast = expected.get(run.run_id)
        by_own = longest_usual(past, parameters)
        bound = by_own or latest_end(forecast, parameters) or longest_of_few(past, parameters)
        if run.state_type is not StateType.RUNNING or began is None or bound is None or now - began <= bound:
            continue
        note = f"Running for {words_of(now - began)}; "
        if by_own is None and forecast is not None:
            note += (
                f"by the {forecast.runs} that completed and their like, half take {words_of(forecast.median)}, "
                f"nine of ten {words_of(forecast.p90)}, and 995 of a thousand {words_of(forecast.latest)}"
            )
        else:
            note += (
                f"the last {len(past)} that completed took {words_of(_median(past))} in the median and "
                f"{words_of(max(past))} at most"
            )
        did = acted.get(run.run_id)
        hangs = did is not None and now - did > bound
        if did is not None and hangs:
            note += f"; it did nothing but send heartbeats for {words_of(now - did)}"
        findings.append(
            ongoing_finding(
                f"run:{run.run_id}",
                FailureClass.OVERLONG,
                now,
                episode=run.state_id if not hangs else f"{run.state_id} hangs",
                rule_id="hung" if hangs else "overlong",
                evidence=(
                    Evidence(
                        ref=f"state:{run.state_id}",
                        note=note,
                    ),
                ),
            )
        )
    return findings


def hidden_failures(
    found: Sequence[HiddenFailures], now: datetime, parameters: PlaybookParameters
) -> list[Finding]:
    """One finding for each deployment whose newest runs completed with failed tasks, unlike those before."""
    return [
        _of_deployment(
            each.deployment_id,
            FailureClass.HIDDEN_FAILURES,
            "failures-inside",
            now,
            episode=each.since.isoformat(),
            witness=each.newest_run,
            note=f"the last {each.bad} runs are Completed, and {each.failed} of their tasks and children failed, such as "
            f"{harmless(each.example, 80)}; of the {each.good_before} runs before them none had such",
        )
        for each in found
        if each.bad >= parameters.hidden_runs and each.good_before >= parameters.hidden_runs
    ]


def creeping(
    durations: Mapping[str, Sequence[timedelta]],
    allowed: Mapping[str, timedelta],
    newest: Mapping[str, str],
    now: datetime,
) -> list[Finding]:
    """One finding for each deployment whose runs take longer and longer and come near to the time that they have.

    `durations` newest first; `allowed` is the time limit that runs have hit, or the time to the next start.
    """
    findings = []
    for deployment_id, limit in sorted(allowed.items()):
        past = durations.get(deployment_id, ())
        if len(past) < 15:
            continue
        lately, before = _median(past[:5]), _median(past[5:])
        if lately < NEAR_LIMIT * limit or lately < CREEP * before:
            continue
        findings.append(
            _of_deployment(
                deployment_id,
                FailureClass.CREEPING,
                "creeping",
                now,
                episode=f"{now:%Y-%W}",
                witness=newest.get(deployment_id, ""),
                note=f"its last 5 runs took {words_of(lately)} in the median, {words_of(before)} before, and have "
                f"{words_of(limit)}",
            )
        )
    return findings


@dataclass(frozen=True, slots=True, kw_only=True)
class BadValue:
    """One value of one parameter with which every run fails."""

    name: str
    value: str
    failed: int
    others: int
    witness: str


def bad_value(ended: Sequence[RunFact], parameters: PlaybookParameters) -> BadValue | None:
    """Return the value of a parameter that fails each time while the others go well, or None; newest runs first."""
    values: dict[str, dict[str, list[RunFact]]] = {}
    for run in ended:
        for name, value in run.parameters.items():
            values.setdefault(name, {}).setdefault(_text(value), []).append(run)
    for name, by_value in sorted(values.items()):
        if not 2 <= len(by_value) <= MOST_VALUES:
            continue
        for value, runs in sorted(by_value.items()):
            failed = [run for run in runs if run.state_type is not StateType.COMPLETED]
            others = [run for run in ended if run not in runs]
            bad_others = [run for run in others if run.state_type is not StateType.COMPLETED]
            enough = len(failed) >= parameters.bad_value_runs and len(others) >= 2 * parameters.bad_value_runs
            if enough and len(failed) == len(runs) and len(bad_others) <= 0.1 * len(others):
                return BadValue(
                    name=name, value=value, failed=len(failed), others=len(others), witness=failed[0].run_id
                )
    return None


def failing_value(run: RunFact, ended: Sequence[RunFact], parameters: PlaybookParameters) -> str:
    """Return in words that a run has the value of a parameter with which all its siblings fail; else an empty string.

    `ended` are the newest ended runs of its deployment, itself among them.
    """
    bad = bad_value(ended, parameters)
    if bad is None or bad.name not in run.parameters or _text(run.parameters[bad.name]) != bad.value:
        return ""
    return (
        f"all {bad.failed} runs with {harmless(bad.name, 60)} = {harmless(bad.value, 80)} failed, and of the {bad.others} "
        "others at most one in ten"
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)[:200]


def bad_values(
    ended: Mapping[str, Sequence[RunFact]], now: datetime, parameters: PlaybookParameters
) -> list[Finding]:
    """One finding for each deployment of which one value of a parameter fails while the others go well."""
    findings = []
    for deployment_id, runs in sorted(ended.items()):
        bad = bad_value(runs, parameters)
        if bad is not None:
            findings.append(
                _of_deployment(
                    deployment_id,
                    FailureClass.BAD_VALUE,
                    "one-value-fails",
                    now,
                    episode=f"{bad.name} {bad.value}",
                    witness=bad.witness,
                    note=f"all {bad.failed} runs with {harmless(bad.name, 60)} = {harmless(bad.value, 80)} failed, and of "
                    f"the {bad.others} others at most one in ten",
                )
            )
    return findings


def remediate_told(s: IncidentContext) -> Remediation:
    """The owner is told, once: nothing that can be done from outside mends this."""
    if not s.around.witness:
        return Remediation(alternatives=("notify_owner: no run of it is known, so no owner is",))
    told = NotifyOwner(run_id=s.around.witness, severity=Severity.WARNING)
    return Remediation(
        desired=(DesiredAction(action=told, effect="the owner knows and can look", bound_to_state=False),),
        alternatives=("pause_deployment: its runs do some good, or may",),
    )


def _of_deployment(
    deployment_id: str, kind: FailureClass, rule: str, now: datetime, *, episode: str, witness: str, note: str
) -> Finding:
    subject = f"deployment:{deployment_id}"
    made = ongoing_finding(
        subject, kind, now, episode=episode, rule_id=rule, evidence=(Evidence(ref=subject, note=note),)
    )
    return replace(
        made,
        fingerprint=fingerprint_of(f"{subject} {episode}", kind),
        cause=f"ongoing:{kind}:{subject}",
        witness=witness,
    )
