"""People of an installation: there is always an admin, and a token that is missing is not a process that is down."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.console.cli_stack import CliStack, cli_stack
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.controller.owner import ensure_admin, owner_name
from pilotage.policies.identity.users import IdentityBook
from pilotage.telemetry.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_token_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PILOTAGE_TOKEN_FILE", raising=False)


def users(root: Path, *arguments: str) -> tuple[int, Any]:
    ran = CliRunner().invoke(app, ["users", *arguments, "--state-dir", str(root), "--json"])
    return ran.exit_code, json.loads(ran.stdout) if ran.stdout else ran.stderr


def admins(root: Path) -> list[str]:
    return [each.name for each in IdentityBook(root / "users.toml").everyone() if "admin" in each.roles]


def test_the_first_person_of_an_installation_comes_with_an_admin(tmp_path: Path) -> None:
    root = tmp_path / "state"
    code, made = users(root, "add", "ann", "--role", "approver")
    assert code == 0
    assert (made["name"], made["admin"]) == ("ann", owner_name())
    assert admins(root) == [owner_name()]
    token = root / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    found = IdentityBook(root / "users.toml").authenticate(token.read_text().strip())
    assert found is not None
    assert found.name == owner_name()
    _, second = users(root, "add", "bob", "--role", "viewer")
    assert "admin" not in second


def test_an_owner_who_adds_themselves_first_is_admin_besides(tmp_path: Path) -> None:
    _, made = users(tmp_path, "add", owner_name(), "--role", "viewer")
    assert made["admin"] == owner_name()
    assert admins(tmp_path) == [owner_name()]
    assert (tmp_path / "token").read_text().strip() == made["token"]


def test_a_first_admin_by_another_name_is_enough(tmp_path: Path) -> None:
    _, made = users(tmp_path, "add", "ada", "--role", "admin")
    assert "admin" not in made
    assert admins(tmp_path) == ["ada"]


def test_a_wrong_role_leaves_nobody_behind(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["users", "add", "ann", "--role", "boss", "--state-dir", str(tmp_path)])
    assert ran.exit_code == 2
    assert not (tmp_path / "users.toml").exists()


def test_a_start_mends_an_installation_that_was_left_without_an_admin(tmp_path: Path) -> None:
    paths = StatePaths(root=tmp_path)
    book = IdentityBook(paths.users)
    book.add("ann", roles=("approver",))
    made = ensure_admin(book, paths)
    assert made is not None
    assert made.token_file == paths.token
    assert ensure_admin(book, paths) is None
    named = IdentityBook(tmp_path / "other.toml")
    own = named.add(owner_name(), roles=("viewer",))
    assert ensure_admin(named, paths) is not None
    found = named.authenticate(own)
    assert found is not None
    assert found.roles == {"viewer", "admin", "operator"}


@pytest.mark.parametrize(
    ("login", "name"),
    [("ann", "ann"), ("CORP\\ann b", "CORP-ann-b"), ("$$$", "owner"), ("x" * 200, "x" * 80)],
)
def test_any_login_makes_a_name_that_the_users_file_takes(
    login: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", login)
    assert owner_name() == name
    assert ensure_admin(IdentityBook(tmp_path / "users.toml"), StatePaths(root=tmp_path)) is not None


def test_everybody_is_listed_without_a_secret(tmp_path: Path) -> None:
    book = IdentityBook(tmp_path / "users.toml")
    tokens = [
        book.add("ada", roles=("admin",), teams=("core",)),
        book.add("ann", roles=("approver", "viewer")),
    ]
    until = datetime.now(UTC) + timedelta(days=3)
    tokens.append(book.add_token("ann", "ci", roles=("viewer",), until=until))
    book.set_password("ada", "a long enough password")
    _, listed = users(tmp_path, "list")
    assert listed == [
        {
            "name": "ada",
            "kind": "user",
            "roles": ["admin"],
            "teams": ["core"],
            "password": True,
            "tokens": {},
        },
        {
            "name": "ann",
            "kind": "user",
            "roles": ["approver", "viewer"],
            "teams": [],
            "password": False,
            "tokens": {"ci": until.isoformat()},
        },
    ]
    shown = CliRunner().invoke(app, ["users", "list", "--state-dir", str(tmp_path)]).output
    assert "ada" in shown
    assert not [token for token in tokens if token in shown]
    nobody = CliRunner().invoke(app, ["users", "list", "--state-dir", str(tmp_path / "none")])
    assert nobody.exit_code == 0
    assert "first `pilotage up`" in " ".join(nobody.output.split())


def test_a_person_who_is_removed_proves_nothing_any_more_and_the_last_admin_stays(tmp_path: Path) -> None:
    book = IdentityBook(tmp_path / "users.toml")
    book.add("ada", roles=("admin",))
    ann = book.add("ann", roles=("approver",))
    assert users(tmp_path, "remove", "ann") == (0, {"removed": "ann"})
    assert book.authenticate(ann) is None
    with pytest.raises(ConfigError, match="only admin"):
        book.remove("ada")
    with pytest.raises(ConfigError, match="nobody so named"):
        book.remove("zoe")
    book.add("bob", roles=("admin",))
    assert users(tmp_path, "remove", "ada")[0] == 0
    assert admins(tmp_path) == ["bob"]


@pytest.fixture(scope="module")
def console_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliStack]:
    with cli_stack(tmp_path_factory.mktemp("users")) as found:
        yield found


def status(cli_stack: CliStack, *token: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["status", "--state-dir", str(cli_stack.paths.root), *token])
    return ran.exit_code, " ".join(ran.output.split())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"", "it is empty"),
        (b"\xff\xfe", "it holds no text"),
        (b"wrong", "nobody has it"),
    ],
    ids=["missing", "empty", "not text", "wrong"],
)
def test_a_token_that_proves_nothing_is_what_is_blamed(
    console_stack: CliStack, content: bytes | None, said: str, tmp_path: Path
) -> None:
    """Also while the process that would answer holds the directory."""
    import fcntl

    path = tmp_path / "my.token"
    if content is not None:
        path.write_bytes(content)
    with console_stack.paths.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, told = status(console_stack, "--token-file", str(path))
    assert code in (1, 3)
    assert said in told
    assert str(path) in told.replace(" ", "")
    assert "users add" in told
    assert "does not answer" not in told


def test_a_directory_that_is_not_there_is_what_is_blamed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    where = ["--state-dir", str(tmp_path / "none"), "--token-file", str(token)]
    ran = CliRunner().invoke(app, ["status", *where])
    assert ran.exit_code == 1
    assert "there is no directory" in " ".join(ran.output.split())
