"""The agent diagnoses by the site's own failure rules, and by the shipped ones where those cannot be read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pilotage.flows.agent.process import failure_rulebook
from pilotage.flows.config.settings import Settings
from pilotage.planner.detect.reasoning import EXAMPLES

RULE = """
before:
  - {id: ledger-closed, failure_class: dependency, because: closed at night, phrases: ["ledger is closed"], cure: minutes}
after:
  - {id: no-memory-here, failure_class: auth, because: shadowed, phrases: ["out of memory"]}
"""


def test_the_file_of_the_state_directory_is_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert failure_rulebook(Settings(state_dir=tmp_path)) is EXAMPLES
    (tmp_path / "failure_rules.yaml").write_text(RULE)
    with caplog.at_level(logging.INFO):
        book = failure_rulebook(Settings(state_dir=tmp_path))
    assert book.rules[0].id == "ledger-closed"
    assert "no-memory-here cannot decide" in caplog.text


def test_a_file_that_cannot_be_read_is_told_of_and_the_shipped_rules_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "mine.yaml"
    other.write_text("before: 7")
    assert failure_rulebook(Settings(state_dir=tmp_path, failure_rules=other)) is EXAMPLES
    assert str(other) in caplog.text
