"""Limits hold under concurrency; breakers open, are tried and close; broken glass is short, narrow and loud."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from pilotage.planner.actions.types import CancelRun, NotifyOwner, RetryRun
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.grants import BreakGlassGrant
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts, Verdict

Make = Callable[..., Any]
RUN = "11111111-1111-4111-8111-111111111111"
PROPOSERS = 50


def run_number(number: int) -> str:
    return f"{number:08x}-1111-4111-8111-111111111111"


def of_fault(filed: FiledProposal, fingerprint: str) -> FiledProposal:
    return replace(filed, case=filed.case.model_copy(update={"fingerprint": fingerprint}))


@dataclass(frozen=True, kw_only=True)
class Limit:
    guardrails: dict[str, Any]
    same_run: bool = False
    same_deployment: bool = False
    fingerprint: str = ""
    granted: int
    policy: str


WIDE = {
    "cooldown": timedelta(0),
    "max_actions_per_hour": 1000,
    "max_actions_per_deployment_per_hour": 1000,
    "max_attempts_per_run": 1000,
    "max_targets_per_hour": 1000,
    "max_actions_per_fingerprint": 1000,
}
LIMITS = {
    "hourly": Limit(guardrails={"max_actions_per_hour": 13}, granted=13, policy="hourly-budget"),
    "deployment": Limit(
        guardrails={"max_actions_per_deployment_per_hour": 9},
        same_deployment=True,
        granted=9,
        policy="deployment-budget",
    ),
    "run": Limit(guardrails={"max_attempts_per_run": 4}, same_run=True, granted=4, policy="run-budget"),
    "blast radius": Limit(guardrails={"max_targets_per_hour": 11}, granted=11, policy="blast-radius"),
    "fingerprint": Limit(
        guardrails={"max_actions_per_fingerprint": 7},
        fingerprint="f",
        granted=7,
        policy="fingerprint-budget",
    ),
    "cooldown": Limit(
        guardrails={"cooldown": timedelta(seconds=5)}, same_run=True, granted=1, policy="cooldown"
    ),
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS.keys())
def test_fifty_concurrent_proposers_get_exactly_the_limit(
    ledger: SqlLedger, bundle: Bundle, filed: Make, facts_of: Make, now: datetime, limit: Limit
) -> None:
    numbers = bundle.guardrails.model_copy(update={**WIDE, **limit.guardrails})
    gate = Gate(replace(bundle, guardrails=numbers))
    proposals = [
        of_fault(
            filed(
                RetryRun(run_id=RUN if limit.same_run else run_number(number)),
                number=number,
                proposer=Identity(name=f"planner-{number}", kind="agent", roles=frozenset({"agent"})),
            ),
            limit.fingerprint,
        )
        for number in range(PROPOSERS)
    ]
    for proposal in proposals:
        ledger.file(proposal)
    granted: list[str] = []
    refused: list[Verdict] = []
    ready = threading.Barrier(PROPOSERS)

    def facts(number: int, of: FiledProposal) -> TargetFacts:
        deployment = "d" if limit.same_deployment else f"d{number}"
        found: TargetFacts = facts_of(of, deployment_id=deployment)
        return found

    def propose(number: int, mine: FiledProposal) -> None:
        target = facts(number, mine)

        def decide(stored: FiledProposal, ledger_facts: LedgerFacts) -> Verdict:
            return gate.judge(stored, target, ledger_facts, now)

        ready.wait()
        verdict = ledger.admit(mine.proposal.id, decide, Mode.AUTO, now, target)
        if verdict.outcome is Outcome.ALLOW:
            granted.append(mine.proposal.id)
        else:
            refused.append(verdict)

    threads = [threading.Thread(target=propose, args=(number, mine)) for number, mine in enumerate(proposals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == limit.granted
    assert len(refused) == PROPOSERS - limit.granted
    assert all(limit.policy in verdict.policy_ids for verdict in refused)
    assert ledger.counts()["admitted"] == limit.granted
    assert ledger.verify_audit().ok


@pytest.fixture
def prefect_probe(
    ledger: SqlLedger, bundle: Bundle, filed: Make, facts_of: Make, now: datetime
) -> PrefectProbe:
    numbers = bundle.guardrails.model_copy(update={**WIDE})
    return PrefectProbe(ledger, Gate(replace(bundle, guardrails=numbers)), filed, facts_of, now)


class PrefectProbe:
    """Admits, delivers and verifies changes one after another."""

    def __init__(self, ledger: SqlLedger, gate: Gate, filed: Make, facts_of: Make, now: datetime) -> None:
        self.ledger = ledger
        self.gate = gate
        self._filed, self._facts_of, self._now, self._number = filed, facts_of, now, 0

    def admit(
        self,
        minute: float,
        *,
        fingerprint: str = "",
        deployment: str = "d",
        proposer: Identity | None = None,
        action: Any = None,
        incident: int = 0,
        **facts: Any,
    ) -> tuple[str, Verdict]:
        self._number += 1
        at = self._now + timedelta(minutes=minute)
        fields = {"proposer": proposer} if proposer else {}
        wanted = of_fault(
            self._filed(
                action or RetryRun(run_id=run_number(self._number)),
                number=self._number,
                filed_at=at,
                expires_at=at + timedelta(minutes=5),
                incident_id=f"i-{incident:012x}",
                **fields,
            ),
            fingerprint,
        )
        self.ledger.file(wanted)
        target = self._facts_of(wanted, read_at=at, deployment_id=deployment, **facts)
        verdict = self.ledger.admit(
            wanted.proposal.id,
            lambda stored, ledger_facts: self.gate.judge(stored, target, ledger_facts, at),
            Mode.AUTO,
            at,
            target,
        )
        return wanted.proposal.id, verdict

    def end(self, proposal_id: str, judgement: Literal["verified", "failed"], minute: float) -> None:
        at = self._now + timedelta(minutes=minute)
        self.ledger.claim_of(proposal_id, "t", at, timedelta(seconds=30))
        self.ledger.record_delivery(proposal_id, {}, "done", at)
        assert self.ledger.record_outcome(proposal_id, judgement, "", "", at)

    def failing(self, times: int, **given: Any) -> None:
        """Admits and fails, each on its own kind of trust: demotion is another test's matter."""
        for _ in range(times):
            proposal_id, verdict = self.admit(0, proposer=OLGA, **given)
            assert verdict.outcome is Outcome.ALLOW, verdict
            self.end(proposal_id, "failed", 1)


