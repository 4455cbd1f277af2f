"""What holds for every proposal: the same verdict twice, forbids only tighten, approvals never take away."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotage.planner.actions.types import (
    Action,
    CancelRun,
    NotifyOwner,
    PauseDeployment,
    RescheduleRun,
    ReserveSlot,
    ResizeRun,
    RetryRun,
    target_of,
)
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts, Vote

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
ID = "11111111-1111-4111-8111-111111111111"
ORDER = {Outcome.DENY: 0, Outcome.NEEDS_APPROVAL: 1, Outcome.ALLOW: 2}
COMMON = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

spans = st.integers(0, 86_400).map(lambda seconds: timedelta(seconds=seconds))
actions: st.SearchStrategy[Action] = st.one_of(
    spans.map(lambda delay: RetryRun(run_id=ID, delay=delay)),
    st.integers(16, 4096).map(lambda size: ResizeRun(run_id=ID, memory_mb=size)),
    st.integers(-9000, 30_000).map(lambda s: RescheduleRun(run_id=ID, start=NOW + timedelta(seconds=s))),
    spans.map(lambda hold: ReserveSlot(pool="p", busy_queue="a", starved_queue="b", limit=1, hold=hold)),
    st.just(CancelRun(run_id=ID)),
    spans.map(lambda hold: PauseDeployment(deployment_id=ID, hold=hold)),
    st.just(NotifyOwner(run_id=ID)),
)
states = st.sampled_from(["FAILED", "CRASHED", "SCHEDULED", "RUNNING", "COMPLETED"])
proposers = st.sampled_from(
    [
        Identity(name="pilot", kind="agent", roles=frozenset({"agent"})),
        Identity(name="olga", kind="user", roles=frozenset({"operator"})),
        Identity(name="adam", kind="user", roles=frozenset({"admin"})),
        Identity(name="vera", kind="user", roles=frozenset({"viewer"})),
    ]
)


@st.composite
def contexts(draw: st.DrawFn) -> tuple[FiledProposal, TargetFacts, dict[str, Any]]:
    action, proposer = draw(actions), draw(proposers)
    proposal = Proposal(
        id="p-000000000001",
        incident_id="i-000000000001",
        action=action,
        expires_at=NOW + timedelta(minutes=5),
        on_behalf_of=draw(st.sampled_from(["", "v0"])),
    )
    filed = FiledProposal(
        proposal=proposal,
        case=CaseFile(subject="run:x", failure_class="unknown"),
        proposer=proposer,
        digest=digest_of(proposal, proposer),
        filed_at=NOW,
    )
    target = TargetFacts(
        target=target_of(action),
        read_at=NOW,
        state_type=draw(states),
        deployment_id=draw(st.sampled_from(["", ID])),
        env=draw(st.sampled_from(["", "prod", "dev", "staging"])),
        tier=draw(st.integers(0, 2)),
        team=draw(st.sampled_from(["", "data"])),
        tags=draw(st.sampled_from([frozenset[str](), frozenset({"pilotage:hands-off"})])),
        memory_mb=draw(st.sampled_from([0, 64, 512])),
        seconds_to_start=draw(st.integers(-600, 7200)),
    )
    ledger = {
        "stage": draw(st.sampled_from(["judge", "inject"])),
        "mode": draw(st.sampled_from(list(Mode))),
        "stopped": draw(st.integers(0, 5)) == 0,
        "actions_1h": draw(st.sampled_from([0, 59, 60, 120])),
        "actions_of_run_24h": draw(st.integers(0, 4)),
        "actions_of_deployment_1h": draw(st.sampled_from([0, 20])),
        "seconds_since_same_target": draw(st.sampled_from([None, 1, 60])),
        "evidence_tainted": draw(st.booleans()),
    }
    return filed, target, ledger


def cast(filed: FiledProposal, roles: list[str]) -> tuple[Vote, ...]:
    return tuple(
        Vote(
            proposal_id=filed.proposal.id,
            digest=filed.digest,
            voter=f"v{number}",
            role=role,
            decision="approve",
            reason="",
            at=NOW,
        )
        for number, role in enumerate(roles)
    )


voters = st.lists(st.sampled_from(["viewer", "approver", "admin", "approver,admin"]), max_size=4)

FORBIDS = {
    "everything": "forbid (principal, action, resource)",
    "retries": 'forbid (principal, action == Pilotage::Action::"retry_run", resource)',
    "runs above tier 0": (
        'forbid (principal, action == Pilotage::Action::"cancel_run", resource) when { resource.tier > 0 }'
    ),
    "an error in it": (
        'forbid (principal, action == Pilotage::Action::"retry_run", resource) '
        "when { resource.tier + 9223372036854775807 > 0 }"
    ),
    "unless approved": (
        'forbid (principal, action in [Pilotage::Action::"reversible"], resource) '
        "unless { context.world.approvals.admin >= 1 }"
    ),
}


@pytest.fixture(scope="module")
def tightened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Gate]:
    """Makes a gate whose bundle has one more forbid."""
    gates: dict[str, Gate] = {}

    def make(name: str) -> Gate:
        if name not in gates:
            where: Path = tmp_path_factory.mktemp("tight") / "b"
            shutil.copytree(DEFAULT_BUNDLE, where)
            (where / "zz.cedar").write_text(f'@id("zz") @reason("added") {FORBIDS[name]};\n')
            gates[name] = Gate(Bundle.load(where))
        return gates[name]

    return make


@COMMON
@given(world=contexts(), roles=voters)
def test_judging_twice_gives_the_same_verdict(
    gate: Gate, world: tuple[FiledProposal, TargetFacts, dict[str, Any]], roles: list[str]
) -> None:
    filed, target, ledger = world
    ledger_facts = LedgerFacts(**ledger, votes=cast(filed, roles))
    first, second = gate.judge(filed, target, ledger_facts, NOW), gate.judge(filed, target, ledger_facts, NOW)
    assert first == second
    assert first.policy_ids
    assert first.reasons
    assert first.errors == ()


@COMMON
@given(world=contexts(), roles=voters, more=st.sampled_from(["viewer", "approver", "admin"]))
def test_one_more_approval_never_takes_away(
    gate: Gate, world: tuple[FiledProposal, TargetFacts, dict[str, Any]], roles: list[str], more: str
) -> None:
    filed, target, ledger = world
    before = gate.judge(filed, target, LedgerFacts(**ledger, votes=cast(filed, roles)), NOW)
    after = gate.judge(filed, target, LedgerFacts(**ledger, votes=cast(filed, [*roles, more])), NOW)
    assert ORDER[after.outcome] >= ORDER[before.outcome]


@pytest.mark.parametrize("name", FORBIDS)
@COMMON
@given(world=contexts(), roles=voters)
def test_one_more_forbid_never_allows_more(
    gate: Gate,
    tightened: Callable[[str], Gate],
    name: str,
    world: tuple[FiledProposal, TargetFacts, dict[str, Any]],
    roles: list[str],
) -> None:
    filed, target, ledger = world
    ledger_facts = LedgerFacts(**ledger, votes=cast(filed, roles))
    plain, tight = (
        gate.judge(filed, target, ledger_facts, NOW),
        tightened(name).judge(filed, target, ledger_facts, NOW),
    )
    assert ORDER[tight.outcome] <= ORDER[plain.outcome]


@COMMON
@given(world=contexts())
def test_the_missing_approvals_that_are_named_are_enough(
    gate: Gate, world: tuple[FiledProposal, TargetFacts, dict[str, Any]]
) -> None:
    filed, target, ledger = world
    verdict = gate.judge(filed, target, LedgerFacts(**ledger), NOW)
    if verdict.outcome is not Outcome.NEEDS_APPROVAL:
        return
    roles = ["viewer"] + [role for role, count in verdict.requirements.items() for _ in range(count)]
    after = gate.judge(filed, target, LedgerFacts(**ledger, votes=cast(filed, roles)), NOW)
    assert after.outcome is Outcome.ALLOW
    fewer = gate.judge(filed, target, LedgerFacts(**ledger, votes=cast(filed, roles[:-1])), NOW)
    assert fewer.outcome is Outcome.NEEDS_APPROVAL


@COMMON
@given(world=contexts())
def test_tainted_evidence_only_tightens(
    gate: Gate, world: tuple[FiledProposal, TargetFacts, dict[str, Any]]
) -> None:
    filed, target, ledger = world
    clean = gate.judge(filed, target, LedgerFacts(**{**ledger, "evidence_tainted": False}), NOW)
    tainted = gate.judge(filed, target, LedgerFacts(**{**ledger, "evidence_tainted": True}), NOW)
    assert ORDER[tainted.outcome] <= ORDER[clean.outcome]
