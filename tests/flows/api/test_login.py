"""Signing in with a password: answered to strangers, counted, and never a way round the token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pilotage.flows.api.client import ApiClient, ApiRejection
from pilotage.flows.api.login import MOST_FOR_A_NAME, MOST_FOR_ALL, WINDOW, LoginThrottle
from pilotage.flows.api.server import ApiServer
from pilotage.policies.identity.users import IdentityBook

PASSWORD = "correct horse battery"


class Clock:
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Quick(IdentityBook):
    """The book with a quick comparison: these tests try often, and the slow hash has tests of its own."""

    def sign_in(self, name: str, password: str, lasts: timedelta) -> str | None:
        return "a-token" if (name, password) == ("ann", PASSWORD) else None


async def silent(step: str, name: str, how: str, **detail: object) -> None:
    """A log that nobody reads: tests/console/web/test_oidc.py looks at the real one."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(tmp_path: Path, clock: Clock) -> LoginThrottle:
    return LoginThrottle(Quick(tmp_path / "users.toml"), clock, silent)


def kind_of(run: Callable[[], object]) -> str:
    with pytest.raises(ApiRejection) as refusal:
        run()
    return refusal.value.kind


def test_after_five_wrong_tries_even_the_right_password_waits(keeper: LoginThrottle, clock: Clock) -> None:
    for _ in range(MOST_FOR_A_NAME):
        assert kind_of(lambda: asyncio.run(keeper.sign_in("ann", "guess"))) == "wrong-password"
    assert kind_of(lambda: asyncio.run(keeper.sign_in("ann", PASSWORD))) == "too-many-tries"
    clock.now += WINDOW
    assert asyncio.run(keeper.sign_in("ann", PASSWORD))["token"] == "a-token"


def test_guessing_at_many_names_ends_as_well(keeper: LoginThrottle) -> None:
    for number in range(MOST_FOR_ALL):
        assert kind_of(lambda n=number: asyncio.run(keeper.sign_in(f"n{n}", "x"))) == "wrong-password"  # type: ignore[misc]
    assert kind_of(lambda: asyncio.run(keeper.sign_in("ann", PASSWORD))) == "too-many-tries"


def test_signing_in_over_the_socket_gives_a_token_that_the_desk_takes(tmp_path: Path, clock: Clock) -> None:
    book = IdentityBook(tmp_path / "users.toml")
    book.add("ann", roles=("viewer",))
    book.set_password("ann", PASSWORD)
    path = tmp_path / "desk.sock"

    async def story() -> None:
        server = ApiServer(
            path, {}, book.authenticate, strangers={"sign_in": LoginThrottle(book, clock, silent).sign_in}
        )
        await server.start()
        try:
            found = await asyncio.to_thread(
                ApiClient(path, "").call, "sign_in", name="ann", password=PASSWORD
            )
            with pytest.raises(ApiRejection) as known:  # known, but the API of this test has no operation
                await asyncio.to_thread(ApiClient(path, found["token"]).call, "whoami")
            assert known.value.kind == "unknown-operation"
            with pytest.raises(ApiRejection) as refusal:
                await asyncio.to_thread(ApiClient(path, "").call, "sign_in", name="ann", wrong="x")
            assert refusal.value.kind == "bad-request"
        finally:
            await server.close()

    asyncio.run(story())
