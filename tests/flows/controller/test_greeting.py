"""`up` begins with at most ten lines that say where it is, how far it goes, what it watches and what to do next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command

from pilotage.console.cli.main import app
from pilotage.flows.controller.greeting import MEANING, MOST_LINES, NEXT, Start, Watched, greeting
from pilotage.flows.doctor.facts import DeploymentFacts
from pilotage.policies.types import Mode

START = Start(
    server="3.8.8",
    api_url="http://127.0.0.1:4200/api",
    mode=Mode.SHADOW,
    source="the first start is always in shadow",
    policies="a" * 64,
    root=Path("/var/pilotage"),
    token_file=Path("/var/pilotage/token"),
    watched=Watched(
        deployments=(
            DeploymentFacts(name="pay/out", tags=("env:dev",)),
            DeploymentFacts(name="pay/in", tags=("team:pay",)),
        ),
        pools=1,
    ),
)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("notices", [0, 1, 5, 20])
def test_the_greeting_is_short_and_whole_in_every_mode(mode: Mode, notices: int) -> None:
    lines = greeting(replace(START, mode=mode, notices=[f"notice {number}." for number in range(notices)]))
    text = "\n".join(lines)
    assert len(lines) <= MOST_LINES < 10
    assert [number for number in range(notices) if f"notice {number}." not in text] == []
    for word in (
        "3.8.8",
        "4200",
        mode.value,
        MEANING[mode],
        START.source,
        "/var/pilotage/token",
        "2 deployments",
    ):
        assert word in text
    assert "1 of them without an `env:` tag" in text
    assert sum("pilotage " in line for line in lines[-3:]) == 3


@pytest.mark.parametrize("mode", Mode)
def test_the_next_commands_exist(mode: Mode) -> None:
    for command, _ in NEXT[mode]:
        words = command.replace("…", "because").split()[1:]
        found = get_command(app)
        while words and hasattr(found, "commands") and words[0] in found.commands:
            found = found.commands[words.pop(0)]
        found.make_context("pilotage", words)


def test_a_missing_token_is_said(tmp_path: Path) -> None:
    assert "no token in" in "\n".join(greeting(START))
    own = tmp_path / "token"
    own.touch()
    assert f"your token is in {own}" in "\n".join(greeting(replace(START, token_file=own)))
