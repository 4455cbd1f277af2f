"""The steps of which every transaction on the ledger consists: look up, move on, note in the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import Entry
from pilotage.policies.ledger.protocol import Status
from pilotage.policies.ledger.rows import dicts, filed_from, run_of
from pilotage.policies.ledger.schema import listed, outbox, proposals
from pilotage.policies.types import FiledProposal
from pilotage.telemetry.errors import UnreadableRowError

NO_PROPOSAL = (ValueError, KeyError, TypeError, RecursionError)
"""What reading a row may end in that a later or an earlier version wrote, or somebody else."""


def status_in(connection: sa.Connection, proposal_id: str) -> Status:
    """Where a proposal stands, within a transaction."""
    status: Status | None = connection.execute(
        sa.select(proposals.c.status).where(proposals.c.id == proposal_id)
    ).scalar_one_or_none()
    return status or "unknown"


def set_status(connection: sa.Connection, proposal_id: str, status: Status) -> None:
    """Moves a proposal on, within a transaction."""
    connection.execute(proposals.update().where(proposals.c.id == proposal_id).values(status=status))
    connection.execute(listed.update().where(listed.c.proposal_id == proposal_id).values(status=status))


def row_of(connection: sa.Connection, proposal_id: str) -> dict[str, Any] | None:
    """The row of a proposal, or None."""
    rows = dicts(connection.execute(sa.select(proposals).where(proposals.c.id == proposal_id)))
    return rows[0] if rows else None


def found(connection: sa.Connection, proposal_id: str) -> FiledProposal | None:
    """The proposal as it was filed, or None. Raises UnreadableRowError when its text is no proposal any more."""
    row = row_of(connection, proposal_id)
    if row is None:
        return None
    try:
        return filed_from(row)
    except NO_PROPOSAL as exc:
        raise UnreadableRowError(
            f"reading {proposal_id}: the stored text is no proposal ({exc}); find out who wrote to the ledger"
        ) from exc


def note(
    connection: sa.Connection,
    filed: FiledProposal,
    event: str,
    at: datetime,
    actor: str,
    **detail: object,
) -> None:
    """Appends one step of a proposal's life to the audit log, inside the given transaction."""
    log.append(
        connection,
        Entry(
            event=event,
            at=at,
            actor=actor,
            proposal_id=filed.proposal.id,
            incident_id=filed.proposal.incident_id,
            run_id=run_of(filed),
            detail={"action": filed.proposal.action.kind, **detail},
        ),
    )


def note_row(
    connection: sa.Connection, row: Mapping[str, Any], event: str, at: datetime, actor: str, **detail: object
) -> None:
    """As `note`, of a row of `proposals` whose text is not read: it may be one that nobody can read."""
    log.append(
        connection,
        Entry(
            event=event,
            at=at,
            actor=actor,
            proposal_id=row["id"],
            incident_id=row["incident_id"],
            run_id=row["run_id"],
            detail={"action": row["kind"], **detail},
        ),
    )


def set_aside_in(connection: sa.Connection, proposal_id: str, why: str, at: datetime) -> None:
    """Ends a proposal of which something stored cannot be read, within a transaction: nothing more is done about it."""
    row = row_of(connection, proposal_id)
    if row is None:
        return
    said = f"set aside, since what is stored of it cannot be read: {why[:300]}"
    set_status(connection, proposal_id, "failed")
    connection.execute(
        outbox.update()
        .where(outbox.c.proposal_id == proposal_id, outbox.c.state.in_(("pending", "claimed")))
        .values(state="failed", free_at="", last_error=said)
    )
    note_row(connection, row, "failed", at, "pilotage", why=said, transient=False)
