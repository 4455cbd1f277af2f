"""`pilotage diagnose` and `pilotage rules`: texts in, JSON out, without a server or a state directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pilotage.console.cli.diagnose import RULES_VARIABLE, join
from pilotage.planner.detect.diagnosis import DEFAULT_CURE

KEYS = {"id", "failure_class", "by", "rule_id", "confidence", "remedy", "actions", "evidence"}
RULES = """
before:
  - id: ledger-closed
    failure_class: dependency
    because: the ledger is closed at night
    phrases: ["ledger is closed"]
    cure: minutes
examples:
  - {message: "LedgerError: the ledger is closed", failure_class: dependency, rule: ledger-closed}
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("PILOTAGE_STATE_DIR", str(tmp_path / "nowhere"))
    monkeypatch.delenv(RULES_VARIABLE, raising=False)
    app = typer.Typer()
    join(app)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(a) for a in arguments])


def test_a_message_and_its_logs_are_diagnosed(run: Any) -> None:
    done = run(
        "diagnose", "--message", "Flow run process exited with non-zero status code -9.", "--state", "crashed",
        "--log", "ERROR | kernel: Out of memory: Killed process 42", "--json",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert set(told) >= KEYS
    assert (told["failure_class"], told["remedy"], told["by"]) == ("out_of_memory", "more_memory", "rule")


def test_a_file_gives_one_object_a_line_in_its_order(run: Any, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "state_type": "FAILED", "message": "Flow run encountered an exception: KeyError: 'x'"},
        {"id": "b", "state_type": "CRASHED", "state_name": "Crashed", "message": "", "log_tail": ["WARNING | ErrImagePull"],
         "expected_class": "ignored"},
    ]  # fmt: skip
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    told = [json.loads(line) for line in run("diagnose", file, "--json").stdout.splitlines()]
    assert [(t["id"], t["failure_class"], t["remedy"]) for t in told] == [
        ("a", "code_bug", "tell_owner"),
        ("b", "infrastructure", "tell_owner"),
    ]
    assert told[1]["narrower_class"] == "environment"


def test_a_secret_in_a_text_is_not_printed(run: Any) -> None:
    done = run(
        "diagnose",
        "--message",
        "Flow run encountered an exception: ValueError: password=hunter2hunter2",
        "--json",
    )
    assert "hunter2hunter2" not in done.stdout


def test_people_see_the_class_by_whom_and_the_remedy(run: Any) -> None:
    shown = run("diagnose", "--message", "Flow run encountered an exception: KeyError: 'x'").stdout
    assert all(word in shown for word in ("code_bug", "programming-error", "tell_owner", "notify_owner"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["diagnose"], "give a run's id, a file, or --message"),
        (["diagnose", "--message", "x", "--state", "Odd"], "Valid are Failed, TimedOut and Crashed"),
        (["diagnose", "missing.jsonl"], "Reading missing.jsonl"),
        (["diagnose", "no-such-run"], "nobody serves it"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(run: Any, arguments: list[str], why: str) -> None:
    done = run(*arguments)
    assert done.exit_code != 0
    assert why in " ".join(done.stderr.split())


def test_a_sites_rules_decide_before_ours(run: Any, tmp_path: Path) -> None:
    rules = tmp_path / "failure_rules.yaml"
    rules.write_text(RULES)
    arguments = [
        "diagnose",
        "--message",
        "Flow run encountered an exception: OSError: ledger is closed",
        "--json",
    ]
    assert json.loads(run(*arguments).stdout)["rule_id"] != "ledger-closed"
    told = json.loads(run(*arguments, "--rules", rules).stdout)
    assert (told["rule_id"], told["remedy"]) == ("ledger-closed", "retry_later")
    assert run("rules", "check", rules).exit_code == 0
    assert run("rules", "test", rules).exit_code == 0


def test_a_row_that_another_keeps_from_deciding_is_named(run: Any, tmp_path: Path) -> None:
    rules = tmp_path / "failure_rules.yaml"
    rules.write_text(
        "after:\n  - {id: late, failure_class: dependency, because: x, phrases: ['OOMKilled']}\n"
        "before:\n  - {id: wide, failure_class: dependency, because: x, exceptions: [MissingContextError]}\n"
        "  - {id: narrow, failure_class: auth, because: x, exceptions: [MissingContextError]}\n"
    )
    done = run("rules", "check", rules, "--json")
    assert done.exit_code == 1
    assert {(s["rule"], s["by"]) for s in json.loads(done.stdout)["shadowed"]} >= {
        ("late", "memory-container"),
        ("narrow", "wide"),
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("before: [{id: a}]", "before.0.failure_class"),
        ("before: [{id: a, failure_class: auth, because: x}]", "asks for nothing"),
        ("before: [{id: killed, failure_class: auth, because: x, phrases: [y]}]", "the id killed is taken"),
        ("before: {", "no YAML"),
    ],
)
def test_a_file_of_rules_that_cannot_be_read_says_where(
    run: Any, tmp_path: Path, text: str, why: str
) -> None:
    rules = tmp_path / "failure_rules.yaml"
    rules.write_text(text)
    done = run("rules", "check", rules)
    assert done.exit_code == 2
    assert why in " ".join(done.stderr.split())


def test_an_example_that_fails_is_shown(run: Any, tmp_path: Path) -> None:
    rules = tmp_path / "failure_rules.yaml"
    rules.write_text(RULES.replace("failure_class: dependency, rule", "failure_class: auth, rule"))
    done = run("rules", "test", rules, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["wrong"][0]["expected"] == "auth"


def test_every_class_that_is_printed_has_something_that_helps() -> None:
    assert {
        "transient",
        "capacity",
        "certificate",
        "environment",
        "quota_spent",
        "may_still_be_running",
    } <= set(DEFAULT_CURE)
