"""What people ask the ledger: lists of proposals and incidents, the story of one subject, counts."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit.table import audit
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.incidents import incident_in, whole_incident
from pilotage.policies.ledger.rows import NOTIFY, dicts
from pilotage.policies.ledger.schema import (
    grants,
    incident_runs,
    incidents,
    outbox,
    outcomes,
    proposals,
    verdicts,
    votes,
)

DECISIONS = frozenset(
    {"approved", "rejected", "replaced", "undone", "stopped", "resumed", "mode_set", "autonomy_set", "delegated",
     "glass_broken", "glass_mended", "policy_published", "policy_approved", "policy_vetoed", "incident_acknowledged",
     "incident_waived", "incident_split", "incident_merged"}
)  # fmt: skip
"""Steps by which people decide."""
NOBODY = frozenset({"pilotage", "pilotage up", "clock", "outcomes", "planner"})
"""Actors that are no people."""
UNDER_WAY: frozenset[str] = frozenset({"filed", "held", "allowed", "admitted", "delivered"})
"""Where something may still come of a proposal without a person."""


def proposal_list(connection: sa.Connection, status: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest proposals, each with its last verdict and its votes."""
    wanted = sa.select(proposals).order_by(proposals.c.filed_at.desc(), proposals.c.id).limit(limit)
    if status is not None:
        wanted = wanted.where(proposals.c.status == status)
    return described_proposals(connection, dicts(connection.execute(wanted)))


def one_proposal(connection: sa.Connection, proposal_id: str) -> dict[str, Any] | None:
    """The proposal with its last verdict and its votes, or None."""
    rows = dicts(connection.execute(sa.select(proposals).where(proposals.c.id == proposal_id)))
    return next(iter(described_proposals(connection, rows)), None)


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
            return _incidents_named(
                connection, proposals.c.incident_id.startswith(beginning, autoescape=True), limit
            )
        case _:
            column = proposals.c.run_id
    return _named(connection, column, column.startswith(beginning, autoescape=True), limit)


def incidents_on(connection: sa.Connection, deployment_id: str, limit: int = 100) -> list[dict[str, str]]:
    """The incidents of one deployment's runs: `{id, what, status, at}`, newest first."""
    return _incidents_named(connection, proposals.c.deployment_id == deployment_id, limit)


def _incidents_named(
    connection: sa.Connection, wanted: sa.ColumnElement[bool], limit: int
) -> list[dict[str, str]]:
    """The incidents of which the wanted proposals are part, each once, under its own id."""
    rows = _named(connection, proposals.c.incident_id, wanted, limit)
    whose = dict(
        connection.execute(
            sa.select(incident_runs.c.occurrence_id, incident_runs.c.incident_id).where(
                incident_runs.c.occurrence_id.in_([row["id"] for row in rows])
            )
        )
        .tuples()
        .all()
    )
    newest: dict[str, dict[str, str]] = {}
    for row in rows:
        incident_id = whose.get(row["id"], row["id"])
        newest.setdefault(incident_id, {**row, "id": incident_id})
    return list(newest.values())


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
    return [{"seq": row.seq, **step_of(json.loads(row.body))} for row in rows]


def backlog_in(connection: sa.Connection) -> dict[str, Any]:
    """What stands open: `{incidents_open, outbox_waiting, outbox_oldest, audit_seq}`, each read by an index."""
    waiting, oldest = connection.execute(
        sa.select(sa.func.count(), sa.func.min(outbox.c.admitted_at)).where(
            outbox.c.state.in_(("pending", "claimed"))
        )
    ).one()
    return {
        "incidents_open": connection.execute(
            sa.select(sa.func.count()).select_from(incidents).where(incidents.c.state == "open")
        ).scalar_one(),
        "outbox_waiting": waiting,
        "outbox_oldest": moment(oldest) if oldest else None,
        "audit_seq": connection.execute(sa.select(sa.func.max(audit.c.seq))).scalar_one() or 0,
    }


def incident_list(connection: sa.Connection, limit: int) -> list[dict[str, Any]]:
    """The newest incidents, each with its runs and all its proposals, oldest first."""
    wanted = (
        sa.select(incidents)
        .where(incidents.c.state != "merged")
        .order_by(incidents.c.last_at.desc(), incidents.c.id)
        .limit(limit)
    )
    return [described_incident(connection, row) for row in dicts(connection.execute(wanted))]


def one_incident(connection: sa.Connection, incident_id: str) -> dict[str, Any] | None:
    """One incident, or None; an occurrence's id, or that of one merged away, leads to what it is part of."""
    wanted = sa.select(incidents).where(incidents.c.id == incident_id)
    rows = dicts(connection.execute(wanted))
    if not rows or rows[0]["state"] == "merged":
        merged_into = incident_in(connection, incident_id)
        rows = (
            dicts(connection.execute(sa.select(incidents).where(incidents.c.id == merged_into)))
            if merged_into
            else []
        )
    return described_incident(connection, rows[0]) if rows else None


def incidents_to_tell(connection: sa.Connection, since: datetime) -> list[dict[str, Any]]:
    """The open incidents and those that ended since, with proposals and what was told of them; oldest first."""
    wanted = (
        sa.select(incidents)
        .where(sa.or_(incidents.c.state == "open", incidents.c.resolved_at > timestamp(since)))
        .order_by(incidents.c.opened_at, incidents.c.id)
    )
    return [described_incident(connection, row) for row in dicts(connection.execute(wanted))]


