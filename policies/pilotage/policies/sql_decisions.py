"""Recorded decisions read back from the ledger as values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from pilotage.policies.decided import Decided, ledger_facts_from, target_facts_from
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger_schema import outbox, outcomes, proposals, verdicts
from pilotage.policies.sql_rows import filed_from


def decisions_in(connection: sa.Connection, since: datetime | None, proposal_id: str) -> Iterator[Decided]:
    """The decisions, oldest first, each with its proposal and what came of it."""
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
    for row in connection.execute(wanted).mappings():
        verdict = json.loads(row["verdict"])
        yield Decided(
            seq=row["seq"],
            filed=filed_from({str(key): value for key, value in row.items()}),
            stage=row["stage"],
            outcome=row["outcome"],
            policy_ids=tuple(verdict["policy_ids"]),
            bundle=verdict["bundle"],
            target=target_facts_from(json.loads(row["target_facts"])),
            ledger=ledger_facts_from(json.loads(row["ledger_facts"])),
            at=moment(row["decided_at"]),
            judgement=row["judgement"] or "",
            admitted_at=moment(row["admitted_at"]) if row["admitted_at"] else None,
        )
