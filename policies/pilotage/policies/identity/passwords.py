"""Passwords as people choose them: only a slow, salted hash is ever written.

scrypt with N = 2^15, r = 8, p = 1: 32 MiB and some 100 ms a try, as OWASP's password storage cheat sheet has it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from functools import cache

SHORTEST = 12
"""Characters of a password. Length beats rules about signs."""
LONGEST = 1024
_N, _R, _P = 2**15, 8, 1
_MEMORY = 64 * 1024 * 1024
PATTERN = r"^scrypt\$[0-9]{1,8}\$[0-9]{1,3}\$[0-9]{1,3}\$[A-Za-z0-9+/=]{16,64}\$[A-Za-z0-9+/=]{32,128}$"


def hashed(password: str) -> str:
    """`scrypt$N$r$p$salt$hash`, both base64. Raises ValueError when the password is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${_text(salt)}${_text(_scrypt(password, salt, _N, _R, _P))}"


def matches(password: str, stored: str) -> bool:
    """Whether the password is the one that was hashed. False for anything that is no such hash."""
    try:
        scheme, n, r, p, salt, digest = stored.split("$")
        if scheme != "scrypt" or len(password) > LONGEST:
            return False
        derived = _scrypt(password, base64.b64decode(salt, validate=True), int(n), int(r), int(p))
        return hmac.compare_digest(derived, base64.b64decode(digest, validate=True))
    except ValueError:
        return False


@cache
def nobodys() -> str:
    """A hash that nothing matches: comparing with it takes as long for a name that nobody has."""
    return hashed(secrets.token_urlsafe(24))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
