"""Other policies come in force by several admins' votes on the exact bundle, or not at all."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.publishing import Publishing, begin_with
from pilotage.policies.audit.ed25519 import Ed25519Signer, Ed25519Verifier
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle, hash_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.publishing import bundle_of, files_to_publish, laid_out
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict
from pilotage.telemetry.errors import ConfigError

Make = Callable[..., Any]
PEOPLE = {
    "ada": ("admin",),
    "bob": ("admin",),
    "eve": ("admin",),
    "ann": ("approver", "operator"),
    "vic": ("viewer",),
}


ONE_CASE = "- {case: a retry, outcome: allow, by_policies: [agent-retries]}\n"


ALL_CASES = (DEFAULT_BUNDLE / "cases.yaml").read_text()


class Town:
    """A API for publishing over a real ledger, with a clock to turn and people to dismiss."""

    def __init__(self, ledger: SqlLedger, root: Path) -> None:
        self.ledger = ledger
        self.signer = Ed25519Signer.kept_at(root / "audit.key")
        self.now = datetime(2027, 3, 1, 12, tzinfo=UTC)
        self.people = {
            name: Identity(name=name, kind="user", roles=frozenset(roles)) for name, roles in PEOPLE.items()
        }
        self.gate = Gate(self.begin())
        self.control_api = Publishing(
            ledger=ledger,
            gate=self.gate,
            signer=self.signer,
            current_identity=self.people.get,
            mode=lambda: Mode.AUTO,
            clock=lambda: self.now,
        )

    def begin(self, policies: Path | None = None, guardrails: Path | None = None) -> Bundle:
        return begin_with(
            self.ledger,
            self.signer,
            Bundle.load(policies, guardrails=guardrails),
            policies=policies,
            guardrails=guardrails,
            now=self.now,
        )

    def publish(self, who: str, files: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
        caller = self.people.get(who) or Identity(name=who, kind="agent", roles=frozenset({"agent"}))
        return asyncio.run(self.control_api.publish(caller, files=files, **more))

    def veto(self, who: str, bundle: str, reason: str = "") -> dict[str, Any]:
        return asyncio.run(self.control_api.veto(self.people[who], bundle, reason))

    def told(self) -> dict[str, Any]:
        return asyncio.run(self.control_api.policies(self.people["vic"]))

    def events(self) -> list[str]:
        return [step["step"] for step in self.ledger.entries(0, 1000)]


@pytest.fixture
def town(ledger: SqlLedger, tmp_path: Path) -> Town:
    return Town(ledger, tmp_path)


def changed(**numbers: object) -> dict[str, str]:
    """The shipped bundle with one case and with other numbers."""
    files = {**files_to_publish(DEFAULT_BUNDLE, None), "cases.yaml": ONE_CASE}
    text = files["guardrails.yaml"]
    for key, value in (numbers or {"autonomy_regain": 6}).items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{key}:")]
        text = text.replace(line, f"{key}: {value}")
    return {**files, "guardrails.yaml": text}


def test_two_admins_put_the_bundle_in_force_that_both_voted_for(town: Town) -> None:
    before = town.gate.bundle.hash
    first = town.publish("ada", changed(), reason="fewer at once")
    assert (first["published"], first["voters"], first["needed"]) == (False, ["ada"], 2)
    assert first["changes"]["guardrails"] == {"autonomy_regain": {"old": 5, "new": 6}}
    assert town.gate.bundle.hash == before
    second = town.publish("bob", changed())
    assert (second["published"], second["voters"]) == (True, ["ada", "bob"])
    assert town.gate.bundle.hash == first["bundle"] == second["bundle"]
    assert town.gate.bundle.guardrails.autonomy_regain == 6
    assert town.events() == ["policy_published", "policy_proposed", "policy_approved", "policy_published"]
    last = town.ledger.in_force()
    assert last is not None
    assert (last.how, last.people, last.reason) == ("votes", ("ada", "bob"), "fewer at once")
    assert bundle_of(last, Ed25519Verifier(town.signer.public())).hash == first["bundle"]
    assert town.told()["candidate"] is None
    assert [row["bundle"] for row in town.told()["published"]] == [first["bundle"], before]
    assert town.ledger.verify_audit().ok


def test_one_admin_votes_once_however_often_they_ask(town: Town) -> None:
    town.publish("ada", changed())
    with pytest.raises(ApiRejection, match="has voted"):
        town.publish("ada", changed())
    assert town.told()["candidate"]["voters"] == ["ada"]
    assert town.events()[-1] == "policy_refused"


def test_a_bundle_with_one_letter_changed_starts_from_nothing(town: Town) -> None:
    town.publish("ada", changed())
    other = town.publish("bob", changed(autonomy_regain=7))
    assert (other["published"], other["voters"]) == (False, ["bob"])
    assert "policy_replaced" in town.events()
    assert town.publish("ada", changed(autonomy_regain=7))["published"]
    assert town.gate.bundle.guardrails.autonomy_regain == 7


@pytest.mark.parametrize("who", ["ann", "vic", "planner"])
def test_nobody_but_an_admin_votes_and_the_attempt_is_a_row(town: Town, who: str) -> None:
    with pytest.raises(ApiRejection) as refusal:
        town.publish(who, changed())
    if who == "planner":
        assert "commands are for people" in str(refusal.value)
    else:
        assert f"you are {who} ({', '.join(sorted(PEOPLE[who]))}); admin is needed" in str(refusal.value)
    assert town.events()[-1] == "policy_refused"
    assert town.told()["candidate"] is None


def test_a_vote_lapses_when_nobody_joins_in_time(town: Town) -> None:
    town.publish("ada", changed())
    town.now += timedelta(hours=24)
    assert town.told()["candidate"] is None
    late = town.publish("bob", changed())
    assert (late["published"], late["voters"]) == (False, ["bob"])
    assert "policy_lapsed" in town.events()
    town.now += timedelta(hours=24)
    assert town.ledger.lapse_bundle(town.now) == late["bundle"]
    assert town.ledger.lapse_bundle(town.now) == ""


def test_one_admin_vetoes(town: Town) -> None:
    bundle = town.publish("ada", changed())["bundle"]
    with pytest.raises(ApiRejection, match="admin is needed"):
        town.veto("ann", bundle)
    with pytest.raises(ApiRejection, match="not put to the vote"):
        town.veto("bob", "0" * 64)
    assert town.veto("bob", bundle, "not before the close")["voters"] == ["ada"]
    assert town.publish("eve", changed())["voters"] == ["eve"]
    assert town.events().count("policy_vetoed") == 1


def test_a_vote_of_somebody_who_is_no_admin_any_more_does_not_count(town: Town) -> None:
    town.publish("ada", changed())
    town.people["ada"] = Identity(name="ada", kind="user", roles=frozenset({"operator"}))
    assert not town.publish("bob", changed())["published"]
    assert town.publish("eve", changed())["voters"] == ["bob", "eve"]


def test_the_number_of_votes_is_that_of_the_bundle_in_force(town: Town) -> None:
    assert not town.publish("ada", changed(publish_votes=1))["published"]
    assert town.publish("bob", changed(publish_votes=1))["published"]
    assert town.publish("eve", changed(publish_votes=3))["published"]
    assert not town.publish("eve", changed())["published"]
    assert not town.publish("bob", changed())["published"]
    assert town.publish("ada", changed())["published"]


def test_the_way_back_is_the_same_way(town: Town) -> None:
    before = town.gate.bundle.hash
    town.publish("ada", changed())
    town.publish("bob", changed())
    assert not town.publish("bob", bundle=before)["published"]
    assert town.publish("ada", bundle=before)["published"]
    assert town.gate.bundle.hash == before
    with pytest.raises(ApiRejection, match="in force already"):
        town.publish("ada", bundle=before)
    with pytest.raises(ApiRejection, match="nobody published it"):
        town.publish("ada", bundle="f" * 64)
    assert len(town.told()["published"]) == 3


def test_files_that_do_not_have_the_hash_that_was_named_are_refused(town: Town) -> None:
    with pytest.raises(ApiRejection, match="have hash"):
        town.publish("ada", changed(), bundle="0" * 64)


def test_numbers_of_ones_own_do_not_break_the_cases_of_the_shipped_bundle(town: Town, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.yaml"
    numbers.write_text("max_attempts_per_run: 9\npublish_votes: 1\n")
    files = files_to_publish(DEFAULT_BUNDLE, numbers)
    town.publish("ada", files)
    assert town.publish("bob", files)["published"]
    assert town.gate.bundle.guardrails.max_attempts_per_run == 9


def without(name: str) -> dict[str, str]:
    return {key: text for key, text in changed().items() if key != name}


BAD: dict[str, tuple[dict[str, str], str]] = {
    "it does not parse": ({**changed(), "zz.cedar": "permit ("}, "zz.cedar does not parse"),
    "it breaks the schema": (
        {
            **changed(),
            "zz.cedar": '@id("z") @reason("z") forbid (principal, action, resource) when { resource.risc };',
        },
        "zz.cedar",
    ),
    "lint finds a flaw": (
        {**changed(), "zz.cedar": '@id("z") permit (principal, action, resource);'},
        "no @reason",
    ),
    "a wrong number": ({**changed(), "guardrails.yaml": "max_waitings: 3\n"}, "max_waitings"),
    "a case does not hold": (
        {**changed(max_attempts_per_run=9), "cases.yaml": ALL_CASES},
        "cases do not hold",
    ),
    "it brings no tests": (without("cases.yaml"), "brings its own tests"),
    "it has no schema": (without("schema.cedarschema"), "schema.cedarschema"),
    "its schema is of another version": (
        {
            **{name: text for name, text in changed().items() if name.endswith(".yaml")},
            "cases.yaml": "- {case: a stop, ask: stop, by: [operator], outcome: allow, by_policies: [operator-commands]}\n",
            "schema.cedarschema": changed()["schema.cedarschema"].replace(
                "args: { delay: Long }", "args: {}"
            ),
            "governance.cedar": changed()["governance.cedar"],
        },
        "everything would be denied",
    ),
    "nobody could replace it": (
        {
            **changed(),
            "governance.cedar": changed()["governance.cedar"].replace(
                '@id("admin-publishes-policy")\n@reason("admins vote on which policies are in force; guardrail '
                'publish_votes says how many it takes")\npermit',
                '@id("admin-publishes-policy")\n@reason("never")\nforbid',
            ),
        },
        "no admin could publish",
    ),
}


@pytest.mark.parametrize(("files", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_bundle_never_replaces_a_good_one(town: Town, files: dict[str, str], said: str) -> None:
    before = town.gate.bundle
    with pytest.raises(ApiRejection, match=said) as refusal:
        town.publish("ada", files)
    assert "what was in force stays so" in str(refusal.value)
    assert town.gate.bundle is before
    assert town.events()[-1] == "policy_refused"
    assert town.told()["candidate"] is None


def test_a_file_is_a_plain_name_and_of_bounded_size(town: Town) -> None:
    for name, text in (("../x.cedar", ""), ("a/b", ""), ("big.cedar", "x" * 1_000_001)):
        with pytest.raises(ValueError, match="no file of a bundle"):
            town.publish("ada", {**changed(), name: text})


def test_killed_while_it_is_put_in_force_the_old_one_holds(town: Town, tmp_path: Path) -> None:
    """The process dies by SIGKILL inside the transaction; the next vote finishes what was begun."""
    town.publish("ada", changed())
    script = textwrap.dedent("""
        import os, signal, sys
        from datetime import datetime, timedelta
        from pilotage.policies.publishing import Ballot
        from pilotage.policies.ledger.sql_ledger import SqlLedger
        from pilotage.policies.types import Outcome, Verdict

        ledger = SqlLedger(sys.argv[1])
        at = datetime.fromisoformat(sys.argv[3])
        ballot = Ballot(bundle=sys.argv[2], files={}, voter="bob", reason="", at=at)
        ledger.vote_on_bundle(
            ballot, Verdict(outcome=Outcome.ALLOW), needed=2, window=timedelta(hours=1),
            may=lambda name: True, seal=lambda publication: os.kill(os.getpid(), signal.SIGKILL),
        )
    """)
    waiting = town.told()["candidate"]
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ran = subprocess.run(
        [sys.executable, "-c", script, url, waiting["bundle"], town.now.isoformat()],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert town.begin().hash == Bundle.load().hash
    assert town.told()["candidate"]["voters"] == ["ada"]
    assert town.publish("bob", changed())["published"]
    assert town.begin().hash == waiting["bundle"]
    assert town.ledger.verify_audit().ok


# --- what a start begins with


def act(ledger: SqlLedger, filed: Make, now: datetime) -> None:
    """Something is admitted, as in a mode that acts."""

    def allow(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
        return Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))

    ledger.file(filed())
    assert ledger.admit(filed().proposal.id, allow, Mode.AUTO, now).outcome is Outcome.ALLOW


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A bundle of one's own on the disk."""
    where = tmp_path / "own"
    shutil.copytree(DEFAULT_BUNDLE, where)
    (where / "guardrails.yaml").write_text(changed()["guardrails.yaml"])
    return where


