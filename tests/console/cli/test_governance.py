"""What people command at a real desk through the command line: policed, told plainly, and a row each."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.console.quay import ONE_CASE, Quay, quay
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.console.cli.options import MODES
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE
from pilotage.policies.types import Mode


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Quay]:
    with quay(tmp_path / "quay") as opened:
        yield opened


def offline(*arguments: str) -> tuple[int, Any]:
    """What a command that asks nobody exits with and prints."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_a_vote_that_is_refused_says_who_you_are_and_what_it_takes(desk: Quay) -> None:
    proposal = desk.waiting()["proposal_id"]
    code, said = desk.say("vic", "approve", proposal)
    assert code == 3
    assert "you are vic (viewer); approver is needed" in said
    code, said = desk.say("vic", "stop")
    assert "you are vic (viewer); operator or approver is needed" in said
    assert desk.events()[-2:] == ["vote_refused", "command_refused"]
    code, told = desk.run("ann", "reject", proposal, "--reason", "not during the close")
    assert (code, told["status"], told["votes"][0]["reason"]) == (0, "rejected", "not during the close")


def test_while_the_users_file_is_bad_nobody_votes_and_everybody_can_stop(desk: Quay) -> None:
    proposal = desk.waiting()["proposal_id"]
    good = desk.places.users.read_text()
    desk.places.users.write_text(good.replace('"approver"', '"emperor"'))
    code, said = desk.say("ann", "approve", proposal)
    assert code == 3
    assert "`emperor` is not a role" in said
    assert "the desk knows nobody" in said
    code, said = desk.say("ann", "stop", "--reason", "users are broken")
    assert code == 0
    assert "users are broken" in desk.places.stop_file.read_text()
    desk.places.users.write_text(good)
    assert "users are broken" in desk.run("vic", "status")[1]["stopped"]
    assert desk.run("vic", "proposals")[1][0]["status"] == "needs_approval"


def test_an_edited_proposal_is_another_one_and_the_editor_does_not_approve_it(desk: Quay) -> None:
    old = desk.waiting()
    code, new = desk.run("olga", "amend", old["proposal_id"], "--set", "delay=PT30S")
    assert (code, new["proposer"], new["action"]["delay"]) == (0, "olga", "PT30S")
    (replaced,) = desk.run("vic", "proposals", "--status", "replaced")[1]
    assert (replaced["proposal_id"], replaced["replaced_by"]) == (old["proposal_id"], new["proposal_id"])
    (*_, last) = desk.run("vic", "why", old["proposal_id"])[1]
    assert (last["step"], last["actor"], last["detail"]["by"]) == ("replaced", "olga", new["proposal_id"])
    assert (new["status"], new["verdict"]["requirements"]) == ("needs_approval", {"approver": 1})
    assert desk.run("olga", "approve", new["proposal_id"])[0] == 3
    assert desk.run("ann", "approve", new["proposal_id"])[1]["status"] == "allowed"
    for wrong in ("delay", "kind=cancel_run", "memory_mb=3"):
        code, told = desk.run("olga", "amend", old["proposal_id"], "--set", wrong)
        assert code == 2
        assert "its fields are " in told["error"]["message"]
        assert "delay, run_id" in told["error"]["message"]
    assert (
        desk.run("vic", "amend", old["proposal_id"], "--set", "delay=PT9S")[1]["error"]["kind"]
        == "wrong-role"
    )


def test_glass_is_broken_loudly_and_mended(desk: Quay) -> None:
    wanted = ("break-glass", "--kind", "retry_run", "--target", "run:*", "--minutes", "10")
    code, told = desk.run("ada", *wanted, "--reason", "outage at the bank")
    assert (code, told["holder"]) == (0, "ada")
    assert "GLASS BROKEN by ada" in desk.say("vic", "status")[1]
    assert "outage at the bank" in desk.say("vic", "grants")[1]
    code, told_no = desk.run("ann", *wanted, "--reason", "outage")
    assert code == 3
    assert "you are ann (approver); admin is needed" in told_no["error"]["message"]
    assert "max_break_glass" in desk.say("ada", *wanted[:-1], "61", "--reason", "outage")[1]
    assert desk.run("ada", *wanted, "--reason", " ")[0] == 3
    assert desk.run("olga", "mend-glass", told["id"])[1] == {"grant": told["id"], "ended": True}
    assert desk.run("vic", "grants")[1]["glass"] == []
    assert [step for step in desk.events() if "glass" in step] == [
        "glass_broken", "glass_refused", "glass_refused", "glass_refused", "glass_mended"
    ]  # fmt: skip


