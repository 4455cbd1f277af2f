"""What the reasoning over a run's texts takes in and gives back, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pilotage.planner.findings import Cure, FailureClass

WARNING = 30
ERROR = 40
LINES_READ = 200
"""The newest lines of a run that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One log line, as far as the reasoning is concerned."""

    level: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is wrong with one run, by which row, and what would help."""

    failure_class: FailureClass
    rule_id: str = ""
    because: str = ""
    confidence: float = 0.0
    cure: Cure = Cure.UNCLEAR
    wait_seconds: float | None = None
    """How long the other side asked to wait, where it did."""
    by: Literal["rule", "classifier"] = "rule"
    line: int | None = None
    """The index of the log line that decided, when one did."""


DEFAULT_CURE: dict[FailureClass, Cure] = {
    FailureClass.TRANSIENT: Cure.SECONDS,
    FailureClass.RATE_LIMITED: Cure.MINUTES,
    FailureClass.CRASHED: Cure.SECONDS,
    FailureClass.OUT_OF_MEMORY: Cure.MEMORY,
    FailureClass.TIMED_OUT: Cure.OWNER,
    FailureClass.AUTH: Cure.OWNER,
    FailureClass.BAD_INPUT: Cure.OWNER,
    FailureClass.CODE_BUG: Cure.OWNER,
    FailureClass.DEPENDENCY: Cure.MINUTES,
    FailureClass.INFRASTRUCTURE: Cure.OWNER,
    FailureClass.ENVIRONMENT: Cure.OWNER,
    FailureClass.CAPACITY: Cure.MINUTES,
    FailureClass.QUOTA_SPENT: Cure.OWNER,
    FailureClass.CERTIFICATE: Cure.OWNER,
    FailureClass.MAY_STILL_BE_RUNNING: Cure.DEATH,
    FailureClass.UNKNOWN: Cure.UNCLEAR,
}
"""What helps a class in general; classes that are not failures need no entry."""
