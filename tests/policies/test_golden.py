"""The golden table `cases.yaml`, and that every policy of the default bundle decides at least one of its rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotage.planner.actions import action_from_json
from pilotage.policies.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.gate import Gate, LedgerFacts
from pilotage.policies.json_values import timestamp
from pilotage.policies.verdicts import FiledProposal, Identity, Mode, TargetFacts, Verdict, Vote

Make = Callable[..., Any]
RUN = "11111111-1111-4111-8111-111111111111"
DEPLOYMENT = "22222222-2222-4222-8222-222222222222"
GOVERNANCE = DEFAULT_BUNDLE / "governance.cedar"
UNREACHABLE: dict[str, str] = {
    "slot-leaves-one": "the action type refuses a limit below 1 before policy sees it; it stands behind that",
}
"""Policies that no proposal can reach, each with the reason why it is kept."""


@dataclass(frozen=True, kw_only=True)
class Case:
    case: str
    outcome: str
    by_policies: list[str]
    by: list[str] = field(default_factory=lambda: ["agent"])
    action: dict[str, Any] = field(default_factory=lambda: {"kind": "retry_run", "run_id": "RUN"})
    target: dict[str, Any] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    votes: dict[str, list[str]] = field(default_factory=dict)
    needs: dict[str, int] = field(default_factory=dict)
    now: datetime | None = None


CASES = [Case(**row) for row in yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())]


@pytest.fixture(scope="module")
def frozen_gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """The default bundle with one freeze window."""
    where = tmp_path_factory.mktemp("bundle") / "b"
    shutil.copytree(DEFAULT_BUNDLE, where)
    text = (where / "guardrails.yaml").read_text()
    window = "freeze: [{start: 2027-03-02T00:00:00Z, end: 2027-03-03T00:00:00Z, why: test}]"
    assert "freeze: []" in text
    (where / "guardrails.yaml").write_text(text.replace("freeze: []", window))
    return Gate(Bundle.load(where))


@pytest.fixture
def judged(frozen_gate: Gate, filed: Make, facts_of: Make, now: datetime) -> Callable[[Case], Verdict]:
    def judge(case: Case) -> Verdict:
        at = case.now or now
        agent = "agent" in case.by
        proposer = Identity(name="proposer", kind="agent" if agent else "user", roles=frozenset(case.by))
        proposal: FiledProposal = filed(
            _action(case.action, at),
            proposer=proposer,
            filed_at=at,
            expires_at=at + timedelta(minutes=10),
            evidence=tuple(case.evidence),
        )
        tags = frozenset(case.target.get("tags", ()))
        target: TargetFacts = facts_of(proposal, **{"read_at": at, **case.target, "tags": tags})
        votes = tuple(
            Vote(
                proposal_id=proposal.proposal.id,
                digest=proposal.digest,
                voter=name,
                role=",".join(roles),
                decision="approve",
                reason="",
                at=at,
            )
            for name, roles in case.votes.items()
        )
        counted = {"stage": "inject", **case.ledger, "mode": Mode(case.ledger.get("mode", "auto"))}
        return frozen_gate.judge(proposal, target, LedgerFacts(**counted, votes=votes), at)

    return judge


def _action(written: dict[str, Any], at: datetime) -> Any:
    ids = {"RUN": RUN, "DEPLOYMENT": DEPLOYMENT}
    action = {
        key: ids.get(value, value) if isinstance(value, str) else value for key, value in written.items()
    }
    if "start" in action:
        action["start"] = timestamp(at + timedelta(seconds=int(action["start"])))
    return action_from_json(json.dumps(action))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
def test_the_golden_table_holds(case: Case, judged: Callable[[Case], Verdict]) -> None:
    verdict = judged(case)
    assert (verdict.outcome.value, sorted(verdict.policy_ids), dict(verdict.requirements)) == (
        case.outcome,
        sorted(case.by_policies),
        case.needs,
    )
    assert len(verdict.reasons) == len(verdict.policy_ids)
    assert all(verdict.reasons)
    assert verdict.errors == ()


def test_no_two_cases_have_the_same_name() -> None:
    names = [case.case for case in CASES]
    assert len(set(names)) == len(names)


def test_every_policy_about_actions_decides_a_case(bundle: Bundle) -> None:
    deciding = {name for case in CASES for name in case.by_policies}
    about_actions = {name for name, note in bundle.notes.items() if note.file != GOVERNANCE.name}
    assert about_actions - deciding == set(UNREACHABLE)


def test_every_policy_about_governance_decides_a_vote_or_a_command(
    bundle: Bundle, gate: Gate, filed: Make, now: datetime
) -> None:
    def who(name: str, kind: Any, *roles: str) -> Identity:
        return Identity(name=name, kind=kind, roles=frozenset(roles))

    deciding: set[str] = set()
    for voter in (
        who("ann", "user", "approver"),
        who("robot", "agent", "approver"),
        who("pilot", "user", "admin"),
    ):
        for at in (now, now + timedelta(days=1)):
            deciding |= set(gate.judge_vote(voter, filed(), filed().digest, "approve", at).policy_ids)
    for caller in (
        who("o", "user", "operator"),
        who("a", "user", "approver"),
        who("b", "user", "admin"),
        who("r", "agent", "admin"),
    ):
        deciding |= set(gate.judge_command(caller, "stop", mode=Mode.AUTO, now=now).policy_ids)
        deciding |= set(
            gate.judge_command(caller, "set_mode", mode=Mode.AUTO, now=now, to=Mode.SHADOW).policy_ids
        )
    assert {name for name, note in bundle.notes.items() if note.file == GOVERNANCE.name} <= deciding


def test_every_forbid_that_no_approval_lifts_is_pinned(
    judged: Callable[[Case], Verdict],
) -> None:
    """A forbid that becomes approvable changes this list, and a reviewer sees it."""
    never = {name for case in CASES if case.outcome == "deny" for name in case.by_policies}
    asked = {name for case in CASES if case.outcome == "needs_approval" for name in case.by_policies}
    assert never & asked == set()
    assert {"tier0-never-paused", "hands-off", "kill-switch", "freeze", "run-budget"} <= never
