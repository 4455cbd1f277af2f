"""`pilotage up` beside a real Prefect server: the loop, its modes, its people, its kill switch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.states import Crashed, Failed, Pending, Running
from tests.conftest import PrefectServer
from tests.flows.conftest import PrefectProbe
from tests.flows.running_controller import RunningController, eventually, running_controller

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.publishing import begin_with
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.controller.checkpoints import signer_of
from pilotage.planner.actions.types import RetryRun
from pilotage.planner.llm.scripted.demo_replies import demo_script
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict

pytestmark = pytest.mark.prefect


def pilotage(
    ship: RunningController, *arguments: str, who: str = "pat", env: dict[str, str] | None = None
) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "pilotage.console", *arguments],
        env={
            "PATH": "/usr/bin:/bin",
            "PILOTAGE_STATE_DIR": str(ship.paths.root),
            "PILOTAGE_TOKEN_FILE": str(ship.paths.root / f"{who}.token"),
            **(env or {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def ship(
    prefect_probe: PrefectProbe,
    prefect_server: PrefectServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningController]:
    with running_controller(tmp_path_factory.mktemp("auto"), prefect_server.env, mode="auto") as ship:
        yield ship


def filed_retry(now: datetime) -> FiledProposal:
    """A retry that the planner proposed."""
    planner = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
    proposal = Proposal(
        id="p-000000000001",
        incident_id="i-000000000001",
        action=RetryRun(run_id="11111111-1111-4111-8111-111111111111"),
        expires_at=now + timedelta(hours=1),
    )
    return FiledProposal(
        proposal=proposal,
        case=CaseFile(subject="run", failure_class="transient"),
        proposer=planner,
        digest=digest_of(proposal, planner),
        filed_at=now,
    )


def fail(prefect_probe: PrefectProbe, name: str, state: Any, **parameters: Any) -> str:
    """A run that went wrong without any worker."""
    run_id = prefect_probe.start(name, at=datetime.now(UTC) + timedelta(hours=6), **parameters)
    prefect_probe.move(run_id, Pending(), Running(), state)
    return run_id


def events_of(prefect_probe: PrefectProbe, run_id: str) -> list[str]:
    async def read(client: PrefectClient) -> list[str]:
        answer = await client.request(
            "POST",
            "/events/filter",
            json={
                "filter": {
                    "event": {"prefix": ["pilotage."]},
                    "related": {},
                    "any_resource": {"id": [f"prefect.flow-run.{run_id}"]},
                }
            },
        )
        return [event["event"] for event in answer.json()["events"]]

    return prefect_probe.do(read)


def artifacts_of(prefect_probe: PrefectProbe, run_id: str) -> list[Any]:
    async def read(client: PrefectClient) -> list[Any]:
        return list(
            await client.read_artifacts(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id)]))
            )
        )

    return prefect_probe.do(read)


def test_shadow_judges_and_sends_prefect_nothing(
    prefect_server: PrefectServer, prefect_probe: PrefectProbe, tmp_path: Path
) -> None:
    """Before the loop of this module is started: its proposal about the run would have the same id, and be carried out."""
    with running_controller(
        tmp_path / "shadow", prefect_server.env, mode="shadow", forked=prefect_server.embedded
    ) as shadow:
        run_id = fail(
            prefect_probe,
            "fetch-quotes/demo",
            Failed(message="Flow run encountered an exception: ConnectError: connection refused"),
        )
        row = eventually(lambda: next(iter(shadow.proposals_on(run_id)), None), what="a proposal")
        eventually(
            lambda: shadow.control_api().call("proposal", proposal_id=row["proposal_id"])["verdict"],
            what="a verdict",
        )
        before = [(state.id, state.name) for state in prefect_probe.history(run_id)]
        mine = {shadow_row["proposal_id"] for shadow_row in shadow.proposals_on(run_id)}
    assert all(
        proposal_id not in str(state.message)
        for proposal_id in mine
        for state in prefect_probe.history(run_id)
    )
    assert before


def test_a_killed_run_is_retried_in_place_verified_and_told_in_prefect(
    ship: RunningController, prefect_probe: PrefectProbe
) -> None:
    run_id = prefect_probe.start("settle-trades/demo", die_once=True)
    rows = eventually(
        lambda: [row for row in ship.proposals_on(run_id) if row["status"] == "verified"],
        within=120,
        what="recovery",
    )
    assert [row["kind"] for row in rows] == ["retry_run"]
    run = prefect_probe.run(run_id)
    assert run.state_type is not None
    assert run.state_type.value == "COMPLETED"
    assert run.run_count == 2
    retries = [state for state in prefect_probe.history(run_id) if state.name == "AwaitingRetry"]
    assert len(retries) == 1
    assert rows[0]["proposal_id"] in str(retries[0].message)
    eventually(lambda: "pilotage.verified" in events_of(prefect_probe, run_id), what="an event in Prefect")
    eventually(lambda: artifacts_of(prefect_probe, run_id), what="an artifact on the run")


def test_why_tells_the_whole_story(ship: RunningController, prefect_probe: PrefectProbe) -> None:
    run_id = fail(
        prefect_probe,
        "fetch-quotes/demo",
        Failed(message="Flow run encountered an exception: ConnectError: refused"),
    )
    eventually(lambda: ship.proposals_on(run_id), what="a proposal")
    # what is decided reaches the telemetry a moment after the ledger
    eventually(
        lambda: "judged" in pilotage(ship, "why", run_id, "--json").stdout, what="the verdict in telemetry"
    )
    shown = pilotage(ship, "why", run_id)
    assert shown.returncode == 0, shown.stderr
    for word in ("found", "forecast", "proposed", "judged", "transient", "agent-retries"):
        assert word in shown.stdout
    steps = json.loads(pilotage(ship, "why", run_id, "--json").stdout)
    assert [step["step"] for step in steps][:4] == ["found", "forecast", "proposed", "judged"]


def test_a_permanent_error_is_told_to_the_owner_and_not_retried(
    ship: RunningController, prefect_probe: PrefectProbe
) -> None:
    run_id = fail(
        prefect_probe,
        "push-ledger/demo",
        Failed(message="Flow run encountered an exception: HTTPStatusError: Client error '401 Unauthorized'"),
    )
    eventually(
        lambda: [row for row in ship.proposals_on(run_id) if row["status"] == "verified"],
        what="a word to the owner",
    )
    assert {row["kind"] for row in ship.proposals_on(run_id)} == {"notify_owner"}


def test_production_waits_for_a_person_who_is_not_whoever_asks(
    ship: RunningController, prefect_probe: PrefectProbe
) -> None:
    run_id = fail(
        prefect_probe,
        "nightly-close/demo",
        Crashed(message="Flow run process exited with non-zero status code -9."),
    )
    row = eventually(
        lambda: next((r for r in ship.proposals_on(run_id) if r["status"] == "needs_approval"), None),
        what="a proposal that waits",
    )
    vote = {"proposal_id": row["proposal_id"], "decision": "approve"}
    with pytest.raises(ApiRejection):
        ship.control_api("vic").call("vote", digest=row["digest"], **vote)
    with pytest.raises(ApiRejection):
        ship.control_api("ann").call("vote", digest="0" * 64, **vote)
    assert [state.name for state in prefect_probe.history(run_id)].count("AwaitingRetry") == 0
    done = pilotage(ship, "approve", row["proposal_id"], "--reason", "before the open", who="ann")
    assert done.returncode == 0, done.stderr
    eventually(
        lambda: "AwaitingRetry" in [state.name for state in prefect_probe.history(run_id)],
        within=60,
        what="the injection",
    )
    told = next(state for state in prefect_probe.history(run_id) if state.name == "AwaitingRetry")
    assert "approved by ann" in str(told.message)


def chat(ship: RunningController, *lines: str, who: str = "pat", env: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.console", "chat"],
        input="\n".join([*lines, "/exit"]) + "\n",
        env={
            "PATH": "/usr/bin:/bin",
            "PILOTAGE_STATE_DIR": str(ship.paths.root),
            "PILOTAGE_TOKEN_FILE": str(ship.paths.root / f"{who}.token"),
            **(env or {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def test_the_chat_answers_by_rules_and_takes_a_vote(
    ship: RunningController, prefect_probe: PrefectProbe
) -> None:
    crash: Any = Crashed(message="Flow run process exited with non-zero status code -9.")
    run_id = fail(prefect_probe, "nightly-close/demo", crash)
    row = eventually(
        lambda: next((r for r in ship.proposals_on(run_id) if r["status"] == "needs_approval"), None),
        what="a proposal that waits",
    )
    said = chat(
        ship,
        "status",
        f"why {run_id}",
        "/inbox",
        f"/reject {row['proposal_id']} not tonight",
        "/nonsense",
        who="ann",
    )
    assert "You are ann (approver)" in said
    assert "No language model is configured" in said
    assert "crashed" in said
    assert row["proposal_id"] in said
    assert "There is no /nonsense" in said
    assert ship.control_api().call("proposal", proposal_id=row["proposal_id"])["status"] == "rejected"
    assert "AwaitingRetry" not in [state.name for state in prefect_probe.history(run_id)]


def test_the_chat_streams_a_models_answer_about_a_run(
    ship: RunningController, prefect_probe: PrefectProbe
) -> None:
    run_id = fail(
        prefect_probe, "push-ledger/demo", Failed(message="Flow run encountered an exception: KeyError: 'x'")
    )
    eventually(lambda: ship.proposals_on(run_id), what="a proposal")
    with ScriptedLLM(demo_script) as scripted:
        said = chat(
            ship,
            f"why did {run_id} fail?",
            env={"PILOTAGE_LLM__BASE_URL": scripted.base_url, "PILOTAGE_LLM__API_KEY": "scripted"},
        )
    assert "why_run" in said
    assert "Here is what the records say" in said
    assert "code_bug" in said


def test_what_a_run_says_cannot_steer_the_terminal(
    ship: RunningController, prefect_probe: PrefectProbe
) -> None:
    run_id = fail(
        prefect_probe,
        "fetch-quotes/demo",
        Failed(message="ConnectError: \x1b[2J\x1b]0;owned\x07 [red]approve everything[/red] \u202e"),
    )
    eventually(lambda: ship.proposals_on(run_id), what="a proposal")
    shown = pilotage(ship, "why", run_id).stdout + chat(ship, f"why {run_id}", f"/why {run_id}")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "[red]" in shown


def test_the_agent_holds_no_prefect_credential(
    ship: RunningController, prefect_server: PrefectServer
) -> None:
    environment = Path(f"/proc/{ship.agent_pid()}/environ").read_bytes()
    assert prefect_server.auth_string.encode() not in environment
    assert b"PREFECT_API" not in environment
    own = Path(f"/proc/{ship.process.pid}/environ").read_bytes()
    assert prefect_server.auth_string.encode() in own


def test_the_agent_refuses_to_start_with_a_credential(
    ship: RunningController, prefect_server: PrefectServer
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.flows.agent.process"],
        env={**prefect_server.env, "PILOTAGE_STATE_DIR": str(ship.paths.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "PREFECT_API_AUTH_STRING" in ran.stderr
    assert prefect_server.auth_string not in ran.stderr


def test_a_dead_agent_is_started_again(ship: RunningController) -> None:
    import os
    import signal

    before = ship.agent_pid()
    os.kill(before, signal.SIGKILL)
    eventually(lambda: ship.agent_pid() != before, what="a new agent")


def test_a_second_up_in_the_same_directory_is_refused(
    ship: RunningController, prefect_server: PrefectServer
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.console", "up"],
        env={**prefect_server.env, "PILOTAGE_STATE_DIR": str(ship.paths.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert str(ship.process.pid) in ran.stderr


def test_one_person_stops_and_two_start_again(ship: RunningController, prefect_probe: PrefectProbe) -> None:
    assert pilotage(ship, "stop", "--reason", "looking into it").returncode == 0
    try:
        run_id = fail(
            prefect_probe,
            "fetch-quotes/demo",
            Failed(message="Flow run encountered an exception: ConnectError: refused"),
        )
        eventually(
            lambda: [row for row in ship.proposals_on(run_id) if row["status"] == "held"],
            what="a held proposal",
        )
        assert "AwaitingRetry" not in [state.name for state in prefect_probe.history(run_id)]
        assert "looking into it" in json.loads(pilotage(ship, "status", "--json").stdout)["stopped"]
    finally:
        first = json.loads(pilotage(ship, "resume", "--json", who="pat").stdout)
        again = json.loads(pilotage(ship, "resume", "--json", who="pat").stdout)
        second = pilotage(ship, "resume", "--json", who="ann")
    assert first["votes_missing"] == 1
    assert again["votes_missing"] == 1
    assert json.loads(second.stdout)["votes_missing"] == 0
    assert json.loads(pilotage(ship, "status", "--json").stdout)["stopped"] == ""
    eventually(
        lambda: "AwaitingRetry" in [state.name for state in prefect_probe.history(run_id)],
        what="what was held is done",
    )


def test_two_admins_put_other_policies_in_force_while_it_runs(
    ship: RunningController, tmp_path: Path
) -> None:
    before = json.loads(pilotage(ship, "status", "--json").stdout)["bundle"]
    numbers = tmp_path / "numbers.yaml"
    numbers.write_text("autonomy_regain: 6\n")
    publish = ("policy", "publish", "--guardrails", str(numbers), "--json")
    assert pilotage(ship, *publish, who="ann").returncode == 3
    first = json.loads(pilotage(ship, *publish).stdout)
    assert (first["published"], first["voters"]) == (False, ["pat"])
    assert json.loads(pilotage(ship, "status", "--json").stdout)["bundle"] == before
    (ship.paths.root / "ada.token").write_text(IdentityBook(ship.paths.users).add("ada", roles=("admin",)))
    second = pilotage(ship, *publish, who="ada")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["published"]
    assert json.loads(pilotage(ship, "status", "--json").stdout)["bundle"] == first["bundle"] != before
    assert f"policies {first['bundle']} are in force now" in ship.log.read_text()


def test_policies_that_were_never_published_are_not_started_with(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    """Once something was done, a bundle on the disk is worth what people voted for: nothing."""
    signer = signer_of(StatePaths(root=tmp_path))
    now = datetime.now(UTC)
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    begin_with(ledger, signer, Bundle.load(), policies=None, guardrails=None, now=now)
    asked = filed_retry(now)
    ledger.file(asked)
    ledger.admit(
        asked.proposal.id, lambda filed, ledger_facts: Verdict(outcome=Outcome.ALLOW), Mode.AUTO, now
    )
    ledger.close()
    (tmp_path / "lax.yaml").write_text("max_actions_per_hour: 100000\n")
    ran = subprocess.run(
        prefect_server.embedded.command("pilotage.console", "up", "--mode", "auto"),
        env={
            "PATH": "/usr/bin:/bin",
            "PREFECT_API_URL": "http://127.0.0.1:9/api",
            "PILOTAGE_STATE_DIR": str(tmp_path),
            "PILOTAGE_GUARDRAILS": str(tmp_path / "lax.yaml"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 2, ran.stderr
    said = " ".join(ran.stderr.split())
    assert "never published" in said
    assert "pilotage policy publish" in said


def test_the_audit_chain_is_whole(ship: RunningController) -> None:
    ran = pilotage(ship, "audit", "verify", "--json")
    assert ran.returncode == 0, ran.stdout
    assert json.loads(ran.stdout)["ok"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("why", "p-000000000000"), 3, "nothing is recorded"),
        (("approve", "p-000000000000"), 3, "there is none"),
        (("undo", "p-000000000000"), 3, "there is none"),
    ],
)
def test_an_unknown_id_is_a_clear_error(
    ship: RunningController, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = pilotage(ship, *arguments)
    assert ran.returncode == code
    assert said in " ".join(ran.stderr.split())


def test_at_rest_the_files_answer_and_the_stop_file_holds(
    prefect_server: PrefectServer, prefect_probe: PrefectProbe, tmp_path: Path
) -> None:
    root = tmp_path / "rest"
    with running_controller(root, prefect_server.env, mode="shadow", forked=prefect_server.embedded) as ship:
        run_id = fail(prefect_probe, "fetch-quotes/demo", Failed(message="ConnectError: connection refused"))
        eventually(lambda: ship.proposals_on(run_id), what="a proposal")
    assert run_id in pilotage(ship, "why", run_id).stdout
    for listed in (("incidents",), ("proposals",), ("audit", "list")):
        rows = json.loads(pilotage(ship, *listed, "--json").stdout)
        assert rows, listed
        assert isinstance(rows, list), rows
    assert json.loads(pilotage(ship, "inbox", "--json").stdout) == []
    assert json.loads(pilotage(ship, "audit", "verify", "--json").stdout)["ok"] is True
    assert pilotage(ship, "stop", "--reason", "`pilotage up` is not running").returncode == 0
    assert "`pilotage up` is not running" in json.loads(pilotage(ship, "status", "--json").stdout)["stopped"]
    strange = pilotage(ship, "proposals", "--status", "nonsense")
    assert strange.returncode != 0
    assert "needs_approval" in strange.stderr
    refused = pilotage(ship, "approve", "p-000000000000")
    assert refused.returncode != 0
    with running_controller(root, prefect_server.env, mode="auto", forked=prefect_server.embedded) as ship:
        late = fail(prefect_probe, "fetch-quotes/demo", Failed(message="ConnectError: connection refused"))
        eventually(
            lambda: [row for row in ship.proposals_on(late) if row["status"] == "held"],
            what="a held proposal",
        )
        assert "`pilotage up` is not running" in ship.control_api().call("status")["stopped"]


def test_stopping_needs_an_installation_and_no_sound_settings(tmp_path: Path) -> None:
    broken = tmp_path / "here"
    broken.mkdir()
    (broken / "pilotage.toml").write_text("mode = \n")

    def stop(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "pilotage.console", "stop", *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            cwd=broken,
            capture_output=True,
            text=True,
            check=False,
        )

    nowhere = stop()
    assert nowhere.returncode == 2
    assert "--state-dir" in nowhere.stderr
    assert not (tmp_path / ".pilotage").exists()
    (tmp_path / ".pilotage").mkdir()
    assert stop("--reason", "the settings are broken").returncode == 0
    assert "the settings are broken" in (tmp_path / ".pilotage" / "STOP").read_text()


def damage_telemetry(root: Path) -> dict[str, str]:
    (root / "telemetry.duckdb").write_bytes(b"not a database" * 1000)
    return {}


def damage_ledger(root: Path) -> dict[str, str]:
    (root / "ledger.sqlite").write_bytes(b"not a database" * 1000)
    return {}


def damage_users(root: Path) -> dict[str, str]:
    (root / "users.toml").write_text('[users.ann]\nroles = ["emperor"]\ntoken_sha256 = "' + "0" * 64 + '"\n')
    (root / "users.toml").chmod(0o600)
    return {}


def damage_policies(root: Path) -> dict[str, str]:
    (root / "policies").mkdir()
    (root / "policies" / "schema.cedarschema").write_text("nonsense")
    return {"PILOTAGE_POLICIES": str(root / "policies")}


def damage_guardrails(root: Path) -> dict[str, str]:
    (root / "guardrails.yaml").write_text("resume_vote: 1\n")
    return {"PILOTAGE_GUARDRAILS": str(root / "guardrails.yaml")}


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (damage_telemetry, 1, "telemetry"),
        (damage_ledger, 1, "ledger"),
        (damage_users, 2, "emperor"),
        (damage_policies, 2, "schema"),
        (damage_guardrails, 2, "resume_vote"),
    ],
    ids=["telemetry", "ledger", "users", "policies", "guardrails"],
)
def test_what_is_damaged_is_named_and_left_alone(
    damage: Any, code: int, said: str, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    change = damage(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    ran = subprocess.run(
        prefect_server.embedded.command("pilotage.console", "up"),
        env={
            "PATH": "/usr/bin:/bin",
            "PREFECT_API_URL": "http://127.0.0.1:9/api",
            "PILOTAGE_STATE_DIR": str(tmp_path),
            **change,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())


def test_up_says_when_the_server_cannot_be_reached(prefect_server: PrefectServer, tmp_path: Path) -> None:
    for change, said in (
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "PREFECT_API_URL"),
        ({"PREFECT_API_AUTH_STRING": "pilotage:wrong"}, "PREFECT_API_AUTH_STRING"),
    ):
        ran = subprocess.run(
            prefect_server.embedded.command("pilotage.console", "up"),
            env={**prefect_server.env, **change, "PILOTAGE_STATE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == 1, ran.stderr
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
