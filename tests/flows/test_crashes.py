"""The injecting process is killed at each step; started again, it leaves exactly one effect."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.states import Failed, Pending, Running
from tests.conftest import PrefectServer
from tests.flows.conftest import Floor

from pilotage.planner.actions import Action, CancelRun, RescheduleRun, RetryRun
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of, mark_of
from pilotage.policies.sql_ledger import SqlLedger
from pilotage.policies.verdicts import FiledProposal, Identity

pytestmark = pytest.mark.prefect

PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
DRIVER = Path(__file__).with_name("dying_injector.py")
STEPS = ("admitted", "claimed", "effect")


def filed(action: Action, number: int) -> FiledProposal:
    proposal = Proposal(
        id=f"p-{number:012x}",
        incident_id=f"i-{number:012x}",
        action=action,
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )
    return FiledProposal(
        proposal=proposal,
        case=CaseFile(subject="run", failure_class="transient"),
        proposer=PLANNER,
        digest=digest_of(proposal, PLANNER),
        filed_at=datetime.now(UTC),
    )


def drive(server: PrefectServer, ledger: Path, proposal_id: str, step: str) -> int:
    ran = subprocess.run(
        [sys.executable, str(DRIVER), str(ledger), proposal_id, step],
        env=server.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if step == "none":
        assert ran.returncode == 0, ran.stderr
    return ran.returncode


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=3)


def wanted(kind: str, floor: Floor) -> tuple[str, Action]:
    """A run in the right state, and the action on it."""
    run_id = floor.start("fetch-quotes/demo", at=later())
    match kind:
        case "retry_run":
            floor.move(run_id, Pending(), Running(), Failed(message="ConnectError: refused"))
            return run_id, RetryRun(run_id=run_id, delay=timedelta(hours=2))
        case "reschedule_run":
            return run_id, RescheduleRun(run_id=run_id, start=later() + timedelta(hours=1))
        case _:
            return run_id, CancelRun(run_id=run_id)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["retry_run", "reschedule_run"])
def test_killed_and_started_again_there_is_exactly_one_effect(
    kind: str, step: str, prefect_server: PrefectServer, floor: Floor, tmp_path: Path
) -> None:
    run_id, action = wanted(kind, floor)
    path = tmp_path / "ledger.sqlite"
    ledger = SqlLedger(f"sqlite:///{path}")
    proposal = filed(action, STEPS.index(step) + 1)
    ledger.file(proposal)
    mark = mark_of(proposal.digest)

    def effects() -> int:
        return sum(1 for state in floor.history(run_id) if str(state.state_details.transition_id) == mark)

    assert drive(prefect_server, path, proposal.proposal.id, step) == -signal.SIGKILL
    assert effects() == (1 if step == "effect" else 0)
    assert ledger.status(proposal.proposal.id) == "admitted"

    drive(prefect_server, path, proposal.proposal.id, "none")
    assert effects() == 1
    assert ledger.status(proposal.proposal.id) == "delivered"
    receipt = ledger.delivered(proposal.proposal.id)
    assert receipt is not None
    assert receipt.effect == ("already" if step == "effect" else "done")
    assert ledger.verify_audit().ok

    drive(prefect_server, path, proposal.proposal.id, "none")
    assert effects() == 1
    ledger.close()