def test_on_trial_the_settings_decide_and_it_is_a_row(town: Town, own: Path) -> None:
    assert town.begin(own).guardrails.autonomy_regain == 6
    assert town.begin(own).guardrails.autonomy_regain == 6
    numbers = own.parent / "numbers.yaml"
    numbers.write_text("publish_votes: 1\n")
    assert town.begin(None, numbers).guardrails.publish_votes == 1
    assert [row["how"] for row in town.told()["published"]] == ["configured", "configured", "shipped"]


def test_once_something_was_done_a_bundle_on_the_disk_needs_votes(
    town: Town, own: Path, filed: Make, now: datetime
) -> None:
    act(town.ledger, filed, now)
    with pytest.raises(ConfigError, match=r"(?s)never published.*pilotage policy publish"):
        town.begin(own)
    town.publish("ada", files_to_publish(own, None))
    town.publish("bob", files_to_publish(own, None))
    assert town.begin(own).guardrails.autonomy_regain == 6
    assert town.begin().guardrails.autonomy_regain == 6, "the settings need not name what was voted for"
    (own / "guardrails.yaml").write_text(changed(autonomy_regain=8)["guardrails.yaml"])
    with pytest.raises(ConfigError, match="never published"):
        town.begin(own)


def test_what_was_published_before_starts_with_what_is_published_now(
    town: Town, own: Path, filed: Make, now: datetime
) -> None:
    town.begin(own)
    act(town.ledger, filed, now)
    for who in ("ada", "bob"):
        town.publish(who, changed(autonomy_regain=7))
    assert town.begin(own).guardrails.autonomy_regain == 7


