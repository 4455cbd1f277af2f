"""What an agent proposes for a person needs the rights of both, as they stand now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.policies.conftest import RUN, Make

from pilotage.planner.actions.types import CancelRun
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.gate.recorded import ledger_facts_from
from pilotage.policies.json_values import plain
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import Identity, Mode, Outcome

AGENT = Identity(name="agent-of-ann", kind="agent", roles=frozenset({"agent"}))
LEDGER_FACTS = LedgerFacts(stage="judge", mode=Mode.AUTO)


def judged(gate: Gate, filed: Any, facts_of: Make, now: Any, behind: Identity | None, **facts: Any) -> Any:
    return gate.judge(filed, facts_of(filed, **facts), replace(LEDGER_FACTS, behind=behind), now)


@pytest.mark.parametrize(
    ("env", "roles", "outcome", "policy"),
    [
        ("dev", ("operator",), Outcome.ALLOW, "agent-retries"),
        ("dev", ("admin",), Outcome.ALLOW, "agent-retries"),
        ("dev", ("viewer",), Outcome.DENY, "!default-deny"),
        ("dev", ("approver",), Outcome.DENY, "!default-deny"),
        ("prod", ("operator",), Outcome.NEEDS_APPROVAL, "prod-needs-approver"),
        ("prod", ("viewer",), Outcome.DENY, "!default-deny"),
    ],
)
def test_both_must_be_allowed_and_the_stricter_answer_holds(
    gate: Gate,
    filed: Make,
    facts_of: Make,
    now: Any,
    person: Make,
    env: str,
    roles: Any,
    outcome: Any,
    policy: str,
) -> None:
    proposal = filed(proposer=AGENT, on_behalf_of="ann")
    verdict = judged(gate, proposal, facts_of, now, person("ann", *roles), env=env)
    assert verdict.outcome is outcome
    assert policy in verdict.policy_ids, verdict


def test_a_right_of_the_person_that_the_agent_lacks_is_of_no_use(
    gate: Gate, filed: Make, facts_of: Make, now: Any, person: Make
) -> None:
    powerless = Identity(name="agent-of-ann", kind="agent")
    alone = gate.judge(
        filed(proposer=person("ann", "operator")), facts_of(filed(), env="dev"), LEDGER_FACTS, now
    )
    together = judged(
        gate,
        filed(proposer=powerless, on_behalf_of="ann"),
        facts_of,
        now,
        person("ann", "operator"),
        env="dev",
    )
    assert (alone.outcome, together.outcome) == (Outcome.ALLOW, Outcome.DENY)


def test_nobody_behind_it_is_a_denial(
    gate: Gate, filed: Make, facts_of: Make, now: Any, person: Make
) -> None:
    proposal = filed(proposer=AGENT, on_behalf_of="ann")
    for behind in (None, person("bob", "admin")):
        verdict = judged(gate, proposal, facts_of, now, behind, env="dev")
        assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!nobody-behind",))


def test_for_every_pair_the_answer_is_never_milder_than_either_alone(
    gate: Gate, filed: Make, facts_of: Make, now: Any, person: Make
) -> None:
    order = [Outcome.DENY, Outcome.NEEDS_APPROVAL, Outcome.ALLOW]
    for roles in (("viewer",), ("operator",), ("approver",), ("admin",), ()):
        for action in (None, CancelRun(run_id=RUN)):
            for env in ("dev", "prod"):
                ann = person("ann", *roles)
                together = judged(
                    gate, filed(action, proposer=AGENT, on_behalf_of="ann"), facts_of, now, ann, env=env
                )
                each = [
                    gate.judge(
                        filed(action, proposer=who), facts_of(filed(action), env=env), LEDGER_FACTS, now
                    )
                    for who in (AGENT, ann)
                ]
                strictest = min(order.index(verdict.outcome) for verdict in each)
                assert order.index(together.outcome) == strictest, (roles, action, env)
                for verdict in each:
                    for role, count in verdict.requirements.items():
                        if together.outcome is Outcome.NEEDS_APPROVAL:
                            assert together.requirements[role] >= count


def test_the_ledger_looks_up_who_the_person_is_now(
    tmp_path: Path, bundle: Bundle, filed: Make, facts_of: Make, now: Any, person: Make
) -> None:
    people = {"ann": person("ann", "operator")}
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'l.db'}", current_identity=people.get)
    proposal = filed(proposer=AGENT, on_behalf_of="ann")
    ledger.file(proposal)
    target = facts_of(proposal, env="dev")

    def verdict() -> Any:
        ledger_facts = ledger.facts(proposal, "judge", Mode.AUTO, now, target)
        return Gate(bundle).judge(proposal, target, ledger_facts, now)

    assert verdict().outcome is Outcome.ALLOW
    people["ann"] = person("ann", "viewer")
    assert verdict().outcome is Outcome.DENY
    people.clear()
    assert verdict().policy_ids == ("!nobody-behind",)
    ledger.close()


def test_a_recorded_decision_remembers_who_was_behind_it(person: Make) -> None:
    ledger_facts = replace(LEDGER_FACTS, behind=replace(person("ann", "operator"), teams=frozenset({"a"})))
    assert ledger_facts_from(plain(ledger_facts)) == ledger_facts
    assert ledger_facts_from(plain(LEDGER_FACTS)) == LEDGER_FACTS
