"""Signs a checkpoint of the audit log, after checking the log against every checkpoint signed before."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pilotage.policies.audit.checkpoints import SUFFIX, Checkpoint, kept_in, written
from pilotage.policies.audit.ed25519 import Ed25519Signer, Ed25519Verifier
from pilotage.policies.audit.signing import Verifier
from pilotage.policies.ledger.protocol import Ledger
from pilotage.telemetry.errors import InvariantError

PUBLIC_KEY_FILE = "key.pub"
"""Beside the checkpoints; keep a copy of your own, since who can write there can replace it."""


def sign_checkpoint(
    ledger: Ledger, signer: Ed25519Signer, directory: Path, origin: str, at: datetime
) -> Path | None:
    """The file with the new checkpoint, or None while the log is empty.

    Raises InvariantError when the log is broken or is not the one vouched for before: a lie is not signed.
    """
    before: tuple[Checkpoint, ...] = ()
    verifier = Ed25519Verifier(signer.public())
    if directory.is_dir() and any(directory.glob(f"*{SUFFIX}")):
        before = kept_in(directory, verifier)
    report = ledger.verify_audit(before, verifier)
    if not report.ok:
        raise InvariantError(
            f"signing the audit log: entry {report.first_bad}: {report.why}; nothing was signed, "
            "find out who wrote to the ledger"
        )
    if report.length == 0:
        return None
    checkpoint = Checkpoint(
        origin=origin, size=report.length, root=bytes.fromhex(report.root), head=report.head, at=at
    )
    path = written(checkpoint, signer, directory)
    public = directory / PUBLIC_KEY_FILE
    if not public.exists():
        public.write_text(signer.public() + "\n", encoding="utf-8")
    return path


def verifier_for(place: Path, public_key: str) -> Verifier:
    """The verifier of the given key, or of the one kept beside the checkpoints. Raises ConfigError."""
    if public_key:
        given = Path(public_key)
        return Ed25519Verifier(given.read_text(encoding="utf-8") if given.is_file() else public_key)
    beside = (place if place.is_dir() else place.parent) / PUBLIC_KEY_FILE
    return Ed25519Verifier(beside.read_text(encoding="utf-8") if beside.is_file() else "")
