"""What is proposed for which failure class: one table of playbooks, each a pure function of an incident context.

A playbook returns desired actions in the order of preference and the rejected options, each with its reason. The forecast
is an input of every playbook that runs something again: a retry that it calls hopeless is not proposed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from types import MappingProxyType

from pilotage.planner.actions.types import (
    LaunchRemediation,
    PauseDeployment,
    RescheduleRun,
    ReserveSlot,
    ResizeRun,
    RetryRun,
    Severity,
)
from pilotage.planner.detect.backlog import remediate_backlog, remediate_blocked
from pilotage.planner.detect.diagnosis import DEFAULT_CURE
from pilotage.planner.detect.memory_sizing import remediate_missized
from pilotage.planner.detect.pile_up import remediate_pile_up
from pilotage.planner.detect.queue_faults import remediate_recovered_queue, remediate_unhealthy_queue
from pilotage.planner.detect.remedy import Remedy, RemedyContext, choose
from pilotage.planner.detect.run_risks import (
    remediate_blocked_by_hold,
    remediate_forecast_trouble,
    remediate_fragile,
    remediate_orphaned,
)
from pilotage.planner.detect.stale import remediate_leaked_slot, remediate_resolved_alert, remediate_silent
from pilotage.planner.detect.stand_ins import remediate_never_started, remediate_overlong
from pilotage.planner.detect.standstill import remediate_standstill
from pilotage.planner.detect.starvation import busy_queue
from pilotage.planner.detect.unusual import remediate_duplicate, remediate_told
from pilotage.planner.findings import NOT_A_FAILURE, Cure, FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.plugins import broken, plugins
from pilotage.planner.remediation import (
    SAFE_TO_REPEAT,
    DesiredAction,
    IncidentContext,
    Playbook,
    Remediation,
    deadline_of,
    notify,
    run_of,
    words_of,
)

BOOST = timedelta(seconds=1)
"""How far before the earliest waiting run a boosted one is put; queues are served by start time."""

ASSUMED_CONFIDENCE = 0.9
"""How sure a finding counts that does not say, such as one from memory."""


def backoff(first: timedelta, run_count: int, longest: timedelta, factor: int = 2) -> timedelta:
    """The delay before the next attempt: the first, times `factor` for each attempt since, up to the longest."""
    grown = first
    for _ in range(min(max(run_count - 1, 0), 40)):
        grown *= factor
        if grown >= longest:
            break
    return min(grown, longest)


def hopeless(s: IncidentContext) -> str:
    """Why a further attempt is held back because of its siblings or of the forecast, or an empty string."""
    if s.around.failing_value:
        return s.around.failing_value
    if s.forecast is None or s.around.failures_in_row < s.parameters.hopeless_row or _may_be_one_outage(s):
        return ""
    again = _remedy_context(s)
    if again.p_again is None or s.forecast.muted or again.p_again < s.parameters.hopeless:
        return ""
    if again.p_again != again.p_fail:
        return f"{_of_retries(s)}, and the last {s.around.failures_in_row} runs of the deployment all failed"
    return (
        f"the forecast gives the next attempt a {s.forecast.p_fail:.0%} chance of failing and the last "
        f"{s.around.failures_in_row} runs of the deployment all failed"
    )


def _may_be_one_outage(s: IncidentContext) -> bool:
    """Whether all failures in a row came so close together that one fault that passes may explain them."""
    return s.around.failing_for is not None and s.around.failing_for < s.parameters.passing_lasts


def retry(s: IncidentContext, first_delay: timedelta, max_attempts: int) -> Remediation:
    """The retries in place that are left of a plan, or a word to the owner when attempts or hope are used up.

    The plan is the same text at each attempt, so that what was said of it once holds for all of it.
    """
    run = run_of(s)
    held_back = hopeless(s)
    if run.run_count >= max_attempts:
        held_back = f"it has been tried {run.run_count} times, {max_attempts} are the limit"
    if held_back:
        return Remediation(desired=notify(s), alternatives=(f"retry_run: held back, {held_back}",))
    factor, longest = s.parameters.backoff_factor, s.parameters.longest_delay
    delays = [backoff(first_delay, n, longest, factor) for n in range(1, max_attempts)]
    delay = backoff(first_delay, run.run_count, longest, factor)
    again = RetryRun(run_id=run.run_id, delay=delay)
    later = delays[max(run.run_count, 1) :]
    rest = (
        f"; if not, again after {', '.join(words_of(one) for one in later)}, then its owner is told"
        if later
        else ""
    )
    return Remediation(
        desired=(
            DesiredAction(
                action=again,
                effect=f"the same run, tried again in {words_of(delay)}, completes{rest}{retry_impact_words(s)}",
                plan=_plan_ref(run.run_id, s.finding.failure_class, delays),
            ),
        )
    )


def _plan_ref(run_id: str, failure_class: FailureClass, delays: Sequence[timedelta]) -> str:
    """The reference of a plan of retries: equal at each of its attempts, another for another run, class or rhythm."""
    seed = "\0".join([run_id, failure_class, *(str(delay.total_seconds()) for delay in delays)])
    return "plan:" + hashlib.sha256(seed.encode()).hexdigest()[:16]


def retry_impact_words(s: IncidentContext) -> str:
    """Which tasks another attempt does again, as the end of a sentence; empty when nobody knows."""
    repeats = s.around.retry_impact.words() if s.around.retry_impact else ""
    return f"; {repeats}" if repeats else ""


def _rate_limited_delay(parameters: PlaybookParameters) -> timedelta:
    return parameters.rate_limited_delay


FIRST_DELAY: Mapping[FailureClass, Callable[[PlaybookParameters], timedelta]] = MappingProxyType(
    {
        FailureClass.RATE_LIMITED: _rate_limited_delay,
        FailureClass.DEPENDENCY: lambda p: p.dependency_delay,
        FailureClass.CAPACITY: lambda p: p.capacity_delay,
    }
)
"""Before the first retry of a class that seconds do not help."""
_NEVER_AGAIN = "retry_run: a permanent error cannot be cured by running it again"
_REASONS: Mapping[FailureClass, str] = MappingProxyType(
    {
        FailureClass.INFRASTRUCTURE: "retry_run: the platform has to be mended first, another attempt would meet the same",
        FailureClass.ENVIRONMENT: "retry_run: each attempt would meet the same, and may take the worker down",
        FailureClass.OUT_OF_MEMORY: "retry_run: the same size would run out again, and no larger one helps",
        FailureClass.TIMED_OUT: "retry_run: another attempt costs the whole time limit, and no forecast favours it",
        FailureClass.CRASHED: "retry_run: the process ended itself with an error; another attempt would meet the same",
        FailureClass.DEPENDENCY: "retry_run: what it needs has to be put there first",
    }
)


def remedy_of(s: IncidentContext) -> Remedy:
    """Return the remedy with the lowest expected cost for a situation's failure."""
    finding = s.finding
    cure = finding.cure or DEFAULT_CURE.get(finding.failure_class, Cure.UNCLEAR)
    context = _remedy_context(s)
    if (
        finding.failure_class is FailureClass.TIMED_OUT
        and context.p_again is not None
        and context.p_again < s.parameters.cautious_below
    ):
        cure = Cure.SECONDS
    return choose(cure, finding.confidence or ASSUMED_CONFIDENCE, s.parameters.costs, context)


