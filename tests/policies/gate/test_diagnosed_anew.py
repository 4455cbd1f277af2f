"""What reads as another failure now is not tried again unasked: its class holds an action back and lets none through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from pilotage.planner.actions.types import Action, NotifyOwner, ResizeRun, RetryRun, target_of
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts

RUN = "11111111-1111-4111-8111-111111111111"
RETRY = RetryRun(run_id=RUN)


def judged(filed: FiledProposal, now: datetime, read_as: str) -> tuple[Outcome, tuple[str, ...]]:
    target = TargetFacts(
        target=target_of(filed.proposal.action),
        read_at=now,
        state_type="FAILED",
        deployment_id="d-1",
        env="dev",
        memory_mb=512,
        read_as=read_as,
    )
    verdict = Gate(Bundle.load()).judge(filed, target, LedgerFacts(mode=Mode.AUTO, stage="inject"), now)
    return verdict.outcome, verdict.policy_ids


@pytest.mark.parametrize("action", [RETRY, ResizeRun(run_id=RUN, memory_mb=768)])
def test_another_class_than_the_one_it_was_filed_with_holds_it_back(
    filed: Callable[..., Any], now: datetime, action: Action
) -> None:
    assert judged(filed(action), now, "environment") == (Outcome.DENY, ("!diagnosed-anew",))


@pytest.mark.parametrize("read_as", ["", "transient"])
def test_the_same_class_or_none_holds_nothing_back(
    filed: Callable[..., Any], now: datetime, read_as: str
) -> None:
    assert judged(filed(RETRY), now, read_as)[0] is Outcome.ALLOW


def test_the_owner_may_be_told_whatever_it_reads_as(filed: Callable[..., Any], now: datetime) -> None:
    assert judged(filed(NotifyOwner(run_id=RUN, severity="error")), now, "environment")[0] is Outcome.ALLOW


def test_a_person_may_try_again_what_rules_would_not(
    filed: Callable[..., Any], now: datetime, person: Callable[..., Identity]
) -> None:
    assert judged(filed(RETRY, proposer=person("pat", "operator")), now, "environment")[0] is Outcome.ALLOW


def test_it_lets_nothing_through(filed: Callable[..., Any], now: datetime) -> None:
    outside = replace(filed(RETRY), digest="0" * 60)
    assert judged(outside, now, "")[1] == ("!tampered",)
