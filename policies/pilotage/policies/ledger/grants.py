"""Broken glass as rows: who, why, for which actions and targets, until when. Every step is in the audit log."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import Entry
from pilotage.policies.grants import BreakGlassGrant
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.rows import Row, as_text, dicts
from pilotage.policies.ledger.schema import delegations, grants
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.types import FiledProposal, Outcome, TargetFacts, Verdict


class GrantRepository:
    """The part of the ledger that keeps who broke the glass."""

    def break_glass(self: Transactions, grant: BreakGlassGrant, verdict: Verdict) -> bool:
        """True when the grant stands now; `verdict` is the gate's answer, and a refusal is a row as well."""
        with self.writing("breaking the glass") as connection:
            allowed = verdict.outcome is Outcome.ALLOW and bool(grant.kinds) and bool(grant.targets)
            if allowed:
                connection.execute(
                    grants.insert().values(
                        id=grant.id,
                        holder=grant.holder,
                        reason=grant.reason,
                        since=timestamp(grant.since),
                        until=timestamp(grant.until),
                        kinds=as_text(grant.kinds),
                        targets=as_text(grant.targets),
                        ended_at="",
                    )
                )
            log.append(
                connection,
                Entry(
                    event="glass_broken" if allowed else "glass_refused",
                    at=grant.since,
                    actor=grant.holder,
                    detail={"grant": grant, "verdict": verdict},
                ),
            )
            return allowed

    def active_grants(self: Transactions, now: datetime) -> dict[str, list[dict[str, Any]]]:
        """What is lent now, as plain JSON: `glass` that is broken and `delegations` of the right to approve."""
        with self.reading("reading grants") as connection:
            rows_by_grant: dict[str, list[dict[str, Any]]] = {}
            for name, table in (("glass", grants), ("delegations", delegations)):
                active = sa.select(table).where(table.c.ended_at == "", table.c.until > timestamp(now))
                rows_by_grant[name] = [
                    {
                        key: json.loads(value) if key in ("kinds", "targets", "teams") else value
                        for key, value in row.items()
                        if key not in ("ended_at", "seq")
                    }
                    for row in dicts(connection.execute(active.order_by(table.c.since)))
                ]
            return rows_by_grant

    def revoke_break_glass(self: Transactions, grant_id: str, by: str, at: datetime) -> bool:
        """True when the grant was ended by this call, before its time."""
        with self.writing("mending the glass") as connection:
            result = connection.execute(
                grants.update()
                .where(grants.c.id == grant_id, grants.c.ended_at == "")
                .values(ended_at=timestamp(at))
            )
            if result.rowcount != 1:
                return False
            log.append(connection, Entry(event="glass_mended", at=at, actor=by, detail={"grant": grant_id}))
            return True

    def break_glass_reviews(self: Transactions, now: datetime) -> list[str]:
        """The ids of grants that have run out already; each is put up for review once, as a row."""
        with self.writing("reviewing broken glass") as connection:
            rows = dicts(
                connection.execute(
                    sa.select(grants).where(grants.c.ended_at == "", grants.c.until <= timestamp(now))
                )
            )
            for row in rows:
                connection.execute(
                    grants.update().where(grants.c.id == row["id"]).values(ended_at=row["until"])
                )
                log.append(
                    connection,
                    Entry(event="glass_review", at=now, actor="clock", detail={"grant": _grant(row)}),
                )
            return [row["id"] for row in rows]


def grant_in(
    connection: sa.Connection, filed: FiledProposal, target: TargetFacts | None, now: datetime
) -> str:
    """The id of the grant that covers this proposal now, or empty."""
    held = sa.select(grants).where(
        grants.c.holder == filed.proposer.name, grants.c.ended_at == "", grants.c.until > timestamp(now)
    )
    active = (_grant(row) for row in dicts(connection.execute(held.order_by(grants.c.id))))
    return next((grant.id for grant in active if grant.covers(filed, target, now)), "")


def _grant(row: Row) -> BreakGlassGrant:
    return BreakGlassGrant(
        id=row["id"],
        holder=row["holder"],
        reason=row["reason"],
        since=moment(row["since"]),
        until=moment(row["until"]),
        kinds=tuple(json.loads(row["kinds"])),
        targets=tuple(json.loads(row["targets"])),
    )
