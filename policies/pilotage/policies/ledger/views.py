"""What people ask the ledger: lists of proposals and incidents, the story of one subject, counts."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit.table import audit
from pilotage.policies.json_values import moment
from pilotage.policies.ledger.rows import NOTIFY, dicts
from pilotage.policies.ledger.schema import grants, outcomes, proposals, verdicts, votes

INCIDENT_STATUS: tuple[tuple[str, frozenset[str]], ...] = (
    ("recovered", frozenset({"verified", "undone"})),
    ("open", frozenset({"filed", "held", "allowed", "admitted", "delivered"})),
    ("waiting", frozenset({"needs_approval"})),
)
"""The first line of which a change of the incident has a status says how the incident stands."""


def proposal_list(connection: sa.Connection, status: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest proposals, each with its last verdict and its votes."""
    wanted = sa.select(proposals).order_by(proposals.c.filed_at.desc(), proposals.c.id).limit(limit)
    if status is not None:
        wanted = wanted.where(proposals.c.status == status)
    return _described(connection, dicts(connection.execute(wanted)))


def one_proposal(connection: sa.Connection, proposal_id: str) -> dict[str, Any] | None:
    """The proposal with its last verdict and its votes, or None."""
    rows = dicts(connection.execute(sa.select(proposals).where(proposals.c.id == proposal_id)))
    return next(iter(_described(connection, rows)), None)


def ids_beginning(
    connection: sa.Connection, kind: str, beginning: str, limit: int = 100
) -> list[dict[str, str]]:
    """The proposals, incidents, grants or runs (`kind`) whose id begins so: `{id, what, status, at}`, newest first."""
    match kind:
        case "grant":
            rows = connection.execute(
                sa.select(grants.c.id, grants.c.holder, grants.c.reason, grants.c.since)
                .where(grants.c.id.startswith(beginning, autoescape=True))
                .order_by(grants.c.since.desc())
                .limit(limit)
            )
            return [
                {"id": r.id, "what": f"{r.holder}: {r.reason}", "status": "", "at": r.since} for r in rows
            ]
        case "proposal":
            return _named(
                connection, proposals.c.id, proposals.c.id.startswith(beginning, autoescape=True), limit
            )
        case "incident":
            column = proposals.c.incident_id
        case _:
            column = proposals.c.run_id
    return _named(connection, column, column.startswith(beginning, autoescape=True), limit)


def incidents_on(connection: sa.Connection, deployment_id: str, limit: int = 100) -> list[dict[str, str]]:
    """The incidents of one deployment's runs: `{id, what, status, at}`, newest first."""
    return _named(connection, proposals.c.incident_id, proposals.c.deployment_id == deployment_id, limit)


def _named(
    connection: sa.Connection, column: sa.Column[str], wanted: sa.ColumnElement[bool], limit: int
) -> list[dict[str, str]]:
    rows = connection.execute(
        sa.select(
            column.label("id"), proposals.c.filed_at, proposals.c.kind, proposals.c.target, proposals.c.status
        )
        .where(wanted)
        .order_by(proposals.c.filed_at.desc(), proposals.c.id)
    )
    newest: dict[str, dict[str, str]] = {}
    for row in rows:
        about = {
            "id": row.id,
            "what": f"{row.kind} on {row.target}",
            "status": row.status,
            "at": row.filed_at,
        }
        newest.setdefault(row.id, about)
        if len(newest) == limit:
            break
    newest.pop("", None)
    return list(newest.values())


def entries_after(connection: sa.Connection, after: int, limit: int) -> list[dict[str, Any]]:
    """The audit entries that follow, oldest first, each with its number `seq`."""
    rows = connection.execute(
        sa.select(audit.c.seq, audit.c.body).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    )
    return [{"seq": row.seq, **_step(json.loads(row.body))} for row in rows]


def incident_list(connection: sa.Connection, limit: int) -> list[dict[str, Any]]:
    """The newest incidents, each with all its proposals, oldest first."""
    ids = [
        row.incident_id
        for row in connection.execute(
            sa.select(proposals.c.incident_id)
            .group_by(proposals.c.incident_id)
            .order_by(sa.func.max(proposals.c.filed_at).desc())
            .limit(limit)
        )
    ]
    rows = dicts(
        connection.execute(
            sa.select(proposals)
            .where(proposals.c.incident_id.in_(ids))
            .order_by(proposals.c.filed_at, proposals.c.id)
        )
    )
    grouped: dict[str, list[dict[str, Any]]] = {incident_id: [] for incident_id in ids}
    for described in _described(connection, rows):
        grouped[described["incident_id"]].append(described)
    return [_incident(incident_id, steps) for incident_id, steps in grouped.items()]