def _remedy_context(s: IncidentContext) -> RemedyContext:
    """Return what is known beside the diagnosis. A muted forecast mutes that of retries as well."""
    muted = s.forecast is not None and bool(s.forecast.muted)
    retry = None if muted else s.retry
    return RemedyContext(
        p_fail=s.forecast.p_fail if s.forecast else None,
        # to a percent: a cost that differs by less decides nothing, and equal questions are answered once
        p_retry=None if retry is None else round(retry.p_success, 2),
        retries_known=retry.known if retry else 0,
        safe_to_repeat=s.around.safe_to_repeat,
        retry_unknown_below=s.parameters.cautious_below,
        proven_dead=len(s.around.death_signs) > 1 and not s.around.heard_after_end,
    )


def _of_retries(s: IncidentContext) -> str:
    """Return what is forecast of another attempt, in words."""
    if s.retry is None:
        return ""
    return (
        f"by {s.retry.known} known retries of its like another attempt succeeds with {s.retry.p_success:.0%}"
    )


def play_failure(s: IncidentContext) -> Remediation:
    """Return what the cheapest remedy of a failure asks for."""
    finding, p = s.finding, s.parameters
    chosen = remedy_of(s)
    if chosen is Remedy.RETRY_NOW:
        limit = {FailureClass.TIMED_OUT: p.max_timed_out_attempts, FailureClass.UNKNOWN: 2}
        return retry(s, p.retry_delay, limit.get(finding.failure_class, p.max_attempts))
    if chosen is Remedy.RETRY_LATER:
        first = FIRST_DELAY.get(finding.failure_class, _rate_limited_delay)(p)
        asked = timedelta(seconds=finding.wait_seconds or 0)
        if asked > s.parameters.longest_asked:
            why = (
                f"retry_run: the other side asked to wait {words_of(asked)}, longer than any retry is delayed"
            )
            return Remediation(desired=notify(s), alternatives=(why,))
        if asked > s.parameters.longest_delay:
            waited = replace(s, parameters=s.parameters.model_copy(update={"longest_delay": asked}))
            return retry(waited, asked, p.max_attempts)
        limited = 2 if finding.failure_class is FailureClass.UNKNOWN else p.max_attempts
        return retry(s, max(first, asked), limited)
    if chosen is Remedy.MORE_MEMORY:
        return remediate_out_of_memory(s)
    if chosen in (Remedy.HOLD, Remedy.ASK):
        return Remediation(
            desired=notify(s),
            alternatives=(f"retry_run: it may still be running, and {_missing_proof(s)}",),
        )
    if finding.failure_class is FailureClass.UNKNOWN:
        return Remediation(desired=notify(s), alternatives=(f"retry_run: {_unknown_because(s)}",))
    if s.retry is not None and remedy_of(replace(s, retry=None)) in (Remedy.RETRY_NOW, Remedy.RETRY_LATER):
        return Remediation(desired=notify(s), alternatives=(f"retry_run: {_of_retries(s)}",))
    return Remediation(desired=notify(s), alternatives=(_REASONS.get(finding.failure_class, _NEVER_AGAIN),))


