"""Lists of proposals, incidents and audit entries, page by page: filtered, sorted, searched and counted by the database.

A page ends with a cursor: the sort value and the id of its last row. The next page begins behind it, so that nothing is
skipped or shown twice while rows come and go, and a page costs the same wherever it is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit.table import audit
from pilotage.policies.json_values import timestamp
from pilotage.policies.ledger.queries import (
    MOST,
    QUIET_EVENTS,
    AuditQuery,
    IncidentQuery,
    Person,
    ProposalQuery,
)
from pilotage.policies.ledger.rows import NOTIFY, dicts
from pilotage.policies.ledger.schema import incident_runs, incidents, listed, proposals, receipts, votes
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.ledger.views import UNDER_WAY, described_proposals, step_of


class ListRepository:
    """The part of the ledger that lists."""

    def proposal_page(self: Transactions, query: ProposalQuery) -> dict[str, Any]:
        """`{rows, count, next}`: one page, how many there are in all, and the cursor of the next page or empty."""
        with self.reading("listing proposals") as connection:
            return _proposal_page(connection, query)

    def proposal_choices(self: Transactions, status: str = "") -> dict[str, dict[str, int]]:
        """What the proposals of a status can be filtered by: deployment, team, kind and env, each with its count."""
        with self.reading("counting what can be filtered by") as connection:
            return {
                name: _choices(connection, name, status) for name in ("deployment", "team", "kind", "env")
            }

    def incident_page(self: Transactions, query: IncidentQuery) -> dict[str, Any]:
        """As `proposal_page`; a row has counts instead of runs and proposals. `counts` is `{open, over}` of all."""
        with self.reading("listing incidents") as connection:
            return _incident_page(connection, query)

    def holds(self: Transactions, now: datetime) -> list[dict[str, Any]]:
        """What was changed for a time that ends later, the next to end first:
        `{proposal_id, action, deployment, undo_at}`."""
        with self.reading("looking for what is held") as connection:
            return _holds(connection, now)

    def audit_page(self: Transactions, query: AuditQuery) -> dict[str, Any]:
        """As `proposal_page`, of the audit log, without what is folded; `folded` counts that."""
        with self.reading("listing the audit log") as connection:
            return _audit_page(connection, query)


def _holds(connection: sa.Connection, now: datetime) -> list[dict[str, Any]]:
    rows = connection.execute(
        sa.select(receipts.c.proposal_id, receipts.c.undo_at, proposals.c.proposal, listed.c.deployment)
        .join(proposals, proposals.c.id == receipts.c.proposal_id)
        .join(listed, listed.c.proposal_id == receipts.c.proposal_id)
        .where(receipts.c.undo_at > timestamp(now), receipts.c.undone_at == "")
        .order_by(receipts.c.undo_at)
        .limit(MOST)
    )
    return [
        {
            "proposal_id": row.proposal_id,
            "action": json.loads(row.proposal)["action"],
            "deployment": row.deployment,
            "undo_at": row.undo_at,
        }
        for row in rows
    ]


# -- proposals

_SORTS: Mapping[str, tuple[sa.Column[Any], bool]] = {
    "newest": (listed.c.filed_at, True),
    "oldest": (listed.c.filed_at, False),
    "expiry": (listed.c.expires_at, False),
    "risk": (listed.c.risk, True),
    "deployment": (listed.c.deployment, False),
}
"""Column, and whether the greatest comes first."""


def _proposal_page(connection: sa.Connection, query: ProposalQuery) -> dict[str, Any]:
    conditions = _wanted(query)
    column, falling = _SORTS[query.sort]
    limit = _limit(query.limit)
    rows = connection.execute(
        _ordered(
            sa.select(listed.c.proposal_id, column).where(*conditions),
            column,
            listed.c.proposal_id,
            falling,
            query.after,
        ).limit(limit + 1)
    ).all()
    ids = [row[0] for row in rows[:limit]]
    found = {
        row["id"]: row
        for row in dicts(connection.execute(sa.select(proposals).where(proposals.c.id.in_(ids))))
    }
    described = described_proposals(connection, [found[each] for each in ids if each in found])
    part_of = _incidents_of(connection, [row["incident_id"] for row in described])
    return {
        "rows": [
            {**row, "part_of": part_of.get(row["incident_id"], row["incident_id"])} for row in described
        ],
        "count": _count(connection, listed, conditions),
        "next": _cursor(rows[limit - 1][1], rows[limit - 1][0]) if len(rows) > limit else "",
    }


def _incidents_of(connection: sa.Connection, occurrences: Sequence[str]) -> dict[str, str]:
    """The incident that each of these occurrences is part of now."""
    wanted = sa.select(incident_runs.c.occurrence_id, incident_runs.c.incident_id)
    rows = connection.execute(wanted.where(incident_runs.c.occurrence_id.in_(occurrences)))
    return {str(row.occurrence_id): str(row.incident_id) for row in rows}


def _wanted(query: ProposalQuery) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [
        listed.c[name] == value
        for name in ("status", "deployment", "team", "kind", "env")
        if (value := getattr(query, name))
    ]
    if query.incident:
        parts = sa.select(incident_runs.c.occurrence_id).where(incident_runs.c.incident_id == query.incident)
        conditions.append(listed.c.occurrence_id.in_(parts))
    if query.without:
        conditions.append(listed.c.proposal_id.not_in(list(query.without)))
    if query.mine is not None:
        conditions += _mine(query.mine)
    return conditions + _having(listed.c.words, query.words)


def _mine(person: Person) -> list[sa.ColumnElement[bool]]:
    """What still wants a seat that this person can fill, did not propose, and has not voted on."""
    able = [listed.c.seats.contains(f"|{seat}|", autoescape=True) for seat in sorted(person.seats)]
    if person.teams:
        owns = listed.c.team.in_(sorted(person.teams))
        able.append(sa.and_(listed.c.seats.contains("|owner|"), owns))
    cast = sa.select(votes.c.proposal_id).where(votes.c.voter == person.name)
    return [
        sa.or_(sa.false(), *able),
        sa.not_(listed.c.barred.contains(f"|{person.name}|", autoescape=True)),
        listed.c.proposal_id.not_in(cast),
    ]


def _choices(connection: sa.Connection, name: str, status: str) -> dict[str, int]:
    column = listed.c[name]
    wanted = sa.select(column, sa.func.count()).where(column != "").group_by(column).order_by(column)
    if status:
        wanted = wanted.where(listed.c.status == status)
    return {str(value): int(count) for value, count in connection.execute(wanted)}


# -- incidents


def _incident_page(connection: sa.Connection, query: IncidentQuery) -> dict[str, Any]:
    conditions = _incidents_wanted(query)
    limit = _limit(query.limit)
    column = incidents.c.last_at if query.sort == "newest" else incidents.c.opened_at
    rows = dicts(
        connection.execute(
            _ordered(
                sa.select(incidents).where(*conditions),
                column,
                incidents.c.id,
                query.sort == "newest",
                query.after,
            ).limit(limit + 1)
        )
    )
    shown = rows[:limit]
    state_counts = dict(
        connection.execute(sa.select(incidents.c.state, sa.func.count()).group_by(incidents.c.state))
        .tuples()
        .all()
    )
    return {
        "rows": _incident_lines(connection, shown),
        "count": _count(connection, incidents, conditions),
        "counts": {"open": state_counts.get("open", 0), "over": state_counts.get("resolved", 0)},
        "next": _cursor(shown[-1][column.name], shown[-1]["id"]) if len(rows) > limit else "",
    }


def _incidents_wanted(query: IncidentQuery) -> list[sa.ColumnElement[bool]]:
    states = {"open": ("open",), "over": ("resolved",), "all": ("open", "resolved")}[query.state]
    conditions: list[sa.ColumnElement[bool]] = [incidents.c.state.in_(states)]
    about = [listed.c[name] == value for name in ("deployment", "team") if (value := getattr(query, name))]
    about += _having(listed.c.words, query.words)
    if about:
        parts = (
            sa.select(incident_runs.c.incident_id)
            .join(listed, listed.c.occurrence_id == incident_runs.c.occurrence_id)
            .where(*about)
        )
        own = incidents.c.id == query.words.strip().lower()
        conditions.append(sa.or_(incidents.c.id.in_(parts), own))
    return conditions


def _incident_lines(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line an incident: what it is about, and how many runs and proposals of it stand where."""
    ids = [row["id"] for row in rows]
    runs: dict[str, dict[str, int]] = {each: {} for each in ids}
    for incident_id, state, count in connection.execute(
        sa.select(
            incident_runs.c.incident_id,
            incident_runs.c.state,
            sa.func.count(sa.distinct(incident_runs.c.subject)),
        )
        .where(incident_runs.c.incident_id.in_(ids))
        .group_by(incident_runs.c.incident_id, incident_runs.c.state)
    ):
        runs[incident_id][state] = count
    stand: dict[str, dict[str, int]] = {each: {} for each in ids}
    told: set[str] = set()
    kinds: dict[str, set[str]] = {each: set() for each in ids}
    for incident_id, kind, status, count in connection.execute(
        sa.select(incident_runs.c.incident_id, listed.c.kind, listed.c.status, sa.func.count())
        .join(listed, listed.c.occurrence_id == incident_runs.c.occurrence_id)
        .where(incident_runs.c.incident_id.in_(ids))
        .group_by(incident_runs.c.incident_id, listed.c.kind, listed.c.status)
    ):
        kinds[incident_id].add(kind)
        if kind == NOTIFY:
            told |= {incident_id} if status in ("delivered", "verified") else set()
        else:
            stand[incident_id][status] = stand[incident_id].get(status, 0) + count
    cases = _first_cases(connection, ids)
    return [
        _line(row, cases.get(row["id"], {}), runs[row["id"]], stand[row["id"]], row["id"] in told)
        | {"kinds": sorted(kinds[row["id"]])}
        for row in rows
    ]


