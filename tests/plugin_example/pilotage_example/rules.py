"""Failure rules of a warehouse."""

from __future__ import annotations

from pilotage.planner.detect.signs.rule import FailureRule, phrases
from pilotage.planner.findings import FailureClass

RULES = (
    FailureRule(
        id="warehouse-asleep",
        failure_class=FailureClass.TRANSIENT,
        because="the warehouse was asleep and is waking up",
        phrases=phrases("warehouse zz9 was asleep"),
    ),
)
