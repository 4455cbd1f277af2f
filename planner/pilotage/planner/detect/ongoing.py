"""Troubles that are not of one run: how they are named, so that one of them is found as one however long it lasts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pilotage.planner.detect.failures import incident_id
from pilotage.planner.findings import Evidence, FailureClass, Finding


def fingerprint_of(subject: str, failure_class: FailureClass) -> str:
    """16 hex digits that are equal for the same trouble of the same subject, today and tomorrow."""
    return hashlib.sha256(f"standing\0{subject}\0{failure_class}".encode()).hexdigest()[:16]


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
        evidence=tuple(evidence),
        fingerprint=fingerprint_of(subject, failure_class),
    )
