"""Heads of the audit log that are kept elsewhere: what they say, how they are written, what they prove.

A hash chain alone shows neither a cut tail nor a log that was written again from end to end. A checkpoint says
how many entries there were and the Merkle root over all of them; a log that cannot reproduce it is not the log
that was vouched for. The text is a signed note as C2SP has it (origin, size, root, extension lines).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pilotage.policies.audit.signing import Signer, Verifier, sealed, unsealed
from pilotage.policies.json_values import moment, timestamp
from pilotage.telemetry.errors import ConfigError

SUFFIX = ".note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the log was at one moment."""

    origin: str
    """Which log: a name that does not change."""
    size: int
    """Entries, from the first."""
    root: bytes
    """RFC 9162 tree hash over the bodies of those entries."""
    head: str
    """Hash of the last of them in the chain."""
    at: datetime

    def text(self) -> str:
        """What is signed."""
        return (
            f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
            f"head {self.head}\nat {timestamp(self.at)}\n"
        )


def signed(checkpoint: Checkpoint, signer: Signer) -> str:
    """The signed note."""
    return sealed(checkpoint.text(), signer)


def opened(note: str, verifier: Verifier) -> Checkpoint:
    """The checkpoint in this note. Raises ValueError, in words, when it is none or nobody we trust signed it."""
    return _read(unsealed(note, verifier))


def stated(note: str) -> Checkpoint:
    """The same without looking who signed it. Raises ValueError, in words, when it is none."""
    text, separator, _ = note.partition("\n\n")
    if not separator:
        raise ValueError("is no signed note")
    return _read(text + "\n")


def _read(body: str) -> Checkpoint:
    text = body.removesuffix("\n")
    try:
        origin, size, root, head, at = text.split("\n")
        return Checkpoint(
            origin=origin,
            size=int(size),
            root=base64.b64decode(root, validate=True),
            head=head.removeprefix("head "),
            at=moment(at.removeprefix("at ")),
        )
    except (ValueError, binascii.Error) as exc:
        raise ValueError(f"is signed but no checkpoint ({exc})") from exc


def written(checkpoint: Checkpoint, signer: Signer, directory: Path) -> Path:
    """The new file with the signed checkpoint, or the one that was there for the same size.

    A file once written is never written again. Raises ConfigError when the directory cannot take it.
    """
    path = directory / f"{checkpoint.size:012d}{SUFFIX}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return path
    except OSError as exc:
        raise ConfigError(
            f"writing a checkpoint to {directory}: {exc}; name a directory that can be written"
        ) from exc
    try:
        os.fchmod(descriptor, 0o644)  # for others to compare with, whatever this process keeps to itself
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(signed(checkpoint, signer))
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        path.unlink(missing_ok=True)
        raise ConfigError(
            f"writing checkpoint {path}: {exc}; make package or name another directory"
        ) from exc
    return path


def kept_in(place: Path, verifier: Verifier) -> tuple[Checkpoint, ...]:
    """The checkpoints in this directory, or in this one file, smallest first.

    Raises ConfigError when there is none, one cannot be read, or one is not signed by the given key.
    """
    try:
        files = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]
        texts = {path: path.read_text(encoding="utf-8") for path in files}
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"reading checkpoints from {place}: {exc}; name the directory they are kept in"
        ) from exc
    if not texts:
        raise ConfigError(
            f"reading checkpoints from {place}: there is none, so nothing vouches for the log; "
            "write one with `pilotage audit checkpoint`"
        )
    checkpoints: list[Checkpoint] = []
    for path, text in texts.items():
        try:
            checkpoints.append(opened(text, verifier))
        except ValueError as exc:
            raise ConfigError(
                f"reading checkpoint {path}: it {exc}; find out who wrote it, or give the right public key"
            ) from exc
    return tuple(sorted(checkpoints, key=lambda checkpoint: checkpoint.size))


def contradiction(
    checkpoints: Sequence[Checkpoint], roots: dict[int, tuple[bytes, str]], length: int, begins: int = 0
) -> tuple[int, str] | None:
    """The first entry that a checkpoint speaks against and why, or None.

    `roots` has the root and the head of the log as it is at each checkpoint's size, `length` its entries, of which the
    first `begins` were cut.
    """
    sound = 0
    if checkpoints and checkpoints[-1].size < begins:
        size = checkpoints[-1].size
        return (
            1,
            f"{begins} entries were cut and the newest checkpoint vouches for {size} only: give a later one",
        )
    for checkpoint in checkpoints:
        if checkpoint.size < begins:
            continue  # of entries that were cut
        when = f"the checkpoint of {checkpoint.at.isoformat()} vouches for {checkpoint.size}"
        if checkpoint.size > length:
            return length + 1, f"the tail was cut: {length} entries are left and {when}"
        root, head = roots[checkpoint.size]
        if root != checkpoint.root or head != checkpoint.head:
            return sound + 1, f"entries {sound + 1} to {checkpoint.size} were written again: {when} others"
        sound = checkpoint.size
    return None