def _first_cases(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What was found when each of these incidents was opened."""
    rows = connection.execute(
        sa.select(proposals.c.incident_id, proposals.c.case_file, listed.c.deployment, listed.c.team)
        .join(listed, listed.c.proposal_id == proposals.c.id)
        .where(proposals.c.incident_id.in_(ids))
        .order_by(proposals.c.filed_at.desc(), proposals.c.id.desc())
    )
    return {
        row.incident_id: {**json.loads(row.case_file), "deployment": row.deployment, "team": row.team}
        for row in rows
    }


def _line(
    row: Mapping[str, Any],
    case: Mapping[str, Any],
    runs: Mapping[str, int],
    stand: Mapping[str, int],
    told: bool,
) -> dict[str, Any]:
    if row["state"] != "open":
        status = "recovered" if runs.get("recovered") else "resolved"
    elif stand.get("needs_approval"):
        status = "waiting"
    elif UNDER_WAY & set(stand):
        status = "open"
    else:
        status = "told" if told else "held"
    subject = str(case.get("subject") or "")
    return {
        "incident_id": row["id"],
        "state": row["state"],
        "status": status,
        "opened_at": row["opened_at"],
        "last_at": row["last_at"],
        "resolved_at": row["resolved_at"],
        "resolution": row["resolution"],
        "failed_at": case.get("failed_at"),
        "subject": subject,
        "run_id": subject.removeprefix("run:") if subject.startswith("run:") else "",
        "failure_class": case.get("failure_class", ""),
        "deployment": case.get("deployment", ""),
        "team": case.get("team", ""),
        "error": case.get("error") or next(iter(case.get("notes") or ()), ""),
        "runs": sum(runs.values()),
        "runs_open": runs.get("open", 0),
        "waiting": stand.get("needs_approval", 0),
        "proposals": sum(stand.values()),
        "earlier": len(json.loads(row["earlier"])),
    }


# -- the audit log


def _audit_page(connection: sa.Connection, query: AuditQuery) -> dict[str, Any]:
    every = _entries_wanted(query)
    conditions = [*every, audit.c.event.not_in(QUIET_EVENTS)] if query.changes else every
    limit = _limit(query.limit)
    wanted = sa.select(audit.c.seq, audit.c.body).where(*conditions).order_by(audit.c.seq.desc())
    if query.after:
        wanted = wanted.where(audit.c.seq < _number(query.after))
    rows = connection.execute(wanted.limit(limit + 1)).all()
    count = _count(connection, audit, conditions)
    return {
        "rows": [{"seq": row.seq, **step_of(json.loads(row.body))} for row in rows[:limit]],
        "count": count,
        "folded": _count(connection, audit, every) - count if query.changes else 0,
        "next": str(rows[limit - 1].seq) if len(rows) > limit else "",
    }


def _entries_wanted(query: AuditQuery) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if query.incident:
        parts = sa.select(incident_runs.c.occurrence_id).where(incident_runs.c.incident_id == query.incident)
        conditions.append(sa.or_(audit.c.incident_id == query.incident, audit.c.incident_id.in_(parts)))
    if query.event:
        conditions.append(audit.c.event == query.event)
    if query.person:
        # the body is canonical JSON: `"actor":"pat"` stands in it as it is written here
        conditions.append(
            audit.c.body.contains(f'"actor":{json.dumps(query.person, ensure_ascii=False)}', autoescape=True)
        )
    if query.policy:
        conditions.append(
            audit.c.body.contains(f"{json.dumps(query.policy, ensure_ascii=False)}", autoescape=True)
        )
    return conditions + _having(sa.func.lower(audit.c.body), query.words)


# -- shared


def _ordered(
    wanted: sa.Select[Any],
    column: sa.ColumnElement[Any],
    key: sa.ColumnElement[str],
    falling: bool,
    after: str,
) -> sa.Select[Any]:
    """The rows in order of the column, those behind the cursor only."""
    if after:
        value, last = _read(after)
        behind: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[bool]] = (
            (lambda each: each < value) if falling else (lambda each: each > value)
        )
        beyond = key < last if falling else key > last
        wanted = wanted.where(sa.or_(behind(column), sa.and_(column == value, beyond)))
    return wanted.order_by(column.desc() if falling else column, key.desc() if falling else key)


def _having(column: sa.ColumnElement[str], words: str) -> list[sa.ColumnElement[bool]]:
    return [column.contains(word, autoescape=True) for word in words.lower().split()[:8]]


def _count(connection: sa.Connection, table: sa.Table, conditions: Sequence[sa.ColumnElement[bool]]) -> int:
    return int(
        connection.execute(sa.select(sa.func.count()).select_from(table).where(*conditions)).scalar_one()
    )


def _limit(asked: int) -> int:
    return max(1, min(asked, MOST))


def _cursor(value: Any, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([value, key]).encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[Any, str]:
    """Raises ValueError for what is no cursor of ours."""
    match json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))):
        case [str() | int() | float() as value, str() as key]:
            return value, key
        case _:
            raise ValueError(f"{cursor!r} is no cursor")


def _number(cursor: str) -> int:
    return int(cursor)
