"""The guarantees G1 to G21 of the policy layer, one test each, named after it.

Each shows its guarantee at work once, end to end; the module named beside it tests the same from every side.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.policies.ledger import test_crashes

from pilotage.planner.actions.types import CancelRun, ResizeRun, RetryRun
from pilotage.planner.proposals import Proposal
from pilotage.policies.audit.checkpoints import kept_in
from pilotage.policies.audit.ed25519 import Ed25519Signer
from pilotage.policies.cedar import entities
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.gate.recorded import made_again
from pilotage.policies.grants import BreakGlassGrant
from pilotage.policies.ledger.checkpoint_job import sign_checkpoint, verifier_for
from pilotage.policies.ledger.protocol import Decide
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts, Verdict, Vote
from pilotage.telemetry.errors import ConfigError, LedgerError

Make = Callable[..., Any]
RUN = "11111111-1111-4111-8111-111111111111"
LEASE = timedelta(seconds=30)
INJECT = LedgerFacts(stage="inject", mode=Mode.AUTO)
ANN = Identity(name="ann", kind="user", roles=frozenset({"approver"}))
BOB = Identity(name="bob", kind="user", roles=frozenset({"approver"}))
ADAM = Identity(name="adam", kind="user", roles=frozenset({"admin"}))


class ProposalApi:
    """Files, votes, admits and delivers as the controller does."""

    def __init__(self, ledger: SqlLedger, gate: Gate, facts_of: Make, now: datetime) -> None:
        self.ledger, self.gate, self._facts_of, self.now = ledger, gate, facts_of, now

    def deciding(self, target: TargetFacts | None, at: datetime) -> Decide:
        return lambda stored, ledger_facts: self.gate.judge(stored, target, ledger_facts, at)

    def admit(self, filed: FiledProposal, at: datetime | None = None, **facts: Any) -> Verdict:
        moment = at or self.now
        self.ledger.file(filed)
        target: TargetFacts = self._facts_of(filed, **{"read_at": moment, **facts})
        return self.ledger.admit(filed.proposal.id, self.deciding(target, moment), Mode.AUTO, moment, target)

    def vote(self, filed: FiledProposal, who: Identity, decision: Any = "approve", digest: str = "") -> Any:
        seen = digest or filed.digest
        may = self.gate.judge_vote(who, filed, seen, decision, self.now)
        return self.ledger.vote(filed.proposal.id, seen, who, decision, "", may, self.now)


@pytest.fixture
def control_api(ledger: SqlLedger, gate: Gate, facts_of: Make, now: datetime) -> ProposalApi:
    return ProposalApi(ledger, gate, facts_of, now)


def copied(tmp_path: Path, **files: str) -> Path:
    where = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, where)
    for name, text in files.items():
        (where / name.replace("__", ".")).write_text(text)
    return where


def another(number: int) -> RetryRun:
    return RetryRun(run_id=f"{number:08x}-1111-4111-8111-111111111111")


def test_g01_denied_by_default_and_a_forbid_wins(
    tmp_path: Path, gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    """See also test_default_deny and test_properties."""
    nobody = filed(proposer=Identity(name="x", kind="user", roles=frozenset()))
    assert gate.judge(nobody, facts_of(nobody), INJECT, now).policy_ids == ("!default-deny",)
    assert gate.judge(filed(), facts_of(filed()), INJECT, now).outcome is Outcome.ALLOW
    forbid = '@id("zz") @reason("r") forbid (principal, action == Pilotage::Action::"retry_run", resource);'
    tight = Gate(Bundle.load(copied(tmp_path, zz__cedar=forbid)))
    assert tight.judge(filed(), facts_of(filed()), INJECT, now).policy_ids == ("zz",)


def test_g02_anything_that_fails_is_a_denial(
    control_api: ProposalApi, gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    """See also test_default_deny."""
    grown = filed(ResizeRun(run_id=RUN, memory_mb=512))
    huge = facts_of(grown, memory_mb=2**62 + 1)
    assert gate.judge(grown, huge, INJECT, now).policy_ids == ("!evaluation-error",)
    assert gate.judge(filed(), None, INJECT, now).policy_ids == ("!missing-fact",)
    control_api.ledger.file(filed())

    def raises(_stored: FiledProposal, _counted: LedgerFacts) -> Verdict:
        raise RuntimeError("the provider is gone")

    verdict = control_api.ledger.admit(filed().proposal.id, raises, Mode.AUTO, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!evaluation-error",))
    assert control_api.ledger.claim("t", now, LEASE) is None


def test_g03_a_slice_that_lacks_anything_is_a_denial(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = filed()
    target = facts_of(proposal, team="data")
    assert gate.judge(proposal, target, INJECT, now).outcome is Outcome.ALLOW
    uid, about = entities.resource(proposal.proposal.action, target, gate.bundle.guardrails)
    who, whose = entities.principal(proposal.proposer)
    assert {entity.uid.type for entity in about} == {"Run", "Deployment", "Team"}
    for left_out in (*about, *whose):
        if left_out.uid.type == "Role" and left_out.uid.id == "admin":
            continue  # nobody here has or includes it
        rest = tuple(entity for entity in about if entity is not left_out)
        others = tuple(entity for entity in whose if entity is not left_out)
        monkeypatch.setattr(entities, "resource", lambda *given, rest=rest: (uid, rest))
        monkeypatch.setattr(entities, "principal", lambda _who, others=others: (who, others))
        assert gate.judge(proposal, target, INJECT, now).outcome is Outcome.DENY, left_out.uid


def test_g04_a_proposal_says_action_target_arguments_and_evidence_and_nothing_else(filed: Make) -> None:
    """See also attacks."""
    good = filed().proposal.model_dump(mode="json")
    Proposal.model_validate_json(json.dumps(good))
    for more in (
        {"proposer": "adam"},
        {"roles": ["admin"]},
        {"approved": True},
        {"action": {**good["action"], "force": True}},
        {"action": {**good["action"], "run_id": {"__entity": {"type": "User", "id": "adam"}}}},
    ):
        with pytest.raises(ValidationError):
            Proposal.model_validate_json(json.dumps({**good, **more}))


def test_g05_text_of_logs_only_ever_tightens(
    control_api: ProposalApi, gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    """See also attacks and test_properties."""
    cancel = filed(CancelRun(run_id=RUN))
    target = facts_of(cancel, state_type="RUNNING")
    assert gate.judge(cancel, target, INJECT, now).outcome is Outcome.ALLOW
    tainted = gate.judge(cancel, target, replace(INJECT, evidence_tainted=True), now)
    assert tainted.policy_ids == ("tainted-disruptive-needs-approver",)
    # clean is only what names evidence, and none but of kinds that Prefect or we ourselves count
    evidence: dict[tuple[str, ...], Outcome] = {
        ("queue:p/q", "forecast:r"): Outcome.ALLOW,
        (): Outcome.NEEDS_APPROVAL,
        ("queue:p/q", "log:l"): Outcome.NEEDS_APPROVAL,
        ("state:s",): Outcome.NEEDS_APPROVAL,
        ("model:m",): Outcome.NEEDS_APPROVAL,
        ("whatever is new",): Outcome.NEEDS_APPROVAL,
    }
    for number, (refs, wanted) in enumerate(evidence.items(), 1):
        run = f"{number:08x}-1111-4111-8111-111111111111"
        one = filed(CancelRun(run_id=run), number=number, evidence=refs)
        assert control_api.admit(one, state_type="SCHEDULED").outcome is wanted, refs
    # which evidence it names is the proposer's word: a run that has begun may have written all of it
    begun = filed(CancelRun(run_id=RUN), number=9, evidence=("queue:p/q", "forecast:r"))
    assert control_api.admit(begun, state_type="RUNNING").outcome is Outcome.NEEDS_APPROVAL


def test_g06_nothing_is_delivered_without_an_allow_of_the_same_transaction(
    control_api: ProposalApi, filed: Make, now: datetime, tmp_path: Path
) -> None:
    """See also test_admission and test_crashes."""
    asked, allowed = filed(number=1), filed(another(2), number=2)
    assert control_api.admit(asked, env="prod").outcome is Outcome.NEEDS_APPROVAL
    assert control_api.admit(allowed).outcome is Outcome.ALLOW
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    rows = connection.execute(
        "SELECT outbox.proposal_id, verdicts.outcome, verdicts.stage, verdicts.at = outbox.admitted_at "
        "FROM outbox JOIN verdicts ON verdicts.seq = outbox.verdict_seq"
    ).fetchall()
    connection.close()
    assert rows == [(allowed.proposal.id, "allow", "inject", 1)]
    with pytest.raises(LedgerError, match="never admitted"):
        control_api.ledger.record_delivery(asked.proposal.id, {}, "done", now)


def test_g07_an_approval_is_of_one_text(control_api: ProposalApi, filed: Make) -> None:
    """See also test_votes."""
    seen, edited = filed(number=1), filed(RetryRun(run_id=RUN, delay=timedelta(seconds=9)), number=2)
    for one in (seen, edited):
        control_api.ledger.file(one)
    assert control_api.vote(edited, ANN, digest=seen.digest).policy_ids == ("!other-digest",)
    # the ledger looks for itself, whatever the gate has said
    yes = Verdict(outcome=Outcome.ALLOW)
    cast = control_api.ledger.vote(edited.proposal.id, seen.digest, ANN, "approve", "", yes, control_api.now)
    assert isinstance(cast, Verdict)
    assert cast.policy_ids == ("!other-digest",)
    assert isinstance(control_api.vote(seen, ANN), Vote)
    assert control_api.admit(edited, env="prod").outcome is Outcome.NEEDS_APPROVAL
    assert control_api.admit(seen, env="prod").outcome is Outcome.ALLOW


def test_g08_four_eyes_distinct_people_one_seat_veto_expiry_single_use(
    control_api: ProposalApi, filed: Make, now: datetime
) -> None:
    """See also test_votes and test_lent_votes."""
    own = filed(
        number=1, proposer=Identity(name="ann", kind="user", roles=frozenset({"operator", "approver"}))
    )
    control_api.ledger.file(own)
    assert control_api.vote(own, ANN).policy_ids == ("four-eyes",)
    # and were such a vote cast all the same, it would fill no seat
    control_api.ledger.vote(
        own.proposal.id, own.digest, ANN, "approve", "", Verdict(outcome=Outcome.ALLOW), now
    )
    assert control_api.admit(own, env="prod").outcome is Outcome.NEEDS_APPROVAL
    resize = filed(ResizeRun(run_id=RUN, memory_mb=512), number=2)
    control_api.ledger.file(resize)
    both = Identity(name="ann", kind="user", roles=frozenset({"approver", "admin"}))
    assert isinstance(control_api.vote(resize, both), Vote)
    assert control_api.vote(resize, both).policy_ids == ("!voted-before",)
    one_requirement = control_api.admit(resize, env="prod", tier=0)
    assert (one_requirement.outcome, dict(one_requirement.requirements)) == (
        Outcome.NEEDS_APPROVAL,
        {"approver": 1},
    )
    assert isinstance(control_api.vote(resize, BOB), Vote)
    assert control_api.admit(resize, env="prod", tier=0).outcome is Outcome.ALLOW
    assert control_api.admit(resize, env="prod", tier=0).policy_ids == ("!already-admitted",)
    vetoed = filed(another(3), number=3)
    control_api.ledger.file(vetoed)
    control_api.vote(vetoed, ANN)
    control_api.vote(vetoed, BOB, "reject")
    assert control_api.admit(vetoed).policy_ids == ("!vetoed",)
    late = filed(another(4), number=4)
    assert control_api.admit(late, at=now + timedelta(minutes=10)).policy_ids == ("!expired",)


def test_g09_no_number_of_approvals_lifts_what_is_protected(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    """See also test_golden, which pins the list, and test_properties."""
    pause = filed(CancelRun(run_id=RUN))
    votes = tuple(
        Vote(
            proposal_id=pause.proposal.id,
            digest=pause.digest,
            voter=f"v{number}",
            role="admin,approver",
            decision="approve",
            reason="",
            at=now,
        )
        for number in range(9)
    )
    target = facts_of(pause, tier=0, state_type="RUNNING", env="prod")
    assert gate.judge(pause, target, replace(INJECT, votes=votes), now).policy_ids == ("tier0-never-paused",)


def test_g10_a_target_that_moved_on_is_left_alone(control_api: ProposalApi, filed: Make) -> None:
    proposal = filed(expected_state_id="s1")
    control_api.ledger.file(proposal)
    control_api.vote(proposal, ANN)
    assert control_api.admit(proposal, env="prod", state_id="s2").policy_ids == ("!stale-target",)


def test_g11_a_killed_process_leaves_one_claim_to_take_up(
    ledger: SqlLedger, ledger_url: str, filed: Make, now: datetime
) -> None:
    """With a real SIGKILL. On a real Prefect server, for each kind of lever: tests/flows/execution/test_crashes."""
    ledger.file(filed())
    test_crashes.killed_at("after claim", ledger_url, filed().proposal.id, now)
    assert ledger.claim("next", now, LEASE) is None
    entry = ledger.claim("next", now + LEASE, LEASE)
    assert entry is not None
    assert entry.attempts == 2
    assert ledger.record_delivery(entry.proposal_id, {}, "already", now) is True
    assert ledger.record_delivery(entry.proposal_id, {}, "done", now) is False


def test_g12_fifty_concurrent_proposers_against_a_limit_give_exactly_the_limit(
    control_api: ProposalApi, bundle: Bundle, filed: Make, facts_of: Make, now: datetime, ledger_url: str
) -> None:
    """The deployment's budget, over two connections as two processes have; every other limit in test_limits."""
    other = SqlLedger(ledger_url)
    control_apis = (control_api, ProposalApi(other, control_api.gate, facts_of, now))
    limit = bundle.guardrails.max_actions_per_deployment_per_hour
    proposals = [filed(another(number), number=number) for number in range(50)]
    outcomes: list[Outcome] = []
    ready = threading.Barrier(50)

    def propose(number: int, mine: FiledProposal) -> None:
        ready.wait()
        outcomes.append(control_apis[number % 2].admit(mine).outcome)

    threads = [threading.Thread(target=propose, args=(n, one)) for n, one in enumerate(proposals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert (outcomes.count(Outcome.ALLOW), len(outcomes)) == (limit, 50)


def test_g13_one_person_stops_everything_and_two_start_it_again(
    control_api: ProposalApi, filed: Make, now: datetime
) -> None:
    waiting = [filed(another(number), number=number) for number in range(15)]
    for one in waiting:
        assert control_api.admit(one).outcome is Outcome.ALLOW
    assert control_api.gate.judge_command(ANN, "stop", mode=Mode.AUTO, now=now).outcome is Outcome.ALLOW
    control_api.ledger.stop("ann", "", now)
    assert control_api.ledger.claim("t", now, LEASE) is None
    assert control_api.admit(filed(another(99), number=99)).policy_ids == ("!stopped",)
    needed = control_api.gate.bundle.guardrails.resume_votes
    assert [control_api.ledger.resume_vote(who, needed, now) for who in ("ann", "ann", "bob")] == [
        False,
        False,
        True,
    ]
    assert control_api.ledger.claim("t", now, LEASE) is not None


def test_g14_broken_glass_is_named_scoped_short_loud_and_lifts_nothing_hard(
    control_api: ProposalApi, bundle: Bundle, filed: Make, facts_of: Make, now: datetime
) -> None:
    """See also test_limits."""
    grant = BreakGlassGrant(
        id="g-1",
        holder="adam",
        reason="outage",
        since=now,
        until=now + timedelta(minutes=5),
        kinds=("retry_run",),
        targets=("run:*",),
    )
    may = control_api.gate.judge_command(ADAM, "break_glass", mode=Mode.AUTO, now=now, grant=grant)
    assert control_api.ledger.break_glass(grant, may)
    first = filed(number=1)
    assert control_api.admit(first).outcome is Outcome.ALLOW
    assert control_api.admit(filed(number=2)).policy_ids == ("cooldown",)
    assert control_api.admit(filed(number=3, proposer=ADAM)).outcome is Outcome.ALLOW
    hard = frozenset({"pilotage:hands-off"})
    assert control_api.admit(filed(another(4), number=4, proposer=ADAM), tags=hard).policy_ids == (
        "hands-off",
    )
    later = now + timedelta(minutes=5)
    assert control_api.admit(filed(number=5, proposer=ADAM), at=later).outcome is Outcome.ALLOW
    assert control_api.admit(filed(number=6, proposer=ADAM), at=later).outcome is Outcome.DENY
    assert control_api.ledger.break_glass_reviews(later) == ["g-1"]
    assert {"glass_broken", "glass_review"} <= {step["step"] for step in control_api.ledger.entries(0, 99)}


def test_g15_a_bad_bundle_never_replaces_a_good_one_and_one_decision_has_one_bundle(
    gate: Gate, tmp_path: Path, filed: Make, facts_of: Make, now: datetime
) -> None:
    """See also test_default_deny."""
    good = gate.bundle
    where = copied(tmp_path, zz__cedar="permit (principal, action, resource);")
    with pytest.raises(ConfigError, match=r"zz\.cedar"):
        gate.reload(Bundle.load(where))
    assert gate.bundle is good
    forbid = '@id("zz") @reason("r") forbid (principal, action == Pilotage::Action::"retry_run", resource);'
    (where / "zz.cedar").write_text(forbid)
    other = Bundle.load(where)
    wanted = {good.hash: Outcome.ALLOW, other.hash: Outcome.DENY}
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            gate.reload(other)
            gate.reload(good)

    swapping, throttle = threading.Thread(target=swap), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # a swap may fall between any two steps of a decision
    swapping.start()
    try:
        verdicts = [gate.judge(filed(), facts_of(filed()), INJECT, now) for _ in range(300)]
    finally:
        sys.setswitchinterval(throttle)
        stop.set()
        swapping.join()
    assert all(verdict.outcome is wanted[verdict.bundle] for verdict in verdicts)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.SHADOW])