def test_a_newer_pilotage_brings_its_policies_until_people_voted_for_their_own(
    town: Town, filed: Make, now: datetime, monkeypatch: pytest.MonkeyPatch, own: Path
) -> None:
    act(town.ledger, filed, now)
    newer = Bundle.load(own)
    monkeypatch.setattr("pilotage.flows.api.publishing.DEFAULT_BUNDLE", own)
    begun = begin_with(town.ledger, town.signer, newer, policies=None, guardrails=None, now=town.now)
    assert begun.hash == newer.hash
    assert town.told()["published"][0]["how"] == "shipped"
    for who in ("ada", "bob"):
        town.publish(who, changed(autonomy_regain=7))
    begun = begin_with(town.ledger, town.signer, newer, policies=None, guardrails=None, now=town.now)
    assert begun.guardrails.autonomy_regain == 7


TAMPERED = {
    "the files": "UPDATE bundles SET files = replace(files, 'autonomy_regain: 5', 'autonomy_regain: 1')",
    "the hash": "UPDATE publications SET how = 'votes', people = '[\"eve\"]'",
    "the note": "UPDATE publications SET note = 'none'",
}


@pytest.mark.parametrize("statement", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_row_that_nobody_signed_puts_nothing_in_force(town: Town, tmp_path: Path, statement: str) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="loading the published policies"):
        town.begin()


