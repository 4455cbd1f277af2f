"""A row that cannot be read, a lever that is gone, a fault of ours: set aside and told, and everything else goes on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.flows.execution.test_injector import LeverBench, retry

from pilotage.flows.controller.controller import judge_deferred
from pilotage.flows.execution.defects import TRIES, defect
from pilotage.flows.execution.injector import Injector
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.flows.execution.receipts import Check, Delivery, Judgement
from pilotage.planner.actions.types import Action

KEPT = Check(judgement=Judgement.VERIFIED, detail="it completed", final_state="Completed")
DEEP = "[" * 100_000 + "]" * 100_000


class Bench(LeverBench):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def spoil(self, sql: str, *values: object) -> None:
        """What another version, or somebody with an editor, did to the file."""
        with sqlite3.connect(self.path) as file:
            assert file.execute(sql, values).rowcount == 1
        file.close()

    def admitted(self) -> str:
        proposal_id = self.judged(retry())
        asyncio.run(self.injector.admit(proposal_id))
        return proposal_id

    def last(self, proposal_id: str) -> dict[str, Any]:
        return [step for step in self.ledger.story(proposal_id) if step["step"] == "failed"][-1]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "ledger.sqlite")
    yield bench
    bench.ledger.close()


@pytest.mark.parametrize("text", ["{}", "not JSON", DEEP, '{"kind": "of a later version"}'],
                         ids=["empty", "no JSON", "nested a hundred thousand deep", "another shape"])  # fmt: skip
def test_an_admitted_proposal_that_is_no_proposal_any_more_is_told_and_the_next_is_delivered(
    bench: Bench, text: str
) -> None:
    spoilt = bench.admitted()
    bench.later(1)
    good = bench.admitted()
    bench.spoil("UPDATE proposals SET proposal = ? WHERE id = ?", text, spoilt)
    assert asyncio.run(bench.injector.deliver())
    assert (bench.ledger.status(spoilt), bench.ledger.status(good)) == ("failed", "delivered")
    assert "cannot be read" in bench.last(spoilt)["detail"]["why"]
    assert asyncio.run(bench.injector.deliver()) is False, "it is told once"
    assert {row["proposal_id"] for row in bench.ledger.proposals()} == {spoilt, good}, "lists go on"
    assert bench.ledger.verify_audit().ok


def test_one_that_waits_to_be_judged_admitted_or_to_expire_holds_up_no_other(
    bench: Bench, tmp_path: Path
) -> None:
    bench.facts.unknown = True
    held, good = bench.judged(retry()), bench.judged(retry())
    bench.spoil("UPDATE proposals SET proposal = '{}' WHERE id = ?", held)
    bench.facts.unknown = False
    switch = KillSwitch(tmp_path / "stop", bench.ledger, resume_votes=lambda: 2)
    asyncio.run(judge_deferred(bench.injector, bench.ledger, switch, now=bench.now))
    assert (bench.ledger.status(held), bench.ledger.status(good)) == ("failed", "allowed")
    bench.spoil("UPDATE proposals SET case_file = 'x' WHERE id = ?", good)
    verdict = asyncio.run(bench.injector.admit(good))
    assert verdict is not None
    assert verdict.policy_ids == ("!tampered",)
    assert bench.ledger.status(good) == "failed"
    stale = bench.judged(retry())
    bench.spoil("UPDATE proposals SET proposal = 'x' WHERE id = ?", stale)
    assert bench.ledger.expire(bench.now + timedelta(hours=2)) == [stale]


@pytest.mark.parametrize(
    "receipt", ["{}", '{"action": {"kind": "of an older version"}}'], ids=["empty", "another shape"]
)
def test_a_receipt_of_another_version_is_set_aside_and_others_are_verified(
    bench: Bench, receipt: str
) -> None:
    spoilt = bench.delivered(retry())
    good = bench.delivered(retry())
    bench.spoil("UPDATE receipts SET receipt = ? WHERE proposal_id = ?", receipt, spoilt)
    bench.lever.check = KEPT
    assert asyncio.run(bench.injector.verify()) == 1
    assert bench.ledger.status(good) == "verified"
    (said,) = bench.injector.defects.rows()
    assert said.startswith(spoilt)
    assert "install the version" in said
    assert asyncio.run(bench.injector.verify()) == 0
    back = asyncio.run(bench.injector.undo(spoilt, by="ann", why="x"))
    assert "its receipt is none" in back.reason, "a person who asks is told"


def test_a_receipt_that_is_no_json_is_ended_and_told(bench: Bench) -> None:
    spoilt, good = bench.delivered(retry()), bench.delivered(retry())
    bench.spoil("UPDATE receipts SET receipt = ? WHERE proposal_id = ?", DEEP, spoilt)
    bench.lever.check = KEPT
    assert asyncio.run(bench.injector.verify()) == 1
    assert (bench.ledger.status(spoilt), bench.ledger.status(good)) == ("failed", "verified")
    assert "cannot be read" in bench.last(spoilt)["detail"]["why"]


def test_a_lever_that_is_gone_is_told_and_verified_when_it_is_back(bench: Bench) -> None:
    proposal_id = bench.delivered(retry())
    levers = bench.injector._levers
    bench.injector._levers = {}
    assert asyncio.run(bench.injector.verify()) == 0
    assert "there is no lever for retry_run" in bench.injector.defects.rows()[0]
    bench.injector._levers = levers
    bench.lever.check = KEPT
    assert asyncio.run(bench.injector.verify()) == 0, "it is looked at again in an hour"
    bench.later(3601)
    assert asyncio.run(bench.injector.verify()) == 1
    assert bench.ledger.status(proposal_id) == "verified"
    assert bench.injector.defects.rows() == []


class Faulty:
    """A lever with a fault of its own."""

    kind, window, undoable, writes = "retry_run", timedelta(minutes=1), "never", ()

    async def execute(
        self, action: Action, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        raise ZeroDivisionError("of ours")

    async def verify(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Check:
        raise ZeroDivisionError("of ours")

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        raise ZeroDivisionError("of ours")


def again(bench: Bench) -> Injector:
    """The injector of a process that was started anew on the same ledger."""
    fresh = Bench.__new__(Bench)
    fresh.__dict__.update(bench.__dict__)
    LeverBench.__init__(fresh, bench.path)
    fresh.ledger.close()
    fresh.injector._ledger = bench.ledger
    fresh.injector._clock = lambda: bench.now
    fresh.injector._levers = {"retry_run": Faulty()}
    return fresh.injector


def test_an_unknown_exception_is_tried_a_few_times_also_over_restarts_then_given_up_and_told(
    bench: Bench,
) -> None:
    proposal_id = bench.admitted()
    for number in range(1, TRIES + 1):
        assert bench.ledger.status(proposal_id) == "admitted"
        assert asyncio.run(again(bench).deliver())
        assert (
            f"ZeroDivisionError: of ours (defect, try {number} of {TRIES})"
            in bench.last(proposal_id)["detail"]["why"]
        )
        bench.later(60)
    assert bench.ledger.status(proposal_id) == "failed"
    assert bench.last(proposal_id)["detail"]["transient"] is False
    assert asyncio.run(again(bench).deliver()) is False


def test_an_outage_before_a_defect_uses_up_none_of_its_tries() -> None:
    assert defect(KeyError("x"), "Asking Prefect: no answer (503)") == (
        "KeyError: 'x' (defect, try 1 of 3)",
        True,
    )
    said, once_more = defect(KeyError("x"), "KeyError: 'x' (defect, try 2 of 3)")
    assert (said, once_more) == ("KeyError: 'x' (defect, try 3 of 3)", False)


def test_a_fault_in_verifying_holds_up_no_other_and_is_not_logged_for_ever(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.delivered(retry())
    faulty = again(bench)
    for _ in range(TRIES + 5):
        assert asyncio.run(faulty.verify()) == 0
        bench.later(1)
    assert len([each for each in caplog.records if "of ours" in each.getMessage()]) == TRIES
    assert len(faulty.defects.rows()) == 1


def test_a_clock_that_was_set_back_by_a_day_holds_up_no_delivery(bench: Bench) -> None:
    proposal_id = bench.admitted()
    assert bench.ledger.claim("a process that died", bench.now, timedelta(seconds=30)) is not None
    bench.later(24 * 3600)
    assert bench.ledger.claim("another that died", bench.now, timedelta(seconds=30)) is not None
    bench.later(-24 * 3600)
    assert asyncio.run(bench.injector.deliver())
    assert bench.ledger.status(proposal_id) == "delivered"
