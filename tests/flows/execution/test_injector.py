"""The injector with a real ledger and a real gate; only Prefect is played, by a lever and facts that we script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from pilotage.flows.controller.controller import judge_deferred
from pilotage.flows.execution.final_word import final_word
from pilotage.flows.execution.injector import Injector, InjectorLimits
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement, Receipt
from pilotage.flows.prefect.writes import Write
from pilotage.planner.actions.types import Action, NotifyOwner, ReserveSlot, RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts
from pilotage.telemetry.errors import OrchestratorError

PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
START = datetime(2026, 1, 5, 12, tzinfo=UTC)
RESERVE = ReserveSlot(pool="p", busy_queue="high", starved_queue="low", limit=1, hold=timedelta(seconds=60))


@dataclass
class ScriptedLever:
    """Does what the script says, and remembers how often it was asked."""

    kind: str = "any"
    window: timedelta = timedelta(minutes=1)
    undoable: str = "always"
    writes: tuple[Write, ...] = ()
    failures: list[OrchestratorError] = field(default_factory=list)
    check: Check = field(default_factory=lambda: Check(judgement=Judgement.PENDING, detail="not yet"))
    executed: int = 0
    undone: int = 0

    async def execute(
        self, action: Action, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        if self.failures:
            raise self.failures.pop(0)
        self.executed += 1
        return Delivery(effect=Effect.DONE)

    async def verify(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Check:
        return self.check

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        self.undone += 1
        return Delivery(effect=Effect.DONE)


@dataclass
class ScriptedFacts:
    """Says what the target is now, or that nobody knows."""

    clock: Callable[[], datetime]
    unknown: bool = False
    gone: bool = False

    async def target(self, action: Action) -> TargetFacts:
        if self.unknown:
            raise OrchestratorError("Asking Prefect: no answer. Start it.", transient=True)
        if self.gone:
            raise OrchestratorError("Asking Prefect: it was deleted.")
        return TargetFacts(
            target=target_of(action),
            read_at=self.clock(),
            state_type="FAILED",
            state_name="Failed",
            state_id="s-1",
            deployment_id="d-1",
            env="staging",
            tier=2,
            memory_mb=128,
        )


class LeverBench:
    """One injector and everything it touches."""

    def __init__(self, path: Path) -> None:
        self.now = START
        self.mode = Mode.AUTO
        self.stop = ""
        self.empty = False
        self.lever = ScriptedLever()
        self.facts = ScriptedFacts(clock=lambda: self.now)
        self.ledger = SqlLedger(f"sqlite:///{path}")

        async def drained(pool: str, queue: str) -> bool:
            return self.empty

        self.injector = Injector(
            ledger=self.ledger,
            gate=Gate(Bundle.load()),
            facts=self.facts,
            levers=dict.fromkeys(("retry_run", "reserve_slot", "notify_owner"), self.lever),
            mode=lambda: self.mode,
            stopped=lambda: self.stop,
            clock=lambda: self.now,
            owner="test",
            drained=drained,
            limits=InjectorLimits(lease=timedelta(seconds=5), max_attempts=3),
        )

    def filed(self, action: Action) -> str:
        number = uuid4().hex[:12]
        proposal = Proposal(
            id=f"p-{number}",
            incident_id=f"i-{number}",
            action=action,
            expires_at=self.now + timedelta(hours=1),
        )
        self.ledger.file(
            FiledProposal(
                proposal=proposal,
                case=CaseFile(subject="x", failure_class="transient"),
                proposer=PLANNER,
                digest=digest_of(proposal, PLANNER),
                filed_at=self.now,
            )
        )
        return proposal.id

    def judged(self, action: Action) -> str:
        proposal_id = self.filed(action)
        filed = self.ledger.filed(proposal_id)
        assert filed is not None
        asyncio.run(self.injector.judge(filed))
        return proposal_id

    def delivered(self, action: Action) -> str:
        proposal_id = self.judged(action)
        asyncio.run(self.injector.admit(proposal_id))
        assert asyncio.run(self.injector.deliver())
        return proposal_id

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LeverBench]:
    bench = LeverBench(tmp_path / "ledger.sqlite")
    yield bench
    bench.ledger.close()


def retry() -> RetryRun:
    return RetryRun(run_id=str(uuid4()))


def test_what_policy_allows_is_delivered_once_and_verified(bench: LeverBench) -> None:
    proposal_id = bench.delivered(retry())
    bench.lever.check = Check(judgement=Judgement.VERIFIED, detail="it completed", final_state="Completed")
    assert asyncio.run(bench.injector.verify()) == 1
    assert bench.ledger.status(proposal_id) == "verified"
    assert asyncio.run(bench.injector.deliver()) is False
    assert bench.lever.executed == 1


def look_at_deferred(bench: LeverBench, tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "stop", bench.ledger, resume_votes=lambda: 2)
    asyncio.run(judge_deferred(bench.injector, bench.ledger, switch, now=datetime.now(UTC)))


@pytest.mark.parametrize("silent", [True, False], ids=["Prefect is silent", "it was deleted"])
def test_without_facts_nothing_is_allowed_or_admitted(bench: LeverBench, silent: bool) -> None:
    bench.facts.unknown, bench.facts.gone = silent, not silent
    proposal_id = bench.judged(retry())
    status, refusal = ("held", "!unreachable") if silent else ("denied", "!missing-fact")
    assert bench.ledger.status(proposal_id) == status
    verdict = asyncio.run(bench.injector.admit(proposal_id))
    assert verdict is not None
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, (refusal,))
    assert bench.ledger.status(proposal_id) == status
    assert asyncio.run(bench.injector.deliver()) is False


@pytest.mark.parametrize("allowed_before", [False, True], ids=["judging", "admitting"])
def test_what_only_prefects_silence_denied_is_judged_again_when_it_answers(
    bench: LeverBench, tmp_path: Path, allowed_before: bool
) -> None:
    bench.facts.unknown = not allowed_before
    proposal_id = bench.judged(retry())
    bench.facts.unknown = True
    if allowed_before:
        verdict = asyncio.run(bench.injector.admit(proposal_id))
        assert verdict is not None
        assert verdict.outcome is Outcome.DENY
    assert bench.ledger.status(proposal_id) == "held"
    steps = len(bench.ledger.story(proposal_id))
    look_at_deferred(bench, tmp_path)
    look_at_deferred(bench, tmp_path)
    assert len(bench.ledger.story(proposal_id)) == steps  # a long silence is not told at every look
    bench.facts.unknown = False
    look_at_deferred(bench, tmp_path)
    assert bench.ledger.status(proposal_id) == "allowed"
    assert asyncio.run(bench.injector.admit(proposal_id)) is not None
    assert asyncio.run(bench.injector.deliver()) is True
    assert bench.lever.executed == 1


def test_what_a_process_filed_and_did_not_live_to_judge_is_judged(bench: LeverBench, tmp_path: Path) -> None:
    proposal_id = bench.filed(retry())
    assert bench.ledger.status(proposal_id) == "filed"
    look_at_deferred(bench, tmp_path)
    assert bench.ledger.status(proposal_id) == "allowed"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.SHADOW])
def test_in_observe_and_shadow_not_even_an_admitted_row_is_delivered(bench: LeverBench, mode: Mode) -> None:
    proposal_id = bench.judged(retry())
    asyncio.run(bench.injector.admit(proposal_id))
    bench.mode = mode
    assert asyncio.run(bench.injector.deliver()) is False
    assert bench.lever.executed == 0


def test_the_stop_file_holds_at_admitting_and_at_delivering(bench: LeverBench) -> None:
    first, second = bench.judged(retry()), bench.judged(retry())
    asyncio.run(bench.injector.admit(first))
    bench.stop = "pat: looking into it"
    assert asyncio.run(bench.injector.admit(second)) is None
    assert asyncio.run(bench.injector.deliver()) is False
    assert bench.lever.executed == 0


def test_a_passing_fault_is_tried_again_and_a_lasting_one_given_up(bench: LeverBench) -> None:
    bench.lever.failures = [OrchestratorError("busy", transient=True)]
    proposal_id = bench.delivered(retry())
    assert bench.ledger.status(proposal_id) == "admitted"
    bench.later(10)
    assert asyncio.run(bench.injector.deliver())
    assert bench.ledger.status(proposal_id) == "delivered"

    bench.lever.failures = [OrchestratorError("refused for good")]
    other = bench.delivered(retry())
    assert bench.ledger.status(other) == "failed"


def test_a_fault_that_never_passes_is_given_up_in_the_end(bench: LeverBench) -> None:
    bench.lever.failures = [OrchestratorError("busy", transient=True) for _ in range(10)]
    proposal_id = bench.delivered(retry())
    for _ in range(5):
        bench.later(60)
        asyncio.run(bench.injector.deliver())
    assert bench.ledger.status(proposal_id) == "failed"
    assert bench.lever.executed == 0


def test_a_slot_nobody_took_while_it_was_held_is_a_broken_promise_and_taken_back(bench: LeverBench) -> None:
    proposal_id = bench.delivered(RESERVE)
    bench.later(59)
    assert asyncio.run(bench.injector.verify()) == 0
    bench.later(1)
    assert asyncio.run(bench.injector.verify()) == 1
    assert bench.lever.undone == 1
    steps = [step["step"] for step in bench.ledger.story(proposal_id)]
    assert steps[-2:] == ["verified", "undone"]
    assert asyncio.run(bench.injector.undo_due()) == 0


def test_a_slot_is_given_back_as_soon_as_nothing_waits_for_it(bench: LeverBench) -> None:
    bench.delivered(RESERVE)
    bench.empty = True
    assert asyncio.run(bench.injector.undo_due()) == 0  # nobody has had it yet
    bench.lever.check = Check(judgement=Judgement.VERIFIED, detail="a run got it")
    asyncio.run(bench.injector.verify())
    assert asyncio.run(bench.injector.undo_due()) == 1
    assert bench.lever.undone == 1


def test_what_is_held_is_given_back_when_the_hold_runs_out(bench: LeverBench) -> None:
    bench.delivered(RESERVE)
    bench.lever.check = Check(judgement=Judgement.VERIFIED, detail="a run got it")
    asyncio.run(bench.injector.verify())
    bench.later(61)
    assert asyncio.run(bench.injector.undo_due()) == 1


def test_undoing_what_never_happened_is_refused(bench: LeverBench) -> None:
    back = asyncio.run(bench.injector.undo(bench.judged(retry()), by="pat", why="a test"))
    assert back.effect is Effect.REFUSED
    assert bench.lever.undone == 0


@pytest.mark.parametrize(
    ("after", "delay", "judgement"),
    [
        (30, 0, Judgement.PENDING),
        (61, 0, Judgement.FAILED),
        (61, 60, Judgement.PENDING),
        (121, 60, Judgement.FAILED),
    ],
    ids=["within", "too late", "it was asked to wait", "too late even so"],
)
def test_the_window_counts_from_when_the_action_was_to_happen(
    after: int, delay: int, judgement: Judgement
) -> None:
    receipt = Receipt(
        proposal_id="p-000000000000",
        idempotency_key="m",
        action=RetryRun(run_id=str(uuid4()), delay=timedelta(seconds=delay)),
        effect=Effect.DONE,
        before={},
        after={},
        delivered_at=START,
    )
    pending = Check(judgement=Judgement.PENDING, detail="not yet")
    assert (
        final_word(pending, receipt, timedelta(seconds=60), START + timedelta(seconds=after))[0] is judgement
    )


def test_telling_an_owner_is_a_delivery_like_any_other(bench: LeverBench) -> None:
    proposal_id = bench.delivered(NotifyOwner(run_id=str(uuid4())))
    assert bench.ledger.status(proposal_id) == "delivered"
