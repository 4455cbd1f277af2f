"""What people command at a real API through the command line: policed, told plainly, and a row each."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.console.cli_stack import ONE_CASE, CliStack, cli_stack
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.console.cli.options import MODES
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE
from pilotage.policies.types import Mode


@pytest.fixture
def control_api(tmp_path: Path) -> Iterator[CliStack]:
    with cli_stack(tmp_path / "cli") as opened:
        yield opened


def offline(*arguments: str) -> tuple[int, Any]:
    """What a command that asks nobody exits with and prints."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_a_vote_that_is_refused_says_who_you_are_and_what_it_takes(control_api: CliStack) -> None:
    proposal = control_api.waiting()["proposal_id"]
    code, said = control_api.say("vic", "approve", proposal)
    assert code == 3
    assert "you are vic (viewer); approver is needed" in said
    code, said = control_api.say("vic", "stop")
    assert "you are vic (viewer); operator or approver is needed" in said
    assert control_api.events()[-2:] == ["vote_refused", "command_refused"]
    code, told = control_api.run("ann", "reject", proposal, "--reason", "not during the close")
    assert (code, told["status"], told["votes"][0]["reason"]) == (0, "rejected", "not during the close")


def test_while_the_users_file_is_bad_nobody_votes_and_everybody_can_stop(control_api: CliStack) -> None:
    proposal = control_api.waiting()["proposal_id"]
    good = control_api.paths.users.read_text()
    control_api.paths.users.write_text(good.replace('"approver"', '"emperor"'))
    code, said = control_api.say("ann", "approve", proposal)
    assert code == 3
    assert "`emperor` is not a role" in said
    assert "the API knows nobody" in said
    code, said = control_api.say("ann", "stop", "--reason", "users are broken")
    assert code == 0
    assert "users are broken" in control_api.paths.stop_file.read_text()
    control_api.paths.users.write_text(good)
    assert "users are broken" in control_api.run("vic", "status")[1]["stopped"]
    assert control_api.run("vic", "proposals")[1][0]["status"] == "needs_approval"


def test_an_edited_proposal_is_another_one_and_the_editor_does_not_approve_it(control_api: CliStack) -> None:
    old = control_api.waiting()
    code, new = control_api.run("olga", "amend", old["proposal_id"], "--set", "delay=PT30S")
    assert (code, new["proposer"], new["action"]["delay"]) == (0, "olga", "PT30S")
    (replaced,) = control_api.run("vic", "proposals", "--status", "replaced")[1]
    assert (replaced["proposal_id"], replaced["replaced_by"]) == (old["proposal_id"], new["proposal_id"])
    (*_, last) = control_api.run("vic", "why", old["proposal_id"])[1]
    assert (last["step"], last["actor"], last["detail"]["by"]) == ("replaced", "olga", new["proposal_id"])
    assert (new["status"], new["verdict"]["requirements"]) == ("needs_approval", {"approver": 1})
    assert control_api.run("olga", "approve", new["proposal_id"])[0] == 3
    assert control_api.run("ann", "approve", new["proposal_id"])[1]["status"] == "allowed"
    for wrong in ("delay", "kind=cancel_run", "memory_mb=3"):
        code, told = control_api.run("olga", "amend", old["proposal_id"], "--set", wrong)
        assert code == 2
        assert "its fields are " in told["error"]["message"]
        assert "delay, run_id" in told["error"]["message"]
    assert (
        control_api.run("vic", "amend", old["proposal_id"], "--set", "delay=PT9S")[1]["error"]["kind"]
        == "wrong-role"
    )


