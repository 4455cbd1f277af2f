"""What the README and the pages under docs/ say can be done, can be done; what the transcript shows, the demo shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotage.console.cli.demo import COLUMNS
from pilotage.console.cli.main import app
from pilotage.flows.demo.scenarios import ACTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = "".join(
    page.read_text() for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "architecture.md"
)
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README + PAGES, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line.strip()
        for kind, block in BLOCKS
        if kind in ("", "sh")
        for line in block.splitlines()
        if line.startswith(("pilotage ", "make ", "pip "))
    }
)
MENTIONS = sorted(set(re.findall(r"`(pilotage [^`]+)`", README + PAGES)) - set(COMMANDS))
"""Commands named within a sentence: they may leave out what the sentence says."""
TRANSCRIPT = PAGES.partition("<!-- transcript begins -->")[2].partition("<!-- transcript ends -->")[0]


def ci_commands(readme: Path) -> subprocess.CompletedProcess[str]:
    """What CI takes out of a README."""
    script = ROOT / ".ci" / "readme-commands"
    return subprocess.run([script, readme], capture_output=True, text=True, check=False)


def test_ci_runs_exactly_the_two_commands_of_the_readme() -> None:
    section = README.partition("## Two commands\n")[2].partition("\n## ")[0]
    block = section.split("```")[1].strip().splitlines()
    assert ci_commands(ROOT / "README.md").stdout.splitlines() == block == ["make demo", "make test"]
    assert ".ci/readme-commands README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    "readme",
    ["# pilotage\n```\nmake demo\n```\n", "## Two commands\n\n## Next\n```\nmake demo\n```\n"],
    ids=["no heading", "no block under the heading"],
)
def test_ci_fails_when_the_readme_shows_no_commands(readme: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(readme)
    ran = ci_commands(tmp_path / "README.md")
    assert ran.returncode != 0
    assert "Two commands" in ran.stderr
    assert ran.stdout == ""


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("pilotage ")])
def test_a_command_of_a_page_exists_with_its_options(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", MENTIONS)
def test_a_command_named_in_a_sentence_exists(line: str) -> None:
    try:
        parse(line)
    except typer.Exit:
        pass
    except Exception as exc:
        if type(exc).__name__ != "MissingParameter":
            raise


def parse(line: str) -> None:
    """Parse a command line as the program does. Raises on an unknown option or a missing argument."""
    words = shlex.split(line.partition("#")[0])[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands or name.startswith("-"), f"`{line}`: there is no such command"
        if name.startswith("-"):
            return
        command = command.commands[name]
    if not hasattr(command, "commands"):
        command.make_context(command.name, words)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_a_make_target_of_the_readme_exists(line: str) -> None:
    target = line.split()[1]
    assert re.search(rf"^{re.escape(target)}\b.*:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_make_demo_runs_the_demo_and_hands_it_nothing() -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    recipe = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True
    )
    assert recipe.stdout.splitlines()[-1] == ".venv/bin/pilotage demo"


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) >= 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_transcript_shows_every_incident_of_the_demo() -> None:
    told = " ".join(re.sub(r"[│┃]", " ", TRANSCRIPT).split())
    for heading, _, _ in COLUMNS:
        assert heading in TRANSCRIPT
    for act in ACTS:
        assert f"✓ {act.case}" in TRANSCRIPT
        assert act.action in told
    assert f"{len(ACTS)} of {len(ACTS)} ended as they should" in TRANSCRIPT


def test_the_readme_and_the_contributing_page_name_no_machine() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        assert not re.search(r"(^|[^A-Za-z0-9_.])/(root|home|tmp|work)/", (ROOT / name).read_text())
