"""A token proves one name, the file is strict, and nothing that a caller says can name somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ConfigError

HASH = "a" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "users.toml"


@pytest.fixture
def book(path: Path) -> IdentityBook:
    return IdentityBook(path)


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_proves_the_name_it_was_made_for_and_no_other(book: IdentityBook) -> None:
    ann = book.add("ann", ["approver", "admin"], ["data"])
    bob = book.add("bob", ["operator"])
    assert book.authenticate(ann) == Identity(
        name="ann", kind="user", roles=frozenset({"approver", "admin"}), teams=frozenset({"data"})
    )
    assert book.authenticate(bob) == Identity(name="bob", kind="user", roles=frozenset({"operator"}))
    for wrong in ("", "ann", ann[:-1], ann + "x", ann.swapcase(), HASH, "\ud800"):
        assert book.authenticate(wrong) is None


def test_the_stored_hash_is_no_token_and_the_token_is_not_stored(book: IdentityBook, path: Path) -> None:
    token = book.add("ann", ["viewer"])
    text = path.read_text()
    assert token not in text
    stored = text.split('token_sha256 = "')[1][:64]
    assert book.authenticate(stored) is None


def test_a_users_file_is_made_for_its_owner_alone(book: IdentityBook, path: Path) -> None:
    book.add("ann", ["viewer"])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_book_without_a_file_knows_nobody(book: IdentityBook) -> None:
    assert book.everyone() == ()
    assert book.authenticate("anything") is None


def test_a_section_that_is_removed_ends_its_token_at_once(book: IdentityBook, path: Path) -> None:
    ann = book.add("ann", ["viewer"])
    kept = path.read_text()
    book.add("bob", ["viewer"])
    path.write_text(kept.replace("ann", "eve"))
    found = book.authenticate(ann)
    assert found is not None
    assert found.name == "eve"
    path.unlink()
    assert book.authenticate(ann) is None


def test_a_file_that_went_bad_lets_nobody_in_until_it_is_put_right(book: IdentityBook, path: Path) -> None:
    ann = book.add("ann", ["viewer"])
    good = path.read_text()
    written(path, good.replace("viewer", "wiewer"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="`wiewer` is not a role; valid roles are viewer, operator"):
            book.authenticate(ann)
    written(path, good)
    assert book.authenticate(ann) is not None


def test_a_name_is_given_once(book: IdentityBook) -> None:
    book.add("ann", ["viewer"])
    with pytest.raises(ConfigError, match="the name is taken"):
        book.add("ann", ["admin"])


@pytest.mark.parametrize(
    "name",
    ["", 'x"]\n[users.root', "a b", "ann\n", "-ann", "a" * 81, "ann​"],
    ids=["empty", "section", "space", "newline", "dash", "long", "invisible"],
)
def test_a_name_that_is_none_is_refused_and_the_file_stays(book: IdentityBook, path: Path, name: str) -> None:
    book.add("ann", ["viewer"])
    before = path.read_text()
    with pytest.raises(ConfigError):
        book.add(name, ["viewer"])
    assert path.read_text() == before


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666], ids=oct)
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    written(path, f'[users.ann]\nroles = ["viewer"]\ntoken_sha256 = "{HASH}"\n', mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        IdentityBook(path)


BAD = {
    "no toml": ("users = [", "not TOML"),
    "other section": ("[people.ann]\n", "`people` is unknown"),
    "users no table": ("users = 3\n", "`users` is no table"),
    "unknown key": (
        f'[users.a]\nroles = ["viewer"]\ntoken_sha256 = "{HASH}"\nadmin = true\n',
        "`admin`.*valid keys",
    ),
    "no role": (f'[users.a]\nroles = []\ntoken_sha256 = "{HASH}"\n', "`roles`"),
    "plain token": ('[users.a]\nroles = ["viewer"]\ntoken_sha256 = "secret"\n', "`token_sha256`"),
    "agent and more": (f'[users.a]\nroles = ["agent", "admin"]\ntoken_sha256 = "{HASH}"\n', "no other role"),
    "shared token": (
        f'[users.a]\nroles = ["viewer"]\ntoken_sha256 = "{HASH}"\n'
        f'[users.b]\nroles = ["admin"]\ntoken_sha256 = "{HASH}"\n',
        "share a token",
    ),
}


@pytest.mark.parametrize(("text", "complaint"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_names_itself_and_what_is_valid(path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as told:
        IdentityBook(written(path, text))
    assert str(path) in str(told.value)


def test_a_lent_token_is_never_written_and_ends_when_taken_back(book: IdentityBook, path: Path) -> None:
    pilot = Identity(name="pilot", kind="agent", roles=frozenset({"agent"}))
    token = book.issue_session_token(pilot)
    assert book.authenticate(token) == pilot
    assert not path.exists()
    assert IdentityBook(path).authenticate(token) is None
    book.take_back(token)
    assert book.authenticate(token) is None


def test_lending_cannot_take_the_name_of_a_person_or_mix_kinds(book: IdentityBook) -> None:
    book.add("ann", ["viewer"])
    with pytest.raises(ConfigError, match="has another so named"):
        book.issue_session_token(Identity(name="ann", kind="user", roles=frozenset({"admin"})))
    with pytest.raises(ConfigError, match="kind and roles differ"):
        book.issue_session_token(Identity(name="robot", kind="agent", roles=frozenset({"admin"})))
    with pytest.raises(ConfigError, match="kind and roles differ"):
        book.issue_session_token(Identity(name="robot", kind="user", roles=frozenset({"agent"})))
