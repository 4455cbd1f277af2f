"""Who is calling, for every route: the cookie's session or a bearer token, and the second secret that writing takes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Header, Request

from pilotage.console.session.ports import User
from pilotage.console.web.errors import Refusal
from pilotage.console.web.sessions import COOKIE, Session, Sessions

KNOWN_FOR = 5.0
"""Seconds for which a bearer token is not asked about again. The API looks at it again with every act."""


class Access:
    """Authenticates requests. `identify` asks the API whose a token is, and raises ApiRejection for nobody's."""

    def __init__(self, sessions: Sessions, identify: Callable[[str], User]) -> None:
        self.sessions = sessions
        self._identify = identify
        self._known: dict[str, tuple[User, float]] = {}

    async def identify(self, token: str) -> User:
        """Whose the token is. Raises ApiRejection, ApiError."""
        key, now = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest(), time.monotonic()
        user, since = self._known.get(key, (None, 0.0))
        if user is None or now - since > KNOWN_FOR:
            user = await asyncio.to_thread(self._identify, token)
            self._known = {k: v for k, v in self._known.items() if now - v[1] <= KNOWN_FOR}
            self._known[key] = (user, now)
        return user

    async def reader(self, request: Request) -> User:
        """The caller of a request, however they proved it. Raises Refusal 401 when they did not."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return _known_to(request, await self.identify(token.strip()))
        session = self.session(request)
        if session is None:
            raise Refusal(401, "not-signed-in", "Looking for who you are: sign in, or send a bearer token.")
        # who was taken out of the users file is out here too
        return _known_to(request, await self.identify(session.user.token))

    async def writer(self, request: Request, csrf: str | None) -> User:
        """As `reader`; a browser must also show that our own page sent the request."""
        user = await self.reader(request)
        session = self.session(request)
        bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
        if bearer or session is None:
            return user
        refuse_foreign(request)
        if csrf is None or not hmac.compare_digest(csrf.encode(), session.csrf.encode()):
            raise Refusal(
                403, "no-csrf", "Checking X-CSRF-Token: it is not the one from /api/me. Load the page again."
            )
        return user

    def session(self, request: Request) -> Session | None:
        """The browser's session, or None."""
        key = request.cookies.get(COOKIE)
        return self.sessions.find(key) if key else None


def _known_to(request: Request, user: User) -> User:
    """The user, who is on the request from now on: whoever refuses it later can tell whom."""
    request.state.user = user
    return user


def refuse_foreign(request: Request) -> None:
    """Returns unless a browser says that another site's page sent the request. Raises Refusal 403."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refusal(403, "foreign-origin", "Checking where this came from: another site sent it.")


async def _reader(request: Request) -> User:
    access: Access = request.app.state.access
    return await access.reader(request)


async def _writer(request: Request, x_csrf_token: Annotated[str | None, Header()] = None) -> User:
    access: Access = request.app.state.access
    return await access.writer(request, x_csrf_token)


Reader = Annotated[User, Depends(_reader)]
Writer = Annotated[User, Depends(_writer)]
