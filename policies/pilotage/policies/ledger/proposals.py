"""How proposals come into the ledger: filed by whoever proposes, or in the place of one that a person edited.

What was edited is over in the transaction that files the edit: there is no moment at which both could be admitted.
"""

from __future__ import annotations

import sqlalchemy as sa

from pilotage.planner.actions.types import target_of
from pilotage.policies.digests import digest_of
from pilotage.policies.ledger.incidents import place_in
from pilotage.policies.ledger.listed import list_filed
from pilotage.policies.ledger.protocol import EDITABLE
from pilotage.policies.ledger.rows import proposal_row
from pilotage.policies.ledger.schema import proposals
from pilotage.policies.ledger.steps import found, note, row_of, set_status
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.refusals import refused
from pilotage.policies.types import FiledProposal, Verdict
from pilotage.telemetry.errors import LedgerError


class ProposalRepository:
    """The part of the ledger that takes proposals in."""

    def file(self: Transactions, filed: FiledProposal) -> bool:
        """True when it is new, False when the same was filed before. Raises LedgerError for another text."""
        attempt = f"filing {filed.proposal.id}"
        with self.writing(attempt) as connection:
            if _known(connection, filed, attempt):
                return False
            _insert(connection, filed)
            return True

    def amend(self: Transactions, proposal_id: str, edited: FiledProposal) -> Verdict | None:
        """None when `edited` is filed in the place of this proposal, now or before; else the refusal.

        The old one is `replaced` by it, which nothing else makes it and nothing unmakes. Raises LedgerError when
        the id of `edited` stands for another text.
        """
        attempt = f"editing {proposal_id}"
        with self.writing(attempt) as connection:
            row, old = row_of(connection, proposal_id), found(connection, proposal_id)
            if row is None or old is None:
                return refused("!not-filed", detail=proposal_id)
            if row["replaced_by"] == edited.proposal.id and _known(connection, edited, attempt):
                return None
            at, editor = edited.filed_at, edited.proposer.name
            if row["status"] not in EDITABLE or _known(connection, edited, attempt):
                stands = f"{row['status']} by {row['replaced_by']}" if row["replaced_by"] else row["status"]
                refusal = refused("!not-editable", detail=f"it is {stands}")
                note(connection, old, "edit_refused", at, editor, verdict=refusal)
                return refusal
            _insert(connection, edited, replaces=proposal_id)
            connection.execute(
                proposals.update().where(proposals.c.id == proposal_id).values(replaced_by=edited.proposal.id)
            )
            set_status(connection, proposal_id, "replaced")
            note(connection, old, "replaced", at, editor, by=edited.proposal.id, was=row["status"])
            return None


def _known(connection: sa.Connection, filed: FiledProposal, attempt: str) -> bool:
    """Whether the same was filed before. Raises LedgerError when it is not whole, or its id is another text's."""
    if digest_of(filed.proposal, filed.proposer) != filed.digest:
        raise LedgerError(f"{attempt}: its digest is not that of its text; build it with digest_of")
    known = connection.execute(
        sa.select(proposals.c.digest).where(proposals.c.id == filed.proposal.id)
    ).scalar_one_or_none()
    if known is not None and known != filed.digest:
        raise LedgerError(f"{attempt}: the id stands for another text; use an id of its own")
    return known is not None


def _insert(connection: sa.Connection, filed: FiledProposal, *, replaces: str = "") -> None:
    connection.execute(proposals.insert().values(**{**proposal_row(filed), "replaces": replaces}))
    list_filed(connection, filed)
    incident, decision = place_in(connection, filed)
    note(
        connection,
        filed,
        "proposed",
        filed.filed_at,
        filed.proposer.name,
        proposal=filed.proposal,
        case=filed.case,
        digest=filed.digest,
        target=target_of(filed.proposal.action),
        replaces=replaces,
        incident=incident,
        incident_is=decision,
    )
