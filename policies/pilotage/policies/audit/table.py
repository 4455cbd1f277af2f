"""The audit log's table. It lies in the ledger's database, so that an entry is one transaction with what it tells."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()
"""Of all tables in the ledger's database; the others are in `ledger/schema.py`."""

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("proposal_id", sa.Text, nullable=False, index=True),
    sa.Column("incident_id", sa.Text, nullable=False, index=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("prev", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
audit_cuts = sa.Table(
    "audit_cuts",  # what stands in the place of entries that were cut: the last row counts
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),  # the last entry that went
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("peaks", sa.Text, nullable=False),  # JSON: the tree over all that went
    sa.Column("note", sa.Text, nullable=False),  # the signed checkpoint that vouched for them
)