def test_g16_shadow_and_observe_admit_nothing(
    control_api: ProposalApi, filed: Make, facts_of: Make, now: datetime, mode: Mode
) -> None:
    proposal = filed()
    control_api.ledger.file(proposal)
    target = facts_of(proposal)
    verdict = control_api.ledger.admit(
        proposal.proposal.id, control_api.deciding(target, now), mode, now, target
    )
    assert "shadow-injects-nothing" in verdict.policy_ids
    assert control_api.ledger.claim("t", now, LEASE) is None


def test_g17_every_recorded_decision_comes_out_the_same_when_it_is_made_again(
    control_api: ProposalApi, filed: Make, now: datetime
) -> None:
    """See also tests/console/cli/test_policy."""
    contexts: list[dict[str, Any]] = [
        {},
        {"env": "prod"},
        {"tags": frozenset({"pilotage:hands-off"})},
        {"state_type": "COMPLETED"},
        {"env": "prod", "tier": 0},
    ]
    for number, world in enumerate(contexts, 1):
        control_api.admit(filed(another(number), number=number), **world)
    control_api.ledger.file(filed(another(9), number=9))
    control_api.vote(filed(another(9), number=9), ANN)
    control_api.admit(filed(another(9), number=9), env="prod")
    control_api.ledger.stop("ann", "", now)
    control_api.admit(filed(another(10), number=10))
    past = list(control_api.ledger.decisions())
    assert len(past) == len(contexts) + 2
    for one in past:
        again = made_again(control_api.gate, one)
        assert again is not None
        assert (again.outcome.value, again.policy_ids) == (one.outcome, one.policy_ids)
        assert one.bundle in ("", again.bundle)


