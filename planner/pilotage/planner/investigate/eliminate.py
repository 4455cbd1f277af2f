"""Finds where a fault comes from by elimination: each origin is held against the facts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pilotage.planner.detect.blockage import Blockage, Cause
from pilotage.planner.detect.unusual import bad_value
from pilotage.planner.findings import PERMANENT, Evidence, FailureClass
from pilotage.planner.investigate.facts import FAILED, CaseFacts, Neighbour
from pilotage.planner.investigate.types import MEANING, Clue, Conclusion, Hypothesis, Origin
from pilotage.planner.log_templates import normalised
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.queries.site import SiteFacts

SILENCE = timedelta(minutes=3)
"""A worker that was last heard so close to a failure may have gone with it."""
VARIES = 3
"""Values of a parameter among the last successes from which on it is one that differs in every run."""
OUTSIDE = frozenset(
    {
        *(FailureClass.TRANSIENT, FailureClass.DEPENDENCY, FailureClass.RATE_LIMITED, FailureClass.AUTH),
        *(FailureClass.QUOTA_SPENT, FailureClass.CERTIFICATE),
    }
)
OF_PLATFORM = frozenset(
    {
        *(FailureClass.CRASHED, FailureClass.INFRASTRUCTURE, FailureClass.CAPACITY, FailureClass.ENVIRONMENT),
        FailureClass.MAY_STILL_BE_RUNNING,
    }
)
PASSES = frozenset({FailureClass.TRANSIENT, FailureClass.RATE_LIMITED, FailureClass.CAPACITY})
SIZES = frozenset({FailureClass.OUT_OF_MEMORY})


def _clue(run: RunFact, words: str) -> Clue:
    return Clue(ref=f"run:{run.run_id}", words=words)


# -- one function an origin: what speaks for it and against it


def _child(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    supports = tuple(
        _clue(run, f"a run that it started failed before it: {finding.failure_class}")
        for run, finding in f.children
    )
    return Hypothesis(origin=Origin.CHILD, supports=supports * 3, root=supports[0].ref if supports else "")


def _outage(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    alike = [n for n in f.neighbours if _same_outside(f, n)]
    others = {n.run.deployment_id or n.run.flow_name for n in alike}
    enough = len(others) >= 2
    before = _same_before(f)
    against = [
        _clue(run, "it failed of the same an hour and more before anybody else did")
        for run in before
        if alike
        and run.ended
        and min(n.run.ended for n in alike if n.run.ended) - run.ended > timedelta(hours=1)
    ][:1]
    return Hypothesis(
        origin=Origin.OUTAGE,
        supports=tuple(
            _clue(n.run, f"another deployment failed of the same: {n.finding.failure_class}") for n in alike
        )
        if enough
        else (),
        against=tuple(against),
        root=next(iter(sorted(f.causes)), ""),
    )


def _same_outside(f: CaseFacts, n: Neighbour) -> bool:
    if f.causes & n.causes:
        return True
    alike = normalised(f.run.state_message) == normalised(n.run.state_message) and bool(f.run.state_message)
    return alike and n.finding.failure_class not in OF_PLATFORM | {
        FailureClass.CODE_BUG,
        FailureClass.OUT_OF_MEMORY,
    }


def _platform(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    pool = f.run.pool or ""
    dead = [
        n
        for n in f.neighbours
        if n.run.pool == pool and pool and n.finding.failure_class in OF_PLATFORM and not f.causes & n.causes
    ] if f.finding.failure_class in OF_PLATFORM else []  # fmt: skip
    dead += [n for n in f.neighbours if n not in dead and n.run.pool == pool and pool and f.causes & n.causes
             and f.finding.failure_class in OF_PLATFORM]  # fmt: skip
    others = {n.run.deployment_id or n.run.flow_name for n in dead}
    supports = (
        [_clue(n.run, f"another run of the pool died too: {n.finding.failure_class}") for n in dead]
        if others
        else []
    )
    failed_at = f.run.ended or f.run.updated
    for worker in f.site.workers:
        gone = worker.pool == pool and worker.status == "OFFLINE" and worker.heard is not None
        if (
            gone
            and worker.heard is not None
            and abs(worker.heard - failed_at) <= SILENCE
            and f.finding.failure_class in OF_PLATFORM
        ):
            supports += 2 * [
                Clue(ref=f"pool:{pool}", words=f"worker {harmless(worker.name, 60)} was last heard then")
            ]
    against = [
        _clue(run, "a run of the same pool began meanwhile and completed") for run in f.completed_in_pool[:1]
    ]
    return Hypothesis(
        origin=Origin.PLATFORM,
        supports=tuple(supports),
        against=tuple(against),
        root=f"pool:{pool}" if pool else "",
    )


def _change(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    good = next((run for run in f.ended if run.state_type is StateType.COMPLETED), None)
    if good is None:
        return Hypothesis(origin=Origin.CHANGE)
    after = [run for run in f.ended if run.started and good.started and run.started > good.started]
    successes = [run for run in f.ended if run.state_type is StateType.COMPLETED]
    changed = [
        (what, before, now)
        for what, before, now in _differences(good, f.run)
        if len({str(_field(run, what)) for run in successes}) < VARIES
        and not any(str(_field(run, what)) == str(now) for run in successes)
    ]
    supports = tuple(
        _clue(
            f.run,
            f"{harmless(what, 60)} was {harmless(before, 60)} when it last completed, and is {harmless(now, 60)}",
        )
        for what, before, now in changed
    )
    if supports and len([run for run in after if run.state_type in FAILED]) >= 2:
        supports += (_clue(f.run, f"all {len(after)} runs since the change failed"),)
    against = [
        _clue(run, "it failed of the same before the change")
        for run in _same_before(f)
        if run.started and good.started and run.started < good.started
    ][:1]
    if f.finding.failure_class in PASSES:
        against += [_clue(f.run, f"a change does not bring {f.finding.failure_class}")] if supports else []
    return Hypothesis(origin=Origin.CHANGE, supports=supports, against=tuple(against))


def _differences(first: RunFact, second: RunFact) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for what, before, after in (
        ("job variable", first.job_variables, second.job_variables),
        ("parameter", first.parameters, second.parameters),
    ):
        found += [
            (f"{what} {key}", before.get(key, "nothing"), after.get(key, "nothing"))
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
    if first.queue != second.queue or first.pool != second.pool:
        found.append(("queue", f"{first.pool}/{first.queue}", f"{second.pool}/{second.queue}"))
    return found


def _field(run: RunFact, what: str) -> Any:
    if what == "queue":
        return f"{run.pool}/{run.queue}"
    given: Mapping[str, Any] = run.job_variables if what.startswith("job variable ") else run.parameters
    return given.get(what.partition(" ")[2].removeprefix("variable "), "nothing")


def _value(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    bad = bad_value(f.ended, p)
    if bad is None or str(f.run.parameters.get(bad.name)).strip('"') != bad.value.strip('"'):
        return Hypothesis(origin=Origin.VALUE)
    which = f"{harmless(bad.name, 60)} = {harmless(bad.value, 60)}"
    words = f"all {bad.failed} runs with {which} failed, and hardly any of {bad.others} others"
    return Hypothesis(origin=Origin.VALUE, supports=(Clue(ref=f"run:{bad.witness}", words=words),) * 3)


def _size(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    if f.finding.failure_class not in SIZES:
        return Hypothesis(origin=Origin.SIZE)
    return Hypothesis(origin=Origin.SIZE, supports=(_clue(f.run, "it ended for want of memory"),) * 2)


def _passing(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    later = [
        run
        for run in f.ended
        if run.state_type is StateType.COMPLETED
        and run.started
        and f.run.ended
        and run.started >= f.run.ended
    ]
    supports = [_clue(run, "its next run completed") for run in later[-1:]]
    if f.finding.failure_class in PASSES:
        supports.append(_clue(f.run, f"{f.finding.failure_class} mostly passes"))
    against = [_clue(run, "it failed of the same again and again before") for run in _same_before(f)[2:3]]
    if f.finding.failure_class in PERMANENT or f.finding.failure_class in SIZES:
        against.append(_clue(f.run, f"{f.finding.failure_class} does not pass by itself"))
    return Hypothesis(origin=Origin.PASSING, supports=tuple(supports), against=tuple(against))


def _own(f: CaseFacts, p: PlaybookParameters) -> Hypothesis:
    supports = [_clue(run, "it failed of the same before") for run in _same_before(f)[:2]]
    if f.finding.failure_class in PERMANENT | {FailureClass.TIMED_OUT, FailureClass.DEPENDENCY}:
        supports.append(_clue(f.run, f"its own end says {f.finding.failure_class}"))
    alike = {n.run.deployment_id for n in f.neighbours if _same_outside(f, n)}
    against = [
        _clue(n.run, "another deployment failed of the same") for n in f.neighbours if _same_outside(f, n)
    ][:1]
    return Hypothesis(
        origin=Origin.OWN, supports=tuple(supports), against=tuple(against) if len(alike) >= 2 else ()
    )


def _same_before(f: CaseFacts) -> list[RunFact]:
    """Earlier runs of the deployment that failed with the same words."""
    words = normalised(f.run.state_message)
    return [
        run
        for run in f.ended
        if run.run_id != f.run.run_id
        and run.state_type in FAILED
        and words
        and normalised(run.state_message) == words
        and (run.started or run.created) < (f.run.started or f.run.created)
    ]


TESTS: tuple[Callable[[CaseFacts, PlaybookParameters], Hypothesis], ...] = (
    _child,
    _outage,
    _platform,
    _value,
    _change,
    _size,
    _passing,
    _own,
)
"""The more particular first: of two that weigh the same the first is taken."""


def conclude_failure(f: CaseFacts, parameters: PlaybookParameters) -> Conclusion:
    """Return where the failure of a run comes from."""
    held = tuple(test(f, parameters) for test in TESTS)
    standing = [each for each in held if each.supports and each.weight > 0]
    best = max(standing, key=lambda each: each.weight, default=Hypothesis(origin=Origin.UNKNOWN))
    failure_class = _class_of(f, best)
    deciding = [item for item in f.finding.evidence if item.tainted]
    cited = [*(clue.ref for clue in best.supports), *(item.ref for item in deciding)]
    words = f"{MEANING[best.origin]}: {'; '.join(dict.fromkeys(clue.words for clue in best.supports)) or 'no clue'}"
    return Conclusion(
        subject=f"run:{f.run.run_id}",
        origin=best.origin,
        failure_class=failure_class,
        root=best.root,
        words=f"{failure_class}; {words}",
        citations=tuple(dict.fromkeys((f"run:{f.run.run_id}", *cited))),
        unchecked=tuple(_unchecked(f)),
        hypotheses=tuple(
            sorted((each for each in held if each.supports or each.against), key=lambda each: -each.weight)
        ),
    )


def _class_of(f: CaseFacts, best: Hypothesis) -> FailureClass:
    known = f.finding.failure_class
    if best.origin is Origin.CHILD and f.children:
        child = f.children[0][1].failure_class
        return child if child is not FailureClass.UNKNOWN else known
    if known is FailureClass.UNKNOWN and best.origin is Origin.OUTAGE:
        return FailureClass.DEPENDENCY
    return known


def _unchecked(f: CaseFacts) -> list[str]:
    gaps = ["which version of the code ran is not kept"]
    if not f.logs:
        gaps.append("no log line of the run is kept")
    if len(f.ended) < 3:
        gaps.append("its deployment has hardly any history")
    if f.run.pool and not any(worker.pool == f.run.pool for worker in f.site.workers):
        gaps.append("no worker of its pool is known")
    return gaps


# -- what has not failed


def conclude_wait(subject: str, found: Blockage | None, site: SiteFacts) -> Conclusion:
    """Return why a run does not go on, or why a deployment has none: the first thing in the way, and who is behind it."""
    if found is None or not found.trouble:
        return Conclusion(
            subject=subject,
            origin=Origin.NONE,
            failure_class=FailureClass.UNKNOWN,
            cause=found.cause.value if found else "",
            words=found.words if found else "nothing is known of it",
            citations=(subject,),
            unchecked=found.doubts if found else (),
        )
    dead = [run_id for run_id in found.holders if run_id in site.silent]
    alone = found.cause in (Cause.SLOTS_OF_NOBODY, Cause.SILENT)
    origin = Origin.DEAD_HOLDER if dead or alone else Origin.WAITS
    clues = [Clue(ref=found.entity, words=harmless(found.words, 300))]
    clues += [
        Clue(ref=f"run:{run_id}", words="it holds a slot, and is not heard any more") for run_id in dead[:5]
    ]
    clues += (
        []
        if dead
        else [
            Clue(ref=f"run:{run_id}", words="it holds a slot, and is alive") for run_id in found.holders[:5]
        ]
    )
    return Conclusion(
        subject=subject,
        origin=origin,
        failure_class=FailureClass.SILENT if found.cause is Cause.SILENT else FailureClass.STANDSTILL,
        cause=found.cause.value,
        root=f"run:{dead[0]}" if dead else found.entity,
        words=harmless(found.told(), 1000),
        citations=tuple(dict.fromkeys((subject, *(clue.ref for clue in clues)))),
        unchecked=found.doubts,
        hypotheses=(Hypothesis(origin=origin, supports=tuple(clues), root=found.entity),),
    )


def with_clues(evidence: Sequence[Evidence], conclusion: Conclusion) -> tuple[Evidence, ...]:
    """Return the evidence of a finding with what an investigation adds to it, in words of ours."""
    best = next((each for each in conclusion.hypotheses if each.origin is conclusion.origin), None)
    if best is None:
        return tuple(evidence)
    note = (
        f"investigated: {MEANING[conclusion.origin]} ({len(best.supports)} for, {len(best.against)} against)"
    )
    known = {item.ref for item in evidence}
    added = [Evidence(ref=clue.ref, note=clue.words) for clue in best.supports if clue.ref not in known][:5]
    return (*evidence, Evidence(ref=f"investigation:{conclusion.origin}", note=note), *dict.fromkeys(added))