def test_glass_is_broken_loudly_and_mended(control_api: CliStack) -> None:
    wanted = ("break-glass", "--kind", "retry_run", "--target", "run:*", "--minutes", "10")
    code, told = control_api.run("ada", *wanted, "--reason", "outage at the bank")
    assert (code, told["holder"]) == (0, "ada")
    assert "BREAK-GLASS by ada" in control_api.say("vic", "status")[1]
    assert "outage at the bank" in control_api.say("vic", "grants")[1]
    code, told_no = control_api.run("ann", *wanted, "--reason", "outage")
    assert code == 3
    assert "you are ann (approver); admin is needed" in told_no["error"]["message"]
    assert "max_break_glass" in control_api.say("ada", *wanted[:-1], "61", "--reason", "outage")[1]
    assert control_api.run("ada", *wanted, "--reason", " ")[0] == 3
    assert control_api.run("olga", "mend-glass", told["id"])[1] == {"grant": told["id"], "ended": True}
    assert control_api.run("vic", "grants")[1]["glass"] == []
    assert [step for step in control_api.events() if "glass" in step] == [
        "glass_broken", "glass_refused", "glass_refused", "glass_refused", "glass_mended"
    ]  # fmt: skip


def test_the_right_to_approve_is_lent_and_taken_back(control_api: CliStack) -> None:
    assert (
        control_api.run("ann", "delegate", "olga", "--hours", "8", "--reason", "holiday")[1]["taker"]
        == "olga"
    )
    code, told = control_api.run("olga", "approve", control_api.waiting()["proposal_id"])
    assert (code, told["status"]) == (0, "allowed")
    assert control_api.run("ann", "delegate", "--end")[1] == {"ended": 1}
    assert control_api.run("olga", "approve", control_api.waiting()["proposal_id"])[0] == 3
    assert control_api.run("ann", "delegate")[0] == 2
    assert (
        control_api.run("ann", "delegate", "nobody", "--reason", "x")[1]["error"]["kind"] == "unknown-person"
    )


def test_autonomy_is_shown_and_set_by_the_deployments_name(control_api: CliStack) -> None:
    code, told = control_api.run("ada", "autonomy", "set", "retry_run", "d-1", "demoted", "--reason", "drill")
    assert (code, told["changed"]) == (0, True)
    (row,) = control_api.run("vic", "autonomy", "show")[1]
    assert (row["kind"], row["scope"], row["level"], row["why"]) == ("retry_run", "d-1", "demoted", "drill")
    assert "demoted" in control_api.say("vic", "autonomy", "show")[1]
    assert control_api.run("ada", "autonomy", "set", "retry_run", "d-1", "earned")[0] == 3
    assert "admin is needed" in control_api.say("ann", "autonomy", "set", "retry_run", "d-1", "standard")[1]
    assert control_api.run("ada", "autonomy", "set", "retry_run", "d-1", "standard")[1]["level"] == "standard"


def test_the_mode_is_set_at_once_by_an_admin(control_api: CliStack) -> None:
    proposal = control_api.waiting()["proposal_id"]
    code, said = control_api.say("ann", "mode", "set", "shadow")
    assert code == 3
    assert "admin is needed" in said
    assert control_api.run("ada", "mode", "set", "shadow", "--reason", "drill")[1]["lapsed"] == 1
    assert control_api.run("vic", "mode", "show")[1] == {"mode": "shadow"}
    assert control_api.switch.mode() is Mode.SHADOW
    assert control_api.run("vic", "proposals")[1][0]["proposal_id"] == proposal
    code, told = control_api.run("ada", "mode", "set", "automatic")
    assert code == 2
    assert "observe, shadow, approve, auto" in told["error"]["message"]


def test_in_shadow_allowed_does_not_read_as_will_happen(tmp_path: Path) -> None:
    with cli_stack(tmp_path / "cli", mode=Mode.SHADOW) as control_api:
        proposal = control_api.waiting()["proposal_id"]
        control_api.run("ann", "approve", proposal)
        assert control_api.run("vic", "proposals")[1][0]["status"] == "allowed"
        assert "would be allowed (shadow: nothing is injected)" in control_api.say("vic", "status")[1]
        words = control_api.say("vic", "proposals")[1]
        assert "would be" in words
        assert "nothing is" in words