def test_g18_a_changed_cut_or_rewritten_log_is_found(
    control_api: ProposalApi, filed: Make, now: datetime, tmp_path: Path
) -> None:
    """The tail is cut here; every other attack in test_checkpoints and test_audit."""
    signer, elsewhere = Ed25519Signer.kept_at(tmp_path / "key"), tmp_path / "elsewhere"
    for number in range(1, 6):
        control_api.ledger.file(filed(number=number))
    sign_checkpoint(control_api.ledger, signer, elsewhere, "test", now)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.executescript("DROP TRIGGER audit_no_DELETE; DELETE FROM audit WHERE seq > 3")
    connection.close()
    assert control_api.ledger.verify_audit().ok
    report = control_api.ledger.verify_audit(kept_in(elsewhere, verifier_for(elsewhere, "")))
    assert (report.ok, report.first_bad) == (False, 4)


def test_g19_every_answer_says_who_decided_why_and_what_would_change_it(
    control_api: ProposalApi, filed: Make
) -> None:
    asked = control_api.admit(filed(another(1), number=1), env="prod")
    denied = control_api.admit(filed(another(2), number=2), tags=frozenset({"pilotage:hands-off"}))
    nobody = Identity(name="x", kind="user", roles=frozenset())
    no_rule = control_api.admit(filed(another(3), number=3, proposer=nobody))
    for verdict in (asked, denied, no_rule):
        assert verdict.policy_ids
        assert verdict.reasons
        assert verdict.would_change
        assert verdict.bundle
    assert dict(asked.requirements) == {"approver": 1}
    assert denied.policy_ids != no_rule.policy_ids == ("!default-deny",)


