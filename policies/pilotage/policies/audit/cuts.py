"""What stands in the place of entries that were cut from the beginning of the audit log.

Their last hash and the tree over them go on in the entries that follow, and the signed checkpoint that vouched for them
stays: what follows is verified from there, and whoever kept the entries elsewhere can hold them against it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from pilotage.policies.audit.checkpoints import Checkpoint, opened, stated
from pilotage.policies.audit.merkle import MerkleTree
from pilotage.policies.audit.signing import Verifier
from pilotage.policies.audit.table import audit, audit_cuts

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where the log begins now."""

    seq: int = 0
    """Entries that were cut."""
    head: str = GENESIS
    """Hash of the last of them."""
    tree: MerkleTree
    """The tree over them."""
    note: str = ""
    """The signed checkpoint that vouched for them."""


def beginning(connection: sa.Connection) -> Beginning:
    """Where the log begins: at its first entry, or behind the last cut. Raises ValueError when that row is damaged."""
    row = (
        connection.execute(sa.select(audit_cuts).order_by(audit_cuts.c.seq.desc()).limit(1))
        .mappings()
        .first()
    )
    if row is None:
        return Beginning(tree=MerkleTree())
    peaks = [(int(width), bytes.fromhex(root)) for width, root in json.loads(row["peaks"])]
    return Beginning(seq=row["seq"], head=row["hash"], tree=MerkleTree(peaks), note=row["note"])


def flaw_of(start: Beginning, verifier: Verifier | None) -> str:
    """Why what stands in the place of cut entries is not to be believed, or empty. `verifier` checks its signature."""
    if not start.seq:
        return ""
    try:
        vouched = opened(start.note, verifier) if verifier is not None else stated(start.note)
    except ValueError as exc:
        return f"{start.seq} entries were cut, and the checkpoint in their place {exc}"
    if (vouched.size, vouched.head, vouched.root) != (start.seq, start.head, start.tree.root()):
        return f"{start.seq} entries were cut, and the checkpoint in their place vouches for others"
    return ""


def peaks_at(connection: sa.Connection, vouched: Checkpoint) -> str | None:
    """The tree over the entries that this checkpoint vouches for, as it is kept; None when the log has others."""
    start = beginning(connection)
    tree, head = start.tree, start.head
    if vouched.size <= start.seq:
        return None
    rows = connection.execute(
        sa.select(audit.c.body, audit.c.hash).where(audit.c.seq <= vouched.size).order_by(audit.c.seq)
    )
    for row in rows:
        tree.add(row.body.encode("utf-8", "replace"))
        head = row.hash
    if (tree.size, tree.root(), head) != (vouched.size, vouched.root, vouched.head):
        return None
    return json.dumps([[width, root.hex()] for width, root in tree.peaks])
