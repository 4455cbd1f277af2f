"""What the tests of this package share: proposals, facts and people, as small functions of their differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotage.planner.actions.types import Action, RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, TargetFacts

NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
RUN = "11111111-1111-4111-8111-111111111111"
DEPLOYMENT = "22222222-2222-4222-8222-222222222222"
PILOT = Identity(name="pilot", kind="agent", roles=frozenset({"agent"}))

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.load()


@pytest.fixture
def gate(bundle: Bundle) -> Gate:
    return Gate(bundle)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def pilot() -> Identity:
    return PILOT


@pytest.fixture
def person() -> Callable[..., Identity]:
    """Makes a user: person("ann", "approver", "admin")."""

    def make(name: str, *roles: str) -> Identity:
        return Identity(name=name, kind="user", roles=frozenset(roles))

    return make


@pytest.fixture
def filed() -> Make:
    """Makes a filed proposal: filed(action, number=1, proposer=…, and any field of Proposal)."""

    def make(
        action: Action | None = None,
        *,
        number: int = 1,
        proposer: Identity = PILOT,
        filed_at: datetime = NOW,
        **fields: Any,
    ) -> FiledProposal:
        wanted = RetryRun(run_id=RUN) if action is None else action
        proposal = Proposal(
            **{
                "id": f"p-{number:012x}",
                "incident_id": "i-0000000000aa",
                "action": wanted,
                "expires_at": NOW + timedelta(minutes=10),
                **fields,
            }
        )
        return FiledProposal(
            proposal=proposal,
            case=CaseFile(subject=target_of(wanted), failure_class="transient"),
            proposer=proposer,
            digest=digest_of(proposal, proposer),
            filed_at=filed_at,
        )

    return make


@pytest.fixture
def facts_of() -> Make:
    """Makes fresh facts about a proposal's target: a failed run of a dev deployment unless said otherwise."""

    def make(of: FiledProposal, **fields: Any) -> TargetFacts:
        return TargetFacts(
            **{
                "target": target_of(of.proposal.action),
                "read_at": NOW,
                "state_type": "FAILED",
                "state_name": "Failed",
                "deployment_id": DEPLOYMENT,
                "env": "dev",
                "memory_mb": 256,
                **fields,
            }
        )

    return make


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[SqlLedger]:
    opened = SqlLedger(ledger_url)
    yield opened
    opened.close()