def test_policies_are_published_by_two_and_taken_back_by_two(control_api: CliStack, tmp_path: Path) -> None:
    before = control_api.gate.bundle.hash
    own = tmp_path / "own"
    shutil.copytree(DEFAULT_BUNDLE, own)
    (own / "cases.yaml").write_text(ONE_CASE)
    numbers = own / "guardrails.yaml"
    numbers.write_text(numbers.read_text().replace("autonomy_regain: 5", "autonomy_regain: 6"))
    code, first = control_api.run("ada", "policy", "publish", str(own), "--reason", "slower trust")
    assert (code, first["published"], first["voters"]) == (0, False, ["ada"])
    said = control_api.say("vic", "policy", "published")[1]
    assert "put to the vote" in said
    assert "(1 of 2)" in said
    assert "admin is needed" in control_api.say("ann", "policy", "publish", str(own))[1]
    assert control_api.run("bob", "policy", "veto", "--reason", "no")[1]["vetoed_by"] == "bob"
    assert control_api.run("bob", "policy", "veto")[0] == 2
    assert not control_api.run("ada", "policy", "publish", str(own))[1]["published"]
    code, said = control_api.say("bob", "policy", "publish", str(own))
    assert code == 0
    assert "in force:" in said
    assert "autonomy_regain 5 -> 6" in said
    assert control_api.gate.bundle.hash == first["bundle"] != before
    assert control_api.run("vic", "status")[1]["bundle"] == first["bundle"]
    # the way back
    assert not control_api.run("ada", "policy", "publish", "--previous")[1]["published"]
    assert control_api.run("bob", "policy", "publish", "--bundle", before[:12])[1]["published"]
    assert control_api.gate.bundle.hash == before
    code, told = control_api.run("bob", "policy", "publish", "--bundle", "00000000")
    assert (code, told["error"]["kind"]) == (3, "unknown-bundle")
    assert control_api.run("bob", "policy", "publish", str(own), "--previous")[0] == 2


