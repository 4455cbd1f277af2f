"""The planner's numbers, each with its unit and default: section `[planner]` of the settings."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field


class RemedyCosts(BaseModel):
    """What being wrong costs, in minutes of somebody's attention."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    wasted_attempt: float = Field(default=4, ge=0, le=10_000)
    """Another attempt that fails as the last one did. Default 4."""
    retry_permanent: float = Field(default=15, ge=0, le=10_000)
    """A permanent error tried again: a wasted attempt, a worker that may go down, an owner who hears late. Default 15."""
    retry_alive: float = Field(default=240, ge=0, le=100_000)
    """A second execution beside one that is still running. Default 240."""
    retry_same_size: float = Field(default=60, ge=0, le=10_000)
    """A run that ran out of memory tried again at its size. Default 60."""
    delay: float = Field(default=1.5, ge=0, le=10_000)
    """Minutes of waiting for what seconds would have cured. Default 1.5."""
    give_up_passing: float = Field(default=12, ge=0, le=10_000)
    """A fault that would have passed, left lying. Default 12."""
    wake_somebody: float = Field(default=5, ge=0, le=10_000)
    """An owner who is told. Default 5."""
    question: float = Field(default=8, ge=0, le=10_000)
    """A person who has to look and decide. Default 8."""
    watch: float = Field(default=7, ge=0, le=10_000)
    """A run that is held until its death is proven. Default 7."""


