"""Shut by default: what no policy permits, what cannot be evaluated and what is not known is denied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotage.planner.actions.types import ResizeRun
from pilotage.policies.cedar import entities as cedar_entities
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.cedar.protocol import EngineRequest, Entity, PolicyNote, RawAnswer
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.gate.permitted_kinds import permitted_kinds
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts
from pilotage.telemetry.errors import ConfigError

Make = Callable[..., Any]
JUDGE = LedgerFacts(stage="judge", mode=Mode.AUTO)
INJECT = LedgerFacts(stage="inject", mode=Mode.AUTO)


@pytest.fixture
def bundle_with(tmp_path: Path) -> Callable[..., Path]:
    """Copies the default bundle and writes other texts over it or beside it."""

    def make(**files: str) -> Path:
        where = tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"
        shutil.copytree(DEFAULT_BUNDLE, where)
        for name, text in files.items():
            (where / name.replace("__", ".")).write_text(text)
        return where

    return make


@dataclass(frozen=True)
class BrokenEngine:
    """An engine that raises, or answers with what it was given."""

    answer: RawAnswer | None = None

    def notes(self) -> Mapping[str, PolicyNote]:
        return {}

    def evaluate(
        self, requests: Sequence[EngineRequest], entities: Sequence[Entity]
    ) -> tuple[RawAnswer, ...]:
        if self.answer is None:
            raise RuntimeError("the engine is gone")
        return tuple(self.answer for _ in requests)


def test_the_control_case_is_allowed(gate: Gate, filed: Make, facts_of: Make, now: datetime) -> None:
    verdict = gate.judge(filed(), facts_of(filed()), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.ALLOW, ("agent-retries",))


@pytest.mark.parametrize("roles", [(), ("viewer",), ("approver",)], ids=["nobody", "viewer", "approver"])
def test_who_may_propose_nothing_is_denied_by_default(
    gate: Gate, filed: Make, facts_of: Make, person: Make, now: datetime, roles: tuple[str, ...]
) -> None:
    proposal = filed(proposer=person("eve", *roles))
    verdict = gate.judge(proposal, facts_of(proposal), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!default-deny",))


def test_a_bundle_without_policies_does_not_load(tmp_path: Path) -> None:
    shutil.copy(DEFAULT_BUNDLE / "schema.cedarschema", tmp_path)
    with pytest.raises(ConfigError, match="no policy in any file"):
        Bundle.load(tmp_path)


def test_a_bundle_of_forbids_allows_nothing(
    tmp_path: Path, filed: Make, facts_of: Make, now: datetime
) -> None:
    shutil.copy(DEFAULT_BUNDLE / "schema.cedarschema", tmp_path)
    shutil.copy(DEFAULT_BUNDLE / "states.cedar", tmp_path)
    verdict = Gate(Bundle.load(tmp_path)).judge(filed(), facts_of(filed()), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!default-deny",))


def test_no_facts_about_the_target_is_a_denial(gate: Gate, filed: Make, now: datetime) -> None:
    verdict = gate.judge(filed(), None, JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!missing-fact",))


def test_facts_about_another_target_are_a_denial(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    verdict = gate.judge(filed(), facts_of(filed(), target="run:another"), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!missing-fact",))


def test_a_run_without_a_known_state_is_a_denial(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    verdict = gate.judge(filed(), facts_of(filed(), state_type=""), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!missing-fact",))


def test_an_unlabelled_or_unknown_environment_counts_as_production(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    for env in ("", "prod", "production", "PRD", "devv"):
        verdict = gate.judge(filed(), facts_of(filed(), env=env), JUDGE, now)
        assert (verdict.outcome, verdict.policy_ids) == (Outcome.NEEDS_APPROVAL, ("prod-needs-approver",))


def test_old_facts_are_good_for_judging_and_not_for_injecting(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    old = facts_of(filed(), read_at=now - timedelta(seconds=11))
    assert gate.judge(filed(), old, JUDGE, now).outcome is Outcome.ALLOW
    verdict = gate.judge(filed(), old, INJECT, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!stale-facts",))


def test_facts_from_the_future_are_not_fresh(gate: Gate, filed: Make, facts_of: Make, now: datetime) -> None:
    verdict = gate.judge(filed(), facts_of(filed(), read_at=now + timedelta(minutes=1)), INJECT, now)
    assert verdict.policy_ids == ("!stale-facts",)


def test_a_target_that_moved_on_is_a_denial(gate: Gate, filed: Make, facts_of: Make, now: datetime) -> None:
    proposal = filed(expected_state_id="s1")
    assert gate.judge(proposal, facts_of(proposal, state_id="s1"), JUDGE, now).outcome is Outcome.ALLOW
    assert gate.judge(proposal, facts_of(proposal, state_id="s2"), JUDGE, now).policy_ids == (
        "!stale-target",
    )
    late = facts_of(proposal, state_id="s2", state_name="Late", late_since_id="s1")
    assert gate.judge(proposal, late, JUDGE, now).outcome is Outcome.ALLOW
    other = facts_of(proposal, state_id="s3", state_name="Late", late_since_id="s2")
    assert gate.judge(proposal, other, JUDGE, now).policy_ids == ("!stale-target",)


def test_an_expired_proposal_is_a_denial(gate: Gate, filed: Make, facts_of: Make, now: datetime) -> None:
    verdict = gate.judge(filed(expires_at=now), facts_of(filed()), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!expired",))


def test_an_overflow_in_a_forbid_is_a_denial(gate: Gate, filed: Make, facts_of: Make, now: datetime) -> None:
    proposal = filed(ResizeRun(run_id="11111111-1111-4111-8111-111111111111", memory_mb=512))
    verdict = gate.judge(proposal, facts_of(proposal, memory_mb=2**62 + 1), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!evaluation-error",))
    assert verdict.errors


@pytest.mark.parametrize("field", ["tier", "memory_mb", "env", "state_type"])
def test_a_fact_of_the_wrong_type_is_a_denial(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, field: str
) -> None:
    verdict = gate.judge(filed(), facts_of(filed(), **{field: ["not", "that"]}), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!evaluation-error",))


def test_an_engine_that_raises_is_a_denial(
    bundle: Bundle, filed: Make, facts_of: Make, pilot: Identity, now: datetime
) -> None:
    gate = Gate(replace(bundle, engine=BrokenEngine()))
    assert gate.judge(filed(), facts_of(filed()), JUDGE, now).policy_ids == ("!evaluation-error",)
    assert gate.judge_vote(pilot, filed(), filed().digest, "approve", now).outcome is Outcome.DENY
    assert gate.judge_command(pilot, "stop", mode=Mode.AUTO, now=now).outcome is Outcome.DENY


def test_an_allow_with_an_error_is_a_denial(
    bundle: Bundle, filed: Make, facts_of: Make, pilot: Identity, now: datetime
) -> None:
    lax = BrokenEngine(RawAnswer(allowed=True, deciding=("a",), errors=("a forbid was skipped",)))
    gate = Gate(replace(bundle, engine=lax))
    assert gate.judge(filed(), facts_of(filed()), JUDGE, now).outcome is Outcome.DENY
    assert gate.judge_vote(pilot, filed(), filed().digest, "approve", now).outcome is Outcome.DENY
    assert gate.judge_command(pilot, "stop", mode=Mode.AUTO, now=now).outcome is Outcome.DENY


def test_a_slice_without_the_target_is_a_denial(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cedar_entities.resource
    monkeypatch.setattr(cedar_entities, "resource", lambda *given: (whole(*given)[0], ()))
    verdict = gate.judge(filed(), facts_of(filed()), JUDGE, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!missing-fact",))


def test_a_slice_without_the_caller_is_a_denial(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cedar_entities.principal
    monkeypatch.setattr(cedar_entities, "principal", lambda who: (whole(who)[0], ()))
    assert gate.judge(filed(), facts_of(filed()), JUDGE, now).outcome is Outcome.DENY


def test_an_id_that_looks_like_policy_text_stays_an_id(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    odd = Identity(name='x" in Pilotage::Role::"admin', kind="user", roles=frozenset())
    proposal = filed(proposer=odd)
    assert gate.judge(proposal, facts_of(proposal), JUDGE, now).policy_ids == ("!default-deny",)


BAD_POLICIES = {
    "typo in an attribute": (
        '@id("x") @reason("r") forbid (principal, action == Pilotage::Action::"retry_run", resource) '
        "when { resource.teir == 0 };",
        "policy x",
    ),
    "typo in the effect": ('@id("x") @reason("r") dney (principal, action, resource);', "does not parse"),
    "no id": ('@reason("r") forbid (principal, action, resource);', "no @id"),
    "no reason": ('@id("x") forbid (principal, action, resource);', "no @reason"),
    "an id used twice in one file": (
        '@id("x") @reason("r") forbid (principal, action, resource);'
        '@id("x") @reason("r") forbid (principal, action, resource);',
        "used 2 times",
    ),
    "an id of another file": (
        '@id("hands-off") @reason("r") forbid (principal, action, resource);',
        "is also in",
    ),
    "a permit for everybody": (
        '@id("x") @reason("r") permit (principal, action == Pilotage::Action::"stop", resource);',
        "no principal scope",
    ),
    "a look-alike letter": (
        '@id("x") @reason("r") forbid (principal, action == Pilotage::Action::"retry_run", resource) '
        'when { resource.state == "FАILED" };',
        "outside ASCII",
    ),
    "approvals that take away": (
        '@id("x") @reason("r") forbid (principal, action == Pilotage::Action::"retry_run", resource) '
        "when { context.world.approvals.approver >= 1 };",
        "more approvals",
    ),
    "approvals compared otherwise": (
        '@id("x") @reason("r") forbid (principal, action == Pilotage::Action::"retry_run", resource) '
        "unless { context.world.approvals.approver == 1 };",
        "more approvals",
    ),
    "approvals behind a negation": (
        '@id("x") @reason("r") forbid (principal, action == Pilotage::Action::"retry_run", resource) '
        "unless { !(context.world.approvals.approver >= 1) };",
        "more approvals",
    ),
}


@pytest.mark.parametrize(("text", "complaint"), BAD_POLICIES.values(), ids=BAD_POLICIES.keys())
def test_a_bad_policy_does_not_load_and_the_message_names_its_file(
    bundle_with: Callable[..., Path], text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as told:
        Bundle.load(bundle_with(zz__cedar=text))
    assert "zz.cedar" in str(told.value)


BAD_GUARDRAILS = {
    "unknown key": (
        "max_attemps_per_run: 3",
        "`max_attemps_per_run` is not a guardrail; valid keys are max_attempts",
    ),
    "text for a number": ('max_attempts_per_run: "3"', "`max_attempts_per_run` is '3'"),
    "negative": ("max_attempts_per_run: -1", "`max_attempts_per_run`"),
    "no unit": ("cooldown: 5", "`cooldown` is '5'.*a duration such as 90s"),
    "not a mapping": ("[1, 2]", "found list"),
    "not YAML": ("a: [", "not YAML"),
    "nobody resumes": ("resume_votes: 0", "`resume_votes`"),
}


@pytest.mark.parametrize(("text", "complaint"), BAD_GUARDRAILS.values(), ids=BAD_GUARDRAILS.keys())
def test_bad_guardrails_do_not_load_and_the_message_names_the_key(
    bundle_with: Callable[..., Path], text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as told:
        Bundle.load(bundle_with(guardrails__yaml=text))
    assert "guardrails.yaml" in str(told.value)


def test_a_bad_bundle_leaves_the_good_one_in_force(
    gate: Gate, bundle: Bundle, bundle_with: Callable[..., Path], filed: Make, facts_of: Make, now: datetime
) -> None:
    with pytest.raises(ConfigError):
        gate.reload(Bundle.load(bundle_with(zz__cedar="permit (principal, action, resource);")))
    verdict = gate.judge(filed(), facts_of(filed()), JUDGE, now)
    assert (verdict.outcome, verdict.bundle) == (Outcome.ALLOW, bundle.hash)


def test_any_change_of_a_file_changes_the_hash(bundle: Bundle, bundle_with: Callable[..., Path]) -> None:
    assert Bundle.load(bundle_with()).hash == bundle.hash
    assert Bundle.load(bundle_with(guardrails__yaml="max_attempts_per_run: 4")).hash != bundle.hash


def test_every_denial_says_why_and_what_would_change_it(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    proposal: FiledProposal = filed()
    target: TargetFacts = facts_of(proposal, tags=frozenset({"pilotage:hands-off"}))
    verdict = gate.judge(proposal, target, JUDGE, now)
    assert verdict.policy_ids == ("hands-off",)
    assert verdict.reasons == ("the deployment is tagged pilotage:hands-off",)
    assert verdict.would_change


def test_what_the_server_cannot_carry_is_neither_offered_nor_allowed(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, pilot: Identity
) -> None:
    why = "Prefect 3.6.16 has no such route"
    limited = Gate(gate.bundle, server_lacks={"retry_run": why})
    for ledger in (JUDGE, INJECT):
        verdict = limited.judge(filed(), facts_of(filed()), ledger, now)
        assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!server-lacks",))
        assert why in verdict.reasons[0]
    assert set(permitted_kinds(gate, pilot)) - set(permitted_kinds(limited, pilot)) == {"retry_run"}


def test_what_may_be_asked_for_is_judged_once_for_each_bundle_and_caller(
    bundle_with: Callable[..., Path], gate: Gate, pilot: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    judge = Gate.judge

    def counted(self: Gate, filed: FiledProposal, *rest: Any) -> Any:
        judged.append(filed.proposal.action.kind)
        return judge(self, filed, *rest)

    monkeypatch.setattr(Gate, "judge", counted)
    first = permitted_kinds(gate, pilot)
    assert "retry_run" in first
    once = len(judged)
    assert permitted_kinds(gate, pilot) == first
    assert len(judged) == once, "the planner asks at every turn: the same bundle has the same answer"
    text = '@id("no-retries")\n@reason("not here")\nforbid (principal, action == Pilotage::Action::"retry_run", resource);'
    gate.reload(Bundle.load(bundle_with(zz__cedar=text)))
    assert "retry_run" not in permitted_kinds(gate, pilot), "another bundle in force is asked anew"
