"""A process that is killed at any point leaves a ledger that says the truth, and the next one goes on from there."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotage.policies.digests import idempotency_key_of
from pilotage.policies.gate.gate import LedgerFacts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Mode, Outcome, Verdict

Make = Callable[..., Any]
LEASE = timedelta(seconds=30)
CHILD = Path(__file__).with_name("dying_injector.py")


def allow(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    return Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))


def killed_at(point: str, url: str, proposal_id: str, now: datetime) -> None:
    """Runs the child up to the point and kills it there; comes back when it is dead."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), point, url, proposal_id, now.isoformat()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "here\n"
        finally:
            child.kill()
        child.wait(timeout=60)
    assert child.returncode == -signal.SIGKILL


# point, status that the dead process left, steps on record, tries of the next claim
POINTS = {
    "in admit": ("filed", ["proposed"], None),
    "after admit": ("admitted", ["proposed", "admitted"], 1),
    "after claim": ("admitted", ["proposed", "admitted", "claimed"], 2),
    "in recording": ("admitted", ["proposed", "admitted", "claimed"], 2),
}


@pytest.mark.parametrize(("point", "left"), POINTS.items(), ids=POINTS.keys())
def test_a_kill_leaves_all_of_a_step_or_nothing_of_it(
    ledger: SqlLedger,
    ledger_url: str,
    filed: Make,
    now: datetime,
    point: str,
    left: tuple[str, list[str], int | None],
) -> None:
    proposal_id = filed().proposal.id
    ledger.file(filed())
    killed_at(point, ledger_url, proposal_id, now)
    status, steps, tries = left
    assert ledger.status(proposal_id) == status
    assert [step["step"] for step in ledger.story(proposal_id)] == ["found", *steps]
    assert ledger.verify_audit().ok
    later = now + LEASE
    if tries is None:
        assert ledger.claim("next", later, LEASE) is None
        assert ledger.admit(proposal_id, allow, Mode.AUTO, later).outcome is Outcome.ALLOW
    else:
        assert ledger.admit(proposal_id, allow, Mode.AUTO, later).policy_ids == ("!already-admitted",)
    entry = ledger.claim("next", later, LEASE)
    assert entry is not None
    assert (entry.proposal_id, entry.idempotency_key, entry.attempts) == (
        proposal_id,
        idempotency_key_of(filed().digest),
        tries or 1,
    )
    assert ledger.record_delivery(proposal_id, {}, "done", later) is True
    assert ledger.claim("next", later + LEASE, LEASE) is None
    assert ledger.verify_audit().ok
