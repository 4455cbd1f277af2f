"""From what a run shows to what is wrong with it: structured signs before words, the run's own end before its logs.

Pure. The texts are untrusted: they can choose among the rows of a closed table and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from pilotage.planner.detect.caution import NOT_SEEN, Shown, evidence_of, held_back
from pilotage.planner.detect.diagnosis import DEFAULT_CURE, ERROR, LINES_READ, WARNING, Diagnosis, Line
from pilotage.planner.detect.failure_rules import FAILURE_RULES
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.detect.signs.language import (
    PASSING,
    asks_for_another_try,
    first_named,
    speaks_of_passing,
    wants_change,
    without_server_error,
)
from pilotage.planner.detect.signs.reading import (
    READ_CHARS,
    Reading,
    beyond_limit,
    beyond_quota,
    bytes_wanted,
    clipped,
    exit_code_in,
    read,
    seconds_to_wait,
    spoken_types,
)
from pilotage.planner.detect.signs.rule import FailureRule
from pilotage.planner.findings import Cure, FailureClass
from pilotage.telemetry.facts import StateType

LARGEST_MACHINE = 768 * 2.0**30
"""Bytes that no machine of a usual pool has: an allocation beyond it is a mistake of the code or the data."""

DECISIVE = frozenset({"code", "phrase", "family"})
OWN_END = DECISIVE | {"builtin"}
ANY = OWN_END | {"weak"}
WEAK = frozenset({"weak"})

NO_BODY = "expecting value: line 1 column 1 (char 0)"

# Sentences of Prefect's that say that something failed and leave open what: how a message begins, and what stands in it.
_LEFT_OPEN = re.compile(
    r"\s*$|\d+/\d+ states failed|Execution was (?:cancelled|aborted)|Finished in state|"
    r"Flow run marked as (?:crashed|failed)|Process exited|Task run failed"
)
_LEAVES_OPEN = re.compile(
    r"exited with (?:non-zero )?status code|"
    r"\b(?:MissingResult|UnfinishedRun|FailedRun|CrashedRun|CancelledRun|UpstreamTaskError|"
    r"CalledProcessError|SubprocessError|ExceptionGroup)\b|returned non-zero exit|return code \d|"
    r": Job has reached the specified backoff limit|BackoffLimitExceeded|dbt (?:run|build|task)"
)
_OPEN_HINTS = ("exited with ", "MissingResult", "dRun", "UpstreamTaskError", "rocessError", "ExceptionGroup", "returned ",
               "return code ", "backoff limit", "BackoffLimit", "dbt ")  # fmt: skip
"""One of these is in whatever `_LEAVES_OPEN` finds: to look for words is cheaper than to look for the pattern."""


def says_nothing(message: str) -> bool:
    """Return whether a message says that something failed and leaves open what."""
    if _LEFT_OPEN.match(message):
        return True
    return any(hint in message for hint in _OPEN_HINTS) and _LEAVES_OPEN.search(message) is not None


_PROGRAM = re.compile(
    r"return code -?\d|returned non-zero exit|CalledProcessError|exit (?:code|status) -?\d|Command failed|PID \d+ failed"
)
_OF_PREFECT = re.compile(
    r"(?:Beginning|Finished|Created|Executing|Submitted|Process for|Opening process|Flow run|Task run|Check |Increase |"
    r"Verify |Running \d|Worker '|Downloading|Task .{1,200} completed|No |If )"
)
"""Lines of Prefect's own at level INFO, which tell what was done or give advice."""


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

    known: dict[int, tuple[Reading, tuple[int, ...]]] = {}

    def first(reading: Reading, strengths: frozenset[str]) -> FailureRule | None:
        # the reading is kept beside its candidates, so that its id stays its own
        if id(reading) not in known:
            known[id(reading)] = (reading, book.candidates(reading))
        candidates = known[id(reading)][1]
        return book.first(reading, state_type, state_name, strengths=strengths, candidates=candidates)

    # 0. what a worker says of a run that it lost sight of stands before the reason why it lost it
    if loud and state_type is StateType.CRASHED and exit_code_in(message) in (None, NOT_SEEN):
        together = "\n".join([message, *(line.text for _, line in loud)])
        rule = first(read(together), DECISIVE)
        if rule is not None and rule.failure_class is FailureClass.MAY_STILL_BE_RUNNING:
            shown = next(
                (i for i, line in reversed(loud) if first(reading_of(i, line.text), DECISIVE) is rule), None
            )
            return _diagnosis(rule, message if shown is None else lines[shown].text, shown)
    made = _error_page(message, loud, first, reading_of) or _reasoned(
        state_type, message, lines, loud, first, reading_of, book
    )
    newest = lines[-LINES_READ:]
    open_end = says_nothing(message)
    cause = evidence_of(message, newest, spoken_types(clipped(message)), open_end=open_end)
    everything = Shown(
        state_type=state_type,
        state_name=state_name,
        message=message,
        lines=newest,
        cause=cause,
        decided_by=None if made.line is None else lines[made.line],
    )
    return held_back(made, everything, book)