def _missing_proof(s: IncidentContext) -> str:
    """Return what keeps a run from counting as dead; two independent signs would prove it."""
    if s.around.heard_after_end:
        return "its process was heard after it was called ended"
    if s.around.death_signs:
        return f"one sign is not enough: {s.around.death_signs[0]}"
    return "nothing proves that it has ended"


def _unknown_because(s: IncidentContext) -> str:
    """Return why a failure that nobody explains is not tried again."""
    if s.forecast is None:
        return "the cause is unknown and there is no forecast"
    context = _remedy_context(s)
    if context.p_again is not None and context.p_again != context.p_fail:
        if context.p_again >= s.parameters.cautious_below:
            return f"the cause is unknown, and {_of_retries(s)}"
    elif s.forecast.p_fail >= s.parameters.cautious_below:
        return f"the cause is unknown and the forecast is {s.forecast.p_fail:.0%} failure"
    return (
        "the cause is unknown, and its owners have not said that the deployment is safe to repeat "
        f"(tag `{SAFE_TO_REPEAT}`)"
    )


def remediate_out_of_memory(s: IncidentContext) -> Remediation:
    """One step more memory and a retry; the forecast speaks of the old size and does not hold this back."""
    run = run_of(s)
    has = s.around.memory_mb
    if not has and s.finding.failure_class is FailureClass.CRASHED:
        # killed without a limit of its own: its machine was short of memory, or somebody ended it. There is no size
        # at which it would fail again, and its machine may have room by then
        return retry(s, s.parameters.retry_delay, s.parameters.max_attempts)
    if not has or has < 1:
        return Remediation(
            desired=notify(s),
            alternatives=("resize_run: nobody says how much memory it has (a job variable of it or of its deployment)",
                          "retry_run: the same size would run out again"),
        )  # fmt: skip
    size = next_size(has, s.parameters, s.around.memory_sizes)
    if size <= has:
        return Remediation(
            desired=notify(s),
            alternatives=(f"resize_run: it has {has} MiB, the cap is {s.parameters.memory_cap_mb} MiB",),
        )
    if run.run_count >= s.parameters.max_attempts:
        return Remediation(
            desired=notify(s), alternatives=(f"resize_run: it has been tried {run.run_count} times",)
        )
    return Remediation(
        desired=(DesiredAction(action=ResizeRun(run_id=run.run_id, memory_mb=size),
                     effect=f"with {size} MiB instead of {has} MiB the run completes{retry_impact_words(s)}"),),
        alternatives=("retry_run: the same size would run out again",),
    )  # fmt: skip


