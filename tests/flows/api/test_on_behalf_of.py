"""What a conversation hands in is filed by an agent on behalf of its person, and imagining files nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from pilotage.flows.api.client import DeskRefusal
from pilotage.flows.api.proposals import Operations
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
PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))


def now() -> datetime:
    return datetime.now(UTC)


class Production:
    """Every run failed in production a moment ago."""

    async def target(self, action: Action) -> TargetFacts:
        return TargetFacts(
            target=target_of(action), read_at=now(), state_type="FAILED", state_name="Failed", env="prod"
        )


@dataclass
class Rig:
    ledger: SqlLedger
    operations: Operations
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
def rig(tmp_path: Path) -> Iterator[Rig]:
    people = {one.name: one for one in (ANN, BOB, VIC)}
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'l.db'}", standing=people.get)
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
    operations = Operations(
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
    yield Rig(ledger, operations, people)
    ledger.close()


def test_the_agent_proposes_for_the_caller_whatever_name_was_sent(rig: Rig) -> None:
    row = rig.file(ANN, through="agent", on_behalf_of="bob")
    stored = rig.ledger.filed("p-0123456789ab")
    assert stored is not None
    assert (stored.proposer.name, stored.proposer.kind) == ("agent-of-ann", "agent")
    assert stored.proposal.on_behalf_of == "ann"
    assert row["verdict"]["outcome"] == "needs_approval"


def test_the_person_behind_it_does_not_approve_it_and_another_does(rig: Rig) -> None:
    row = rig.file(ANN, through="agent")
    with pytest.raises(DeskRefusal, match="vot"):
        rig.do("vote", ANN, proposal_id=row["proposal_id"], digest=row["digest"], decision="approve")
    after = rig.do("vote", BOB, proposal_id=row["proposal_id"], digest=row["digest"], decision="approve")
    assert after["verdict"]["outcome"] == "allow"


def test_the_person_must_be_allowed_too(rig: Rig) -> None:
    assert rig.file(VIC, through="agent")["verdict"]["outcome"] == "deny"


def test_an_agent_that_names_a_person_gains_nothing(rig: Rig) -> None:
    assert rig.file(PLANNER, on_behalf_of="vic")["verdict"]["outcome"] == "deny"


def test_an_agent_has_no_agent(rig: Rig) -> None:
    for caller, through in ((PLANNER, "agent"), (ANN, "admin")):
        with pytest.raises(DeskRefusal, match="through"):
            rig.file(caller, through=through)
        with pytest.raises(DeskRefusal, match="through"):
            rig.do("offered", caller, through=through)


def test_what_is_offered_is_what_both_may_propose(rig: Rig) -> None:
    own, agents = set(rig.do("offered", ANN)), set(rig.do("offered", PLANNER))
    together = set(rig.do("offered", ANN, through="agent"))
    assert together == own & agents
    assert "retry_run" in together
    assert rig.do("offered", VIC, through="agent") == []


def test_considering_tells_the_verdict_and_records_nothing(rig: Rig) -> None:
    wanted = {"kind": "retry_run", "run_id": RUN}
    told = rig.do("consider", ANN, action=wanted, through="agent")
    assert (told["outcome"], told["kind"], told["target"]) == ("needs_approval", "retry_run", f"run:{RUN}")
    assert told["facts"]["env"] == "prod"
    assert told["requirements"]
    assert rig.do("consider", VIC, action=wanted)["outcome"] == "deny"
    assert rig.do("proposals", ANN) == []
    assert rig.ledger.entries(0, 10) == []
