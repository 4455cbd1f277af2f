"""Deliveries side by side: bounded, one at a time for a target, fair between incidents, each under its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.flows.execution.test_injector import LeverBench, ScriptedLever

from pilotage.flows.execution.deliveries import Deliveries
from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.planner.actions.types import Action, RetryRun, target_of


class SlowLever(ScriptedLever):
    """Begins and does not end before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.let: dict[str, asyncio.Event] = {}
        self.quick: set[str] = set()

    async def execute(
        self, action: Action, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        target = target_of(action)
        self.begun.append(target)
        if target not in self.quick:
            await self.let.setdefault(target, asyncio.Event()).wait()
        return Delivery(effect=Effect.DONE)


class Bench(LeverBench):
    """The injector with a lever that waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.slow = SlowLever()
        self.injector._levers = dict.fromkeys(("retry_run", "notify_owner"), self.slow)
        self.woken = 0
        self.deliveries = Deliveries(self.injector, wake=self._wake, at_once=3)

    def _wake(self) -> None:
        self.woken += 1

    async def admitted(self, run_id: str = "") -> str:
        """The id of the run of a new admitted proposal to retry it."""
        action = RetryRun(run_id=run_id or str(uuid4()))
        proposal_id = await asyncio.to_thread(self.filed, action)
        filed = self.ledger.filed(proposal_id)
        assert filed is not None
        await self.injector.judge(filed)
        await self.injector.admit(proposal_id)
        self.later(1)
        return action.run_id

    async def begins(self, many: int) -> None:
        while len(self.slow.begun) < many:
            await asyncio.sleep(0.01)

    async def ends(self, many: int) -> None:
        """Returns when no more than so many are under way."""
        while self.deliveries.under_way > many:
            await asyncio.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "ledger.sqlite")
    yield bench
    bench.ledger.close()


def test_a_slow_delivery_holds_up_neither_another_nor_its_verification(bench: Bench) -> None:
    async def story() -> None:
        slow, quick = f"run:{await bench.admitted()}", f"run:{await bench.admitted()}"
        bench.slow.quick.add(quick)
        assert await bench.deliveries.start() == 2
        await bench.begins(2)
        await bench.ends(1)
        bench.slow.check = Check(judgement=Judgement.VERIFIED, detail="it completed", final_state="Completed")
        assert await bench.injector.verify() == 1, "while the slow one is under way"
        assert bench.deliveries.under_way == 1
        bench.slow.let[slow].set()
        await bench.ends(0)
        assert await bench.injector.verify() == 1
        assert bench.woken == 2, "the loop is woken by each end"

    asyncio.run(story())


def test_no_more_than_the_bound_are_under_way_and_the_next_follows(bench: Bench) -> None:
    async def story() -> None:
        runs = [f"run:{await bench.admitted()}" for _ in range(5)]
        assert await bench.deliveries.start() == 3
        await bench.begins(3)
        assert await bench.deliveries.start() == 0
        assert set(bench.slow.begun) == set(runs[:3]), "the oldest first"
        bench.slow.let[runs[1]].set()
        await bench.ends(2)
        assert await bench.deliveries.start() == 1
        await bench.begins(4)
        assert set(bench.slow.begun) == set(runs[:4])
        await bench.deliveries.end()

    asyncio.run(story())


def test_one_at_a_time_for_a_target_and_a_renewed_lease_keeps_it(bench: Bench) -> None:
    async def story() -> None:
        run_id = str(uuid4())
        for _ in range(2):
            await asyncio.to_thread(_let_in, bench, run_id)
        assert await bench.deliveries.start() == 1
        await bench.begins(1)
        for _ in range(5):  # the lease is five seconds
            bench.later(3)
            assert await bench.deliveries.start() == 0, "the target is busy, and its lease was renewed"
        assert bench.slow.begun == [f"run:{run_id}"]
        bench.slow.let[f"run:{run_id}"].set()
        await bench.ends(0)
        assert await bench.deliveries.start() == 1
        await bench.ends(0)
        assert bench.slow.begun == [f"run:{run_id}"] * 2

    asyncio.run(story())


def test_what_is_cut_off_at_the_end_is_delivered_again_when_its_lease_has_ended(bench: Bench) -> None:
    async def story() -> None:
        run = f"run:{await bench.admitted()}"
        await bench.deliveries.start()
        await bench.begins(1)
        await bench.deliveries.end()
        assert bench.deliveries.under_way == 0
        bench.slow.quick.add(run)
        assert await bench.deliveries.start() == 0
        bench.later(6)
        assert await bench.deliveries.start() == 1
        await bench.ends(0)
        assert bench.slow.begun == [run, run]

    asyncio.run(story())


def test_an_incident_that_has_nothing_under_way_goes_first(bench: Bench) -> None:
    async def story() -> None:
        crowd = [await asyncio.to_thread(_let_in, bench, str(uuid4()), "i-aaaaaaaaaaaa") for _ in range(4)]
        alone = await asyncio.to_thread(_let_in, bench, str(uuid4()), "i-bbbbbbbbbbbb")
        assert await bench.deliveries.start() == 3
        await bench.begins(3)
        assert set(bench.slow.begun) == {crowd[0], alone, crowd[1]}
        await bench.deliveries.end()

    asyncio.run(story())


def _let_in(bench: Bench, run_id: str, incident_id: str = "") -> str:
    """The target of a proposal that the ledger let in, whatever policy would say of a second one."""
    from tests.flows.execution.test_injector import PLANNER

    from pilotage.planner.proposals import CaseFile, Proposal
    from pilotage.policies.digests import digest_of
    from pilotage.policies.types import FiledProposal, Mode, Outcome, Verdict

    number = uuid4().hex[:12]
    action = RetryRun(run_id=run_id)
    proposal = Proposal(
        id=f"p-{number}", incident_id=incident_id or f"i-{number}", action=action,
        expires_at=bench.now + timedelta(hours=1),
    )  # fmt: skip
    case = CaseFile(subject="x", failure_class="transient")
    digest = digest_of(proposal, PLANNER)
    bench.ledger.file(
        FiledProposal(proposal=proposal, case=case, proposer=PLANNER, digest=digest, filed_at=bench.now)
    )
    verdict = Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))
    decide: Callable[..., Any] = lambda stored, facts: verdict  # noqa: E731
    bench.ledger.admit(proposal.id, decide, Mode.AUTO, bench.now)
    bench.later(0.001)
    return target_of(action)
