"""`pilotage policy …` and `pilotage audit …` over a real ledger: each command does what its help says."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pilotage.console.cli import audit, policy
from pilotage.console.cli import main as cli
from pilotage.planner.actions.types import RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, TargetFacts, Verdict

PILOT = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
Run = Callable[..., tuple[int, Any]]


def filed(number: int, at: datetime) -> FiledProposal:
    proposal = Proposal(
        id=f"p-{number:012x}",
        incident_id="i-000000000001",
        action=RetryRun(run_id=f"{number:08x}-1111-4111-8111-111111111111"),
        expires_at=at + timedelta(hours=1),
    )
    return FiledProposal(
        proposal=proposal,
        case=CaseFile(subject="run:x", failure_class="transient"),
        proposer=PILOT,
        digest=digest_of(proposal, PILOT),
        filed_at=at,
    )


def _decided(
    gate: Gate, target: TargetFacts, now: datetime, stored: FiledProposal, ledger_facts: LedgerFacts
) -> Verdict:
    return gate.judge(stored, target, ledger_facts, now)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with three decisions: allowed in dev and went wrong, asked in prod, denied hands-off."""
    where = tmp_path / "state"
    where.mkdir()
    ledger, gate, now = (
        SqlLedger(f"sqlite:///{where / 'ledger.sqlite'}"),
        Gate(Bundle.load()),
        datetime.now(UTC),
    )
    contexts: list[dict[str, Any]] = [
        {"env": "dev"},
        {"env": "prod"},
        {"env": "dev", "tags": frozenset({"pilotage:hands-off"})},
    ]
    for number, world in enumerate(contexts, 1):
        one = filed(number, now)
        ledger.file(one)
        target = TargetFacts(
            target=target_of(one.proposal.action),
            read_at=now,
            state_type="FAILED",
            deployment_id="d-1",
            **world,
        )
        ledger.admit(
            one.proposal.id,
            partial(_decided, gate, target, now),
            Mode.AUTO,
            now,
            target,
        )
    ledger.claim_of("p-000000000001", "t", now, timedelta(seconds=30))
    ledger.record_delivery("p-000000000001", {}, "done", now)
    ledger.record_outcome("p-000000000001", "failed", "", "", now)
    ledger.close()
    return where


@pytest.fixture
def run(state: Path) -> Run:
    """Runs a command with --json: its exit code and what it printed."""

    def call(app: Any, *arguments: str, at: bool = True) -> tuple[int, Any]:
        where = ["--state-dir", str(state)] if at else []
        result = CliRunner().invoke(app, [*arguments, *where, "--json"])
        return result.exit_code, json.loads(result.stdout) if result.stdout.strip() else None

    return call


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    where = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, where)
    return where


def test_check_says_that_the_shipped_bundle_is_sound(run: Run) -> None:
    code, told = run(policy.app, "check", at=False)
    assert (code, told["ok"]) == (0, True)
    assert told["policies"] > 40


def test_check_names_the_flaw_and_its_file(run: Run, bundle: Path) -> None:
    (bundle / "zz.cedar").write_text('@id("x") permit (principal, action, resource);')
    code, told = run(policy.app, "check", "--policies", str(bundle), at=False)
    assert code == 2
    assert "zz.cedar" in told["error"]["message"]
    assert "no @reason" in told["error"]["message"]


def test_the_shipped_cases_hold_and_every_policy_decides_one(run: Run) -> None:
    code, told = run(policy.app, "test", "--coverage", at=False)
    assert (code, told["failed"], told["coverage"], told["undecided"]) == (0, [], 1.0, [])


