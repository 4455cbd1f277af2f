"""Ed25519 keys for signed notes: the only importer of cryptography. Keys are spelt as C2SP signed notes do."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pilotage.telemetry.errors import ConfigError

_ED25519 = b"\x01"
"""The algorithm's number in signed notes."""


class Ed25519Signer:
    """The private key that vouches for the log."""

    def __init__(self, key: Ed25519PrivateKey, name: str) -> None:
        self._key = key
        self.name = name
        self._id = _key_id(name, _raw(key.public_key()))

    @classmethod
    def kept_at(cls, path: Path, name: str = "pilotage") -> Ed25519Signer:
        """The signer with the key in this file, pem now when there is none. Raises ConfigError."""
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                pem = Ed25519PrivateKey.generate().private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                )
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(pem)
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_bytes()
        except OSError as exc:
            raise ConfigError(f"reading the audit key {path}: {exc}; name a file of your own") from exc
        if mode & 0o077:
            raise ConfigError(
                f"reading the audit key {path}: mode {mode:o} lets others read it; run `chmod 600 {path}`"
            )
        try:
            key = load_pem_private_key(text, password=None)
        except (ValueError, TypeError) as exc:
            raise ConfigError(f"reading the audit key {path}: no PEM key; name the right file") from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"reading the audit key {path}: no Ed25519 key; name the right file")
        return cls(key, name)

    def sign(self, text: bytes) -> bytes:
        """The four bytes of the key's id and the 64 of the signature."""
        return self._id + self._key.sign(text)

    def public(self) -> str:
        """The public key as one line of text, `name+id+key`: keep it where the checkpoints are kept."""
        raw = _raw(self._key.public_key())
        return f"{self.name}+{self._id.hex()}+{base64.b64encode(_ED25519 + raw).decode()}"


class Ed25519Verifier:
    """The public key."""

    def __init__(self, public: str) -> None:
        try:
            name, key_id, encoded = public.strip().split("+", 2)
            decoded = base64.b64decode(encoded, validate=True)
            if decoded[:1] != _ED25519:
                raise ValueError("not an Ed25519 key")
            self._key = Ed25519PublicKey.from_public_bytes(decoded[1:])
            self._id = bytes.fromhex(key_id)
        except (ValueError, binascii.Error) as exc:
            raise ConfigError(
                f"reading the audit log's public key: {exc}; give the line `name+id+key` that "
                "`pilotage audit checkpoint` shows"
            ) from exc
        if self._id != _key_id(name, decoded[1:]):
            raise ConfigError("reading the audit log's public key: its id is another key's; copy it again")
        self.name = name

    def holds(self, text: bytes, signature: bytes) -> bool:
        """Whether this is our key's signature of this text."""
        if signature[:4] != self._id:
            return False
        try:
            self._key.verify(signature[4:], text)
        except InvalidSignature:
            return False
        return True


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _key_id(name: str, raw: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + raw).digest()[:4]
