"""What outcomes say about the place where a proposal wants to act: faults that stay, circuits that should open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.plans import IN_A_PLAN
from pilotage.policies.ledger.rows import NOTIFY
from pilotage.policies.ledger.schema import outbox, outcomes, proposals

UNDER_WAY = ("pending", "claimed", "delivered")
"""States of an outbox entry whose outcome may still come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """As in `LedgerFacts`, where each number is described."""

    actions_of_fingerprint_24h: int = 0
    fruitless_of_fingerprint_24h: int = 0
    failed_1h: int = 0
    seconds_since_failed: int | None = None
    verified_since_failed: int = 0
    probing: int = 0


def detection_in(
    connection: sa.Connection,
    *,
    proposal_id: str,
    fingerprint: str,
    deployment_id: str,
    target: str,
    now: datetime,
) -> Detection:
    """The numbers within one transaction; the proposal's own outbox row is left out."""
    changes = (outbox.c.proposal_id != proposal_id, outbox.c.kind != NOTIFY)
    here = outbox.c.deployment_id == deployment_id if deployment_id else outbox.c.target == target
    hour, day = timestamp(now - timedelta(hours=1)), timestamp(now - timedelta(hours=24))
    same_fault, fruitless = 0, 0
    if fingerprint:
        alike = (*changes, outbox.c.fingerprint == fingerprint)
        same_fault = _number(
            connection, sa.select(outbox.c.proposal_id).where(*alike, outbox.c.admitted_at > day)
        )
        helped = _last(connection, *alike, outcomes.c.judgement == "verified")
        fruitless = _faults(
            connection,
            _ended(*alike, outcomes.c.judgement == "failed", outcomes.c.at > max(day, helped)),
        )
    failed = (*changes, here, outcomes.c.judgement == "failed", outcomes.c.at > hour)
    last = _last(connection, *failed)
    if not last:
        return Detection(actions_of_fingerprint_24h=same_fault, fruitless_of_fingerprint_24h=fruitless)
    after = (*changes, here, outbox.c.admitted_at > last)
    return Detection(
        actions_of_fingerprint_24h=same_fault,
        fruitless_of_fingerprint_24h=fruitless,
        failed_1h=_faults(connection, _ended(*failed)),
        seconds_since_failed=max(0, int((now - moment(last)).total_seconds())),
        verified_since_failed=_number(connection, _ended(*after, outcomes.c.judgement == "verified")),
        probing=_number(
            connection,
            sa.select(outbox.c.proposal_id).where(
                *after,
                outbox.c.state.in_(UNDER_WAY),
                outbox.c.proposal_id.not_in(sa.select(outcomes.c.proposal_id)),
            ),
        ),
    )


def _ended(*conditions: Any) -> sa.Select[Any]:
    return (
        sa.select(outbox.c.proposal_id, outbox.c.run_id)
        .join(outcomes, outcomes.c.proposal_id == outbox.c.proposal_id)
        .where(*conditions)
    )


def _last(connection: sa.Connection, *conditions: Any) -> str:
    stored: str | None = connection.execute(
        sa.select(sa.func.max(outcomes.c.at))
        .join(outbox, outbox.c.proposal_id == outcomes.c.proposal_id)
        .where(*conditions)
    ).scalar_one_or_none()
    return stored or ""


def _number(connection: sa.Connection, rows: sa.Select[Any]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(rows.subquery())).scalar_one()


def _faults(connection: sa.Connection, rows: sa.Select[Any]) -> int:
    """How many failed, where the attempts of one plan count once: by run, whatever number of waits it took."""
    ended = rows.subquery()
    unit = sa.case((IN_A_PLAN, ended.c.run_id), else_=ended.c.proposal_id)
    query = sa.select(sa.func.count(sa.distinct(unit))).join(proposals, proposals.c.id == ended.c.proposal_id)
    return connection.execute(query).scalar_one()
