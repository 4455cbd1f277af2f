"""With --json nothing but JSON is on standard output: every command that takes it, found in the command line itself.

A failure is `{"ok": false, "error": {"kind", "message"}}` on standard output, or words on standard error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.console.cli_stack import CliStack, cli_stack
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE

SLOW = {("demo",), ("up",)}
"""They start servers; `up` is tried where it cannot, and the demo has a test of its own."""
QUICK: dict[tuple[str, ...], tuple[str, ...]] = {("bench", "faults"): ("--list",)}
"""What makes a command quick that would take half an hour; it has tests of its own."""
LINES = {("ask",)}
"""One JSON value a line."""
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command by its path."""

    def below(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        if hasattr(command, "commands"):
            for name, each in command.commands.items():
                yield from below((*path, name), each)
        else:
            yield path, command

    return below((), typer.main.get_command(app))


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@pytest.fixture(autouse=True)
def _files_are_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that writes a file is given a bare name."""
    monkeypatch.chdir(tmp_path)


WITH_JSON = {path: command for path, command in commands() if "--json" in options(command)}


def given(path: tuple[str, ...], command: Any, sample: dict[str, str]) -> list[str]:
    """What the command cannot do without: a value for each required argument and option."""
    words: list[str] = []
    for parameter in command.params:
        if not parameter.required:
            continue
        value = SPECIAL.get((*path, str(parameter.name))) or sample.get(str(parameter.name), "x")
        value = value if value != "PROPOSAL" else sample["proposal"]
        words += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return words


SPECIAL = {
    ("policy", "explain", "subject"): "PROPOSAL",
    ("why", "subject"): "PROPOSAL",
    ("amend", "set_"): "delay=PT5M",
    ("autonomy", "set", "kind"): "retry_run",
    ("autonomy", "set", "level"): "demoted",
    ("break-glass", "kind"): "retry_run",
    ("break-glass", "target"): "run:*",
    ("mode", "set", "mode"): "approve",
    ("users", "add", "role"): "viewer",
    ("users", "token", "role"): "viewer",
    ("policy", "diff", "old"): str(DEFAULT_BUNDLE),
    ("ask", "question"): "/status",
}


def moments(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from moments(each)
    elif isinstance(value, list):
        for each in value:
            yield from moments(each)
    elif isinstance(value, str) and MOMENT.match(value):
        yield value


def only_json(path: tuple[str, ...], out: str) -> list[Any]:
    """The values on standard output. Fails when there is anything else."""
    if not out:
        return []
    return [json.loads(line) for line in out.splitlines()] if path in LINES else [json.loads(out)]


@pytest.fixture(scope="module")
def shore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliStack]:
    with cli_stack(tmp_path_factory.mktemp("q")) as found:
        yield found


def test_commands_that_take_it_are_found() -> None:
    assert len(WITH_JSON) > 25


@pytest.mark.parametrize("path", sorted(set(WITH_JSON) - {("demo",)}), ids=" ".join)
def test_a_failure_is_json_or_on_standard_error(path: tuple[str, ...], tmp_path: Path) -> None:
    """The state directory is a file: nothing can be read, made or asked there."""
    command = WITH_JSON[path]
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    where = ["--state-dir", str(nowhere)] if "--state-dir" in options(command) else []
    said = CliRunner().invoke(
        app,
        [
            *path,
            *given(path, command, {"proposal": "p-000000000000"}),
            *QUICK.get(path, ()),
            *where,
            "--json",
        ],
    )
    assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
    for value in only_json(path, said.stdout):
        if said.exit_code and isinstance(value, dict) and value.get("ok") is False and "error" in value:
            assert set(value["error"]) == {"kind", "message"}
    assert said.exit_code == 0 or said.stdout or said.stderr


@pytest.mark.parametrize("path", sorted(set(WITH_JSON) - SLOW), ids=" ".join)
def test_an_answer_is_json_with_times_that_name_their_offset(path: tuple[str, ...], shore: CliStack) -> None:
    command = WITH_JSON[path]
    sample = {"proposal": shore.waiting()["proposal_id"], "name": "vic", "to": str(shore.paths.root / "to")}
    token = shore.paths.root / "ada.token"
    token.write_text(shore.tokens["ada"])
    here = []
    if "--state-dir" in options(command):
        here += ["--state-dir", str(shore.paths.root)]
    if "--token-file" in options(command):
        here += ["--token-file", str(token)]
    said = CliRunner().invoke(
        app, [*path, *given(path, command, sample), *QUICK.get(path, ()), *here, "--json"]
    )
    assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
    values = only_json(path, said.stdout)
    assert values or said.stderr
    for moment in (each for value in values for each in moments(value)):
        assert datetime.fromisoformat(moment).tzinfo is not None, moment