class PlaybookParameters(BaseModel):
    """What a site may tune in the playbooks. What may be *done* is not here: that is policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    # -- diagnosing
    evidence_wait: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(0), le=timedelta(minutes=10))
    """For so long after a run's end its log rows are waited for, where its state's words leave open what is wrong: a
    worker's rows come after the state. Default 5 s."""

    death_wait: timedelta = Field(default=timedelta(minutes=12), ge=timedelta(0), le=timedelta(hours=6))
    """For so long a crashed run that may still be alive is held, while two signs of its death may come: three missed
    heartbeats, and the end of what carried it. After that, or where no sign can come, a person is asked. Default 12 min."""

    # -- retrying
    retry_delay: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(0), le=timedelta(hours=1))
    """Before the first retry of a passing fault; each further wait is `backoff_factor` times as long. Default 10 s."""
    backoff_factor: int = Field(default=4, ge=1, le=10)
    """How many times the wait before it each wait between retries is. Default 4: the four attempts of a passing fault
    span three and a half minutes, so that an outage of three is waited out."""
    rate_limited_delay: timedelta = Field(
        default=timedelta(minutes=1), ge=timedelta(0), le=timedelta(hours=6)
    )
    """Before the first retry when the other side asked to slow down; grows likewise. Default 1 min."""
    dependency_delay: timedelta = Field(default=timedelta(minutes=5), ge=timedelta(0), le=timedelta(hours=6))
    """Before the first retry when something needed is absent; grows likewise. Default 5 min."""
    capacity_delay: timedelta = Field(default=timedelta(minutes=3), ge=timedelta(0), le=timedelta(hours=6))
    """Before the first retry when the platform had no room; grows likewise. Default 3 min."""
    longest_delay: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0), le=timedelta(hours=24))
    """No wait grows past this. Default 1 h."""
    longest_asked: timedelta = Field(default=timedelta(hours=12), gt=timedelta(0), le=timedelta(hours=24))
    """What the other side asks to wait (`Retry-After`) is waited up to this; then its owner is told. Default 12 h."""
    max_attempts: int = Field(default=4, ge=1, le=20)
    """Attempts, the first included, after which no further retry is wanted. On public re-runs the chance that
    one more attempt helps falls from 60 % to 28 % by the fourth. Default 4."""
    max_timed_out_attempts: int = Field(default=2, ge=1, le=20)
    """The same for runs that hit their time limit: each costs the whole limit. Default 2."""

    # -- what the forecast decides
    hopeless: float = Field(default=0.85, ge=0, le=1)
    """From this chance of failing on, with the row of failures below, a retry is held back. Default 0.85."""
    hopeless_row: int = Field(default=3, ge=1, le=100)
    """So many failed runs in a row, this one included, must agree with the forecast. Default 3."""
    cautious_below: float = Field(default=0.6, ge=0, le=1)
    """A failure that nobody can explain is retried once when the chance of failing is lower and the deployment is safe
    to repeat; a run that hit its time limit when the chance is lower. Default 0.6."""
    passing_lasts: timedelta = Field(default=timedelta(minutes=15), ge=timedelta(0), le=timedelta(hours=24))
    """Failures in a row that began no longer ago may all be one fault that passes: they make no retry hopeless, pause no
    deployment whose fault is cured by waiting, and what is forecast of its next runs is not told. Default 15 min."""
    non_production: tuple[str, ...] = ("dev", "test", "staging", "sandbox", "demo")
    """Environments (a deployment's tag `env:…`) that are not production; as in the guardrails."""
    costs: RemedyCosts = Field(default_factory=RemedyCosts)
    """What being wrong costs, by which the remedy of a failure is chosen."""
    act_above: float = Field(default=0.6, ge=0, le=1)
    """From this chance of failing on, an upcoming run is held back and its owner told. Default 0.6."""
    hold_back: timedelta = Field(default=timedelta(minutes=10), gt=timedelta(0), le=timedelta(hours=24))
    """By how much an upcoming run at risk is delayed. Default 10 min."""
    minimum_notice: timedelta = Field(default=timedelta(seconds=45), ge=timedelta(0), le=timedelta(hours=24))
    """A run that starts sooner is left alone: workers fetch runs 10 s ahead, and moving one that is being
    fetched can execute it twice. Default 45 s."""
    horizon: timedelta = Field(default=timedelta(hours=2), gt=timedelta(0), le=timedelta(hours=24))
    """How far ahead upcoming runs are looked at. Default 2 h."""

    # -- memory
    memory_step: float = Field(default=1.5, gt=1, le=4)
    """By what a run's memory is multiplied after it ran out. Default 1.5."""
    memory_rounding_mb: int = Field(default=16, ge=1, le=1024)
    """The new size is rounded up to a multiple of this, in MiB. Default 16."""
    memory_cap_mb: int = Field(default=16_384, ge=16, le=1_048_576)
    """No playbook asks for more, in MiB. Default 16384."""
    good_runs: int = Field(default=10, ge=1, le=1000)
    """So many runs completed with a raised size before one is tried a step lower. Default 10."""

    # -- quarantine
    quarantine_after: int = Field(default=3, ge=2, le=100)
    """So many failures in a row with one fingerprint pause a deployment. Default 3."""
    quarantine_window: timedelta = Field(default=timedelta(hours=6), gt=timedelta(0), le=timedelta(days=30))
    """How far back failures in a row are counted. Default 6 h."""
    quarantine_hold: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0), le=timedelta(hours=24))
    """How long a deployment stays paused if nobody resumes it. Default 1 h."""

    # -- queues
    starved_after: timedelta = Field(default=timedelta(minutes=5), ge=timedelta(0), le=timedelta(hours=24))
    """A due run that has waited longer behind a busier queue is starved. Default 5 min."""
    reserve_hold: timedelta = Field(default=timedelta(minutes=10), gt=timedelta(0), le=timedelta(hours=24))
    """How long a reserved slot stands. Default 10 min."""
    deadline_near: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0), le=timedelta(hours=24))
    """A waiting run is late whose `deadline:` tag, less the time in which nine of ten of its like end, is closer than
    this. Default 1 h."""
    longest_boost: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0), le=timedelta(hours=24))
    """A boost moves a start time at most so far into the past. Default 1 h."""

    # -- crowds, held queues, orphans
    backlog_runs: int = Field(default=5, ge=2, le=1000)
    """So many overdue runs of one deployment after an outage are caught up together. Default 5."""
    outage: timedelta = Field(default=timedelta(minutes=10), gt=timedelta(0), le=timedelta(hours=24))
    """For so long nothing of a pool has started, with runs due, before it counts as an outage. Default 10 min."""
    blocked_runs: int = Field(default=200, ge=10, le=10_000)
    """More waiting runs of one deployment are spread: Prefect looks at 200 at a time. Default 200."""
    wave: int = Field(default=10, ge=1, le=200)
    """Runs in one wave; more where the last wave would start an hour after the first. Default 10."""
    wave_every: timedelta = Field(
        default=timedelta(minutes=1), ge=timedelta(seconds=1), le=timedelta(minutes=30)
    )
    """From one wave to the next. Default 1 min."""
    unhealthy_runs: int = Field(default=5, ge=3, le=1000)
    """So many runs of a queue, of two deployments at least, all ending in one fault of the platform hold it.
    Default 5."""
    unhealthy_window: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0), le=timedelta(hours=24))
    """How far back a queue's runs are looked at. Default 1 h."""
    queue_hold: timedelta = Field(default=timedelta(minutes=30), gt=timedelta(0), le=timedelta(hours=24))
    """How long a queue is held if nobody releases it. Default 30 min."""
    orphan_after: timedelta = Field(default=timedelta(minutes=10), ge=timedelta(0), le=timedelta(hours=24))
    """How long a run has been dead before what it started is cancelled. Default 10 min."""
    slots_lost_after: timedelta = Field(
        default=timedelta(minutes=10), ge=timedelta(minutes=6), le=timedelta(hours=24)
    )
    """For so long runs have waited for a slot of their deployment's limit, with none of its runs under way, before
    its slots count as lost; leases last five minutes. Default 10 min."""
    raised_retries: int = Field(default=2, ge=1, le=10)
    """The retries that a running run gets which is likely to fail of a passing fault. Default 2."""
    ask_again_after: timedelta = Field(default=timedelta(hours=6), gt=timedelta(0), le=timedelta(days=7))
    """What was proposed about a deployment or a queue is not proposed again sooner. Default 6 h."""

    # -- what stands still
    stands_after: timedelta = Field(
        default=timedelta(minutes=5), ge=timedelta(seconds=30), le=timedelta(hours=24)
    )
    """A due run that has waited longer for what does not come by itself (no worker, a pause, no pool) is found; what
    comes by itself is not: see `full_after`. Default 5 min."""
    full_after: timedelta = Field(
        default=timedelta(minutes=30), ge=timedelta(seconds=30), le=timedelta(days=7)
    )
    """A run that has waited longer behind a full queue, pool or limit is found, where its like usually waits less.
    Default 30 min."""
    pending_after: timedelta = Field(
        default=timedelta(minutes=10), ge=timedelta(seconds=30), le=timedelta(hours=24)
    )
    """A run that is Pending for longer, and three times longer than its pool usually takes, is stuck. Default 10 min."""
    cancelling_after: timedelta = Field(
        default=timedelta(minutes=6), ge=timedelta(seconds=30), le=timedelta(hours=24)
    )
    """A run that is Cancelling for longer, and three times longer than is usual in its pool, is stuck: Prefect ends it
    itself after 5 min since 3.7.5. Default 6 min."""
    person_after: timedelta = Field(
        default=timedelta(hours=24), ge=timedelta(seconds=30), le=timedelta(days=30)
    )
    """A run that is paused or suspended for longer waits for somebody who does not know. Default 24 h."""
    overlong_factor: float = Field(default=2.0, gt=1, le=100)
    """A run that takes so many times as long as the longest of its deployment before is overlong. Default 2."""
    overlong_floor: timedelta = Field(default=timedelta(minutes=10), ge=timedelta(0), le=timedelta(days=7))
    """No run that takes less is overlong. Default 10 min."""
    overlong_runs: int = Field(default=8, ge=3, le=50)
    """So many completed runs of a deployment are needed to know how long they take. Default 8."""
    overlong_first: int = Field(default=3, ge=1, le=50)
    """With fewer, but so many, what is forecast of its duration says which run is overlong: 995 of a thousand that
    complete end sooner. Default 3."""
    overlong_scored: int = Field(default=200, ge=20, le=2000)
    """So many runs of the site must have been held against that forecast. Default 200: fewer cannot tell one in 200."""
    hidden_runs: int = Field(default=3, ge=2, le=10)
    """So many runs in a row completed with failed tasks or children, after as many without. Default 3."""
    pile_up_runs: int = Field(default=20, ge=3, le=10_000)
    """So many runs of a pool at one minute pile up, where such minutes began late before. Default 20."""
    pile_up_late: timedelta = Field(
        default=timedelta(minutes=2), ge=timedelta(seconds=30), le=timedelta(hours=6)
    )
    """By so much their runs began late, in the median of the last two weeks. Default 2 min."""
    pile_up_share: float = Field(default=0.3, ge=0, le=1)
    """Where a smaller share of them is expected to start late, they are left as they are. Default 0.3."""
    pile_up_known: int = Field(default=200, ge=20, le=100_000)
    """So many waits must be known for that forecast. Default 200."""
    bad_value_runs: int = Field(default=3, ge=2, le=100)
    """So many runs with one value of a parameter failed, none of them going well, with twice as many others. Default 3."""
    slow_answer: timedelta = Field(
        default=timedelta(seconds=5), ge=timedelta(milliseconds=100), le=timedelta(minutes=5)
    )
    """Prefect is slow when one request in twenty takes longer. Default 5 s."""
    slow_failures: float = Field(default=0.2, gt=0, le=1)
    """Or when so large a part of the requests is not answered. Default 0.2."""
    slow_requests: int = Field(default=20, ge=5, le=10_000)
    """So many requests in five minutes are needed to say so. Default 20."""
    zone_schedules: int = Field(default=4, ge=2, le=1000)
    """So many other schedules in one time zone make a schedule without one suspect. Default 4."""
    zone_share: float = Field(default=0.8, gt=0.5, le=1)
    """And so large a part of all others. Default 0.8."""

    # -- the rest
    proposal_life: timedelta = Field(default=timedelta(hours=4), gt=timedelta(0), le=timedelta(hours=24))
    """How long a proposal waits for a person before it lapses; windows of minutes have lost real decisions.
    Default 4 h."""
    logs_read: int = Field(default=100, ge=0, le=1000)
    """The newest log lines of a run that are looked at. Default 100."""