OLGA = Identity(name="olga", kind="user", roles=frozenset({"operator"}))
ADAM = Identity(name="adam", kind="user", roles=frozenset({"admin"}))


def test_the_loop_breaker_stops_the_third_vain_try_and_tells(prefect_probe: PrefectProbe) -> None:
    for deployment in ("a", "b", "c"):
        prefect_probe.failing(1, fingerprint="f", deployment=deployment)
    _, again = prefect_probe.admit(2, fingerprint="f", deployment="e", proposer=OLGA, incident=7)
    assert again.policy_ids == ("loop-breaker",)
    prefect_probe.admit(2, fingerprint="f", deployment="e", proposer=OLGA, incident=7)
    told = [step for step in prefect_probe.ledger.entries(0, 1000) if step["step"] == "gave_up"]
    assert [step["incident_id"] for step in told] == [f"i-{7:012x}"]
    assert (
        prefect_probe.admit(2, fingerprint="other", deployment="e", proposer=OLGA)[1].outcome is Outcome.ALLOW
    )
    assert prefect_probe.admit(2, deployment="e", proposer=OLGA)[1].outcome is Outcome.ALLOW
    tomorrow = 24 * 60 + 2
    assert (
        prefect_probe.admit(tomorrow, fingerprint="f", deployment="e", proposer=OLGA)[1].outcome
        is Outcome.ALLOW
    )


