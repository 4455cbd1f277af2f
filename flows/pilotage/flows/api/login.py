"""Signing in with a name and a password: the one question that the API answers to somebody it does not know yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from pilotage.flows.api.client import ApiRejection
from pilotage.policies.identity.session_tokens import How
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.protocol import SignInStep

LASTS = timedelta(hours=8)
"""One shift; whoever stays longer signs in again."""
WINDOW = timedelta(minutes=15)
MOST_FOR_A_NAME = 5
MOST_FOR_ALL = 60
"""Wrong tries within the window after which none is looked at any more."""
_LONGEST_NAME = 80


class Noted(Protocol):
    """Writes one row of the sign-in log: what happened, who, how."""

    async def __call__(self, step: SignInStep, name: str, how: How, **detail: object) -> None:
        """Write it. Raises LedgerError: nobody is signed in who is not in the log."""
        ...


class LoginThrottle:
    """Counts wrong tries, by name and in all, so that guessing ends long before it succeeds."""

    def __init__(self, book: IdentityBook, clock: Callable[[], datetime], note: Noted) -> None:
        """`note` writes the sign-in log."""
        self._note = note
        self._book = book
        self._clock = clock
        self._wrong: deque[tuple[datetime, str]] = deque()
        self._one_at_a_time = asyncio.Lock()

    async def sign_in(self, name: str, password: str) -> dict[str, Any]:
        """`{token, until}` for the right password. Raises ApiRejection `wrong-password` or `too-many-tries`."""
        name = str(name)[:_LONGEST_NAME]
        async with self._one_at_a_time:  # each try costs memory and a tenth of a second
            now = self._clock()
            while self._wrong and self._wrong[0][0] <= now - WINDOW:
                self._wrong.popleft()
            tries = [each for _, each in self._wrong]
            if tries.count(name) >= MOST_FOR_A_NAME or len(tries) >= MOST_FOR_ALL:
                raise ApiRejection(
                    "too-many-tries",
                    f"Signing in: too many wrong tries. Wait {WINDOW.total_seconds() / 60:.0f} minutes, "
                    "or use a token.",
                )
            token = await asyncio.to_thread(self._book.sign_in, name, str(password), LASTS)
            if token is None:
                self._wrong.append((now, name))
                # what was typed may be anything, a password too: only a name that there is is kept
                known = await asyncio.to_thread(self._book.current_identity, name)
                await self._note("sign_in_failed", name if known else "", "password")
                raise ApiRejection(
                    "wrong-password",
                    "Signing in: that name and password do not belong together. "
                    "Try again, or ask an admin for `pilotage users password`.",
                )
        await self._note("signed_in", name, "password")
        return {"token": token, "until": (now + LASTS).isoformat()}