def test_the_right_to_approve_is_lent_and_taken_back(desk: Quay) -> None:
    assert desk.run("ann", "delegate", "olga", "--hours", "8", "--reason", "holiday")[1]["taker"] == "olga"
    code, told = desk.run("olga", "approve", desk.waiting()["proposal_id"])
    assert (code, told["status"]) == (0, "allowed")
    assert desk.run("ann", "delegate", "--end")[1] == {"ended": 1}
    assert desk.run("olga", "approve", desk.waiting()["proposal_id"])[0] == 3
    assert desk.run("ann", "delegate")[0] == 2
    assert desk.run("ann", "delegate", "nobody", "--reason", "x")[1]["error"]["kind"] == "unknown-person"


def test_autonomy_is_shown_and_set_by_the_deployments_name(desk: Quay) -> None:
    code, told = desk.run("ada", "autonomy", "set", "retry_run", "d-1", "demoted", "--reason", "drill")
    assert (code, told["changed"]) == (0, True)
    (row,) = desk.run("vic", "autonomy", "show")[1]
    assert (row["kind"], row["scope"], row["level"], row["why"]) == ("retry_run", "d-1", "demoted", "drill")
    assert "demoted" in desk.say("vic", "autonomy", "show")[1]
    assert desk.run("ada", "autonomy", "set", "retry_run", "d-1", "earned")[0] == 3
    assert "admin is needed" in desk.say("ann", "autonomy", "set", "retry_run", "d-1", "standard")[1]
    assert desk.run("ada", "autonomy", "set", "retry_run", "d-1", "standard")[1]["level"] == "standard"


def test_the_mode_is_set_at_once_by_an_admin(desk: Quay) -> None:
    proposal = desk.waiting()["proposal_id"]
    code, said = desk.say("ann", "mode", "set", "shadow")
    assert code == 3
    assert "admin is needed" in said
    assert desk.run("ada", "mode", "set", "shadow", "--reason", "drill")[1]["lapsed"] == 1
    assert desk.run("vic", "mode", "show")[1] == {"mode": "shadow"}
    assert desk.switch.mode() is Mode.SHADOW
    assert desk.run("vic", "proposals")[1][0]["proposal_id"] == proposal
    code, told = desk.run("ada", "mode", "set", "automatic")
    assert code == 2
    assert "observe, shadow, approve, auto" in told["error"]["message"]


def test_in_shadow_allowed_does_not_read_as_will_happen(tmp_path: Path) -> None:
    with quay(tmp_path / "quay", mode=Mode.SHADOW) as desk:
        proposal = desk.waiting()["proposal_id"]
        desk.run("ann", "approve", proposal)
        assert desk.run("vic", "proposals")[1][0]["status"] == "allowed"
        assert "would be allowed (shadow: nothing is injected)" in desk.say("vic", "status")[1]
        words = desk.say("vic", "proposals")[1]
        assert "would be" in words
        assert "nothing is" in words


def test_policies_are_published_by_two_and_taken_back_by_two(desk: Quay, tmp_path: Path) -> None:
    before = desk.gate.bundle.hash
    own = tmp_path / "own"
    shutil.copytree(DEFAULT_BUNDLE, own)
    (own / "cases.yaml").write_text(ONE_CASE)
    numbers = own / "guardrails.yaml"
    numbers.write_text(numbers.read_text().replace("autonomy_regain: 5", "autonomy_regain: 6"))
    code, first = desk.run("ada", "policy", "publish", str(own), "--reason", "slower trust")
    assert (code, first["published"], first["voters"]) == (0, False, ["ada"])
    said = desk.say("vic", "policy", "published")[1]
    assert "put to the vote" in said
    assert "(1 of 2)" in said
    assert "admin is needed" in desk.say("ann", "policy", "publish", str(own))[1]
    assert desk.run("bob", "policy", "veto", "--reason", "no")[1]["vetoed_by"] == "bob"
    assert desk.run("bob", "policy", "veto")[0] == 2
    assert not desk.run("ada", "policy", "publish", str(own))[1]["published"]
    code, said = desk.say("bob", "policy", "publish", str(own))
    assert code == 0
    assert "in force:" in said
    assert "autonomy_regain 5 -> 6" in said
    assert desk.gate.bundle.hash == first["bundle"] != before
    assert desk.run("vic", "status")[1]["bundle"] == first["bundle"]
    # the way back
    assert not desk.run("ada", "policy", "publish", "--previous")[1]["published"]
    assert desk.run("bob", "policy", "publish", "--bundle", before[:12])[1]["published"]
    assert desk.gate.bundle.hash == before
    code, told = desk.run("bob", "policy", "publish", "--bundle", "00000000")
    assert (code, told["error"]["kind"]) == (3, "unknown-bundle")
    assert desk.run("bob", "policy", "publish", str(own), "--previous")[0] == 2