def test_policies_of_another_version_are_not_begun_with(town: Town, own: Path) -> None:
    schema = (own / "schema.cedarschema").read_text()
    (own / "schema.cedarschema").write_text(schema.replace("args: { delay: Long }", "args: {}"))
    for policies in own.glob("*.cedar"):
        if policies.name != "governance.cedar":
            policies.unlink()
    with pytest.raises(ConfigError, match="everything would be denied"):
        town.begin(own)


def test_policies_that_nobody_could_replace_are_not_begun_with(town: Town, own: Path) -> None:
    text = (own / "governance.cedar").read_text()
    (own / "governance.cedar").write_text(
        text.replace(
            'permit (principal in Pilotage::Role::"admin", action == Pilotage::Action::"publish_policy"',
            'forbid (principal in Pilotage::Role::"admin", action == Pilotage::Action::"publish_policy"',
        )
    )
    with pytest.raises(ConfigError, match="no admin could publish"):
        town.begin(own)


@pytest.mark.parametrize("name", ["../out.cedar", "..", ".hidden.cedar", "a/b.cedar", ""])
def test_no_file_of_a_bundle_is_laid_out_elsewhere_than_in_its_directory(tmp_path: Path, name: str) -> None:
    files = {**changed(), name: "permit (principal, action, resource);"}
    where = tmp_path / "there"
    with pytest.raises(ConfigError, match="is no name of a file of a bundle; nothing was written"):
        laid_out(files, hash_of(files), where)
    assert list(tmp_path.iterdir()) == []


def test_what_is_laid_out_has_the_hash_or_is_refused(tmp_path: Path) -> None:
    files = changed()
    assert set(laid_out(files, hash_of(files), tmp_path / "there")) == set(files)
    assert Bundle.load(tmp_path / "there").hash == hash_of(files)
    with pytest.raises(ConfigError, match="the files have hash"):
        laid_out(files, "0" * 64, tmp_path / "other")
    with pytest.raises(ConfigError, match="name an empty or new directory"):
        laid_out(files, hash_of(files), tmp_path / "there")
    with pytest.raises(ConfigError, match="can be written"):
        laid_out(files, hash_of(files), tmp_path / "there" / "limits.cedar")
