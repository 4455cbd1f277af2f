"""The cases that ship with the default bundle hold, every policy decides one, and bent policies are noticed."""

from __future__ import annotations

import pytest

from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.testing.cases import CASES_FILE, Prepared, answer_of, cases_in
from pilotage.policies.testing.mutation import mutated

BUNDLE = Bundle.load()
CASES = cases_in(DEFAULT_BUNDLE / CASES_FILE, BUNDLE.guardrails)
NEVER_APPROVABLE = {
    "action-allowlist",
    "blast-radius",
    "cancel-only-live",
    "change-only-waiting",
    "circuit-half-open",
    "circuit-open",
    "completed-never-again",
    "cooldown",
    "deployment-budget",
    "fingerprint-budget",
    "forecast-budget",
    "freeze",
    "hands-off",
    "hold-within-maximum",
    "hourly-budget",
    "kill-switch",
    "limit-leaves-enough",
    "loop-breaker",
    "notification-budget",
    "observe-proposes-nothing",
    "past-only-as-boost",
    "pause-hold-within-maximum",
    "remediate-only-failed",
    "reschedule-only-scheduled",
    "resize-one-step",
    "resize-only-up",
    "resize-within-maximum",
    "resolve-only-recovered",
    "resume-only-suspended",
    "retry-only-failed",
    "run-budget",
    "shadow-injects-nothing",
    "shift-within-maximum",
    "size-not-below-default",
    "size-only-proven",
    "size-only-waiting",
    "slot-hold-within-maximum",
    "slot-leaves-enough",
    "steer-hold-within-maximum",
    "steer-only-running",
    "parameter-allowlist",
    "target-allowlist",
    "tell-only-live",
    "tier0-never-paused",
    "waves-within-maximum",
    "make-up-only-cancelled",
    "zombie-proven-dead",
}
"""What no approval lifts. A forbid that becomes approvable changes this list, and a reviewer sees it."""


@pytest.mark.parametrize("prepared", CASES, ids=lambda one: one.case.case)
def test_the_golden_table_holds(prepared: Prepared) -> None:
    verdict = prepared.asked(BUNDLE)
    assert answer_of(verdict) == prepared.wanted()
    assert len(verdict.reasons) == len(verdict.policy_ids)
    assert all(verdict.reasons)
    assert verdict.errors == ()


def test_every_policy_decides_a_case() -> None:
    deciding = {name for one in CASES for name in one.case.by_policies}
    assert set(BUNDLE.notes) - deciding == set()


def test_every_forbid_that_no_approval_lifts_is_pinned() -> None:
    proposed = [one.case for one in CASES if one.case.ask == "propose"]
    never = {name for case in proposed if case.outcome == "deny" for name in case.by_policies}
    asked = {name for case in proposed if case.outcome == "needs_approval" for name in case.by_policies}
    assert never & asked == set()
    assert {name for name in never if not name.startswith("!")} == NEVER_APPROVABLE


def test_every_bent_policy_is_noticed_but_the_one_that_the_gate_stands_before() -> None:
    """The gate refuses a vote on another text before it asks `approver-votes`, which looks a second time."""
    report = mutated(BUNDLE, CASES)
    assert [f"{one.policy_id}: {one.change}" for one in report.survivors] == [
        "approver-votes: `when` left out"
    ]
    assert report.killed > 500