def test_g20_what_an_agent_runs_can_reach_neither_prefect_nor_the_ledger_nor_the_engine() -> None:
    """That it runs without any key in its environment: tests/flows/controller/test_up."""
    probe = (
        "import sys, pilotage.flows.agent.process; "
        "print([name for name in sys.modules if name.startswith(('pilotage.flows.levers', "
        "'pilotage.flows.execution.injector', 'pilotage.flows.prefect.api', 'pilotage.policies.ledger.sql_')) "
        "or name in ('prefect', 'sqlalchemy', 'cedarpy')])"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_g21_people_are_asked_once_about_the_same_and_never_about_more_than_they_can_read(
    control_api: ProposalApi, bundle: Bundle, filed: Make, facts_of: Make, now: datetime
) -> None:
    def judge(number: int, action: Any) -> Verdict:
        one = filed(action, number=number)
        control_api.ledger.file(one)
        target = facts_of(one, env="prod")
        ledger_facts = control_api.ledger.facts(one, "judge", Mode.AUTO, now, target)
        verdict = control_api.gate.judge(one, target, ledger_facts, now)
        control_api.ledger.record_verdict(one.proposal.id, "judge", verdict, target, now, ledger_facts)
        return verdict

    assert judge(1, another(1)).outcome is Outcome.NEEDS_APPROVAL
    assert judge(2, another(1)).policy_ids == ("!asked-already",)
    flood = [judge(number, another(number)) for number in range(3, 253)]
    cap = bundle.guardrails.max_waiting
    assert sum(verdict.outcome is Outcome.NEEDS_APPROVAL for verdict in flood) == cap - 1
    assert flood[-1].policy_ids == ("!too-many-waiting",)
    assert control_api.ledger.counts()["needs_approval"] == cap