def test_who_votes_second_can_read_what_only_the_ledger_has(control_api: CliStack, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(DEFAULT_BUNDLE, own)
    (own / "cases.yaml").write_text(ONE_CASE)
    numbers = tmp_path / "numbers.yaml"
    numbers.write_text(
        (own / "guardrails.yaml").read_text().replace("autonomy_regain: 5", "autonomy_regain: 7")
    )
    (own / "limits.cedar").write_text(
        (own / "limits.cedar").read_text().replace("memory_mb <= resource", "memory_mb < resource")
    )
    assert control_api.run("bob", "policy", "fetch")[0] == 2  # nothing is put to the vote
    asked = control_api.run("ada", "policy", "publish", str(own), "--guardrails", str(numbers))[1]["bundle"]
    shutil.rmtree(own)
    there = tmp_path / "there"
    for who, named in (("bob", ()), ("vic", (asked,))):
        code, told = control_api.run(who, "policy", "fetch", *named, "--to", str(there / who))
        assert (code, told["bundle"]) == (0, asked)
        assert {path.name for path in (there / who).iterdir()} == set(told["files"])
        assert offline("policy", "check", str(there / who))[1]["hash"] == asked
    assert "limits.cedar" in told["files"]
    code, told = control_api.run("vic", "policy", "diff", asked[:12])
    assert (code, told["changed"], told["new"]) == (0, ["resize-only-up"], asked)
    assert told["old"] == control_api.gate.bundle.hash
    assert told["guardrails"]["autonomy_regain"] == {"old": 5, "new": 7}
    assert "resize-only-up: " in control_api.say("vic", "policy", "diff", asked[:12])[1]
    # its cases rest on the numbers they were written for
    code, told = offline("policy", "test", "--policies", str(there / "bob"))
    assert (code, told["failed"], told["cases"]) == (0, [], 1)
    # what was read is what is voted for
    assert control_api.run("bob", "policy", "publish", str(there / "bob"))[1]["published"]
    assert control_api.gate.bundle.hash == asked
    # and what is in force here is what is explained here
    here = ("--state-dir", str(control_api.paths.root))
    assert "memory_mb) < (resource" in offline("policy", "explain", "resize-only-up", *here)[1]["text"]
    waiting = control_api.waiting()["proposal_id"]
    (row,) = offline("policy", "explain", waiting, *here)[1]
    assert (row["bundle"], row["again"]["policy_ids"]) == (asked, ["prod-needs-approver"])
    assert offline("policy", "explain", "p-000000000000", *here)[0] == 2
    code, told = control_api.run("bob", "policy", "fetch", asked, "--to", str(there / "bob"))
    assert code == 2
    assert "something is there already" in told["error"]["message"]
    for wrong in (asked[:7], "0" * 64, "no-hash", "%" * 8):
        code, told = control_api.run("bob", "policy", "fetch", wrong, "--to", str(there / "none"))
        assert (code, told["error"]["kind"]) == (3, "unknown-bundle")
    assert not (there / "none").exists()


def test_files_that_are_not_of_the_hash_are_not_laid_out(control_api: CliStack, tmp_path: Path) -> None:
    """Somebody wrote to the ledger: the second admin is told, and gets nothing to read that is not what is voted on."""
    mine = control_api.gate.bundle.hash
    connection = sqlite3.connect(control_api.paths.ledger)
    connection.execute("UPDATE bundles SET files = replace(files, 'tier <= 0', 'tier <= -1')")
    connection.commit()
    connection.close()
    for command in (("fetch", mine, "--to", str(tmp_path / "there")), ("diff", mine)):
        code, told = control_api.run("bob", "policy", *command)
        assert code == 2
        assert "find out who wrote to the ledger" in told["error"]["message"]
    assert not (tmp_path / "there").exists()


def test_a_bad_bundle_is_refused_by_the_desk_and_the_old_one_stays(
    control_api: CliStack, tmp_path: Path
) -> None:
    before = control_api.gate.bundle.hash
    own = tmp_path / "own"
    shutil.copytree(DEFAULT_BUNDLE, own)
    (own / "zz.cedar").write_text("permit (")
    code, told = control_api.run("ada", "policy", "publish", str(own))
    assert (code, told["error"]["kind"]) == (3, "bad-bundle")
    assert "zz.cedar does not parse" in told["error"]["message"]
    assert control_api.gate.bundle.hash == before


def test_a_wrong_mode_is_named_with_its_flag_and_what_is_valid() -> None:
    result = CliRunner().invoke(app, ["up", "--mode", "automatic"])
    said = " ".join(result.output.split())
    assert result.exit_code == 2
    assert "--mode 'automatic'" in said
    assert "observe, shadow, approve, auto" in said


def test_the_modes_of_the_command_line_are_the_modes_there_are() -> None:
    assert tuple(mode.value for mode in Mode) == MODES


def test_the_chats_help_names_how_to_answer_what_waits() -> None:
    said = " ".join(CliRunner().invoke(app, ["chat", "--help"]).output.split())
    assert "/inbox" in said
    assert "/approve ID" in said


def test_with_nobody_at_the_desk_the_files_tell_what_is_published_and_lent(tmp_path: Path) -> None:
    with cli_stack(tmp_path / "cli") as control_api:
        control_api.run("ann", "delegate", "olga", "--reason", "holiday")
        control_api.run(
            "ada", "break-glass", "--kind", "retry_run", "--target", "run:*", "--reason", "outage"
        )
        live = control_api.run("vic", "policy", "published")[1]
    at_rest = control_api.run("vic", "policy", "published")[1]
    assert (at_rest["in_force"], at_rest["published"]) == (live["in_force"], live["published"])
    assert live["needed"] == 2
    there = tmp_path / "there"
    assert control_api.run("vic", "policy", "fetch", live["in_force"], "--to", str(there))[0] == 0
    assert offline("policy", "check", str(there))[1]["hash"] == live["in_force"]
    lent = control_api.run("vic", "grants")[1]
    assert (lent["delegations"][0]["taker"], lent["glass"][0]["holder"]) == ("olga", "ada")
    assert "BREAK-GLASS by ada" in control_api.say("vic", "status")[1]
    assert control_api.run("ada", "mode", "set", "shadow")[0] == 1
