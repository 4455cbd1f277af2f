"""From rows to values and back: how the ledger's tables spell proposals, verdicts and receipts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pilotage.planner.actions import types as actions
from pilotage.planner.actions.types import NotifyOwner, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.json_values import moment, plain, timestamp
from pilotage.policies.ledger.protocol import Delivered
from pilotage.policies.types import FiledProposal, Identity, OutboxEntry, Vote

NOTIFY = NotifyOwner.model_fields["kind"].default
ATTEMPTS = ("retry_run", "resize_run", "override_result")
"""Kinds that count as another attempt of a run."""

Row = Mapping[str, Any]


def as_text(value: object) -> str:
    """The value as JSON text with sorted keys."""
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False)


def proposal_row(filed: FiledProposal) -> dict[str, Any]:
    """The row of a proposal that is filed now."""
    proposal = filed.proposal
    return {
        "id": proposal.id,
        "incident_id": proposal.incident_id,
        "digest": filed.digest,
        "proposal": proposal.model_dump_json(),
        "proposer": as_text(filed.proposer),
        "case_file": filed.case.model_dump_json(),
        "kind": proposal.action.kind,
        "target": target_of(proposal.action),
        "run_id": run_of(filed),
        "deployment_id": deployment_of(filed),
        "filed_at": timestamp(filed.filed_at),
        "expires_at": timestamp(proposal.expires_at),
        "status": "filed",
        "replaces": "",
        "replaced_by": "",
    }


def run_of(filed: FiledProposal) -> str:
    """The id of the run that the action is about, or empty."""
    return actions.run_of(filed.proposal.action)


def deployment_of(filed: FiledProposal) -> str:
    """The id of the deployment that the action names itself, or empty."""
    return actions.deployment_of(filed.proposal.action)


def filed_from(row: Row) -> FiledProposal:
    """The proposal as it was filed. Raises ValueError when the stored text is no proposal any more."""
    proposer = json.loads(row["proposer"])
    return FiledProposal(
        proposal=Proposal.model_validate_json(row["proposal"]),
        case=CaseFile.model_validate_json(row["case_file"]),
        proposer=Identity(
            name=proposer["name"],
            kind=proposer["kind"],
            roles=frozenset(proposer["roles"]),
            teams=frozenset(proposer["teams"]),
            scope=None if proposer.get("scope") is None else frozenset(proposer["scope"]),
        ),
        digest=row["digest"],
        filed_at=moment(row["filed_at"]),
    )


def vote_from(row: Row) -> Vote:
    """One vote."""
    return Vote(
        proposal_id=row["proposal_id"],
        digest=row["digest"],
        voter=row["voter"],
        role=row["role"],
        teams=frozenset(json.loads(row["teams"] or "[]")),
        delegated_by=row["delegated_by"],
        decision=row["decision"],
        reason=row["reason"],
        at=moment(row["at"]),
    )


def entry_from(row: Row, filed: FiledProposal) -> OutboxEntry:
    """One outbox entry with the proposal that it carries."""
    return OutboxEntry(
        proposal_id=row["proposal_id"],
        digest=row["digest"],
        idempotency_key=row["mark"],
        payload=filed.proposal.model_dump(mode="json"),
        state=row["state"],
        admitted_at=moment(row["admitted_at"]),
        attempts=row["attempts"],
        last_error=row["last_error"],
    )


def delivered_from(row: Row) -> Delivered:
    """One change from a row that joins proposal, outbox and receipt."""
    return Delivered(
        filed=filed_from(row),
        idempotency_key=row["mark"],
        effect=row["effect"],
        receipt=json.loads(row["receipt"]),
        delivered_at=moment(row["delivered_at"]),
        undo_at=moment(row["undo_at"]) if row["undo_at"] else None,
    )


def undo_time(receipt: Mapping[str, Any]) -> str:
    """The receipt's `undo_at` as a timestamp, or empty when nothing is undone by itself."""
    value = receipt.get("undo_at")
    if not value:
        return ""
    return timestamp(moment(value) if isinstance(value, str) else value)


def dicts(result: sa.CursorResult[Any]) -> list[dict[str, Any]]:
    """Every row as a dictionary."""
    return [dict(row) for row in result.mappings()]
