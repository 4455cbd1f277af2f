"""How far each kind of action is trusted on each deployment, as rows: the last one counts.

A bad outcome is demoted in the very transaction that records it. Promotion is a step of its own, since its
threshold is a guardrail and the ledger knows none; it looks at what was measured since it looked last.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import Entry
from pilotage.policies.audit.table import audit
from pilotage.policies.autonomy import (
    REMEMBERED,
    AutonomyChange,
    AutonomyRule,
    Judged,
    next_level,
    wilson_lower,
)
from pilotage.policies.json_values import timestamp
from pilotage.policies.ledger.plans import IN_A_PLAN
from pilotage.policies.ledger.rows import NOTIFY
from pilotage.policies.ledger.schema import autonomy, outbox, outcomes, proposals, verdicts
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.ledger_facts import Autonomy

_BEARS_ON_TRUST = ("verified", "promoted", "demoted", "autonomy_set")
"""Audited steps after which a promotion may be earned that was not before."""


class AutonomyRepository:
    """The part of the ledger that keeps earned and lost autonomy."""

    def autonomy(self: Transactions, kind: str, scope: str) -> Autonomy:
        """How far this kind of action is trusted on this deployment."""
        with self.reading("reading autonomy") as connection:
            return autonomy_in(connection, kind, scope)

    def trust(self: Transactions, rule: AutonomyRule) -> list[dict[str, Any]]:
        """Every kind of action on every deployment that was ever measured or set: level, outcomes, lower bound."""
        with self.reading("reading autonomy") as connection:
            named: dict[str, str] = {}
            for scope, facts in connection.execute(
                sa.select(_scope(), verdicts.c.target_facts)
                .join(verdicts, verdicts.c.seq == outbox.c.verdict_seq)
                .order_by(verdicts.c.seq)
            ):
                named[scope] = (json.loads(facts or "null") or {}).get("deployment_name") or ""
            pairs = {
                (kind, scope)
                for query in (_measured(), sa.select(autonomy.c.kind, autonomy.c.scope).distinct())
                for kind, scope in connection.execute(query)
            }
            rows: list[dict[str, Any]] = []
            for kind, scope in sorted(pairs):
                level = autonomy_in(connection, kind, scope)
                seen = _outcomes(connection, kind, scope, level)
                good = seen.count("verified")
                last = _last_change(connection, kind, scope)
                rows.append(
                    {
                        "kind": kind,
                        "scope": scope,
                        "deployment": named.get(scope, ""),
                        "level": level,
                        "good": good,
                        "bad": len(seen) - good,
                        "lower_bound": round(wilson_lower(good, len(seen)), 4),
                        "threshold": rule.threshold / 100,
                        "since": last[0] if last else "",
                        "by": last[1] if last else "",
                        "why": last[2] if last else "",
                    }
                )
            return rows

    def measured_since(self: Transactions, seq: int | None) -> tuple[int, frozenset[tuple[str, str]]]:
        """The number of the audit log's last entry, and the kinds and scopes of which it told since entry `seq`.

        Only outcomes and changes of trust count. None for every kind and scope that was ever measured.
        """
        with self.reading("looking for new outcomes") as connection:
            last = int(connection.execute(sa.select(sa.func.max(audit.c.seq))).scalar_one() or 0)
            if seq is None:
                rows = connection.execute(_measured())
                return last, frozenset((kind, scope) for kind, scope in rows)
            if seq >= last:
                return last, frozenset()
            news = connection.execute(
                sa.select(audit.c.proposal_id, audit.c.body).where(
                    audit.c.seq > seq, audit.c.seq <= last, audit.c.event.in_(_BEARS_ON_TRUST)
                )
            ).all()
            judged = [row.proposal_id for row in news if row.proposal_id]
            pairs = connection.execute(
                sa.select(outbox.c.kind, _scope()).where(
                    outbox.c.proposal_id.in_(judged), outbox.c.kind != NOTIFY
                )
            )
            changed = [json.loads(row.body)["detail"] for row in news if not row.proposal_id]
            return last, frozenset(
                {(kind, scope) for kind, scope in pairs}
                | {(str(each.get("kind", "")), str(each.get("scope", ""))) for each in changed}
            )

    def promote(
        self: Transactions,
        rule: AutonomyRule,
        at: datetime,
        pairs: Collection[tuple[str, str]] | None = None,
    ) -> list[AutonomyChange]:
        """The promotions that measured outcomes earned already, each recorded as a row.

        `pairs` are the kinds and scopes to look at; None for all that were ever measured. Nothing is locked for none.
        """
        if pairs is not None and not pairs:
            return []
        with self.writing("promoting") as connection:
            wanted = connection.execute(_measured()).all() if pairs is None else sorted(pairs)
            changes: list[AutonomyChange] = []
            for kind, scope in wanted:
                before = autonomy_in(connection, kind, scope)
                level, why = next_level(before, _outcomes(connection, kind, scope, before), rule)
                if level != before:
                    change = AutonomyChange(
                        kind=kind, scope=scope, level=level, before=before, at=at, by="outcomes", why=why
                    )
                    _keep(connection, change, "promoted")
                    changes.append(change)
            return changes

    def set_autonomy(
        self: Transactions, kind: str, scope: str, level: Autonomy, by: str, why: str, at: datetime
    ) -> AutonomyChange | None:
        """The change by a person's word, or None when it was so already. Earned is measured, never given."""
        if level == "earned":
            return None
        with self.writing("setting autonomy") as connection:
            before = autonomy_in(connection, kind, scope)
            if before == level:
                return None
            change = AutonomyChange(kind=kind, scope=scope, level=level, before=before, at=at, by=by, why=why)
            _keep(connection, change, "autonomy_set")
            return change


