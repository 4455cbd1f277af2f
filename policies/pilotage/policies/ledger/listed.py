"""Keeps the one narrow row a proposal that lists are filtered, sorted, searched and counted by.

Everything in it is said elsewhere too: in the proposal, its case and its last verdict. It is written in the transactions
that write those, and made again for proposals that have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pilotage.planner.actions.types import target_of
from pilotage.policies.json_values import timestamp
from pilotage.policies.ledger.rows import dicts, filed_from, run_of
from pilotage.policies.ledger.schema import listed, proposals, verdicts
from pilotage.policies.types import FiledProposal, TargetFacts, Verdict

UNKNOWN_RISK = -1.0
"""Stands where nothing was forecast, so that it sorts below every chance."""
LONGEST_WORDS = 2000
"""Characters of a proposal that are searched."""
_BATCH = 500


def list_filed(connection: sa.Connection, filed: FiledProposal) -> None:
    """Add the row of a proposal that is filed now."""
    connection.execute(listed.insert().values(**_row(filed)))


def list_judged(
    connection: sa.Connection, filed: FiledProposal, verdict: Verdict, target: TargetFacts | None
) -> None:
    """Keep what a verdict says: whose approvals are missing, and of which deployment, team and environment it is."""
    facts = (
        None
        if target is None
        else {"deployment_name": target.deployment_name, "team": target.team, "env": target.env}
    )
    values = _judged(filed, verdict.requirements or {}, facts)
    connection.execute(listed.update().where(listed.c.proposal_id == filed.proposal.id).values(**values))


def not_listed(connection: sa.Connection) -> list[str]:
    """The ids of proposals without a row, as an older version leaves them."""
    count, rows = (
        connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for table in (proposals, listed)
    )
    if count == rows:
        return []
    wanted = sa.select(proposals.c.id).where(proposals.c.id.not_in(sa.select(listed.c.proposal_id)))
    return list(connection.execute(wanted).scalars())


def list_again(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Make the rows of these proposals from what the other tables say. A text that cannot be read is listed by its id."""
    for begin in range(0, len(ids), _BATCH):
        some = ids[begin : begin + _BATCH]
        there = set(
            connection.execute(
                sa.select(listed.c.proposal_id).where(listed.c.proposal_id.in_(some))
            ).scalars()
        )
        last = {
            row.proposal_id: (json.loads(row.verdict), json.loads(row.target_facts or "null"))
            for row in connection.execute(
                sa.select(verdicts.c.proposal_id, verdicts.c.verdict, verdicts.c.target_facts)
                .where(verdicts.c.proposal_id.in_(some))
                .order_by(verdicts.c.seq)
            )
        }
        for row in dicts(connection.execute(sa.select(proposals).where(proposals.c.id.in_(some)))):
            if row["id"] not in there:
                connection.execute(
                    listed.insert().values(**_row_again(row, *last.get(row["id"], ({}, None))))
                )


def _row_again(
    row: Mapping[str, Any], verdict: Mapping[str, Any], facts: Mapping[str, Any] | None
) -> dict[str, Any]:
    try:
        filed = filed_from(row)
    except (ValueError, KeyError, TypeError):
        return {
            **{key: row[key] for key in ("status", "kind", "filed_at", "expires_at")},
            **dict.fromkeys(("deployment", "team", "env", "seats", "barred"), ""),
            "proposal_id": row["id"],
            "occurrence_id": row["incident_id"],
            "risk": UNKNOWN_RISK,
            "words": str(row["id"]),
        }
    judged = _judged(filed, verdict.get("requirements") or {}, facts) if verdict else {}
    return {**_row(filed), **judged, "filed_at": row["filed_at"], "status": row["status"]}


def _row(filed: FiledProposal) -> dict[str, Any]:
    proposal, case = filed.proposal, filed.case
    return {
        "proposal_id": proposal.id,
        "occurrence_id": proposal.incident_id,
        "status": "filed",
        "kind": proposal.action.kind,
        "deployment": case.deployment,
        "team": "",
        "env": "",
        "risk": UNKNOWN_RISK if case.p_fail is None else case.p_fail,
        "seats": "",
        "barred": _bars({filed.proposer.name, proposal.on_behalf_of} - {""}),
        "filed_at": timestamp(filed.filed_at),
        "expires_at": timestamp(proposal.expires_at),
        "words": _words(filed, case.deployment, ""),
    }


def _judged(
    filed: FiledProposal, requirements: Mapping[str, int], facts: Mapping[str, Any] | None
) -> dict[str, Any]:
    values: dict[str, Any] = {"seats": _bars(requirements)}
    if facts:
        name = facts.get("deployment_name") or filed.case.deployment
        team = facts.get("team") or ""
        values |= {
            "deployment": name,
            "team": team,
            "env": facts.get("env") or "",
            "words": _words(filed, name, team),
        }
    return values


def _bars(names: Any) -> str:
    return "".join(f"|{name}" for name in sorted(names)) + "|" if names else ""


def _words(filed: FiledProposal, deployment: str, team: str) -> str:
    case, proposal = filed.case, filed.proposal
    parts = (
        proposal.id,
        proposal.action.kind,
        proposal.action.kind.replace("_", " "),
        target_of(proposal.action),
        run_of(filed),
        deployment,
        team,
        case.subject,
        case.failure_class,
        case.error,
        *case.notes,
    )
    return " ".join(dict.fromkeys(part for part in parts if part)).lower()[:LONGEST_WORDS]