def test_a_change_that_helps_restarts_the_loop_breaker(prefect_probe: PrefectProbe) -> None:
    prefect_probe.failing(2, fingerprint="f", deployment="a")
    helped, _ = prefect_probe.admit(2, fingerprint="f", deployment="b", proposer=OLGA)
    prefect_probe.end(helped, "verified", 3)
    in_vain, _ = prefect_probe.admit(4, fingerprint="f", deployment="c", proposer=OLGA)
    prefect_probe.end(in_vain, "failed", 5)
    assert prefect_probe.admit(6, fingerprint="f", deployment="e", proposer=OLGA)[1].outcome is Outcome.ALLOW


def test_the_circuit_opens_is_tried_one_at_a_time_and_closes(prefect_probe: PrefectProbe) -> None:
    prefect_probe.failing(4)
    assert prefect_probe.admit(2, proposer=OLGA)[1].policy_ids == ("circuit-open",)
    assert prefect_probe.admit(2, proposer=OLGA, deployment="other")[1].outcome is Outcome.ALLOW
    assert prefect_probe.admit(15.9, proposer=OLGA)[1].policy_ids == ("circuit-open",)
    probe, verdict = prefect_probe.admit(16.1, proposer=OLGA)
    assert verdict.outcome is Outcome.ALLOW
    assert prefect_probe.admit(16.2, proposer=OLGA)[1].policy_ids == ("circuit-half-open",)
    prefect_probe.end(probe, "verified", 17)
    first, verdict = prefect_probe.admit(18, proposer=OLGA)
    assert verdict.outcome is Outcome.ALLOW
    assert prefect_probe.admit(18, proposer=OLGA)[1].outcome is Outcome.ALLOW
    prefect_probe.end(first, "failed", 19)
    assert prefect_probe.admit(20, proposer=OLGA)[1].policy_ids == ("circuit-open",)


def test_a_probe_that_fails_opens_the_circuit_again(prefect_probe: PrefectProbe) -> None:
    prefect_probe.failing(4)
    probe, _ = prefect_probe.admit(17, proposer=OLGA)
    prefect_probe.end(probe, "failed", 18)
    assert prefect_probe.admit(32, proposer=OLGA)[1].policy_ids == ("circuit-open",)
    assert prefect_probe.admit(33.1, proposer=OLGA)[1].outcome is Outcome.ALLOW


def test_bad_outcomes_are_forgotten_after_the_hour(prefect_probe: PrefectProbe) -> None:
    prefect_probe.failing(4)
    assert prefect_probe.admit(61.1, proposer=OLGA)[1].outcome is Outcome.ALLOW
    assert prefect_probe.admit(61.2, proposer=OLGA)[1].outcome is Outcome.ALLOW


def test_an_open_circuit_lets_the_owner_be_told(prefect_probe: PrefectProbe) -> None:
    prefect_probe.failing(4)
    assert prefect_probe.admit(2, action=NotifyOwner(run_id=RUN))[1].outcome is Outcome.ALLOW


def break_glass_grants(now: datetime, **fields: Any) -> BreakGlassGrant:
    given: dict[str, Any] = {
        "id": "g-1",
        "holder": "adam",
        "reason": "the warehouse is on fire",
        "since": now,
        "until": now + timedelta(minutes=30),
        "kinds": ("retry_run", "cancel_run"),
        "targets": ("etl/*",),
        **fields,
    }
    return BreakGlassGrant(**given)


def broken(prefect_probe: PrefectProbe, grant: BreakGlassGrant, by: Identity = ADAM) -> bool:
    verdict = prefect_probe.gate.judge_command(
        by, "break_glass", mode=Mode.AUTO, now=grant.since, grant=grant
    )
    return prefect_probe.ledger.break_glass(grant, verdict)


SCOPES = {
    "its holder, kind and target": ({}, Outcome.ALLOW),
    "another person": ({"proposer": OLGA}, Outcome.DENY),
    "another admin": (
        {"proposer": Identity(name="eve", kind="user", roles=frozenset({"admin"}))},
        Outcome.DENY,
    ),
    "another deployment": ({"deployment_name": "pay/out"}, Outcome.DENY),
    "after it ran out": ({"minute": 5}, Outcome.DENY),
    "a person's name on an agent": (
        {"proposer": Identity(name="adam", kind="agent", roles=frozenset({"agent"}))},
        Outcome.DENY,
    ),
    "hands off": ({"tags": frozenset({"pilotage:hands-off"})}, Outcome.DENY),
    "tier 0 cancelled": (
        {"action": CancelRun(run_id=RUN), "state_type": "RUNNING", "tier": 0},
        Outcome.DENY,
    ),
    "production": ({"env": "prod"}, Outcome.NEEDS_APPROVAL),
}


