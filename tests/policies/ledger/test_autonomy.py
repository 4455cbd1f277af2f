"""Autonomy is earned by a lower bound, lost on one bad outcome, and every change of it is a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.flows.api.admin import PeriodicMaintenance
from pilotage.planner.actions.types import NotifyOwner, PauseDeployment, RetryRun
from pilotage.policies.autonomy import AutonomyRule, Judged, next_level, wilson_lower
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import Mode, Outcome, Verdict

Make = Callable[..., Any]
DEPLOYMENT = "22222222-2222-4222-8222-222222222222"
RULE = AutonomyRule()
GOOD: Judged = "verified"
BAD: Judged = "failed"


# the bounds are those of R's binom.confint(x, n, methods = "wilson")
@pytest.mark.parametrize(
    ("good", "total", "lower"),
    [(0, 0, 0.0), (0, 10, 0.0), (9, 10, 0.5958), (10, 10, 0.7225), (35, 35, 0.9011), (34, 34, 0.8985)],
)
def test_the_bound_is_wilsons(good: int, total: int, lower: float) -> None:
    assert wilson_lower(good, total) == pytest.approx(lower, abs=5e-4)


@given(total=st.integers(1, 400), share=st.floats(0, 1))
def test_the_bound_lies_below_the_rate_and_grows_with_what_is_good(total: int, share: float) -> None:
    good = int(total * share)
    assert wilson_lower(good, total) <= good / total
    assert wilson_lower(good, total + 1) <= wilson_lower(good + 1, total + 1)


def test_a_few_lucky_ones_are_not_enough_and_many_good_ones_are() -> None:
    assert next_level("standard", [GOOD] * 34, RULE)[0] == "standard"
    level, why = next_level("standard", [GOOD] * 35, RULE)
    assert level == "earned"
    assert "35 of 35" in why
    assert next_level("standard", [*[GOOD] * 35, BAD], RULE)[0] == "standard"
    assert next_level("demoted", [GOOD] * 4, RULE)[0] == "demoted"
    assert next_level("demoted", [GOOD] * 5, RULE)[0] == "standard"
    assert next_level("demoted", [GOOD] * 4 + [BAD] + [GOOD] * 9, RULE)[0] == "demoted"
    assert next_level("earned", [], RULE) == ("earned", "")


class Trials:
    """Admits without a gate, delivers and ends changes of one deployment, a minute apart."""

    def __init__(self, ledger: SqlLedger, filed: Make, facts_of: Make, now: datetime) -> None:
        self.ledger, self._filed, self._facts_of, self.at, self._number = ledger, filed, facts_of, now, 0

    def one(self, judgement: str, *, deployment: str = DEPLOYMENT, action: Any = None) -> str:
        self._number += 1
        self.at += timedelta(minutes=1)
        wanted = self._filed(
            action or RetryRun(run_id=f"{self._number:08x}-1111-4111-8111-111111111111"),
            number=self._number,
            filed_at=self.at,
            expires_at=self.at + timedelta(hours=1),
        )
        self.ledger.file(wanted)
        target = self._facts_of(wanted, deployment_id=deployment)
        self.ledger.admit(
            wanted.proposal.id,
            lambda stored, ledger_facts: Verdict(outcome=Outcome.ALLOW, policy_ids=("test",)),
            Mode.AUTO,
            self.at,
            target,
        )
        self.ledger.claim_of(wanted.proposal.id, "t", self.at, timedelta(seconds=30))
        self.ledger.record_delivery(wanted.proposal.id, {}, "done", self.at)
        if judgement:
            self.ledger.record_outcome(wanted.proposal.id, judgement, "", "", self.at)
        return str(wanted.proposal.id)

    def levels(self) -> list[tuple[str, str]]:
        """Every step of autonomy that the audit log tells of: event and level."""
        wanted = {"promoted", "demoted", "autonomy_set"}
        return [
            (step["step"], step["detail"]["level"])
            for step in self.ledger.entries(0, 10_000)
            if step["step"] in wanted
        ]


@pytest.fixture
def trials(ledger: SqlLedger, filed: Make, facts_of: Make, now: datetime) -> Trials:
    return Trials(ledger, filed, facts_of, now)


def test_autonomy_is_earned_lost_at_once_and_regained_as_rows(trials: Trials) -> None:
    for _ in range(34):
        trials.one("verified")
    assert trials.ledger.promote(RULE, trials.at) == []
    trials.one("verified")
    (change,) = trials.ledger.promote(RULE, trials.at)
    assert (change.kind, change.scope, change.before, change.level) == (
        "retry_run",
        DEPLOYMENT,
        "standard",
        "earned",
    )
    assert trials.ledger.promote(RULE, trials.at) == []
    trials.one("failed")
    assert trials.ledger.autonomy("retry_run", DEPLOYMENT) == "demoted"
    for _ in range(4):
        trials.one("verified")
    assert trials.ledger.promote(RULE, trials.at) == []
    trials.one("verified")
    assert [one.level for one in trials.ledger.promote(RULE, trials.at)] == ["standard"]
    assert trials.ledger.autonomy("retry_run", DEPLOYMENT) == "standard"
    assert trials.levels() == [("promoted", "earned"), ("demoted", "demoted"), ("promoted", "standard")]
    assert trials.ledger.verify_audit().ok


def test_another_deployment_and_another_kind_keep_their_own_level(trials: Trials) -> None:
    trials.one("failed")
    levels = [
        trials.ledger.autonomy(kind, scope)
        for kind, scope in (
            ("retry_run", DEPLOYMENT),
            ("retry_run", "other"),
            ("resize_run", DEPLOYMENT),
        )
    ]
    assert levels == ["demoted", "standard", "standard"]


def test_what_a_person_takes_back_was_a_bad_outcome_and_a_hold_that_ran_out_was_not(trials: Trials) -> None:
    pause = PauseDeployment(deployment_id=DEPLOYMENT, hold=timedelta(minutes=1))
    held = trials.one("verified", action=pause)
    trials.ledger.record_undo(held, "pilotage", "done", {}, trials.at)
    assert trials.levels() == []
    taken_back = trials.one("verified")
    trials.ledger.record_undo(taken_back, "ann", "done", {}, trials.at)
    assert trials.levels() == [("demoted", "demoted")]


def test_a_notice_that_did_not_arrive_demotes_nothing(trials: Trials) -> None:
    trials.one("failed", action=NotifyOwner(run_id=DEPLOYMENT))
    assert trials.levels() == []


def test_good_outcomes_of_what_was_under_way_do_not_end_a_demotion(trials: Trials) -> None:
    under_way = [trials.one("") for _ in range(6)]
    trials.one("failed")
    for proposal_id in under_way:
        trials.ledger.record_outcome(proposal_id, "verified", "", "", trials.at)
    assert trials.ledger.promote(RULE, trials.at) == []


def test_a_person_restores_or_takes_away_and_never_gives_what_is_to_be_earned(trials: Trials) -> None:
    ledger, at = trials.ledger, trials.at
    trials.one("failed")
    assert ledger.set_autonomy("retry_run", DEPLOYMENT, "earned", "ann", "", at) is None
    assert ledger.set_autonomy("retry_run", DEPLOYMENT, "demoted", "ann", "", at) is None
    restored = ledger.set_autonomy("retry_run", DEPLOYMENT, "standard", "ann", "it was the disk", at)
    assert restored is not None
    assert (restored.before, restored.level) == ("demoted", "standard")
    assert trials.levels()[-1] == ("autonomy_set", "standard")


def test_the_gate_is_told(trials: Trials, bundle: Bundle, filed: Make, facts_of: Make) -> None:
    trials.one("failed")
    next_one = filed(number=99, expires_at=trials.at + timedelta(hours=1))
    target = facts_of(next_one, read_at=trials.at)
    ledger_facts = trials.ledger.facts(next_one, "inject", Mode.AUTO, trials.at, target)
    assert ledger_facts.autonomy == "demoted"
    assert Gate(bundle).judge(next_one, target, ledger_facts, trials.at).policy_ids == (
        "demoted-needs-approver",
    )


def test_production_asks_no_approver_while_trust_lasts(
    trials: Trials, gate: Gate, filed: Make, facts_of: Make
) -> None:
    """The whole way by the loop's own step: standard, earned, and demoted by one bad outcome."""
    loop = PeriodicMaintenance(ledger=trials.ledger, gate=gate, clock=lambda: trials.at)

    def asked() -> Outcome:
        wanted = filed(number=9999, filed_at=trials.at, expires_at=trials.at + timedelta(hours=1))
        target = facts_of(wanted, env="prod", read_at=trials.at)
        trials.at += timedelta(hours=2)  # budgets and cooldowns are another matter
        ledger_facts = trials.ledger.facts(wanted, "judge", Mode.AUTO, trials.at, target)
        wanted = filed(number=9999, filed_at=trials.at, expires_at=trials.at + timedelta(hours=1))
        return gate.judge(wanted, target, ledger_facts, trials.at).outcome

    for _ in range(35):
        trials.one("verified")
    assert asked() is Outcome.NEEDS_APPROVAL
    assert asyncio.run(loop.keep())["promoted"] == 1
    assert asked() is Outcome.ALLOW
    trials.one("failed")
    assert asked() is Outcome.NEEDS_APPROVAL
    assert trials.levels() == [("promoted", "earned"), ("demoted", "demoted")]
    (told,) = trials.ledger.trust(RULE)
    assert (told["level"], told["scope"]) == ("demoted", DEPLOYMENT)


