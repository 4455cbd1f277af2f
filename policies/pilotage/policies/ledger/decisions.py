"""Recorded decisions read back from the ledger, first as plain rows, then as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json

from pilotage.policies.gate.recorded import RecordedDecision, ledger_facts_from, target_facts_from
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.rows import filed_from
from pilotage.policies.ledger.schema import outbox, outcomes, proposals, verdicts
from pilotage.policies.ledger_facts import Admitted

AT_ONCE = 1000
"""Rows that are fetched together."""

StoredDecision = Mapping[str, Any]
"""One decision as the ledger spells it: plain values that can travel to another process."""


def stored_decisions_in(
    connection: sa.Connection, since: datetime | None, proposal_id: str
) -> Iterator[StoredDecision]:
    """The decisions as they are stored, oldest first, each with its proposal and what came of it."""
    wanted = (
        sa.select(
            proposals,
            verdicts.c.seq,
            verdicts.c.stage,
            verdicts.c.outcome,
            verdicts.c.verdict,
            verdicts.c.target_facts,
            verdicts.c.ledger_facts,
            verdicts.c.at.label("decided_at"),
            outbox.c.admitted_at,
            outcomes.c.judgement,
        )
        .join(verdicts, verdicts.c.proposal_id == proposals.c.id)
        .outerjoin(outbox, outbox.c.proposal_id == proposals.c.id)
        .outerjoin(outcomes, outcomes.c.proposal_id == proposals.c.id)
        .order_by(verdicts.c.seq)
    )
    if since is not None:
        wanted = wanted.where(verdicts.c.at >= timestamp(since))
    if proposal_id:
        wanted = wanted.where(proposals.c.id == proposal_id)
    options = {"yield_per": AT_ONCE}
    for row in connection.execute(wanted, execution_options=options).mappings():
        yield {str(key): value for key, value in row.items()}


def recorded_decision_from(row: StoredDecision) -> RecordedDecision:
    """The decision that this row stands for. Raises ValueError, KeyError or TypeError when it is none any more."""
    verdict = from_json(row["verdict"])
    return RecordedDecision(
        seq=row["seq"],
        filed=filed_from(row),
        stage=row["stage"],
        outcome=row["outcome"],
        policy_ids=tuple(verdict["policy_ids"]),
        bundle=verdict["bundle"],
        target=target_facts_from(from_json(row["target_facts"])),
        ledger=ledger_facts_from(from_json(row["ledger_facts"])),
        at=moment(row["decided_at"]),
        judgement=row["judgement"] or "",
        admitted_at=moment(row["admitted_at"]) if row["admitted_at"] else None,
    )


def admitted_in(connection: sa.Connection, since: datetime) -> list[Admitted]:
    """What was put into the outbox after a moment, oldest first."""
    wanted = sa.select(outbox).where(outbox.c.admitted_at > timestamp(since)).order_by(outbox.c.admitted_at)
    return [
        Admitted(
            at=moment(row["admitted_at"]),
            kind=row["kind"],
            target=row["target"],
            run_id=row["run_id"],
            deployment_id=row["deployment_id"],
            fingerprint=row["fingerprint"],
        )
        for row in connection.execute(wanted).mappings()
    ]


def incidents_in(connection: sa.Connection) -> frozenset[str]:
    """Every incident that something was ever proposed about."""
    return frozenset(connection.execute(sa.select(proposals.c.incident_id).distinct()).scalars())
