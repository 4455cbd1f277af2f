"""Hold back a diagnosis that would try the same again while something speaks against that.

Three mistakes cost more than an hour's wait: another attempt beside a living one, another at a size that was too small, and
another of what no attempt can cure. Whoever words what, these hold:

- a sign of life anywhere, or an end that nobody saw, and nothing is started again;
- memory that was short anywhere, and nothing goes again at its size;
- a permanent sign anywhere in the evidence of the cause, and no retry is certain, unless the row that decides says that it
  knows better (its column `despite`);
- what only a warning says, or a line that does not name what the run failed of, is a hint and no cause;
- a row that only stands for a type which means many things needs a word of its own for what passes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pilotage.planner.detect.diagnosis import DEFAULT_CURE, ERROR, Diagnosis, Line
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.detect.signs.containers import CONTAINERS
from pilotage.planner.detect.signs.language import (
    asks_for_another_try,
    first_named,
    insists_on_change,
    may_be_alive,
    never_left,
    speaks_of_memory,
    speaks_of_passing,
)
from pilotage.planner.detect.signs.reading import exit_code_in, packages_in, read
from pilotage.planner.detect.signs.rule import FailureRule, coded
from pilotage.planner.detect.signs.servers import REMOTE_CLIENTS
from pilotage.planner.findings import Cure, FailureClass
from pilotage.telemetry.facts import StateType

NOT_SEEN = -1
"""The exit code that a worker reports which did not see how a run's infrastructure ended."""
SEEN_BY_PLATFORM = frozenset({"evicted", "evicted-memory", "memory-container"})
"""Rows by which the platform itself says that the process has ended."""
OF_PLATFORMS = (
    SEEN_BY_PLATFORM
    | {rule.id for rule in CONTAINERS}
    | {"aws-capacity", "spot-status", "api-database", "api-unreachable", "result-lost"}
)
"""Rows by which a platform, or Prefect, tells what it did with a run, which it does in warnings as well."""
OTHERS_MEMORY = frozenset({"others-memory", "executor-heartbeat"})
"""Rows by which it is the other side that has no memory."""
REFUSED = frozenset({FailureClass.CAPACITY, FailureClass.RATE_LIMITED})
"""Classes by which the platform says that it has not made what it was asked for."""
VAGUE = frozenset({FailureClass.TRANSIENT, FailureClass.INFRASTRUCTURE})
"""Classes that say less of a run than that it may be alive."""
END_SEEN = re.compile(
    r"exit(?:ed|ing)?(?: with)?(?: an?)?(?: non-zero)?(?: error)?(?: status)?(?: code)?(?: is|:)?\s*(?:of\s*)?(?!-1\b)-?\d|"
    r"aborted by an? (?:termination|interrupt)|system exit|cancelled by the runtime|interrupted by an unexpected|"
    r"request to .{1,300} failed|request failed while attempting|failed to (?:submit|start|generate|create|load|find)|"
    r"could not (?:be|start)|oom-?killed|evict|preempt|terminated|killed|stopped|died|\bgone\b|deleted|"
    r"node (?:lost|shutdown)|process (?:\w+ )?(?:ended|exited|lost)|"
    r"^pilotage p-[0-9a-f]{12}: mark_crashed\b",  # on two signs, looked up when it was marked
    re.IGNORECASE,
)
"""What shows that the process of a crashed run has ended, or never began."""
SUBMITTING = re.compile(
    r"failed to submit flow run|could not be submitted to infrastructure|submission failed", re.I
)
KILLED = coded("exit", "137 -9 247") | coded("signal", "9")
AGAIN = (Cure.SECONDS, Cure.MINUTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Everything that a run shows, and the part of it that is the evidence of its cause."""

    state_type: StateType
    state_name: str
    message: str
    lines: Sequence[Line]
    cause: str
    """The run's own words with the tracebacks that belong to them; every error where its words leave open what failed."""
    decided_by: Line | None = None
    """The log line that decided, when one did."""

    @property
    def loud(self) -> str:
        """The message with its warnings and errors."""
        return "\n".join([self.message, *(line.text for line in self.lines if line.level >= 30)])

    @property
    def everything(self) -> str:
        """The message with all its lines."""
        return "\n".join([self.message, *(line.text for line in self.lines)])


def evidence_of(message: str, lines: Sequence[Line], own: Sequence[str], *, open_end: bool) -> str:
    """Return the text that is the evidence of a cause.

    `own` are the exception types that the message names. A message that leaves open what failed has all errors for it.
    """
    errors = [line.text for line in lines if line.level >= ERROR]
    return "\n".join([message, *(text for text in errors if open_end or (own and own[-1] in text))])


def of_the_server(text: str) -> bool:
    """Return whether what a text says of memory is said by a server, in an exception of its client."""
    packages = packages_in(text)
    return bool(packages & REMOTE_CLIENTS)


def held_back(made: Diagnosis, shown: Shown, book: Rulebook) -> Diagnosis:
    """Return a diagnosis that would try the same again with what speaks against that; any other as it is."""
    if (
        made.failure_class is FailureClass.OUT_OF_MEMORY
        and made.cure is Cure.MEMORY
        and of_the_server(shown.cause)
    ):
        because = f"{made.because}, and it is the server's"
        return replace(made, failure_class=FailureClass.CAPACITY, cure=Cure.UNCLEAR, because=because)
    if made.cure not in AGAIN:
        return made
    rule = book.by_id.get(made.rule_id)
    if why := _why_alive(made, shown, rule):
        alive = FailureClass.MAY_STILL_BE_RUNNING if made.failure_class in VAGUE else made.failure_class
        return replace(made, failure_class=alive, cure=Cure.DEATH, because=f"{made.because}; {why}")
    if (
        made.rule_id not in OTHERS_MEMORY
        and made.failure_class is not FailureClass.CAPACITY
        and speaks_of_memory(shown.everything)
        and not of_the_server(shown.cause)
    ):
        because = f"{made.because}, and memory was short"
        return replace(made, failure_class=FailureClass.OUT_OF_MEMORY, cure=Cure.MEMORY, because=because)
    if killed_for_memory(shown) and made.rule_id not in SEEN_BY_PLATFORM:
        because = f"{made.because}, and its exit code is that of a process killed, mostly for its memory"
        return replace(made, failure_class=FailureClass.OUT_OF_MEMORY, cure=Cure.MEMORY, because=because)
    if rule is not None and "*" not in rule.despite and (why := _why_permanent(made, shown, rule, book)):
        because = f"{made.because}, yet {why}"
        return replace(made, cure=Cure.UNCLEAR, confidence=made.confidence / 2, because=because)
    return made


def killed_for_memory(shown: Shown) -> bool:
    """Return whether the evidence has an exit code or a signal by which the system ends what takes too much memory."""
    return bool(read(shown.cause).codes & KILLED)


def _why_alive(made: Diagnosis, shown: Shown, rule: FailureRule | None) -> str:
    """Return why a run may still be alive, or an empty string."""
    exit_code = exit_code_in(shown.message)
    if shown.state_type is StateType.FAILED:
        return "its end may not be an end" if may_be_alive(shown.loud) else ""
    if shown.state_type is not StateType.CRASHED or made.rule_id in SEEN_BY_PLATFORM:
        return ""
    if exit_code == NOT_SEEN:
        return "status -1 says that its worker did not see it end"
    if exit_code is None and may_be_alive(shown.loud):
        return "somebody lost sight of it"
    if made.rule_id == "crashed" and not END_SEEN.search(shown.loud):
        return "nothing says that its process has ended"
    refused = made.failure_class in REFUSED or (rule is not None and rule.strength == "code")
    if SUBMITTING.search(shown.message) and not refused and not never_left(shown.cause):
        return "its submission was sent and not refused, so it may have been started"
    return ""


def _why_permanent(made: Diagnosis, shown: Shown, rule: FailureRule, book: Rulebook) -> str:
    """Return what in the evidence of the cause no attempt cures, or an empty string."""
    if line := shown.decided_by:
        if line.level < ERROR and rule.id not in OF_PLATFORMS:
            return "only a warning says so"
        told = rule.id in OF_PLATFORMS or (shown.state_type is StateType.CRASHED and rule.strength == "code")
        if line.text not in shown.cause and not told:
            return "that stands in a line that does not name what failed"
    reading = read(shown.cause)
    for other in book.all_that_fit(reading, shown.state_type, shown.state_name):
        cure = other.cure or DEFAULT_CURE.get(other.failure_class, Cure.UNCLEAR)
        if cure is Cure.OWNER and other.strength != "weak" and other.id not in rule.despite:
            return f"{other.because} ({other.id})"
    if rule.strength == "code":
        return ""
    named = first_named(reading.spoken, book.known_types)
    if named is not None and (named.cure or DEFAULT_CURE.get(named.failure_class)) is Cure.OWNER:
        return f"{named.because} ({named.id})"
    if asked := insists_on_change(shown.cause):
        return f"it asks for a change ({asked[:60]})"
    passing = speaks_of_passing(shown.cause) or asks_for_another_try(shown.cause)
    if rule.strength == "weak" and shown.state_type is StateType.FAILED and not passing:
        return "nothing in its words says that it passes"
    return ""
