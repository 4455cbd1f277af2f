"""A deployment that nobody labelled counts as production, and what is refused or asked for it says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from pilotage.policies.gate.gate import UNTAGGED, Gate, LedgerFacts
from pilotage.policies.types import Mode, Outcome, TargetFacts

Make = Callable[..., Any]
AUTO, APPROVE = (LedgerFacts(stage="judge", mode=mode) for mode in (Mode.AUTO, Mode.APPROVE))


def test_a_verdict_on_an_untagged_deployment_says_why_it_is_so_strict(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    verdict = gate.judge(filed(), facts_of(filed(), env="prod", tags=frozenset({"team:data"})), AUTO, now)
    assert verdict.outcome is not Outcome.ALLOW
    assert any(UNTAGGED in reason for reason in verdict.reasons)
    assert len(verdict.reasons) == len(verdict.policy_ids)


@pytest.mark.parametrize(
    "facts",
    [
        {"env": "prod", "tags": frozenset({"env:prod"})},
        {"env": "dev", "tags": frozenset({"env:dev"})},
        {"env": "prod", "deployment_id": ""},
    ],
    ids=["labelled production", "labelled otherwise", "no deployment at all"],
)
def test_what_is_labelled_or_has_no_deployment_is_not_called_untagged(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, facts: dict[str, Any]
) -> None:
    target: TargetFacts = facts_of(filed(), **facts)
    for ledger in (AUTO, APPROVE):
        assert UNTAGGED not in str(gate.judge(filed(), target, ledger, now).reasons)


def test_what_is_allowed_gives_no_reason_to_tag(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    verdict = gate.judge(filed(), facts_of(filed()), AUTO, now)
    assert (verdict.outcome, UNTAGGED in str(verdict.reasons)) == (Outcome.ALLOW, False)
