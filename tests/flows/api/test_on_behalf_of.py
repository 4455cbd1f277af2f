"""What a conversation hands in is filed by an agent on behalf of its person, and imagining files nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.proposals import ProposalEndpoints
from pilotage.flows.execution.injector import Injector
from pilotage.planner.actions.types import Action, RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import Identity, Mode, TargetFacts

RUN = "11111111-1111-4111-8111-111111111111"
ANN = Identity(name="ann", kind="user", roles=frozenset({"operator", "approver"}))
BOB = Identity(name="bob", kind="user", roles=frozenset({"approver"}))
VIC = Identity(name="vic", kind="user", roles=frozenset({"viewer"}))
DEPLOYMENT = "22222222-2222-4222-8222-222222222222"
PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))


def now() -> datetime:
    return datetime.now(UTC)


class Production:
    """Every run failed in production a moment ago."""

    async def target(self, action: Action) -> TargetFacts:
        return TargetFacts(
            target=target_of(action),
            read_at=now(),
            state_type="FAILED",
            state_name="Failed",
            env="prod",
            deployment_id=DEPLOYMENT,
        )


@dataclass
class PlannerFixture:
    ledger: SqlLedger
    operations: ProposalEndpoints
    people: dict[str, Identity]

    def do(self, op: str, caller: Identity, **arguments: Any) -> Any:
        return asyncio.run(self.operations.table()[op].run(caller, **arguments))  # type: ignore[arg-type]

    def file(self, caller: Identity, through: str = "", **more: Any) -> Any:
        proposal = Proposal(
            id="p-0123456789ab",
            incident_id="i-0123456789ab",
            action=RetryRun(run_id=RUN),
            expires_at=now() + timedelta(hours=1),
            **more,
        )
        case = CaseFile(subject=f"run:{RUN}", failure_class="transient")
        return self.do(
            "file",
            caller,
            proposal=proposal.model_dump(mode="json"),
            case=case.model_dump(mode="json"),
            through=through,
        )


@pytest.fixture
def planner_fixture(tmp_path: Path) -> Iterator[PlannerFixture]:
    people = {one.name: one for one in (ANN, BOB, VIC)}
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'l.db'}", current_identity=people.get)
    gate = Gate(Bundle.load())

    async def drained(pool: str, queue: str) -> bool:
        return False

    injector = Injector(
        ledger=ledger,
        gate=gate,
        facts=Production(),
        levers={},
        mode=lambda: Mode.AUTO,
        stopped=lambda: "",
        clock=now,
        owner="test",
        drained=drained,
    )
    unused = cast("Any", None)  # neither the store nor the switch takes part
    operations = ProposalEndpoints(
        ledger=ledger,
        gate=gate,
        injector=injector,
        store=unused,
        kill_switch=unused,
        mode=lambda: Mode.AUTO,
        clock=now,
        health=dict,
        wake=lambda: None,
    )
    yield PlannerFixture(ledger, operations, people)
    ledger.close()


def test_the_agent_proposes_for_the_caller_whatever_name_was_sent(planner_fixture: PlannerFixture) -> None:
    row = planner_fixture.file(ANN, through="agent", on_behalf_of="bob")
    stored = planner_fixture.ledger.filed("p-0123456789ab")
    assert stored is not None
    assert (stored.proposer.name, stored.proposer.kind) == ("agent-of-ann", "agent")
    assert stored.proposal.on_behalf_of == "ann"
    assert row["verdict"]["outcome"] == "needs_approval"


def test_the_person_behind_it_does_not_approve_it_and_another_does(planner_fixture: PlannerFixture) -> None:
    row = planner_fixture.file(ANN, through="agent")
    with pytest.raises(ApiRejection, match="vot"):
        planner_fixture.do(
            "vote", ANN, proposal_id=row["proposal_id"], digest=row["digest"], decision="approve"
        )
    after = planner_fixture.do(
        "vote", BOB, proposal_id=row["proposal_id"], digest=row["digest"], decision="approve"
    )
    assert after["verdict"]["outcome"] == "allow"


def test_the_person_must_be_allowed_too(planner_fixture: PlannerFixture) -> None:
    assert planner_fixture.file(VIC, through="agent")["verdict"]["outcome"] == "deny"


def test_an_agent_that_names_a_person_gains_nothing(planner_fixture: PlannerFixture) -> None:
    assert planner_fixture.file(PLANNER, on_behalf_of="vic")["verdict"]["outcome"] == "deny"


def test_an_agent_has_no_agent(planner_fixture: PlannerFixture) -> None:
    for caller, through in ((PLANNER, "agent"), (ANN, "admin")):
        with pytest.raises(ApiRejection, match="through"):
            planner_fixture.file(caller, through=through)
        with pytest.raises(ApiRejection, match="through"):
            planner_fixture.do("offered", caller, through=through)


def test_what_is_offered_is_what_both_may_propose(planner_fixture: PlannerFixture) -> None:
    own, agents = set(planner_fixture.do("offered", ANN)), set(planner_fixture.do("offered", PLANNER))
    together = set(planner_fixture.do("offered", ANN, through="agent"))
    assert together == own & agents
    assert "retry_run" in together
    assert planner_fixture.do("offered", VIC, through="agent") == []


def test_considering_tells_the_verdict_and_records_nothing(planner_fixture: PlannerFixture) -> None:
    wanted = {"kind": "retry_run", "run_id": RUN}
    told = planner_fixture.do("consider", ANN, action=wanted, through="agent")
    assert (told["outcome"], told["kind"], told["target"]) == ("needs_approval", "retry_run", f"run:{RUN}")
    assert told["facts"]["env"] == "prod"
    assert told["requirements"]
    assert planner_fixture.do("consider", VIC, action=wanted)["outcome"] == "deny"
    assert planner_fixture.do("proposals", ANN) == []
    assert planner_fixture.ledger.entries(0, 10) == []
