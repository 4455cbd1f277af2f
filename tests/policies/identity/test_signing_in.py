"""Passwords and further tokens: what a person chose is hashed slowly, what they were given is narrow and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pilotage.policies.identity import passwords
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ConfigError

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> IdentityBook:
    found = IdentityBook(tmp_path / "users.toml", clock=clock)
    found.add("ann", roles=("approver", "operator"), teams=("payments",))
    return found


def test_a_right_password_earns_a_token_that_ends(book: IdentityBook, clock: Clock) -> None:
    book.set_password("ann", PASSWORD)
    token = book.sign_in("ann", PASSWORD, timedelta(hours=8))
    assert token is not None
    who = book.authenticate(token)
    assert who is not None
    assert who == Identity(
        name="ann", kind="user", roles=frozenset({"approver", "operator"}), teams=frozenset({"payments"})
    )
    clock.now += timedelta(hours=8)
    assert book.authenticate(token) is None


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "wrong horse battery"), ("bob", PASSWORD), ("ann", "")]
)
def test_anything_else_earns_nothing(book: IdentityBook, name: str, password: str) -> None:
    book.set_password("ann", PASSWORD)
    assert book.sign_in(name, password, timedelta(hours=8)) is None


def test_without_a_password_nobody_signs_in(book: IdentityBook) -> None:
    assert book.sign_in("ann", "", timedelta(hours=8)) is None


def test_only_a_slow_hash_is_written(book: IdentityBook, tmp_path: Path) -> None:
    book.set_password("ann", PASSWORD)
    text = (tmp_path / "users.toml").read_text()
    assert PASSWORD not in text
    assert "scrypt$32768$8$1$" in text
    assert (tmp_path / "users.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("password", ["short", "x" * 2000])
def test_a_password_of_a_wrong_length_is_refused(book: IdentityBook, password: str) -> None:
    with pytest.raises(ConfigError, match="12 to 1024 characters"):
        book.set_password("ann", password)


def test_a_token_opens_only_its_roles_and_only_until_its_end(book: IdentityBook, clock: Clock) -> None:
    token = book.add_token("ann", "ci", roles=("operator",), until=NOON + timedelta(days=1))
    who = book.authenticate(token)
    assert who is not None
    assert who.name == "ann"
    assert who.roles == frozenset({"operator"})
    clock.now += timedelta(days=1)
    assert book.authenticate(token) is None


def test_a_token_cannot_be_wider_than_its_person(book: IdentityBook) -> None:
    with pytest.raises(ConfigError, match="ann is not admin"):
        book.add_token("ann", "ci", roles=("admin",), until=NOON + timedelta(days=1))


def test_a_person_who_lost_a_role_lost_it_in_their_tokens_too(book: IdentityBook, tmp_path: Path) -> None:
    book.set_password("ann", PASSWORD)
    signed_in = book.sign_in("ann", PASSWORD, timedelta(hours=8))
    scoped = book.add_token("ann", "ci", roles=("operator",), until=NOON + timedelta(days=1))
    path = tmp_path / "users.toml"
    path.write_text(path.read_text().replace('roles = ["approver", "operator"]', 'roles = ["approver"]'))
    assert signed_in is not None
    for token in (signed_in, scoped):
        who = book.authenticate(token)
        assert who is not None
        assert "operator" not in who.roles


def test_editing_keeps_everybody_else(book: IdentityBook, tmp_path: Path) -> None:
    token = book.add("bob", roles=("viewer",))
    book.set_password("ann", PASSWORD)
    book.add_token("ann", "ci", roles=("operator",), until=NOON + timedelta(days=1))
    again = IdentityBook(tmp_path / "users.toml")
    assert [each.name for each in again.everyone()] == ["ann", "bob"]
    bob = again.authenticate(token)
    assert bob is not None
    assert bob.name == "bob"


@pytest.mark.parametrize(
    "stored", ["", "scrypt$x", "md5$1$1$1$AAAA$BBBB", "scrypt$3$8$1$!!$!!", "scrypt$0$0$0$AAAA$AAAA"]
)
def test_a_hash_that_is_none_matches_nothing(stored: str) -> None:
    assert not passwords.matches(PASSWORD, stored)
