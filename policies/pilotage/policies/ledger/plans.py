"""Steps of one plan: told from other changes by the reference that each carries, and counted as one change together."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from pilotage.planner.findings import FORECASTS
from pilotage.planner.incidents.turns import Attempt, whose_turn
from pilotage.policies.json_values import moment
from pilotage.policies.ledger.incidents import incident_in
from pilotage.policies.ledger.rows import NOTIFY, dicts
from pilotage.policies.ledger.schema import incident_runs, outbox, outcomes, proposals
from pilotage.policies.types import FiledProposal

PLAN = "plan:"
"""How the reference of a plan begins among a proposal's evidence."""
IN_A_PLAN = proposals.c.proposal.contains('"plan:')
"""Whether a row of `proposals` is a step of a plan. Its evidence is references only, made by the planner."""


EXPECTED = frozenset(one.value for one in FORECASTS)
"""Failure classes of what has not happened."""
FORECAST_ROW = sa.or_(
    *(proposals.c.case_file.contains(f'"failure_class":"{one}"') for one in sorted(EXPECTED))
)
"""Whether a row of `proposals` is about what has not happened."""


def forecast_actions(connection: sa.Connection, *conditions: Any) -> int:
    """How many changes of an outbox query were made for what was forecast."""
    query = (
        sa.select(sa.func.count())
        .select_from(outbox)
        .join(proposals, proposals.c.id == outbox.c.proposal_id)
        .where(FORECAST_ROW, outbox.c.kind != NOTIFY, *conditions)
    )
    return connection.execute(query).scalar_one()


def plan_of(filed: FiledProposal) -> str:
    """The reference of the plan that a proposal is a step of, or empty. Only a retry is such a step."""
    if filed.proposal.action.kind != "retry_run":
        return ""
    return next((ref for ref in filed.proposal.evidence if ref.startswith(PLAN)), "")


def units(connection: sa.Connection, filed: FiledProposal, *conditions: Any, distinct: Any = None) -> int:
    """How many changes an outbox query stands for, where the steps of the plans of one incident are one.

    For a step of a plan the others of its own incident are not counted: whose turn it is among them is decided by
    what became of the probe. `distinct` counts other rows by that column instead of one by one.
    """
    step = sa.and_(IN_A_PLAN, proposals.c.kind == "retry_run", incident_runs.c.incident_id.is_not(None))
    unit = sa.case(
        (step, incident_runs.c.incident_id), else_=outbox.c.proposal_id if distinct is None else distinct
    )
    query = (
        sa.select(sa.func.count(sa.distinct(unit)))
        .select_from(outbox)
        .join(proposals, proposals.c.id == outbox.c.proposal_id)
        .outerjoin(incident_runs, incident_runs.c.occurrence_id == proposals.c.incident_id)
        .where(*conditions)
    )
    if filed.case.failure_class not in EXPECTED:
        query = query.where(sa.not_(FORECAST_ROW))
    if plan_of(filed) and (own := incident_in(connection, filed.proposal.incident_id)):
        query = query.where(sa.or_(sa.not_(step), incident_runs.c.incident_id != own))
    return connection.execute(query).scalar_one()


def admissible_in(connection: sa.Connection, now: datetime) -> list[str]:
    """The ids of allowed proposals whose turn it is, oldest first: runs of one incident wait for its probe."""
    allowed = dicts(
        connection.execute(
            sa.select(
                proposals.c.id,
                incident_runs.c.incident_id,
                (IN_A_PLAN & (proposals.c.kind == "retry_run")).label("step"),
            )
            .outerjoin(incident_runs, incident_runs.c.occurrence_id == proposals.c.incident_id)
            .where(proposals.c.status == "allowed")
            .order_by(proposals.c.filed_at, proposals.c.id)
        )
    )
    turns: dict[str, frozenset[str]] = {}
    for incident_id in {str(row["incident_id"]) for row in allowed if row["step"] and row["incident_id"]}:
        turns[incident_id] = frozenset(whose_turn(_attempts(connection, incident_id), now))
    return [
        row["id"]
        for row in allowed
        if not row["step"] or not row["incident_id"] or row["id"] in turns[row["incident_id"]]
    ]


def _attempts(connection: sa.Connection, incident_id: str) -> list[Attempt]:
    """Every attempt of every run of an incident that is ready, under way or over."""
    rows = connection.execute(
        sa.select(proposals.c.id, proposals.c.run_id, proposals.c.status, proposals.c.filed_at, outcomes.c.at)
        .join(incident_runs, incident_runs.c.occurrence_id == proposals.c.incident_id)
        .outerjoin(outcomes, outcomes.c.proposal_id == proposals.c.id)
        .where(
            incident_runs.c.incident_id == incident_id,
            proposals.c.kind == "retry_run",
            proposals.c.status.in_(sorted(_STANDS)),
        )
    )
    return [
        Attempt(
            proposal_id=row.id,
            run_id=row.run_id,
            state=_STANDS[row.status],
            at=moment(row.at or row.filed_at),
        )
        for row in rows
    ]


_STANDS: dict[str, Literal["ready", "under_way", "helped", "failed"]] = {
    "allowed": "ready",
    "admitted": "under_way",
    "delivered": "under_way",
    "verified": "helped",
    "failed": "failed",
}