def test_who_votes_second_can_read_what_only_the_ledger_has(desk: Quay, tmp_path: Path) -> None:
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
    assert desk.run("bob", "policy", "fetch")[0] == 2  # nothing is put to the vote
    asked = desk.run("ada", "policy", "publish", str(own), "--guardrails", str(numbers))[1]["bundle"]
    shutil.rmtree(own)
    there = tmp_path / "there"
    for who, named in (("bob", ()), ("vic", (asked,))):
        code, told = desk.run(who, "policy", "fetch", *named, "--to", str(there / who))
        assert (code, told["bundle"]) == (0, asked)
        assert {path.name for path in (there / who).iterdir()} == set(told["files"])
        assert offline("policy", "check", str(there / who))[1]["hash"] == asked
    assert "limits.cedar" in told["files"]
    code, told = desk.run("vic", "policy", "diff", asked[:12])
    assert (code, told["changed"], told["new"]) == (0, ["resize-only-up"], asked)
    assert told["old"] == desk.gate.bundle.hash
    assert told["guardrails"]["autonomy_regain"] == {"old": 5, "new": 7}
    assert "resize-only-up: " in desk.say("vic", "policy", "diff", asked[:12])[1]
    # its cases rest on the numbers they were written for
    code, told = offline("policy", "test", "--policies", str(there / "bob"))
    assert (code, told["failed"], told["cases"]) == (0, [], 1)
    # what was read is what is voted for
    assert desk.run("bob", "policy", "publish", str(there / "bob"))[1]["published"]
    assert desk.gate.bundle.hash == asked
    # and what is in force here is what is explained here
    here = ("--state-dir", str(desk.places.root))
    assert "memory_mb) < (resource" in offline("policy", "explain", "resize-only-up", *here)[1]["text"]
    waiting = desk.waiting()["proposal_id"]
    (row,) = offline("policy", "explain", waiting, *here)[1]
    assert (row["bundle"], row["again"]["policy_ids"]) == (asked, ["prod-needs-approver"])
    assert offline("policy", "explain", "p-000000000000", *here)[0] == 2
    code, told = desk.run("bob", "policy", "fetch", asked, "--to", str(there / "bob"))
    assert code == 2
    assert "something is there already" in told["error"]["message"]
    for wrong in (asked[:7], "0" * 64, "no-hash", "%" * 8):
        code, told = desk.run("bob", "policy", "fetch", wrong, "--to", str(there / "none"))
        assert (code, told["error"]["kind"]) == (3, "unknown-bundle")
    assert not (there / "none").exists()


def test_files_that_are_not_of_the_hash_are_not_laid_out(desk: Quay, tmp_path: Path) -> None:
    """Somebody wrote to the ledger: the second admin is told, and gets nothing to read that is not what is voted on."""
    mine = desk.gate.bundle.hash
    connection = sqlite3.connect(desk.places.ledger)
    connection.execute("UPDATE bundles SET files = replace(files, 'tier <= 0', 'tier <= -1')")
    connection.commit()
    connection.close()
    for command in (("fetch", mine, "--to", str(tmp_path / "there")), ("diff", mine)):
        code, told = desk.run("bob", "policy", *command)
        assert code == 2
        assert "find out who wrote to the ledger" in told["error"]["message"]
    assert not (tmp_path / "there").exists()


def test_a_bad_bundle_is_refused_by_the_desk_and_the_old_one_stays(desk: Quay, tmp_path: Path) -> None:
    before = desk.gate.bundle.hash
    own = tmp_path / "own"
    shutil.copytree(DEFAULT_BUNDLE, own)
    (own / "zz.cedar").write_text("permit (")
    code, told = desk.run("ada", "policy", "publish", str(own))
    assert (code, told["error"]["kind"]) == (3, "bad-bundle")
    assert "zz.cedar does not parse" in told["error"]["message"]
    assert desk.gate.bundle.hash == before


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
    with quay(tmp_path / "quay") as desk:
        desk.run("ann", "delegate", "olga", "--reason", "holiday")
        desk.run("ada", "break-glass", "--kind", "retry_run", "--target", "run:*", "--reason", "outage")
        live = desk.run("vic", "policy", "published")[1]
    at_rest = desk.run("vic", "policy", "published")[1]
    assert (at_rest["in_force"], at_rest["published"]) == (live["in_force"], live["published"])
    assert live["needed"] == 2
    there = tmp_path / "there"
    assert desk.run("vic", "policy", "fetch", live["in_force"], "--to", str(there))[0] == 0
    assert offline("policy", "check", str(there))[1]["hash"] == live["in_force"]
    lent = desk.run("vic", "grants")[1]
    assert (lent["delegations"][0]["taker"], lent["glass"][0]["holder"]) == ("olga", "ada")
    assert "GLASS BROKEN by ada" in desk.say("vic", "status")[1]
    assert desk.run("ada", "mode", "set", "shadow")[0] == 1
