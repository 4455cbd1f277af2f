"""What the ledger counts about one proposal: budgets from the outbox, votes, the kill switch."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pilotage.planner.actions import target_of
from pilotage.policies.gate import LedgerFacts, Stage
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger_schema import outbox, proposals, votes
from pilotage.policies.sql_rows import ATTEMPTS, NOTIFY, deployment_of, dicts, run_of, vote_from
from pilotage.policies.sql_switches import stop_in
from pilotage.policies.verdicts import FiledProposal, Mode, TargetFacts

TAINTED = ("log:", "state:", "event:")
"""References to what quotes text of user code or third parties."""


def facts_in(
    connection: sa.Connection,
    filed: FiledProposal,
    stage: Stage,
    mode: Mode,
    now: datetime,
    target: TargetFacts | None,
) -> LedgerFacts:
    """What the outbox, the votes and the switches say within one transaction."""
    proposal = filed.proposal
    hour, day = timestamp(now - timedelta(hours=1)), timestamp(now - timedelta(hours=24))
    others = outbox.c.proposal_id != proposal.id
    notice = proposal.action.kind == NOTIFY
    alike = outbox.c.kind == NOTIFY if notice else outbox.c.kind != NOTIFY
    run_id, deployment_id = run_of(filed), deployment_in(connection, filed, target)

    def number(*conditions: Any) -> int:
        return connection.execute(
            sa.select(sa.func.count()).select_from(outbox).where(others, *conditions)
        ).scalar_one()

    last = connection.execute(
        sa.select(sa.func.max(outbox.c.admitted_at)).where(
            others, alike, outbox.c.target == target_of(proposal.action)
        )
    ).scalar_one_or_none()
    cast = connection.execute(
        sa.select(votes).where(votes.c.proposal_id == proposal.id).order_by(votes.c.seq)
    )
    return LedgerFacts(
        stage=stage,
        mode=mode,
        stopped=stop_in(connection) is not None,
        actions_1h=number(alike, outbox.c.admitted_at > hour),
        actions_of_run_24h=number(
            outbox.c.run_id == run_id, outbox.c.kind.in_(ATTEMPTS), outbox.c.admitted_at > day
        )
        if run_id
        else 0,
        actions_of_deployment_1h=number(
            alike, outbox.c.deployment_id == deployment_id, outbox.c.admitted_at > hour
        )
        if deployment_id
        else 0,
        seconds_since_same_target=None if last is None else max(0, int((now - moment(last)).total_seconds())),
        votes=tuple(vote_from(row) for row in dicts(cast)),
        evidence_tainted=any(ref.startswith(TAINTED) for ref in proposal.evidence),
    )


def deployment_in(connection: sa.Connection, filed: FiledProposal, target: TargetFacts | None) -> str:
    """The id of the deployment that an action bears on, or empty when nobody has said."""
    if target is not None and target.deployment_id:
        return target.deployment_id
    return deployment_of(filed) or str(
        connection.execute(
            sa.select(proposals.c.deployment_id).where(proposals.c.id == filed.proposal.id)
        ).scalar_one_or_none()
        or ""
    )
