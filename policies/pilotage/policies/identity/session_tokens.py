"""Who is signed in: tokens that people earned by a password or by their team's identity provider, held in memory.

A restart of the controller signs everybody out. Whoever comes by an identity provider is in no users file: the book
knows them for as long as a vote of theirs may still be counted.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pilotage.policies.types import Identity

How = Literal["password", "oidc"]
COUNTED = timedelta(hours=24)
"""How long after their session a person's votes still count; no proposal waits for longer."""
MOST = 10_000
"""Sessions at once; the oldest gives way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """One session."""

    id: str
    """By which it can be ended; it opens nothing."""
    name: str
    how: How
    since: datetime
    until: datetime
    identity: Identity | None = None
    """Who the identity provider says this is; None for a person of the users file, who is looked up there."""


class SessionTokens:
    """The sessions by the hashes of their tokens. Not thread-safe: the book guards it."""

    def __init__(self) -> None:
        self._open: dict[str, SignedIn] = {}
        self._federated: dict[str, tuple[Identity, datetime]] = {}

    def open(
        self, name: str, how: How, now: datetime, lasts: timedelta, identity: Identity | None = None
    ) -> str:
        """Return the token of a new session."""
        self._open = {digest: each for digest, each in self._open.items() if each.until > now}
        while len(self._open) >= MOST:
            del self._open[next(iter(self._open))]
        token = secrets.token_urlsafe(32)
        digest = _sha256(token)
        until = now + lasts
        self._open[digest] = SignedIn(
            id=digest[:12], name=name, how=how, since=now, until=until, identity=identity
        )
        if identity is not None:
            self._federated[name] = identity, until + COUNTED
        return token

    def of_token(self, digest: str, now: datetime) -> SignedIn | None:
        """Return the session of a token by its SHA-256, or None. Every one is compared, each in constant time."""
        match = None
        for known, session in self._open.items():
            if hmac.compare_digest(known, digest) and session.until > now:
                match = session
        return match

    def current(self, now: datetime) -> tuple[SignedIn, ...]:
        """Return the sessions that have not ended, the oldest first."""
        return tuple(each for each in self._open.values() if each.until > now)

    def federated(self, name: str, now: datetime) -> Identity | None:
        """Return who an identity provider said this name is, while a vote of theirs may count; or None."""
        identity, until = self._federated.get(name, (None, now))
        return identity if until > now else None

    def end(self, name: str, session_id: str = "") -> int:
        """Return how many sessions of a person were ended: all, or the one with this id.

        Without any left, nobody has that name any more, where it came from an identity provider.
        """
        ended = [
            digest for digest, each in self._open.items() if each.name == name and session_id in ("", each.id)
        ]
        for digest in ended:
            del self._open[digest]
        if not any(each.name == name for each in self._open.values()):
            self._federated.pop(name, None)
        return len(ended)

    def end_token(self, digest: str) -> None:
        """End the session of one token; harmless when there is none."""
        self._open.pop(digest, None)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
