"""Who is signed in: browser sessions behind a cookie, one-time links, and bearer tokens that the API knows.

A session lives in this process's memory and holds the token that the API gave; the browser only holds a random
number. A restart signs everybody out, and loses nothing else.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from pilotage.console.session.ports import User

COOKIE = "pilotage_session"
IDLE = 12 * 3600.0
"""Seconds after which a session ends that nobody used."""
LINK_LASTS = 600.0
"""Seconds in which a one-time link can be used."""
MOST = 1000
"""Sessions at once; the one unused for longest gives way."""


@dataclass(slots=True, kw_only=True)
class Session:
    """One signed-in browser."""

    user: User
    csrf: str
    until: float
    """On the clock of `Sessions`; the token's own end may be sooner, which the API says."""
    used: float


class Sessions:
    """The sessions and one-time codes of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._codes: dict[str, tuple[str, float]] = {}

    def issue_code(self, token: str) -> str:
        """A code that signs in once as whoever the token belongs to."""
        code = secrets.token_urlsafe(24)
        self._codes[_digest(code)] = (token, self._clock() + LINK_LASTS)
        return code

    def redeem(self, code: str) -> str | None:
        """The token behind a code, this once; None when it is unknown, used or too old."""
        token, until = self._codes.pop(_digest(code), ("", 0.0))
        return token if token and self._clock() < until else None

    def open(self, user: User, lasts: float = IDLE) -> tuple[str, Session]:
        """The cookie's value and the new session."""
        now = self._clock()
        self._forget(now)
        key = secrets.token_urlsafe(32)
        session = Session(user=user, csrf=secrets.token_urlsafe(24), until=now + lasts, used=now)
        self._open[_digest(key)] = session
        return key, session

    def find(self, key: str) -> Session | None:
        """The session of a cookie, unless it has ended."""
        session = self._open.get(_digest(key))
        now = self._clock()
        if session is None or now >= session.until or now - session.used >= IDLE:
            self._open.pop(_digest(key), None)
            return None
        session.used = now
        return session

    def end(self, key: str) -> None:
        """Signs out; harmless when there is no such session."""
        self._open.pop(_digest(key), None)

    def _forget(self, now: float) -> None:
        self._codes = {code: kept for code, kept in self._codes.items() if kept[1] > now}
        self._open = {key: session for key, session in self._open.items() if session.until > now}
        while len(self._open) >= MOST:
            del self._open[min(self._open, key=lambda key: self._open[key].used)]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
