"""A state directory that cannot be used is one sentence; one that can be is its owner's alone."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.state_directory import loose_paths, prepare_state_directory
from pilotage.flows.controller.backup import BACKUPS
from pilotage.telemetry.errors import ConfigError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_new_directory_is_its_owners_alone(tmp_path: Path) -> None:
    assert prepare_state_directory(tmp_path / "a" / "b") == ()
    assert mode(tmp_path / "a" / "b") == 0o700


def test_what_others_may_open_is_tightened_and_named(tmp_path: Path) -> None:
    root = tmp_path / "state"
    (root / "agent" / "deep").mkdir(parents=True)
    for path in (root, root / "agent", root / "agent" / "deep"):
        path.chmod(0o755)
    files = [root / "ledger.sqlite", root / "agent" / "agent.log", root / "agent" / "deep" / "x"]
    for path in files:
        path.touch()
        path.chmod(0o644)
    (root / "tool").touch(mode=0o755)
    assert set(prepare_state_directory(root)) == {
        root,
        root / "agent",
        root / "agent" / "deep",
        *files,
        root / "tool",
    }
    assert {mode(path) for path in files} == {0o600}
    assert mode(root) == mode(root / "agent") == mode(root / "agent" / "deep") == mode(root / "tool") == 0o700
    assert loose_paths(root) == ()


@pytest.mark.parametrize("name", ["agent", BACKUPS, f"{StatePaths(root=Path()).telemetry.name}.snapshots"])
def test_each_directory_that_we_fill_is_tightened(tmp_path: Path, name: str) -> None:
    ours = tmp_path / "state" / name
    ours.mkdir(parents=True)
    ours.chmod(0o755)
    (ours / "copy").touch()
    (ours / "copy").chmod(0o644)
    assert {ours, ours / "copy"} <= set(prepare_state_directory(tmp_path / "state"))
    assert (mode(ours), mode(ours / "copy")) == (0o700, 0o600)


def test_what_a_person_keeps_there_is_left_as_it_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(mode=0o644)
    elsewhere.chmod(0o644)
    bundle = tmp_path / "state" / "my-policies"
    bundle.mkdir(parents=True)
    bundle.chmod(0o755)
    (tmp_path / "state" / "link").symlink_to(elsewhere)
    prepare_state_directory(tmp_path / "state")
    assert mode(elsewhere) == 0o644
    assert mode(bundle) == 0o755


def test_a_directory_of_all_users_is_refused_and_not_touched(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match="all users of this machine share it"):
        prepare_state_directory(tmp_path)
    assert mode(tmp_path) == 0o1777
    with pytest.raises(ConfigError, match="all users"):
        prepare_state_directory(Path("/"))


@pytest.mark.parametrize(
    ("below", "said"),
    [("file", "is a file, not a directory"), ("file/state", "is a file, not a directory")],
)
def test_up_says_in_one_sentence_that_a_file_is_in_the_way(tmp_path: Path, below: str, said: str) -> None:
    (tmp_path / "file").touch()
    told(tmp_path / below, said)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system that takes no file, whoever asks")
@pytest.mark.parametrize(
    ("where", "said"),
    [("/proc/pilotage", "it cannot be made"), ("/proc/self", "nothing can be written in it")],
    ids=["that cannot be made", "that cannot be written"],
)
def test_up_says_in_one_sentence_that_it_may_not_write(where: str, said: str) -> None:
    told(Path(where), said)


def told(root: Path, said: str) -> None:
    """`up` and `users add` say it, in one sentence, and exit as for something that a person must edit."""
    for command in (["up"], ["users", "add", "ann", "--role", "viewer"]):
        ran = CliRunner().invoke(app, [*command, "--state-dir", str(root)])
        assert ran.exit_code == 2
        text = " ".join(ran.output.split())
        assert said in text
        assert "--state-dir" in text
        assert "Traceback" not in text
        assert len(text) < 400


def test_a_socket_that_was_left_behind_is_tightened_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "x.sock"))
        (tmp_path / "x.sock").chmod(0o666)
        assert tmp_path / "x.sock" in prepare_state_directory(tmp_path)