def next_size(has_mb: int, parameters: PlaybookParameters, allowed: Sequence[int] = ()) -> int:
    """Return one memory step up from `has_mb`, rounded up, never over the cap, in MiB.

    Where only some sizes are allowed it is the first of them that is large enough, or `has_mb` when none is.
    """
    grain = parameters.memory_rounding_mb
    wanted = math.ceil(has_mb * parameters.memory_step / grain) * grain
    if not allowed:
        return min(wanted, parameters.memory_cap_mb)
    enough = (size for size in allowed if wanted <= size <= parameters.memory_cap_mb)
    return next(enough, max((size for size in allowed if size <= parameters.memory_cap_mb), default=has_mb))


def remediate_at_risk(s: IncidentContext) -> Remediation:
    """A later start for a run that is expected to fail, and a word to its owner while there is time."""
    start = s.run.next_start if s.run else None
    if s.run is None or start is None or s.forecast is None:
        return Remediation(
            alternatives=("reschedule_run: the run has no start time or no forecast any more",)
        )
    if s.forecast.muted:
        return Remediation(
            alternatives=(f"reschedule_run: nothing acts on forecasts now, {s.forecast.muted}",)
        )
    if s.forecast.p_fail < s.parameters.act_above:
        return Remediation(alternatives=(f"reschedule_run: the forecast is {s.forecast.p_fail:.0%} only",))
    if start - s.now < s.parameters.minimum_notice:
        return Remediation(
            desired=notify(s, Severity.WARNING),
            alternatives=("reschedule_run: it starts too soon to be moved safely",),
        )
    later = RescheduleRun(run_id=s.run.run_id, start=start + s.parameters.hold_back)
    risk = f"{s.forecast.p_fail:.0%} likely to fail"
    why = f"{words_of(s.parameters.hold_back)} to act before a run starts that is {risk}"
    return Remediation(
        desired=(DesiredAction(action=later, effect=why, until=start), *notify(s, Severity.WARNING)),
        alternatives=("cancel_run: a forecast alone is no reason to drop work",),
    )


def remediate_starved(s: IncidentContext) -> Remediation:
    """A cap on the queue that holds the slots, so that the starved one gets one."""
    pool, _, name = s.finding.subject.removeprefix("queue:").partition("/")
    starved = next((q for q in s.around.queues if (q.pool, q.queue) == (pool, name)), None)
    busy = busy_queue(starved, s.around.queues) if starved else None
    if starved is None or busy is None:
        return Remediation(
            alternatives=("reserve_slot: no queue of higher priority holds the slots any more",)
        )
    limit = min(starved.pool_limit or busy.running, busy.running) - 1
    if limit < 1:
        return Remediation(alternatives=("reserve_slot: the pool has one slot; a cap of 0 would fail tasks",))
    reserve = ReserveSlot(
        pool=pool, busy_queue=busy.queue, starved_queue=name, limit=limit, hold=s.parameters.reserve_hold
    )
    effect = (
        f"one slot comes free and the runs waiting in {name} get it for {words_of(s.parameters.reserve_hold)}"
    )
    return Remediation(desired=(DesiredAction(action=reserve, effect=effect),))