@pytest.mark.parametrize(("given", "outcome"), SCOPES.values(), ids=SCOPES.keys())
def test_broken_glass_lifts_limits_for_its_holder_kind_target_and_time_only(
    prefect_probe: PrefectProbe, now: datetime, given: dict[str, Any], outcome: Outcome
) -> None:
    prefect_probe.failing(4)
    assert broken(
        prefect_probe, break_glass_grants(now + timedelta(minutes=1), until=now + timedelta(minutes=5))
    )
    fields = {"minute": 2, "proposer": ADAM, "deployment_name": "etl/nightly", **given}
    assert prefect_probe.admit(fields.pop("minute"), **fields)[1].outcome is outcome


def test_broken_glass_is_loud_ends_early_or_by_itself_and_is_reviewed_once(
    prefect_probe: PrefectProbe, now: datetime
) -> None:
    assert broken(prefect_probe, break_glass_grants(now))
    assert broken(prefect_probe, break_glass_grants(now, id="g-2"))
    assert prefect_probe.ledger.revoke_break_glass("g-1", "eve", now) is True
    assert prefect_probe.ledger.revoke_break_glass("g-1", "eve", now) is False
    assert prefect_probe.ledger.break_glass_reviews(now + timedelta(minutes=29)) == []
    assert prefect_probe.ledger.break_glass_reviews(now + timedelta(minutes=30)) == ["g-2"]
    assert prefect_probe.ledger.break_glass_reviews(now + timedelta(minutes=31)) == []
    steps = [step["step"] for step in prefect_probe.ledger.entries(0, 100)]
    assert steps == ["glass_broken", "glass_broken", "glass_mended", "glass_review"]


@pytest.mark.parametrize(
    ("by", "fields"),
    [
        (OLGA, {}),
        (ADAM, {"reason": ""}),
        (ADAM, {"until": None}),
        (ADAM, {"kinds": ()}),
        (ADAM, {"targets": ()}),
    ],
    ids=["not an admin", "no reason", "too long", "no kind", "no target"],
)
def test_glass_that_may_not_be_broken_stays_whole_and_the_try_is_a_row(
    prefect_probe: PrefectProbe, now: datetime, by: Identity, fields: dict[str, Any]
) -> None:
    given = {**fields, **({"until": now + timedelta(hours=2)} if "until" in fields else {})}
    assert broken(prefect_probe, break_glass_grants(now, **given), by) is False
    assert [step["step"] for step in prefect_probe.ledger.entries(0, 9)] == ["glass_refused"]


def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path: Path, filed: Make) -> None:
    import sqlite3

    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    old = SqlLedger(url)
    old.file(filed())
    old.close()
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    connection.executescript(
        "ALTER TABLE votes DROP COLUMN teams; ALTER TABLE votes DROP COLUMN delegated_by; "
        "ALTER TABLE outbox DROP COLUMN fingerprint; DROP TABLE grants; DROP TABLE autonomy; "
        "ALTER TABLE proposals DROP COLUMN replaces; ALTER TABLE proposals DROP COLUMN replaced_by; "
        "UPDATE switches SET value = '1' WHERE name = 'schema'"
    )
    connection.close()
    again = SqlLedger(url)
    try:
        ledger_facts = again.facts(filed(), "judge", Mode.AUTO, filed().filed_at)
        assert (ledger_facts.votes, ledger_facts.autonomy, ledger_facts.break_glass) == ((), "standard", "")
        assert again.filed(filed().proposal.id) == filed()
        assert again.amend(filed().proposal.id, filed(number=2)) is None
        assert again.status(filed().proposal.id) == "replaced"
    finally:
        again.close()
    SqlLedger(url).close()
