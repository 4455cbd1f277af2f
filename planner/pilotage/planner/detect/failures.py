"""Why a run failed, by rule: what its state and its logs show, and the first row of the table that fits.

Pure. The texts it reads are untrusted: they can choose among the rows of a closed table and nothing else, and
they leave here only redacted, quoted and marked as tainted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pilotage.planner.detect.failure_rules import FAILURE_RULES, FailureRule
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.telemetry.facts import LogLine, RunFact, StateType
from pilotage.telemetry.redaction import quoted, redact

READ_CHARS = 4_000
"""As much of one text as is matched: the end of a traceback stands in its last lines."""
WARNING = 30
LOGS_READ = 200
"""The newest lines of a run that are looked at."""

_SPOKEN = re.compile(
    r"(?:exception[:.]|failed:|failed with error:)\s+(?:[a-z_]\w*\.)*(?P<type>[A-Za-z_]\w*)(?=:|\s*\(|\s*$)",
    re.MULTILINE,
)
"""Prefect's own sentence: `Flow run encountered an exception: ValueError: bad`."""
_TRACED = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*(?P<type>[A-Z]\w*(?:Error|Exception|Timeout|Violation|NotFound|Denied))(?=:|\s*$)",
    re.MULTILINE,
)
"""The last line of a traceback."""
_EXIT_CODE = re.compile(
    r"(?:exit(?:ed)?(?: with)?(?: a)?(?: non-zero)?(?: status)?(?: exit)?[- ]code|exit status)"
    r"[:\s]+(?P<code>-?\d{1,10})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What the table is asked about, gathered once."""

    state_type: StateType
    state_name: str
    message: str
    logs: tuple[LogLine, ...]
    """WARNING and above, newest last."""
    exceptions: tuple[str, ...]
    """Type names, the state message's first."""
    exit_code: int | None


def exception_in(text: str) -> str:
    """The exception type that a text reports, without its module, or an empty string."""
    spoken = _SPOKEN.search(text[:READ_CHARS])
    if spoken:
        return spoken.group("type")
    traced = list(_TRACED.finditer(text[-READ_CHARS:]))
    return traced[-1].group("type") if traced else ""


def exit_code_in(text: str) -> int | None:
    """The exit code that a text reports, or None."""
    found = _EXIT_CODE.search(text[:READ_CHARS])
    return int(found.group("code")) if found else None


def signs_of(run: RunFact, logs: Sequence[LogLine]) -> Signs:
    """What a run and its newest logs show."""
    ordered = sorted(logs, key=lambda line: (line.at, line.log_id))
    loud = tuple(line for line in ordered[-LOGS_READ:] if line.level >= WARNING)
    message = run.state_message
    spoken = exception_in(message) or next(
        filter(None, (exception_in(line.message) for line in reversed(loud))), ""
    )
    codes = [exit_code_in(message), *(exit_code_in(line.message) for line in reversed(loud))]
    return Signs(
        state_type=run.state_type,
        state_name=run.state_name,
        message=message[:READ_CHARS],
        logs=loud,
        exceptions=(spoken,) if spoken else (),
        exit_code=next((code for code in codes if code is not None), None),
    )


def matches(rule: FailureRule, signs: Signs) -> tuple[bool, LogLine | None]:
    """Whether every column that the row fills is true, and the log line that made it so, if one did."""
    if signs.state_type not in rule.state_types:
        return False, None
    if rule.state_names and signs.state_name not in rule.state_names:
        return False, None
    if rule.exceptions is not None and not any(rule.exceptions.fullmatch(name) for name in signs.exceptions):
        return False, None
    if rule.exit_codes and signs.exit_code not in rule.exit_codes:
        return False, None
    if rule.text is None:
        return True, None
    if rule.where != "logs" and rule.text.search(signs.message):
        return True, None
    if rule.where != "message":
        for line in reversed(signs.logs):
            if rule.text.search(line.message[-READ_CHARS:]):
                return True, line
    return False, None


def incident_id(subject: str, episode: str) -> str:
    """The id that one trouble of one subject always gets: `i-` and 12 hex digits."""
    return "i-" + hashlib.sha256(f"{subject}\0{episode}".encode()).hexdigest()[:12]


_VARIABLE = (
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"'[^'\n]{0,500}'|\"[^\"\n]{0,500}\"|`[^`\n]{0,500}`"), "<text>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"), "<hex>"),
    (re.compile(r"[-+]?\b\d+(?:\.\d+)?"), "<n>"),
    (re.compile(r"\s+"), " "),
)


def normalised(message: str) -> str:
    """The message with everything that differs between two occurrences of one fault taken out."""
    text = message[:READ_CHARS]
    for pattern, stands_for in _VARIABLE:
        text = pattern.sub(stands_for, text)
    return text.strip()[:500]


def fingerprint_of(run: RunFact, failure_class: FailureClass) -> str:
    """16 hex digits that are equal for the same fault of the same deployment."""
    place = run.deployment_id or run.flow_name
    seed = f"{place}\0{failure_class}\0{normalised(run.state_message)}"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def _said(text: str, limit: int) -> str:
    """Somebody's text as evidence. Facts arrive redacted; a second pass costs little, a leak much."""
    return quoted(redact(text[:READ_CHARS]), limit)


def diagnose_run(run: RunFact, logs: Sequence[LogLine], now: datetime) -> Finding:
    """The finding of the first row that fits; UNKNOWN, with the same evidence, when none does."""
    signs = signs_of(run, logs)
    shown_state = f"{run.state_type} ({_said(run.state_name, 40)}): {_said(run.state_message, 120)}"
    evidence = [Evidence(ref=f"state:{run.state_id}", note=shown_state, tainted=True)]
    failure_class, rule_id, line = FailureClass.UNKNOWN, "", None
    for rule in FAILURE_RULES:
        fits, line = matches(rule, signs)
        if fits:
            failure_class, rule_id = rule.failure_class, rule.id
            evidence.append(Evidence(ref=f"rule:{rule.id}", note=rule.because))
            break
    if signs.exit_code is not None:
        evidence.append(Evidence(ref=f"state:{run.state_id}", note=f"exit code {signs.exit_code}"))
    shown = line or (signs.logs[-1] if signs.logs else None)
    if shown is not None:
        evidence.append(Evidence(ref=f"log:{shown.log_id}", note=_said(shown.message, 200), tainted=True))
    subject = f"run:{run.run_id}"
    return Finding(
        incident_id=incident_id(subject, run.state_id),
        subject=subject,
        failure_class=failure_class,
        found_at=now,
        by="rule",
        rule_id=rule_id,
        evidence=tuple(evidence),
        fingerprint=fingerprint_of(run, failure_class),
    )
