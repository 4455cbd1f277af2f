"""Signed notes as C2SP has them: a text, an empty line, and a line with the key's name and signature."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Protocol

_MARK = "\N{EM DASH} "


class Signer(Protocol):
    """Holds the private key."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    def sign(self, text: bytes) -> bytes:
        """The key id and the signature, as a signed note has them."""
        ...


class Verifier(Protocol):
    """Holds the public key."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    def holds(self, text: bytes, signature: bytes) -> bool:
        """Whether this is the signature of this text by this key."""
        ...


def sealed(text: str, signer: Signer) -> str:
    """The text, which ends with a line break, as a note signed by this key."""
    signature = base64.b64encode(signer.sign(text.encode())).decode()
    return f"{text}\n{_MARK}{signer.name} {signature}\n"


def unsealed(note: str, verifier: Verifier) -> str:
    """The text of this note. Raises ValueError, in words, when it is none or the key did not sign it."""
    text, separator, signatures = note.partition("\n\n")
    if not separator:
        raise ValueError("is no signed note")
    body = text + "\n"
    if not any(
        verifier.holds(body.encode(), signature) for signature in _signatures(signatures, verifier.name)
    ):
        raise ValueError(f"has no valid signature by {verifier.name}")
    return body


def _signatures(lines: str, name: str) -> Iterable[bytes]:
    for line in lines.splitlines():
        prefix = f"{_MARK}{name} "
        if line.startswith(prefix):
            try:
                yield base64.b64decode(line.removeprefix(prefix), validate=True)
            except binascii.Error:
                continue