def test_a_policy_that_decides_nothing_and_a_mutant_that_nobody_notices_fail_the_test(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    for name in ("limits", "production", "breakers", "modes", "protected", "states", "governance"):
        (bundle / f"{name}.cedar").unlink()
    cases = tmp_path / "few.yaml"
    cases.write_text("- {case: a retry, outcome: allow, by_policies: [agent-retries]}\n")
    code, told = run(
        policy.app,
        "test",
        "--coverage",
        "--mutate",
        "--policies",
        str(bundle),
        "--cases",
        str(cases),
        at=False,
    )
    assert code == 1
    assert "agent-resizes" in told["undecided"]
    assert {"policy": "agent-notifies", "change": "policy left out"} in told["survivors"]
    assert told["mutation_score"] < 0.5


def test_a_case_that_does_not_hold_is_shown(run: Run, tmp_path: Path) -> None:
    cases = tmp_path / "wrong.yaml"
    cases.write_text("- {case: a retry, outcome: deny, by_policies: [hands-off]}\n")
    code, told = run(policy.app, "test", "--cases", str(cases), at=False)
    assert code == 1
    assert told["failed"][0]["got"] == ["allow", ["agent-retries"], {}]


def test_explain_shows_a_policy_with_its_numbers_and_cases(run: Run) -> None:
    code, told = run(policy.app, "explain", "run-budget")
    assert code == 0
    assert told["guardrails"] == {"max_attempts_per_run": 3}
    assert "a spent run budget denies a retry" in told["decides"]
    assert run(policy.app, "explain", "no-such")[0] == 2


def test_explain_makes_a_proposals_decisions_again(run: Run) -> None:
    code, rows = run(policy.app, "explain", "p-000000000003")
    assert code == 0
    assert [(row["outcome"], row["policy_ids"]) for row in rows] == [("deny", ["hands-off"])]
    assert rows[0]["again"]["policy_ids"] == ["hands-off"]


WHAT_IF = {
    "another environment": (("--set", "target.env=dev"), "allow"),
    "an approval": (("--vote", "ann=approver"), "allow"),
    "a stop": (("--set", "ledger.stopped=true"), "deny"),
    "a tag": (("--set", "target.tags=[pilotage:hands-off]"), "deny"),
    "nothing": ((), "needs_approval"),
}


@pytest.mark.parametrize(("given", "outcome"), WHAT_IF.values(), ids=WHAT_IF.keys())
def test_what_if(run: Run, given: tuple[str, ...], outcome: str) -> None:
    code, told = run(policy.app, "whatif", "p-000000000002", *given)
    assert (code, told["outcome"], told["was"]["outcome"]) == (0, outcome, "needs_approval")


@pytest.mark.parametrize("given", ["target.enw=dev", "world.env=dev", "target.env"])
def test_what_if_refuses_a_field_that_there_is_not(run: Run, given: str) -> None:
    assert run(policy.app, "whatif", "p-000000000002", "--set", given)[0] == 2


def test_replay_under_the_same_bundle_changes_nothing(run: Run) -> None:
    code, told = run(policy.app, "replay")
    assert code == 0
    assert (told["decisions"], told["same"], told["moves"]) == (3, 3, {})


def test_replay_shows_what_another_bundle_would_have_changed(run: Run, tmp_path: Path) -> None:
    numbers = tmp_path / "g.yaml"
    numbers.write_text("non_production: [prod]\n")
    code, told = run(policy.app, "replay", "--guardrails", str(numbers))
    assert code == 0
    assert told["moves"] == {"allow -> needs_approval": 1, "needs_approval -> allow": 1}
    assert told["approvals_asked"] == {"before": 1, "after": 1}
    assert [one["proposal_id"] for one in told["changed"]] == ["p-000000000001", "p-000000000002"]


def test_diff_shows_policies_numbers_and_cases(run: Run, bundle: Path) -> None:
    text = (bundle / "protected.cedar").read_text()
    (bundle / "protected.cedar").write_text(text.replace("resource.tier <= 0", "resource.tier <= -1"))
    (bundle / "zz.cedar").write_text(
        '@id("zz") @reason("r") forbid (principal, action == Pilotage::Action::"stop", resource);'
    )
    numbers = (bundle / "guardrails.yaml").read_text()
    (bundle / "guardrails.yaml").write_text(
        numbers.replace("max_attempts_per_run: 3", "max_attempts_per_run: 4")
    )
    code, told = run(cli.app, "policy", "diff", str(bundle), at=False)
    assert code == 0
    assert (told["added"], told["removed"], told["changed"]) == ([], ["zz"], ["tier0-never-paused"])
    assert told["guardrails"] == {"max_attempts_per_run": {"old": 4, "new": 3}}
    assert [line[:2] for line in told["lines"]["zz"]] == ["- "] * len(told["lines"]["zz"])
    assert any(line.startswith("+") and "0" in line for line in told["lines"]["tier0-never-paused"])
    changed = {one["case"] for one in told["cases"]}
    assert {"tier 0 is never paused", "an operator stops", "a spent run budget denies a retry"} <= changed


def test_a_checkpoint_elsewhere_shows_a_cut_log(run: Run, state: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    code, told = run(audit.app, "checkpoint", "--to", str(elsewhere))
    assert code == 0
    public = told["public_key"]
    code, told = run(audit.app, "verify", "--checkpoints", str(elsewhere), "--public-key", public)
    assert (code, told["ok"], told["checkpoints"]) == (0, True, 1)
    connection = sqlite3.connect(state / "ledger.sqlite")
    connection.executescript("DROP TRIGGER audit_no_DELETE; DELETE FROM audit WHERE seq > 4")
    connection.commit()
    connection.close()
    code, told = run(audit.app, "verify", "--checkpoints", str(elsewhere))
    assert (code, told["ok"], told["first_bad"]) == (1, False, 5)
    assert "the tail was cut" in told["why"]


def test_the_export_is_json_lines(state: Path) -> None:
    result = CliRunner().invoke(audit.app, ["export", "--state-dir", str(state)])
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["body"]["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0]["body"]["event"] == "proposed"


def test_without_a_ledger_the_message_says_where_it_looked(tmp_path: Path) -> None:
    result = CliRunner().invoke(policy.app, ["replay", "--state-dir", str(tmp_path / "none"), "--json"])
    assert result.exit_code == 2
    assert "there is none" in json.loads(result.stdout)["error"]["message"]


def test_decisions_come_back_as_they_were_recorded(state: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{state / 'ledger.sqlite'}")
    try:
        past = list(ledger.decisions())
        assert [one.outcome for one in past] == ["allow", "needs_approval", "deny"]
        assert [one.judgement for one in past] == ["failed", "", ""]
        for one in past:
            assert one.ledger is not None
            assert one.filed == replace(filed(int(one.filed.proposal.id[2:], 16), one.at), filed_at=one.at)
    finally:
        ledger.close()


def test_check_takes_the_directory_without_a_flag_too(run: Run, bundle: Path) -> None:
    (bundle / "zz.cedar").write_text('@id("x") permit (principal, action, resource);')
    code, told = run(policy.app, "check", str(bundle), at=False)
    assert code == 2
    assert "zz.cedar" in told["error"]["message"]


def test_every_command_and_option_stands_in_the_readme_of_the_room() -> None:
    readme = (Path(__file__).parents[3] / "policies" / "README.md").read_text()
    commands = typer.main.get_command(cli.app).commands["policy"].commands  # type: ignore[attr-defined]  # a group
    for name, command in commands.items():
        assert f"`pilotage policy {name}" in readme, name
        for option in command.params:
            told = [word for word in option.opts if word.startswith("--")]
            assert not told or told[0] in readme, (name, told)
    assert len(commands) >= 10
