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
