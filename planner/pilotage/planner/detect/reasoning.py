"""From what a run shows to what is wrong with it: structured signs before words, the run's own end before its logs.

Pure. The texts are untrusted: they can choose among the rows of a closed table and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pilotage.planner.detect.failure_rules import FAILURE_RULES
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.detect.signs.reading import (
    READ_CHARS,
    Reading,
    beyond_quota,
    bytes_wanted,
    clipped,
    read,
    seconds_to_wait,
    spoken_types,
)
from pilotage.planner.detect.signs.rule import FailureRule
from pilotage.planner.findings import Cure, FailureClass
from pilotage.telemetry.facts import StateType

WARNING = 30
ERROR = 40
LINES_READ = 200
"""The newest lines of a run that are looked at."""
LARGEST_MACHINE = 4 * 2.0**40
"""Bytes that no machine of a usual pool has: an allocation beyond it is a mistake of the code or the data."""

DECISIVE = frozenset({"code", "phrase", "family"})
OWN_END = DECISIVE | {"builtin"}
ANY = OWN_END | {"weak"}
WEAK = frozenset({"weak"})

# Sentences of Prefect's that say that something failed and leave open what.
SAYS_NOTHING = re.compile(
    r"^\s*$|^\d+/\d+ states failed|exited with (?:non-zero )?status code|^Execution was (?:cancelled|aborted)|"
    r"^Finished in state|\b(?:MissingResult|UnfinishedRun|FailedRun|CrashedRun|CancelledRun|UpstreamTaskError|"
    r"CalledProcessError|SubprocessError|ExceptionGroup)\b|returned non-zero exit|return code \d|"
    r"^Flow run marked as (?:crashed|failed)|^Process exited|: Job has reached the specified backoff limit|"
    r"BackoffLimitExceeded|^Task run failed|dbt (?:run|build|task)"
)


_PROGRAM = re.compile(
    r"return code -?\d|returned non-zero exit|CalledProcessError|exit (?:code|status) -?\d|Command failed|PID \d+ failed"
)


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


EXAMPLES = Rulebook(FAILURE_RULES)


def reason(
    state_type: StateType,
    state_name: str,
    message: str,
    lines: Sequence[Line],
    book: Rulebook = EXAMPLES,
) -> Diagnosis:
    """Return the diagnosis of one ended run. `lines` are its log lines, oldest first; those below WARNING are ignored."""
    loud = [(i, line) for i, line in list(enumerate(lines))[-LINES_READ:] if line.level >= WARNING]
    seen: dict[int, Reading] = {}

    def reading_of(index: int, text: str) -> Reading:
        if index not in seen:
            seen[index] = read(text)
        return seen[index]

    def first(reading: Reading, strengths: frozenset[str]) -> FailureRule | None:
        return book.first(reading, state_type, state_name, strengths=strengths)

    own_types = spoken_types(clipped(message))
    open_end = SAYS_NOTHING.search(message) is not None
    with_trace = [] if open_end else [(i, line) for i, line in loud if _continues(own_types, line)]

    # 1. the run's own words, with the traceback that belongs to them
    text = "\n".join([message, *(line.text for _, line in with_trace)])
    joined = read(text)
    rule = first(joined, DECISIVE if open_end else OWN_END)
    if rule is not None:
        shown = None if _tells(rule, message) or not with_trace else with_trace[-1][0]
        return _diagnosis(rule, text, shown)
    # 2. a crash is told by the platform, in several lines that belong together
    if open_end and state_type is StateType.CRASHED and len(loud) > 1:
        rule = first(read("\n".join(line.text for _, line in loud)[-READ_CHARS:]), DECISIVE)
        if rule is not None:
            told_by = [i for i, line in loud if first(reading_of(i, line.text), DECISIVE) is rule]
            return _diagnosis(
                rule, lines[told_by[-1]].text if told_by else message, told_by[-1] if told_by else None
            )
    # 3. the logs, newest first: errors with what they end in, then warnings
    for level_lines, strengths in (
        ([pair for pair in reversed(loud) if pair[1].level >= ERROR], OWN_END),
        ([pair for pair in reversed(loud) if pair[1].level < ERROR], DECISIVE),
    ):
        for i, line in level_lines:
            rule = first(reading_of(i, line.text), strengths)
            if rule is not None:
                return _diagnosis(rule, line.text, i)
    # a program's own output arrives at level INFO; it is read where the run says that a program failed, and only there
    if _PROGRAM.search(message):
        quiet = [(i, line) for i, line in list(enumerate(lines))[-LINES_READ:] if line.level < WARNING]
        for i, line in reversed(quiet):
            rule = first(reading_of(i, line.text), DECISIVE)
            if rule is not None:
                return _diagnosis(rule, line.text, i)
    # 4. weak signs: the run's own, then those of the logs
    rule = first(joined, WEAK)
    if rule is not None and rule.id != "crashed":
        return _diagnosis(rule, message, None)
    for i, line in reversed(loud):
        found = first(reading_of(i, line.text), WEAK)
        if found is not None and found.id != "crashed":
            return _diagnosis(found, line.text, i)
    if rule is not None:
        return _diagnosis(rule, message, None)
    return Diagnosis(failure_class=FailureClass.UNKNOWN)


def _continues(own_types: Sequence[str], line: Line) -> bool:
    """Return whether an error line is the traceback of the exception that the state's message names."""
    return line.level >= ERROR and bool(own_types) and own_types[-1] in line.text


def _tells(rule: FailureRule, message: str) -> bool:
    """Return whether the message alone shows what the rule asks for, as far as words and names go."""
    lowered = message.lower()
    return any(name in message for name in rule.exceptions) or any(p.found_in(lowered) for p in rule.phrases)


def _diagnosis(rule: FailureRule, text: str, line: int | None) -> Diagnosis:
    cure = rule.cure or DEFAULT_CURE.get(rule.failure_class, Cure.UNCLEAR)
    failure_class, because = rule.failure_class, rule.because
    wait = seconds_to_wait(text) if cure in (Cure.SECONDS, Cure.MINUTES) else None
    if wait is not None and cure is Cure.SECONDS and wait > 30:
        cure = Cure.MINUTES
    if failure_class is FailureClass.OUT_OF_MEMORY and (bytes_wanted(text) or 0) > LARGEST_MACHINE:
        cure, because = Cure.OWNER, f"{because}, and no machine has what it asked for"
    if failure_class is FailureClass.CAPACITY and beyond_quota(text):
        failure_class, cure = FailureClass.ENVIRONMENT, Cure.OWNER
        because = "it asks for more than the quota allows at all"
    return Diagnosis(
        failure_class=failure_class,
        rule_id=rule.id,
        because=because,
        confidence=rule.confidence,
        cure=cure,
        wait_seconds=wait,
        line=line,
    )


def parsed_lines(texts: Iterable[str]) -> Iterator[Line]:
    """Yield the lines of "LEVEL | text" texts; a text without a level counts as an error."""
    for text in texts:
        level, bar, rest = text.partition("|")
        known = LEVELS.get(level.strip().upper())
        yield Line(level=known or ERROR, text=rest.strip() if bar and known else text)


LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}