def _error_page(
    message: str,
    loud: Sequence[tuple[int, Line]],
    first: Callable[[Reading, frozenset[str]], FailureRule | None],
    reading_of: Callable[[int, str], Reading],
) -> Diagnosis | None:
    """Return what the log says of a reply that is not JSON from its first character on: it is an error page."""
    if not any(NO_BODY in text.lower() for text in (message, *(line.text for _, line in loud))):
        return None
    for i, line in reversed(loud):
        if NO_BODY in line.text.lower() or not any(
            c.startswith("http:") for c in reading_of(i, line.text).codes
        ):
            continue
        if (page := first(reading_of(i, line.text), DECISIVE)) is not None:
            return _diagnosis(page, line.text, i)
    return None


def _reasoned(
    state_type: StateType,
    message: str,
    lines: Sequence[Line],
    loud: Sequence[tuple[int, Line]],
    first: Callable[[Reading, frozenset[str]], FailureRule | None],
    reading_of: Callable[[int, str], Reading],
    book: Rulebook,
) -> Diagnosis:
    """Return what the signs say, from the run's own end to its logs, from structured to worded."""
    own_types = spoken_types(clipped(message))
    open_end = says_nothing(message)
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
    if _PROGRAM.search(message) or state_type is StateType.CRASHED:
        quiet = [
            (i, line)
            for i, line in list(enumerate(lines))[-LINES_READ:]
            if line.level < WARNING and not _OF_PREFECT.match(line.text)
        ]
        for i, line in reversed(quiet):
            rule = first(reading_of(i, line.text), DECISIVE)
            if rule is not None:
                return _diagnosis(rule, line.text, i)
    # 4. weak signs: the run's own, then those of the logs; what its type is named for stands beside them
    rule = first(joined, WEAK)
    last = rule if rule is not None and rule.id == "crashed" else None
    if rule is None or last is not None:
        rule = first_named(joined.spoken, book.known_types)
    if rule is not None:
        return _diagnosis(rule, text, None)
    for i, line in reversed(loud):
        spoken = reading_of(i, line.text)
        found = first(spoken, WEAK)
        if found is None or found.id == "crashed":
            found = first_named(spoken.spoken, book.known_types)
        if found is not None:
            return _diagnosis(found, line.text, i)
    # of a sentence that leaves it open the newest line with an exception speaks; other lines are anybody's words
    newest = (
        next((line.text for i, line in reversed(loud) if reading_of(i, line.text).spoken), "")
        if open_end
        else ""
    )
    said = text + newest
    if last is None and (speaks_of_passing(said) or asks_for_another_try(said)) and not wants_change(said):
        return _diagnosis(PASSING, text, None)
    if last is not None:
        return _diagnosis(last, message, None)
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
    confidence = rule.confidence
    if failure_class in (FailureClass.RATE_LIMITED, FailureClass.CAPACITY) and beyond_limit(text):
        cure, because = Cure.OWNER, f"{because}, and it asks for more than the limit allows at once"
    doubtful = without_server_error(text) if rule.id == "http-unavailable" else text
    worded = cure in (Cure.SECONDS, Cure.MINUTES) and (rule.strength != "code" or doubtful != text)
    if worded and (asked := wants_change(doubtful)) and not speaks_of_passing(doubtful):
        cure, confidence = Cure.UNCLEAR, confidence / 2
        because = f"{because}, yet it asks for a change ({asked[:60]})"
    return Diagnosis(
        failure_class=failure_class,
        rule_id=rule.id,
        because=because,
        confidence=confidence,
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
