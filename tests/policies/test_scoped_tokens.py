"""A token that was narrowed to some roles may what a person with just these roles may, whatever its person holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.policies.conftest import NOW, RUN, Make

from pilotage.planner.actions.types import CancelRun, RetryRun
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Command, Gate
from pilotage.policies.grants import BreakGlassGrant, Delegation
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.facts import person_behind
from pilotage.policies.ledger.rows import filed_from, proposal_row
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.refusals import refused
from pilotage.policies.roles import Role
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict, Vote

HOUR = timedelta(hours=1)
ANN = Identity(name="ann", kind="user", roles=frozenset({"approver"}), teams=frozenset({"data"}))
ZOE = "zoe"
ROLES = ("viewer", "operator", "approver", "admin")
SCOPES = [frozenset(chosen) for size in range(1, 5) for chosen in combinations(ROLES, size)]
LENIENT = {Outcome.DENY: 0, Outcome.NEEDS_APPROVAL: 1, Outcome.ALLOW: 2}
COMMANDS: Mapping[str, Callable[[Identity, FiledProposal], dict[str, Any]]] = {
    "stop": lambda who, of: {},
    "resume": lambda who, of: {},
    "publish_policy": lambda who, of: {},
    "undo": lambda who, of: {"filed": of},
    "set_mode": lambda who, of: {"to": Mode.AUTO},
    "set_autonomy": lambda who, of: {"to": "standard"},
    "break_glass": lambda who, of: {"grant": glass(who.name)},
    "delegate": lambda who, of: {"grant": lent(who.name, "bob")},
}


def lent(giver: str, taker: str) -> Delegation:
    return Delegation(
        giver=giver, taker=taker, reason="holiday", since=NOW, until=NOW + HOUR, teams=frozenset({"data"})
    )


def glass(holder: str) -> BreakGlassGrant:
    return BreakGlassGrant(
        id=f"g-{holder}",
        holder=holder,
        reason="fire",
        since=NOW,
        until=NOW + HOUR,
        kinds=("retry_run", "cancel_run"),
        targets=("*",),
    )


@pytest.fixture
def held(ledger: SqlLedger, gate: Gate) -> SqlLedger:
    """A ledger in which Zoe was lent a right to approve and broke the glass."""
    allowed = Verdict(outcome=Outcome.ALLOW)
    assert ledger.delegate(lent("ann", ZOE), allowed)
    assert ledger.break_glass(glass(ZOE), allowed)
    return ledger


@pytest.fixture
def token_of(tmp_path: Path) -> Callable[[frozenset[str]], Identity]:
    """Whom a token of Zoe, who is everything, proves when it is narrowed to these roles."""
    book = IdentityBook(tmp_path / "users.toml", clock=lambda: NOW)
    book.add(ZOE, ROLES)

    def narrowed(scope: frozenset[str]) -> Identity:
        token = book.add_token(ZOE, f"t{len(scope)}{'-'.join(sorted(scope))}", scope, NOW + HOUR)
        known = book.authenticate(token)
        assert known is not None
        return known

    return narrowed


def plain(scope: frozenset[str]) -> Identity:
    """Somebody who has these roles and holds nothing."""
    return Identity(name="eve", kind="user", roles=scope)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: "+".join(sorted(scope)))
def test_no_scope_votes_commands_or_proposes_beyond_itself(
    held: SqlLedger,
    gate: Gate,
    filed: Make,
    facts_of: Make,
    token_of: Callable[[frozenset[str]], Identity],
    scope: frozenset[str],
) -> None:
    zoe, eve = token_of(scope), plain(scope)
    assert zoe.roles == scope
    proposal = filed(CancelRun(run_id=RUN))
    for answer in ("approve", "reject"):
        asked = []
        for who in (zoe, eve):
            voter, giver = held.acting(who, NOW)
            assert giver == ""
            asked.append(gate.judge_vote(voter, proposal, proposal.digest, answer, NOW).outcome)
        assert LENIENT[asked[0]] <= LENIENT[asked[1]], answer
    assert set(COMMANDS) == set(get_args(Command))
    for command, needed in COMMANDS.items():
        mine, theirs = (
            gate.judge_command(who, command, mode=Mode.APPROVE, now=NOW, **needed(who, proposal)).outcome  # type: ignore[arg-type]
            for who in (zoe, eve)
        )
        assert LENIENT[mine] <= LENIENT[theirs], command
    outcomes = {}
    for who in (zoe, eve):
        own = filed(RetryRun(run_id=RUN), proposer=who)
        target = facts_of(own, env="dev", run_count=99)
        facts = held.facts(own, "inject", Mode.AUTO, NOW, target)
        assert facts.break_glass == ""
        outcomes[who.name] = gate.judge(own, target, facts, NOW).outcome
    assert LENIENT[outcomes[ZOE]] <= LENIENT[outcomes["eve"]]


def test_the_person_themselves_uses_what_they_hold(held: SqlLedger, filed: Make, facts_of: Make) -> None:
    zoe = Identity(name=ZOE, kind="user", roles=frozenset({"operator"}))
    voter, giver = held.acting(zoe, NOW)
    assert (giver, Role.APPROVER in voter.roles) == ("ann", True)
    own = filed(RetryRun(run_id=RUN), proposer=zoe)
    assert held.facts(own, "inject", Mode.AUTO, NOW, facts_of(own)).break_glass == "g-zoe"


def test_a_narrowed_vote_on_a_lent_right_is_refused_and_counts_for_nothing(
    held: SqlLedger, gate: Gate, filed: Make, token_of: Callable[[frozenset[str]], Identity]
) -> None:
    held.file(filed())
    voter, giver = held.acting(token_of(frozenset({"viewer"})), NOW)
    may = gate.judge_vote(voter, filed(), filed().digest, "approve", NOW)
    cast = held.vote(filed().proposal.id, filed().digest, voter, "approve", "", may, NOW, delegated_by=giver)
    assert not isinstance(cast, Vote)


def test_an_agent_that_asks_for_a_narrowed_token_is_judged_for_its_scope(filed: Make) -> None:
    whole = Identity(name=ZOE, kind="user", roles=frozenset(ROLES))
    agent = Identity(
        name="agent-of-zoe", kind="agent", roles=frozenset({"agent"}), scope=frozenset({"operator"})
    )
    asked = filed(RetryRun(run_id=RUN), proposer=agent, on_behalf_of=ZOE)
    kept = filed_from(proposal_row(asked))
    assert kept == asked
    assert digest_of(kept.proposal, kept.proposer) == asked.digest
    behind = person_behind(kept, {ZOE: whole}.get)
    assert behind is not None
    assert behind.roles == {"operator"}


def test_narrowing_only_ever_takes_away() -> None:
    whole = Identity(name=ZOE, kind="user", roles=frozenset(ROLES))
    once = whole.narrowed(frozenset({"viewer", "operator"}))
    assert once.narrowed(frozenset(ROLES)) == once
    assert once.narrowed(frozenset({"operator", "admin"})).roles == {"operator"}
    assert whole.narrowed(None) == whole


def test_a_narrowed_token_does_not_break_the_glass(
    gate: Gate, token_of: Callable[[frozenset[str]], Identity]
) -> None:
    admin = token_of(frozenset({"admin"}))
    verdict = gate.judge_command(admin, "break_glass", mode=Mode.AUTO, now=NOW, grant=glass(ZOE))
    assert verdict.policy_ids == refused("!narrowed-token").policy_ids
