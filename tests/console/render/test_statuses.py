"""Every status word that the code can show is in the one table, and the docs are made from it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.console.render.statuses import (
    AUTONOMY,
    EFFECT,
    GROUPS,
    INCIDENT,
    MODE,
    OUTCOME,
    PROPOSAL,
    STEP,
    VERDICT,
    as_markdown,
    legend,
)
from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.policies.ledger.protocol import Status
from pilotage.policies.ledger_facts import Autonomy
from pilotage.policies.types import Mode, Outcome

ROOT = Path(__file__).parents[3]


def test_every_status_of_the_code_is_in_the_table() -> None:
    assert set(PROPOSAL) == set(get_args(Status))
    assert set(INCIDENT) == {"open", "waiting", "recovered", "resolved", "told", "held"}
    assert set(VERDICT) == set(Outcome) | {"unjudged"}
    assert set(MODE) == set(Mode) | {"not running"}
    assert set(EFFECT) == set(Effect)
    assert set(OUTCOME) == set(Judgement)
    assert set(AUTONOMY) == set(get_args(Autonomy))


def _literals(node: ast.expr | None) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value


def _events(tree: ast.AST) -> Iterator[str]:
    """The events that a module writes into the audit log: `event=…`, `event = …`, and what notes are given."""
    for node in ast.walk(tree):
        if (isinstance(node, ast.keyword) and node.arg == "event") or (
            isinstance(node, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == "event" for t in node.targets)
        ):
            yield from _literals(node.value)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("note", "_note")
        ):
            yield from (word for each in node.args for word in _literals(each) if word not in ACTORS)


NOTES = {"note", "_note"}
ACTORS = {"gate", "clock", "injector", "verifier"}


def test_every_step_that_the_ledger_writes_is_in_the_table() -> None:
    written = {
        event
        for file in (ROOT / "policies" / "pilotage").rglob("*.py")
        for event in _events(ast.parse(file.read_text()))
    }
    assert len(written) > 25
    assert written <= set(STEP)


def test_the_page_of_the_docs_is_made_from_the_table() -> None:
    page = (ROOT / "docs" / "statuses.md").read_text()
    assert page == as_markdown(), "run `python -m pilotage.console.render.statuses > docs/statuses.md`"


def test_the_legend_explains_every_word_and_needs_no_installation(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["status", "--legend", "--json", "--state-dir", str(tmp_path / "none")])
    assert said.exit_code == 0
    assert json.loads(said.stdout) == legend()
    assert all(one["means"] for one in legend())
    assert len(legend()) == sum(len(words) for _, words in GROUPS.values())


@pytest.mark.parametrize("word", sorted({*PROPOSAL, *INCIDENT, *VERDICT}))
def test_the_legend_is_readable_on_a_terminal(word: str) -> None:
    assert word in CliRunner().invoke(app, ["status", "--legend"]).stdout