def test_promotion_looks_at_what_was_measured_since_and_locks_nothing_where_nothing_was(
    trials: Trials, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = PeriodicMaintenance(ledger=trials.ledger, gate=gate, clock=lambda: trials.at)
    looked: list[set[tuple[str, str]]] = []
    promote = trials.ledger.promote

    def watched(rule: AutonomyRule, at: datetime, pairs: Any = None) -> Any:
        looked.append(set(pairs))
        return promote(rule, at, pairs)

    monkeypatch.setattr(trials.ledger, "promote", watched)
    for _ in range(34):
        trials.one("verified")
        trials.one("verified", deployment="other")
    asyncio.run(loop.keep())
    assert looked.pop() == {("retry_run", DEPLOYMENT), ("retry_run", "other")}, "a start looks at everything"
    trials.one("")
    asyncio.run(loop.keep())
    assert looked.pop() == set(), "a delivery says nothing yet"
    trials.one("verified")
    assert asyncio.run(loop.keep())["promoted"] == 1
    assert looked.pop() == {("retry_run", DEPLOYMENT)}
    trials.one("failed", deployment="other")
    trials.ledger.set_autonomy("retry_run", "other", "standard", "ann", "", trials.at)
    asyncio.run(loop.keep())
    assert looked.pop() == {("retry_run", DEPLOYMENT), ("retry_run", "other")}
    asyncio.run(loop.keep())
    assert looked == [set()]


def test_under_another_rule_everything_is_looked_at_again(
    trials: Trials, bundle: Bundle, tmp_path: Path
) -> None:
    gate = Gate(bundle)
    loop = PeriodicMaintenance(ledger=trials.ledger, gate=gate, clock=lambda: trials.at)
    for _ in range(20):
        trials.one("verified")
    assert asyncio.run(loop.keep())["promoted"] == 0
    (tmp_path / "mine.yaml").write_text("autonomy_threshold: 80\n")
    gate.reload(Bundle.load(guardrails=tmp_path / "mine.yaml"))
    assert asyncio.run(loop.keep())["promoted"] == 1