def remediate_late(s: IncidentContext) -> Remediation:
    """An earlier start time for a waiting run whose deadline is near, so that its queue serves it first."""
    if s.run is None or s.around.earliest_waiting is None:
        return Remediation(alternatives=("reschedule_run: nothing waits ahead of it any more",))
    start = s.around.earliest_waiting - BOOST
    if start < s.now - s.parameters.longest_boost:
        return Remediation(
            desired=notify(s, Severity.WARNING),
            alternatives=("reschedule_run: the runs ahead wait longer than a boost may reach back",),
        )
    boost = RescheduleRun(run_id=s.run.run_id, start=start)
    return Remediation(
        desired=(
            DesiredAction(
                action=boost, effect="it is the next of its queue to start", until=deadline_of(s.run)
            ),
        )
    )


REMEDIATIONS: Mapping[FailureClass, Playbook] = MappingProxyType(
    {
        FailureClass.TRANSIENT: Playbook("retry-transient", play_failure),
        FailureClass.RATE_LIMITED: Playbook("retry-when-allowed", play_failure),
        FailureClass.CRASHED: Playbook("retry-crashed", play_failure),
        FailureClass.OUT_OF_MEMORY: Playbook("more-memory", play_failure),
        FailureClass.TIMED_OUT: Playbook("retry-timed-out", play_failure),
        FailureClass.AUTH: Playbook("tell-owner", play_failure),
        FailureClass.BAD_INPUT: Playbook("tell-owner", play_failure),
        FailureClass.CODE_BUG: Playbook("tell-owner", play_failure),
        FailureClass.DEPENDENCY: Playbook("retry-dependency", play_failure),
        FailureClass.INFRASTRUCTURE: Playbook("tell-owner", play_failure),
        FailureClass.ENVIRONMENT: Playbook("tell-owner", play_failure),
        FailureClass.CAPACITY: Playbook("retry-when-room", play_failure),
        FailureClass.QUOTA_SPENT: Playbook("tell-owner", play_failure),
        FailureClass.CERTIFICATE: Playbook("tell-owner", play_failure),
        FailureClass.MAY_STILL_BE_RUNNING: Playbook("prove-death", play_failure),
        FailureClass.STARVED: Playbook("reserve-slot", remediate_starved),
        FailureClass.AT_RISK: Playbook("hold-back", remediate_at_risk),
        FailureClass.LATE: Playbook("boost", remediate_late),
        FailureClass.MISSIZED: Playbook("size-ladder", remediate_missized),
        FailureClass.FRAGILE: Playbook("raise-retries", remediate_fragile),
        FailureClass.BLOCKED_BY_HOLD: Playbook("move-to-open-queue", remediate_blocked_by_hold),
        FailureClass.ORPHANED: Playbook("cancel-orphans", remediate_orphaned),
        FailureClass.BACKLOG: Playbook("catch-up", remediate_backlog),
        FailureClass.BLOCKED: Playbook("spread-crowd", remediate_blocked),
        FailureClass.UNHEALTHY: Playbook("hold-queue", remediate_unhealthy_queue),
        FailureClass.RECOVERED_QUEUE: Playbook("release-queue", remediate_recovered_queue),
        FailureClass.SILENT: Playbook("mark-dead", remediate_silent),
        FailureClass.LEAKED: Playbook("release-slots", remediate_leaked_slot),
        FailureClass.RECOVERED: Playbook("resolve-alert", remediate_resolved_alert),
        FailureClass.STANDSTILL: Playbook("tell-what-stands-still", remediate_standstill),
        FailureClass.DUPLICATE: Playbook("cancel-the-later-twin", remediate_duplicate),
        FailureClass.NEVER_STARTED: Playbook("make-again", remediate_never_started),
        FailureClass.OVERLONG: Playbook("end-what-hangs", remediate_overlong),
        FailureClass.HIDDEN_FAILURES: Playbook("tell-owner", remediate_told),
        FailureClass.CREEPING: Playbook("tell-owner", remediate_told),
        FailureClass.PILE_UP: Playbook("stagger", remediate_pile_up),
        FailureClass.BAD_VALUE: Playbook("tell-owner", remediate_told),
        FailureClass.FORECAST_OFF: Playbook("tell-forecast-off", remediate_forecast_trouble),
        FailureClass.UNKNOWN: Playbook("cautious-retry", play_failure),
    }
)
GROUP = "pilotage.playbooks"


