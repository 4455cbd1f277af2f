"""What is wrong and how we know: failure classes and typed findings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal


class Cure(StrEnum):
    """What would help, as far as a sign tells: the input of the choice of a remedy."""

    SECONDS = "seconds"
    """The fault passes within seconds."""
    MINUTES = "minutes"
    """The fault passes within minutes."""
    MEMORY = "memory"
    """The run needs a larger size."""
    OWNER = "owner"
    """Somebody has to change something first."""
    DEATH = "death"
    """The run may still be alive; only proof of its death makes a retry safe."""
    UNCLEAR = "unclear"
    """No sign says what failed."""


class FailureClass(StrEnum):
    """Why a run is in trouble. Closed: a model picks from it, never adds to it."""

    TRANSIENT = "transient"
    """A passing fault of the network or a dependency; trying again is likely to help."""
    RATE_LIMITED = "rate_limited"
    """The other side asked to slow down; trying again later helps."""
    CRASHED = "crashed"
    """The process died without a word of its own code: killed, evicted, lost."""
    OUT_OF_MEMORY = "out_of_memory"
    """It needs more memory than it was given."""
    TIMED_OUT = "timed_out"
    """It ran longer than it was allowed to."""
    AUTH = "auth"
    """Credentials refused; no retry helps."""
    BAD_INPUT = "bad_input"
    """Parameters or records that the code cannot accept; no retry helps."""
    CODE_BUG = "code_bug"
    """The code itself is wrong; no retry helps."""
    DEPENDENCY = "dependency"
    """A service, file or run that it needs is absent or down for longer than a moment."""
    INFRASTRUCTURE = "infrastructure"
    """The worker or the platform could not start or keep it."""
    ENVIRONMENT = "environment"
    """Where the run is executed something is missing or wrong: image, flow code, package, block; each retry meets the
    same and may take the worker down."""
    CAPACITY = "capacity"
    """The platform has no room for it at this moment: minutes help, seconds do not."""
    QUOTA_SPENT = "quota_spent"
    """A paid or granted quota is used up; only its owner can raise it."""
    CERTIFICATE = "certificate"
    """A certificate is not trusted, not valid or not for this host; no retry helps."""
    MAY_STILL_BE_RUNNING = "may_still_be_running"
    """Its state says that it ended, and its process may be alive; nothing is retried before two signs of death."""
    STARVED = "starved"
    """Waiting behind a busier queue although it is due."""
    AT_RISK = "at_risk"
    """Not failed yet: the forecast expects it to fail."""
    LATE = "late"
    """Due, and unlikely to make its deadline where it stands in its queue."""
    MISSIZED = "missized"
    """Not started: it would have another size than its like needed lately."""
    FRAGILE = "fragile"
    """Running, expected to fail of a passing fault, and without a retry of its own."""
    BLOCKED_BY_HOLD = "held_up"
    """Due with a near deadline, in a queue that is held while another of its pool is open."""
    ORPHANED = "orphaned"
    """Ended itself, while runs that it started go on with nobody to return to."""
    BACKLOG = "overdue"
    """Many runs of one deployment are due at once, because nothing of their pool started for a while."""
    BLOCKED = "blocked"
    """So many runs of one deployment wait that others are not seen behind them."""
    UNHEALTHY = "unhealthy"
    """Every run of a queue, whosever it is, ends in one and the same fault of the platform."""
    RECOVERED_QUEUE = "mended"
    """A queue was held for a fault that is over."""
    SILENT = "silent"
    """Running by its state, and not heard for longer than a living run is."""
    LEAKED = "leaked"
    """Runs of a deployment wait for slots of its limit that none of its runs holds."""
    RECOVERED = "recovered"
    """Its owner was told of trouble with it, and it completed since."""
    STANDSTILL = "standstill"
    """Runs that are due or begun do not go on, or a deployment has none: `rule_id` says for want of what."""
    NEVER_STARTED = "never_started"
    """Pending, and whoever took it never said that it started anything for it."""
    DUPLICATE = "duplicate"
    """The same work is made twice, or one run is executed twice."""
    OVERLONG = "overlong"
    """Running far longer than any of its deployment before."""
    HIDDEN_FAILURES = "hidden_failures"
    """Runs complete although tasks or children of theirs fail, as they did not before."""
    CREEPING = "creeping"
    """Its runs take longer and longer, and come near to the time that they have."""
    PILE_UP = "pile_up"
    """Due with so many others at one minute that such minutes began late before."""
    BAD_VALUE = "bad_value"
    """Runs with one value of a parameter fail, and the others go well."""
    FORECAST_OFF = "forecast_off"
    """Failures and what was forecast of them have parted: until they agree again nothing acts on a forecast."""
    UNKNOWN = "unknown"
    """Neither rule nor memory nor model could tell."""


PERMANENT: frozenset[FailureClass] = frozenset(
    {
        FailureClass.AUTH,
        FailureClass.BAD_INPUT,
        FailureClass.CODE_BUG,
        FailureClass.ENVIRONMENT,
        FailureClass.QUOTA_SPENT,
        FailureClass.CERTIFICATE,
    }
)
"""Classes for which running the same again cannot help."""


NEEDS_NO_RUN: frozenset[FailureClass] = frozenset(
    {
        FailureClass.STARVED,
        FailureClass.BACKLOG,
        FailureClass.BLOCKED,
        FailureClass.UNHEALTHY,
        FailureClass.RECOVERED_QUEUE,
        FailureClass.LEAKED,
        FailureClass.STANDSTILL,
        FailureClass.HIDDEN_FAILURES,
        FailureClass.CREEPING,
        FailureClass.BAD_VALUE,
        FailureClass.FORECAST_OFF,
    }
)
"""Trouble that is not of one run."""
NOT_A_FAILURE: frozenset[FailureClass] = NEEDS_NO_RUN | {
    FailureClass.AT_RISK,
    FailureClass.LATE,
    FailureClass.MISSIZED,
    FailureClass.FRAGILE,
    FailureClass.BLOCKED_BY_HOLD,
    FailureClass.ORPHANED,
    FailureClass.SILENT,
    FailureClass.RECOVERED,
    FailureClass.NEVER_STARTED,
    FailureClass.DUPLICATE,
    FailureClass.OVERLONG,
    FailureClass.PILE_UP,
}
"""Trouble that is proposed on once, whatever states follow; all else is a failure, and each attempt its own."""
FORECASTS: frozenset[FailureClass] = frozenset(
    {FailureClass.AT_RISK, FailureClass.FRAGILE, FailureClass.MISSIZED}
)
"""Trouble that has not happened: what has failed is looked at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One fact that a finding rests on, by reference: a reader can look it up again."""

    ref: str
    """`state:<id>`, `log:<id>`, `event:<id>`, `queue:<pool>/<queue>`, `forecast:<run id>`, `rule:<id>`, `incident:<id>`."""
    note: str
    """What it says, in our own words or as redacted, quoted data of at most 200 characters."""
    tainted: bool = False
    """True when `note` quotes text that a user's code or a third party wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A typed diagnosis of one subject."""

    incident_id: str
    """The one id that everything about this trouble carries."""
    subject: str
    """`run:<id>`, `queue:<pool>/<queue>`, `pool:<pool>`, `limit:<name>`, `deployment:<id>`, `ring:<runs>` or `prefect`."""
    failure_class: FailureClass
    found_at: datetime
    by: Literal["rule", "classifier", "memory", "model", "forecast"]
    rule_id: str = ""
    """Which row of the rule table decided, when a rule did."""
    evidence: tuple[Evidence, ...] = ()
    fingerprint: str = ""
    """Equal for failures that are the same fault: deployment, class and normalised message."""
    confidence: float = 0.0
    """How sure whoever decided is, from 0 to 1; 0 where nobody says."""
    cure: Cure | None = None
    """What would help, where a failure was diagnosed."""
    cause: str = ""
    """The cause key by which it is grouped with others, where the detector knows it; empty: it is worked out."""
    witness: str = ""
    """A run whose owner is told, where the trouble is not that of one run."""
    wait_seconds: float | None = None
    """How long the other side asked to wait, where it did."""
    missed: datetime | None = None
    """The start of a schedule for which no run was made, where that is the trouble."""
