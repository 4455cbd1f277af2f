"""The audit log: append-only, each entry hashed together with the one before it.

An edited, missing or moved entry breaks the chain and `verify` says where. A tail that was cut off, or a
chain that was computed again from end to end, shows only against a checkpoint kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import rfc8785
import sqlalchemy as sa

from pilotage.policies.audit.checkpoints import Checkpoint, contradiction
from pilotage.policies.audit.cuts import GENESIS, beginning, flaw_of
from pilotage.policies.audit.signing import Verifier
from pilotage.policies.audit.table import audit
from pilotage.policies.json_values import plain, timestamp

PREFIX = b"pilotage.audit.v1\0"
_INDEXED = ("seq", "at", "event", "proposal_id", "incident_id", "run_id")
"""Columns that repeat what the body says, so that it can be searched; `verify` compares them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What a walk along the chain found."""

    ok: bool
    length: int
    """Entries that are in order, from the first, those that were cut among them."""
    cut: int = 0
    """Entries that were cut from the beginning; a signed checkpoint stands in their place."""
    head: str
    """Hash of the last of them; keep it elsewhere to notice a cut tail."""
    root: str = ""
    """RFC 9162 tree hash over their bodies, in hexadecimal."""
    checkpoints: int = 0
    """Checkpoints that it was held against."""
    first_bad: int | None = None
    """Position of the first entry that is not, or None."""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened."""

    event: str
    at: datetime
    actor: str
    proposal_id: str = ""
    incident_id: str = ""
    run_id: str = ""
    detail: Mapping[str, Any]


def append(connection: sa.Connection, entry: Entry) -> str:
    """The hash of the new last entry; call it inside the transaction whose change it tells of."""
    last = connection.execute(
        sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
    ).first()
    if last is not None:
        seq, prev = last.seq + 1, last.hash
    else:
        start = beginning(connection)
        seq, prev = start.seq + 1, start.head
    indexed = {
        "seq": seq,
        "at": timestamp(entry.at),
        "event": entry.event,
        "proposal_id": entry.proposal_id,
        "incident_id": entry.incident_id,
        "run_id": entry.run_id,
    }
    body = rfc8785.dumps({**indexed, "actor": plain(entry.actor), "detail": plain(entry.detail)})
    digest = _hash(prev, body)
    connection.execute(audit.insert().values(**indexed, body=body.decode(), prev=prev, hash=digest))
    return digest


def verify(
    connection: sa.Connection, checkpoints: Sequence[Checkpoint] = (), verifier: Verifier | None = None
) -> AuditReport:
    """What a walk along the whole chain finds; never raises because of what is in it.

    With checkpoints, smallest first, it is also held against each of them. `verifier` checks who signed for entries that
    were cut.
    """
    try:
        start = beginning(connection)
        why = flaw_of(start, verifier)
    except (ValueError, TypeError) as exc:
        start, why = None, f"what stands in the place of entries that were cut is damaged ({exc})"
    if start is None or why:
        return AuditReport(ok=False, length=0, head=GENESIS, first_bad=1, why=why)
    prev, length, tree = start.head, start.seq, start.tree
    sizes = {checkpoint.size for checkpoint in checkpoints}
    roots = {length: (tree.root(), prev)}
    for row in connection.execute(sa.select(audit).order_by(audit.c.seq)).mappings():
        why = _flaw(row, length + 1, prev)
        if why:
            break
        prev, length = row["hash"], length + 1
        tree.add(str(row["body"]).encode("utf-8", "replace"))
        if length in sizes:
            roots[length] = (tree.root(), prev)
    bad = length + 1 if why else None
    against = None if why else contradiction(checkpoints, roots, length, start.seq)
    if against is not None:
        bad, why = against
    return AuditReport(
        ok=bad is None,
        length=length,
        cut=start.seq,
        head=prev,
        root=tree.root().hex(),
        checkpoints=len(checkpoints),
        first_bad=bad,
        why=why,
    )


def exported(connection: sa.Connection) -> Iterator[str]:
    """The log as JSON lines, oldest first, each with its body, `prev` and `hash`."""
    for row in connection.execute(sa.select(audit).order_by(audit.c.seq)).mappings():
        yield json.dumps(
            {"body": json.loads(row["body"]), "prev": row["prev"], "hash": row["hash"]}, sort_keys=True
        )


def _flaw(row: Any, expected: int, prev: str) -> str:
    if row["seq"] != expected:
        return f"entry {expected} is missing"
    if row["prev"] != prev:
        return f"entry {expected} does not follow from the one before it"
    if _hash(prev, str(row["body"]).encode("utf-8", "replace")) != row["hash"]:
        return f"entry {expected} was changed after it was written"
    try:
        body = json.loads(row["body"])
    except ValueError:
        return f"entry {expected} is not JSON"
    for column in _INDEXED:
        if body.get(column) != row[column]:
            return f"column {column} of entry {expected} was changed after it was written"
    return ""


def _hash(prev: str, body: bytes) -> str:
    return hashlib.sha256(PREFIX + bytes.fromhex(prev) + body).hexdigest()