@cache
def added_playbooks() -> Mapping[str, Playbook]:
    """Return the playbooks of installed packages, by the `rule_id` of the findings that each is for.

    Raises ConfigError for what is no Playbook, or is named as one of our failure classes.
    """
    added: dict[str, Playbook] = {}
    for rule_id, playbook in plugins(GROUP):
        if not isinstance(playbook, Playbook) or rule_id in set(FailureClass):
            raise broken(GROUP, rule_id, "it must be a Playbook, named by the `rule_id` of its findings")
        added[rule_id] = playbook
    return MappingProxyType(added)


def playbook_for(finding: Finding) -> Playbook:
    """Return the playbook of a finding: that of its rule where a package added one, else that of its class."""
    return added_playbooks().get(finding.rule_id) or REMEDIATIONS[finding.failure_class]


def quarantine(s: IncidentContext) -> tuple[DesiredAction, ...]:
    """Return the desired pause of a deployment that keeps failing the same way; none while it does not.

    It rests on the count of failed runs, which is Prefect's, and on no text of theirs.
    """
    p, run = s.parameters, s.run
    if run is None or run.deployment_id is None or s.around.deployment_paused:
        return ()
    if s.finding.failure_class in NOT_A_FAILURE or s.around.same_fault_in_row < p.quarantine_after:
        return ()
    # runs that meet an outage fail in a row as well: what waiting cures is waited for first
    if _may_be_one_outage(s) and remedy_of(s) in (Remedy.RETRY_NOW, Remedy.RETRY_LATER):
        return ()
    # of a row that is seen at once, the newest speaks for all
    if not s.around.newest_failure:
        return ()
    pause = PauseDeployment(deployment_id=run.deployment_id, hold=p.quarantine_hold)
    effect = f"no further run meets the fault that {s.around.same_fault_in_row} runs in a row have met"
    counted = (f"deployment:{run.deployment_id}", f"run:{run.run_id}")
    return (DesiredAction(action=pause, effect=effect, rests_on=counted, bound_to_state=False),)


def remedy(s: IncidentContext) -> tuple[tuple[DesiredAction, ...], tuple[str, ...]]:
    """Return the desired start of the one remedy that owners declared for this failure, and why there is none otherwise.

    The most particular declaration decides: that of the fault before that of the rule, that before the class.
    """
    run, finding = s.run, s.finding
    if run is None or finding.failure_class in NOT_A_FAILURE:
        return (), ()
    if s.around.remedied:
        return (), (f"launch_remediation: it was started before, and {s.around.remedied}",)
    for what in (finding.fingerprint, finding.rule_id, finding.failure_class.value):
        declared = [remedy.deployment_id for remedy in s.around.remedies if what and what in remedy.cures]
        if len(declared) > 1:
            return (), (
                f"launch_remediation: {len(declared)} remedies are declared for {what}, one would do",
            )
        if declared:
            launch = LaunchRemediation(
                run_id=run.run_id, deployment_id=declared[0], attempt=max(1, run.run_count)
            )
            effect = f"the remedy that its owners declared for {what} is done"
            return (DesiredAction(action=launch, effect=effect),), ()
    return (), ()