def story_of(connection: sa.Connection, subject: str) -> list[dict[str, Any]]:
    """Every audited step about the subject, in order, the finding and the forecast before the proposal."""
    rows = connection.execute(
        sa.select(audit.c.body)
        .where(
            sa.or_(audit.c.proposal_id == subject, audit.c.incident_id == subject, audit.c.run_id == subject)
        )
        .order_by(audit.c.seq)
    )
    steps: list[dict[str, Any]] = []
    for row in rows:
        step = _step(json.loads(row.body))
        if step["step"] == "proposed":
            steps += _before(step)
        steps.append(step)
    return steps


def _step(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": body["at"],
        "step": body["event"],
        "actor": body["actor"],
        "proposal_id": body["proposal_id"],
        "incident_id": body["incident_id"],
        "run_id": body["run_id"],
        "detail": body["detail"],
    }


def count_by_status(connection: sa.Connection) -> dict[str, int]:
    """How many proposals stand where."""
    rows = connection.execute(sa.select(proposals.c.status, sa.func.count()).group_by(proposals.c.status))
    return {str(status): int(count) for status, count in rows}


def _described(connection: sa.Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = [row["id"] for row in rows]
    last: dict[str, dict[str, Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    modes: dict[str, str] = {}
    for row in connection.execute(
        sa.select(verdicts).where(verdicts.c.proposal_id.in_(ids)).order_by(verdicts.c.seq)
    ).mappings():
        last[row["proposal_id"]] = json.loads(row["verdict"])
        facts[row["proposal_id"]] = json.loads(row["target_facts"] or "null") or {}
        modes[row["proposal_id"]] = (json.loads(row["ledger_facts"] or "null") or {}).get("mode") or ""
    cast: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(
        sa.select(votes).where(votes.c.proposal_id.in_(ids)).order_by(votes.c.seq)
    ).mappings():
        cast.setdefault(row["proposal_id"], []).append(
            {key: row[key] for key in ("voter", "decision", "reason", "at")}
        )
    ended = {
        row["proposal_id"]: dict(row)
        for row in connection.execute(sa.select(outcomes).where(outcomes.c.proposal_id.in_(ids))).mappings()
    }
    return [
        {
            "proposal_id": row["id"],
            "incident_id": row["incident_id"],
            "run_id": row["run_id"],
            "target": row["target"],
            "kind": row["kind"],
            "status": row["status"],
            "replaced_by": row["replaced_by"],
            "replaces": row["replaces"],
            "digest": row["digest"],
            "filed_at": row["filed_at"],
            "expires_at": row["expires_at"],
            "proposer": json.loads(row["proposer"])["name"],
            "action": json.loads(row["proposal"])["action"],
            "proposal": json.loads(row["proposal"]),
            "case": json.loads(row["case_file"]),
            "verdict": last.get(row["id"], {}),
            "target_facts": facts.get(row["id"], {}),
            "mode": modes.get(row["id"], ""),
            "votes": cast.get(row["id"], []),
            "outcome": ended.get(row["id"], {}),
        }
        for row in rows
    ]


def _incident(incident_id: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    changes = [row for row in rows if row["kind"] != NOTIFY]
    statuses = {row["status"] for row in changes}
    status = next((name for name, marks in INCIDENT_STATUS if statuses & marks), "")
    if not status:
        notified = any(row["kind"] == NOTIFY and row["status"] in ("delivered", "verified") for row in rows)
        status = "told" if notified else "held"
    case = rows[0]["case"]
    ends = [row["outcome"]["at"] for row in changes if row["outcome"].get("judgement") == "verified"]
    failed_at = case.get("failed_at")
    seconds = (moment(min(ends)) - moment(failed_at)).total_seconds() if ends and failed_at else None
    return {
        "incident_id": incident_id,
        "status": status,
        "subject": case["subject"],
        "run_id": next((row["run_id"] for row in rows if row["run_id"]), ""),
        "failure_class": case["failure_class"],
        "p_fail": case["p_fail"],
        "failed_at": failed_at,
        "first_at": rows[0]["filed_at"],
        "last_at": rows[-1]["filed_at"],
        "seconds_to_recovery": seconds,
        "proposals": rows,
    }


def _before(step: dict[str, Any]) -> list[dict[str, Any]]:
    case = step["detail"].get("case", {})
    finding = ("subject", "failure_class", "found_by", "rule_id", "fingerprint", "notes", "failed_at")
    forecast = ("p_fail", "forecast_model", "forecast_reasons")
    before = [{**step, "step": "found", "detail": {key: case.get(key) for key in finding}}]
    if case.get("p_fail") is not None:
        before.append({**step, "step": "forecast", "detail": {key: case.get(key) for key in forecast}})
    return before