def said_by_people(connection: sa.Connection, since: datetime) -> list[dict[str, Any]]:
    """The audited steps since then in which a person decided something, oldest first."""
    rows = connection.execute(
        sa.select(audit.c.body)
        .where(audit.c.at >= timestamp(since), audit.c.event.in_(sorted(DECISIONS)))
        .order_by(audit.c.seq)
    )
    return [step for row in rows if (step := step_of(json.loads(row.body)))["actor"] not in NOBODY]


def described_incident(connection: sa.Connection, row: dict[str, Any]) -> dict[str, Any]:
    """One incident as people see it: its runs, its proposals, and how it stands."""
    whole = whole_incident(connection, row)
    rows = dicts(
        connection.execute(
            sa.select(proposals)
            .where(proposals.c.incident_id.in_(whole["occurrences"]))
            .order_by(proposals.c.filed_at, proposals.c.id)
        )
    )
    return _incident(whole, described_proposals(connection, rows))


def story_of(connection: sa.Connection, subject: str) -> list[dict[str, Any]]:
    """Every audited step about the subject, in order, the finding and the forecast before the proposal."""
    parts = sa.select(incident_runs.c.occurrence_id).where(incident_runs.c.incident_id == subject)
    rows = connection.execute(
        sa.select(audit.c.body)
        .where(
            sa.or_(
                audit.c.proposal_id == subject,
                audit.c.incident_id == subject,
                audit.c.run_id == subject,
                audit.c.incident_id.in_(parts),
            )
        )
        .order_by(audit.c.seq)
    )
    steps: list[dict[str, Any]] = []
    for row in rows:
        step = step_of(json.loads(row.body))
        if step["step"] == "proposed":
            steps += _before(step)
        steps.append(step)
    return steps


def step_of(body: dict[str, Any]) -> dict[str, Any]:
    """An audited entry as a step of a story."""
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


def described_proposals(connection: sa.Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `proposals` as people see them, each with its last verdict, votes and outcome."""
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
            "proposer": _record(row["proposer"]).get("name", "unknown"),
            "action": _record(row["proposal"]).get("action") or {"kind": row["kind"]},
            "proposal": _record(row["proposal"]),
            "case": _record(row["case_file"]),
            "verdict": last.get(row["id"], {}),
            "target_facts": facts.get(row["id"], {}),
            "mode": modes.get(row["id"], ""),
            "votes": cast.get(row["id"], []),
            "outcome": ended.get(row["id"], {}),
        }
        for row in rows
    ]


def _record(text: str) -> dict[str, Any]:
    """What a row keeps as JSON; nothing where it cannot be read, so that the list goes on without it."""
    try:
        kept = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _incident(whole: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """The incident with what people ask first: what it is about, since when, how it stands, how long it took."""
    first = found[0] if found else {}
    case = first.get("case", {})
    runs = whole["runs"]
    status = _status(whole, found)
    seconds = None
    if status == "recovered":
        began = min((case.get("failed_at") or whole["opened_at"], *(run["at"] for run in runs)), key=moment)
        seconds = (moment(max(run["closed_at"] for run in runs)) - moment(began)).total_seconds()
    return {
        **whole,
        "status": status,
        "subject": case.get("subject", runs[0]["subject"] if runs else ""),
        "run_id": next((run["run_id"] for run in runs if run["run_id"]), first.get("run_id", "")),
        "failure_class": case.get("failure_class", ""),
        "p_fail": case.get("p_fail"),
        "deployment": next((row["target_facts"].get("deployment_name") or row["case"].get("deployment") or ""
                            for row in found), ""),
        "error": case.get("error") or next(iter(case.get("notes") or ()), ""),
        "failed_at": case.get("failed_at"),
        "first_at": first.get("filed_at", whole["opened_at"]),
        "last_at": found[-1]["filed_at"] if found else whole["last_at"],
        "seconds_to_recovery": seconds,
        "proposals": found,
    }  # fmt: skip


def _status(whole: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """How the incident stands, in one word of `docs/statuses.md`: recovered only when the work is done."""
    if whole["state"] != "open":
        return "recovered" if any(run["state"] == "recovered" for run in whole["runs"]) else "resolved"
    changes = {row["status"] for row in found if row["kind"] != NOTIFY}
    if "needs_approval" in changes:
        return "waiting"
    if changes & UNDER_WAY:
        return "open"
    told = any(row["kind"] == NOTIFY and row["status"] in ("delivered", "verified") for row in found)
    return "told" if told else "held"


def _before(step: dict[str, Any]) -> list[dict[str, Any]]:
    case = step["detail"].get("case", {})
    finding = ("subject", "failure_class", "found_by", "rule_id", "fingerprint", "notes", "failed_at")
    forecast = ("p_fail", "forecast_model", "forecast_reasons")
    before = [{**step, "step": "found", "detail": {key: case.get(key) for key in finding}}]
    if case.get("p_fail") is not None:
        before.append({**step, "step": "forecast", "detail": {key: case.get(key) for key in forecast}})
    return before
