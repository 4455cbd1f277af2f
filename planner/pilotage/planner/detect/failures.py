"""Diagnose why a run failed, by rule: what its state and its logs show, and the first row of the tables that fits.

Pure. The texts it reads are untrusted: they can choose among the rows of a closed table and nothing else, and
they leave here only redacted, quoted and marked as tainted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pilotage.planner.detect.diagnosis import ERROR, Diagnosis, Line
from pilotage.planner.detect.reasoning import EXAMPLES, reason
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.detect.second_opinion import with_second_opinion
from pilotage.planner.detect.signs.reading import (
    READ_CHARS,
    asked_to_wait,
    clipped,
    exit_code_in,
    spoken_types,
)
from pilotage.planner.findings import Cure, Evidence, FailureClass, Finding
from pilotage.planner.log_templates import normalised
from pilotage.telemetry.facts import LogLine, RunFact, StateType
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.redaction import redact

LOGS_READ = 200
"""The newest lines of a run that are looked at."""


def exception_in(text: str) -> str:
    """Return the first exception type that a text reports, without its module, or an empty string."""
    return next(iter(spoken_types(clipped(text))), "")


def incident_id(subject: str, episode: str) -> str:
    """The id that one trouble of one subject always gets: `i-` and 12 hex digits."""
    return "i-" + hashlib.sha256(f"{subject}\0{episode}".encode()).hexdigest()[:12]


def fingerprint_of(run: RunFact, failure_class: FailureClass) -> str:
    """16 hex digits that are equal for the same fault of the same deployment."""
    place = run.deployment_id or run.flow_name
    seed = f"{place}\0{failure_class}\0{normalised(run.state_message)}"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


_TRACEBACK = "Traceback (most recent call last):"


def own_line(message: str) -> str:
    """Return the line of a traceback that says what went wrong, which is its last; any other message as it is."""
    _, traced, after = message[:READ_CHARS].rpartition(_TRACEBACK)
    lines = [line.strip() for line in after.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return lines[0] if traced and lines else message


def _said(text: str, limit: int) -> str:
    """Somebody's text as evidence. Facts arrive redacted; a second pass costs little, a leak much."""
    return harmless(redact(text[:READ_CHARS]), limit)


def diagnosis_of(
    run: RunFact, logs: Sequence[LogLine], book: Rulebook = EXAMPLES
) -> tuple[Diagnosis, LogLine | None]:
    """Return the diagnosis of a run by rule, and the log line that decided or else its newest loud one."""
    ordered = sorted(logs, key=lambda line: (line.at, line.log_id))[-LOGS_READ:]
    lines = [Line(level=line.level, text=line.message) for line in ordered]
    diagnosis = reason(run.state_type, run.state_name, run.state_message, lines, book)
    loud = [line for line in ordered if line.level >= 30]
    diagnosis = _as_asked(diagnosis, run, [line.message for line in loud])
    return diagnosis, ordered[diagnosis.line] if diagnosis.line is not None else loud[-1] if loud else None


def _as_asked(diagnosis: Diagnosis, run: RunFact, loud: Sequence[str]) -> Diagnosis:
    """Return a diagnosis with the wait that the other side asked for, wherever the run logged it; the newest counts."""
    if diagnosis.wait_seconds is not None or run.ended is None:
        return diagnosis
    if diagnosis.cure not in (Cure.SECONDS, Cure.MINUTES):
        return diagnosis
    for text in (run.state_message, *reversed(loud)):
        if (asked := asked_to_wait(text, run.ended)) is not None:
            return replace(diagnosis, wait_seconds=asked, cure=Cure.MINUTES if asked > 30 else diagnosis.cure)
    return diagnosis


def class_of_log(text: str, book: Rulebook = EXAMPLES) -> str:
    """Return the failure class that the end of a failed run's log shows by itself, as a word."""
    line = Line(level=ERROR, text=text)
    return reason(StateType.FAILED, "Failed", "", [line], book).failure_class.value


def opinion_on(run: RunFact, logs: Sequence[LogLine]) -> Diagnosis | None:
    """Return the classifier's diagnosis of a run that no row decides, or None when it is unsure. Takes a while at first."""
    ordered = sorted(logs, key=lambda line: (line.at, line.log_id))[-LOGS_READ:]
    lines = [Line(level=line.level, text=line.message) for line in ordered]
    diagnosis = with_second_opinion(Diagnosis(failure_class=FailureClass.UNKNOWN), run.state_message, lines)
    return diagnosis if diagnosis.by == "classifier" else None


def diagnose_run(run: RunFact, logs: Sequence[LogLine], now: datetime, book: Rulebook = EXAMPLES) -> Finding:
    """Return the finding of the first row that fits; UNKNOWN, with the same evidence, when none does."""
    diagnosis, shown = diagnosis_of(run, logs, book)
    shown_state = f"{run.state_type} ({_said(run.state_name, 40)}): {_said(run.state_message, 120)}"
    evidence = [Evidence(ref=f"state:{run.state_id}", note=shown_state, tainted=True)]
    if diagnosis.rule_id:
        evidence.append(Evidence(ref=f"rule:{diagnosis.rule_id}", note=diagnosis.because))
    codes = [exit_code_in(run.state_message), *(exit_code_in(line.message) for line in reversed(logs))]
    if (code := next((code for code in codes if code is not None), None)) is not None:
        evidence.append(Evidence(ref=f"state:{run.state_id}", note=f"exit code {code}"))
    if shown is not None:
        evidence.append(
            Evidence(ref=f"log:{shown.log_id}", note=_said(own_line(shown.message), 200), tainted=True)
        )
    subject = f"run:{run.run_id}"
    return Finding(
        incident_id=incident_id(subject, run.state_id),
        subject=subject,
        failure_class=diagnosis.failure_class,
        found_at=now,
        by="rule",
        rule_id=diagnosis.rule_id,
        evidence=tuple(evidence),
        fingerprint=fingerprint_of(run, diagnosis.failure_class),
        confidence=diagnosis.confidence,
        cure=diagnosis.cure,
        wait_seconds=diagnosis.wait_seconds,
    )