def autonomy_in(connection: sa.Connection, kind: str, scope: str) -> Autonomy:
    """The level that holds, within a transaction."""
    stored: Autonomy | None = connection.execute(
        sa.select(autonomy.c.level)
        .where(autonomy.c.kind == kind, autonomy.c.scope == scope)
        .order_by(autonomy.c.seq.desc())
        .limit(1)
    ).scalar_one_or_none()
    return stored or "standard"


def demote_in(connection: sa.Connection, proposal_id: str, why: str, at: datetime) -> None:
    """Takes the autonomy of an admitted proposal's kind away on its deployment, within a transaction."""
    row = connection.execute(
        sa.select(outbox.c.kind, _scope()).where(outbox.c.proposal_id == proposal_id)
    ).first()
    if row is None or row[0] == NOTIFY:
        return
    kind, scope = row
    before = autonomy_in(connection, kind, scope)
    # also when it was demoted before: the good outcomes are counted again from here
    _keep(
        connection,
        AutonomyChange(
            kind=kind, scope=scope, level="demoted", before=before, at=at, by=proposal_id, why=why
        ),
        "demoted",
    )


def _measured() -> sa.Select[tuple[str, str]]:
    return (
        sa.select(outbox.c.kind, _scope())
        .join(outcomes, outcomes.c.proposal_id == outbox.c.proposal_id)
        .where(outbox.c.kind != NOTIFY)
        .distinct()
    )


def _last_change(connection: sa.Connection, kind: str, scope: str) -> tuple[str, str, str] | None:
    row = connection.execute(
        sa.select(autonomy.c.at, autonomy.c.changed_by, autonomy.c.why)
        .where(autonomy.c.kind == kind, autonomy.c.scope == scope)
        .order_by(autonomy.c.seq.desc())
        .limit(1)
    ).first()
    return (row[0], row[1], row[2]) if row else None


def _scope() -> sa.Case[str]:
    return sa.case((outbox.c.deployment_id != "", outbox.c.deployment_id), else_=outbox.c.target)


def _outcomes(connection: sa.Connection, kind: str, scope: str, level: Autonomy) -> list[Judged]:
    wanted = (
        sa.select(outcomes.c.judgement)
        .join(outbox, outbox.c.proposal_id == outcomes.c.proposal_id)
        .join(proposals, proposals.c.id == outbox.c.proposal_id)
        .where(outbox.c.kind == kind, _scope() == scope)
        # a step of a plan that was not the last word says nothing: its plan went on
        .where(sa.or_(outcomes.c.judgement == "verified", sa.not_(IN_A_PLAN)))
        .order_by(outcomes.c.at.desc(), outcomes.c.proposal_id)
        .limit(REMEMBERED)
    )
    if level == "demoted":
        last = connection.execute(
            sa.select(sa.func.max(autonomy.c.at)).where(
                autonomy.c.kind == kind, autonomy.c.scope == scope, autonomy.c.level == "demoted"
            )
        ).scalar_one_or_none()
        # what was under way before the demotion says nothing of what came after
        wanted = wanted.where(outbox.c.admitted_at > (last or ""))
    return list(connection.execute(wanted).scalars())


def _keep(connection: sa.Connection, change: AutonomyChange, event: str) -> None:
    connection.execute(
        autonomy.insert().values(
            kind=change.kind,
            scope=change.scope,
            level=change.level,
            at=timestamp(change.at),
            changed_by=change.by,
            why=change.why,
        )
    )
    log.append(connection, Entry(event=event, at=change.at, actor=change.by, detail=change.as_detail()))
