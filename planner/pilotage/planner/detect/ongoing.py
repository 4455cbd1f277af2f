"""Troubles that are not of one run: how they are named, so that one of them is found as one however long it lasts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from pilotage.planner.detect.failures import incident_id
from pilotage.planner.findings import Evidence, FailureClass, Finding


def fingerprint_of(subject: str, failure_class: FailureClass) -> str:
    """16 hex digits that are equal for the same trouble of the same subject, today and tomorrow."""
    return hashlib.sha256(f"standing\0{subject}\0{failure_class}".encode()).hexdigest()[:16]


DISPROOFS: Mapping[FailureClass, str] = {
    FailureClass.DUPLICATE: "other parameters or another start of one of the two, or one process only",
    FailureClass.NEVER_STARTED: "an event of its worker, or a line or an event of its process",
    FailureClass.OVERLONG: "its end, or an owner who expects it to take so long today",
    FailureClass.HIDDEN_FAILURES: "a run of it without failed tasks or children",
    FailureClass.CREEPING: "a run that takes as long as those before, or a longer limit",
    FailureClass.BAD_VALUE: "a run with this value that completes",
    FailureClass.PILE_UP: "such a minute in which its runs begin in time",
    FailureClass.SILENT: "a heartbeat, an event or a line of its log",
    FailureClass.LEAKED: "a run that holds the slot",
    FailureClass.ORPHANED: "a parent that is under way again",
    FailureClass.BACKLOG: "its runs begin by themselves",
    FailureClass.BLOCKED: "fewer of its runs wait",
    FailureClass.UNHEALTHY: "a run of the queue that completes",
    FailureClass.STARVED: "the waiting run begins",
}
"""By class of trouble, the fact that would prove it wrong."""


def disproved_by(subject: str, fact: str) -> Evidence:
    """Return, as the last of the evidence, which fact would prove a finding wrong."""
    return Evidence(ref=subject, note=f"would prove it wrong: {fact}")


def ongoing_finding(
    subject: str,
    failure_class: FailureClass,
    now: datetime,
    *,
    episode: str,
    rule_id: str,
    evidence: Iterable[Evidence],
    by: Literal["rule", "forecast"] = "rule",
) -> Finding:
    """The finding of a trouble that was seen in the facts themselves, not in one failure."""
    return Finding(
        incident_id=incident_id(subject, f"{failure_class}: {episode}"),
        subject=subject,
        failure_class=failure_class,
        found_at=now,
        by=by,
        rule_id=rule_id,
        evidence=(
            *evidence,
            *([disproved_by(subject, DISPROOFS[failure_class])] if failure_class in DISPROOFS else []),
        ),
        fingerprint=fingerprint_of(subject, failure_class),
    )
