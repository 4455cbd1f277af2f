"""Make a small installation with the code as it is, to be opened by the code as it will be.

Run it before a change of any stored schema:

    python -m tests.flows.make_installation tests/data/installations/NAME

It starts a Prefect server and `pilotage up` of its own, lets people and runs do what they do, then files directly what
a short run does not reach, and writes `state.tar.gz` (the state directory) and `expected.json` (what the new code must
still find in it) into the directory NAME. Name it after the commit that made it.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from tests.flows.running_controller import RunningController, eventually, running_controller

from pilotage.console.session.log import EventLog
from pilotage.flows.dev.embedded import EmbeddedPrefect
from pilotage.planner.actions.types import Action, HoldQueue, RetryRun, target_of
from pilotage.planner.llm.scripted.demo_replies import demo_script
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of
from pilotage.policies.ledger.protocol import Status
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.refusals import refused
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict
from pilotage.telemetry.store.duckdb import DuckDBStore

ROOT = "harbour"
"""Name of the state directory."""
POOL, QUEUES = "berths", ("a", "b", "c", "d", "default")
"""A pool that no worker serves."""
PASSWORD = "correct horse battery staple"
LASTING = datetime(2099, 1, 1, tzinfo=UTC)
"""When proposals that are to stay open expire."""
SETTINGS = """
checkpoints = "{checkpoints}"
[loop]
tick = "PT0.3S"
[planner]
retry_delay = "PT0S"
"""
PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))


def main(target: Path) -> None:
    """Make the installation in `target`."""
    with tempfile.TemporaryDirectory() as scratch, EmbeddedPrefect(Path(scratch) / "prefect") as prefect:
        prefect.create_pool()
        prefect.create_pool(POOL, queues=QUEUES)
        prefect.deploy_examples()
        root = Path(scratch) / ROOT
        settings = SETTINGS.format(checkpoints=root / "checkpoints")
        user, _, password = prefect.auth_string.partition(":")
        with httpx.Client(base_url=prefect.api_url, auth=(user, password), timeout=60) as http:
            with running_controller(root, prefect.env, mode="auto", settings=settings) as ship:
                runs = _runs_that_fail(ship, http)
            with running_controller(root, prefect.env, mode="approve", settings=settings) as ship:
                by_hand = _what_people_do(ship)
                thread = _conversation(root, runs["transient"])
        filed = _what_a_short_run_does_not_reach(root)
        _cli(root, "audit", "checkpoint", "--to", str(root / "checkpoints"))
        expected = _expected(root) | {"runs": runs, "by_hand": by_hand, "filed": filed, "thread": thread}
        target.mkdir(parents=True, exist_ok=True)
        (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
        _pack(root, target / "state.tar.gz")


def _runs_that_fail(ship: RunningController, http: httpx.Client) -> dict[str, str]:
    """In mode auto: one transient failure, one failure in production, one that nobody can retry away."""
    words = {
        "transient": ("fetch-quotes", "Flow run encountered an exception: ConnectError: refused"),
        "production": ("nightly-close", "Flow run process exited with non-zero status code -9."),
        "permanent": (
            "push-ledger",
            "Flow run encountered an exception: HTTPStatusError: Client error '401 Unauthorized'",
        ),
    }
    runs = {}
    for key, (flow, message) in words.items():
        deployment = http.get(f"/deployments/name/{flow}/demo").json()["id"]
        later = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": later}}
        run = http.post(f"/deployments/{deployment}/create_flow_run", json={"state": state}).json()["id"]
        end = "CRASHED" if key == "production" else "FAILED"
        for type_, said in (("PENDING", ""), ("RUNNING", ""), (end, message)):
            moved = {"state": {"type": type_, "message": said}, "force": True}
            http.post(f"/flow_runs/{run}/set_state", json=moved).raise_for_status()
        runs[key] = str(run)
    for key, status in {
        "transient": "delivered",
        "production": "needs_approval",
        "permanent": "verified",
    }.items():
        eventually(
            lambda run=runs[key], status=status: any(  # type: ignore[misc]
                row["status"] == status for row in ship.proposals_on(run)
            ),
            what=f"{key}: {status}",
        )
    # nobody serves the pool, so the retry of the transient one would wait for ever: it goes well by hand
    for type_ in ("PENDING", "RUNNING", "COMPLETED"):
        http.post(
            f"/flow_runs/{runs['transient']}/set_state", json={"state": {"type": type_}, "force": True}
        ).raise_for_status()
    eventually(
        lambda: any(row["status"] == "verified" for row in ship.proposals_on(runs["transient"])),
        what="a verified retry",
    )
    return runs


def _what_people_do(ship: RunningController) -> dict[str, str]:
    """In mode approve: holds that are verified, undone, rejected, replaced, refused and left open."""
    root = ship.paths.root
    made: dict[str, str] = {}
    for number, (key, queue) in enumerate(
        {"verified": "a", "undone": "b", "rejected": "c", "replaced": "d", "open": "default"}.items()
    ):
        proposal = Proposal(
            id=f"p-{number + 1:012x}",
            incident_id="i-0000000000aa",
            action=HoldQueue(pool=POOL, queue=queue, hold=timedelta(hours=1)),
            playbook="person",
            expires_at=LASTING,
        )
        case = CaseFile(subject=target_of(proposal.action), failure_class="transient")
        row = ship.control_api().call(
            "file", proposal=json.loads(proposal.model_dump_json()), case=json.loads(case.model_dump_json())
        )
        assert row["status"] == "needs_approval", row
        made[key] = row["proposal_id"]
        match key:
            case "undone" | "verified":
                _cli(root, "approve", made[key], "--reason", "the berth is needed", who="ann")
                eventually(lambda: _status(ship, made[key]) == "verified", what="a verified hold")  # noqa: B023
            case "rejected":
                _cli(root, "reject", made[key], "--reason", "not tonight", who="ann")
        if key == "undone":
            _cli(root, "undo", made[key], "--reason", "it was not needed")
    _cli(root, "amend", made["replaced"], "--set", "hold=PT30M")
    _cli(root, "delegate", "ann", "--hours", "1", "--reason", "lunch")
    break_glass_grants = (
        "--kind",
        "hold_queue",
        "--target",
        f"queue:{POOL}/*",
        "--reason",
        "the quay is on fire",
        "--json",
    )
    grant = json.loads(_cli(root, "break-glass", *break_glass_grants))
    _cli(root, "mend-glass", grant["id"])
    _cli(root, "autonomy", "set", "retry_run", "fetch-quotes/demo", "demoted", "--reason", "to be seen")
    numbers = root / "numbers.yaml"
    numbers.write_text("autonomy_regain: 6\n")
    _cli(root, "users", "add", "ada", "--role", "admin", "--token-to", str(root / "ada.token"))
    (root / "password").write_text(PASSWORD)
    _cli(root, "users", "password", "ada", "--password-file", str(root / "password"))
    _cli(root, "users", "token", "ada", "--label", "ci", "--role", "admin", "--days", "300")
    for who in ("pat", "ada"):
        _cli(root, "policy", "publish", "--guardrails", str(numbers), "--reason", "a slower regain", who=who)
    return made


def _conversation(root: Path, run_id: str) -> str:
    """A person's conversation with a scripted model about a run: its id."""
    with ScriptedLLM(demo_script) as scripted:
        model = {"PILOTAGE_LLM__BASE_URL": scripted.base_url, "PILOTAGE_LLM__API_KEY": "scripted"}
        said = subprocess.run(
            [sys.executable, "-m", "pilotage.console", "chat", "--state-dir", str(root)],
            input=f"why did {run_id} fail?\n/exit\n",
            env=_environment(root, "pat") | model,
            capture_output=True,
            text=True,
            check=True,
        )
    assert run_id in said.stdout, said
    with sqlite3.connect(root / "console" / "conversations.sqlite") as connection:
        return str(connection.execute("SELECT id FROM threads WHERE by = 'pat'").fetchone()[0])


def _what_a_short_run_does_not_reach(root: Path) -> dict[str, str]:
    """One proposal by each status that is left, filed as the controller would have."""
    ledger = SqlLedger(f"sqlite:///{root / 'ledger.sqlite'}")
    now = datetime.now(UTC)
    allow = Verdict(outcome=Outcome.ALLOW, policy_ids=("agent-retries",))
    statuses: tuple[Status, ...] = (
        *("filed", "held", "allowed", "denied", "admitted", "delivered", "failed", "refused", "expired"),
    )
    made: dict[str, str] = {}
    for number, status in enumerate(statuses, start=0x100):
        soon = now - timedelta(seconds=1) if status == "expired" else LASTING
        filed = _filed(RetryRun(run_id=f"00000000-0000-4000-8000-{number:012x}"), number, now, soon)
        proposal_id = made[status] = filed.proposal.id
        ledger.file(filed)
        match status:
            case "held":
                ledger.record_verdict(
                    proposal_id, "judge", refused("!unreachable", detail="no answer"), None, now
                )
            case "allowed":
                ledger.record_verdict(proposal_id, "judge", allow, None, now)
            case "denied":
                denied = Verdict(outcome=Outcome.DENY, policy_ids=("hands-off",), reasons=("hands off",))
                ledger.record_verdict(proposal_id, "judge", denied, None, now)
            case "expired":
                ledger.expire(now)
            case "admitted" | "delivered" | "failed" | "refused":
                ledger.admit(proposal_id, lambda filed, ledger_facts: allow, Mode.AUTO, now)
        if status in ("delivered", "failed", "refused"):
            entry = ledger.claim_of(proposal_id, "up-1", now, timedelta(seconds=60))
            assert entry is not None
            receipt = {
                "proposal_id": proposal_id,
                "mark": entry.idempotency_key,
                "action": json.loads(filed.proposal.action.model_dump_json()),
                "effect": "refused" if status == "refused" else "done",
                "before": {"state_name": "Failed"},
                "after": {},
                "delivered_at": now.isoformat(),
                "undo_at": None,
            }
            if status == "failed":
                ledger.record_failure(proposal_id, "422: no such run", False, now)
            else:
                ledger.record_delivery(proposal_id, receipt, receipt["effect"], now)
        assert ledger.status(proposal_id) == status, (status, ledger.status(proposal_id))
    ledger.close()
    return made


def _filed(action: Action, number: int, now: datetime, expires_at: datetime) -> FiledProposal:
    proposal = Proposal(
        id=f"p-{number:012x}", incident_id=f"i-{number:012x}", action=action, expires_at=expires_at
    )
    return FiledProposal(
        proposal=proposal,
        case=CaseFile(subject=target_of(action), failure_class="transient", fingerprint="f"),
        proposer=PLANNER,
        digest=digest_of(proposal, PLANNER),
        filed_at=now,
    )


def _expected(root: Path) -> dict[str, Any]:
    """What the new code must find again, read with the code that made it."""
    ledger = SqlLedger(f"sqlite:///{root / 'ledger.sqlite'}")
    report = ledger.verify_audit()
    rows = ledger.proposals(limit=1000)
    found = {
        "audit": {"length": report.length, "head": report.head, "root": report.root},
        "statuses": {row["proposal_id"]: row["status"] for row in rows},
        "digests": {row["proposal_id"]: row["digest"] for row in rows},
        "steps": {row["proposal_id"]: len(ledger.story(row["proposal_id"])) for row in rows},
        "published": [row["bundle"] for row in ledger.published(10)],
        "mode": str(ledger.mode()),
        "password": PASSWORD,
    }
    ledger.close()
    scratch = root.parent / "shapes"
    return found | {"schemas": schemas_of(root), "shapes": shapes_of(scratch), "telemetry": _telemetry(root)}


def schemas_of(root: Path) -> dict[str, int]:
    """Return the schema version that each store of a state directory says it has."""
    store = DuckDBStore(root / "telemetry.duckdb")
    telemetry = store.rows("SELECT value FROM meta WHERE key = 'schema_version'")[0]["value"]
    store.close()
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        ledger = connection.execute("SELECT value FROM switches WHERE name = 'schema'").fetchone()[0]
    with sqlite3.connect(root / "console" / "conversations.sqlite") as connection:
        conversations = connection.execute("PRAGMA user_version").fetchone()[0]
    return {"ledger": int(ledger), "telemetry": int(telemetry), "conversations": int(conversations)}


def shapes_of(scratch: Path) -> dict[str, dict[str, list[str]]]:
    """Return the columns of every table by store, as this code makes them in an empty directory."""
    scratch.mkdir(exist_ok=True)
    SqlLedger(f"sqlite:///{scratch / 'ledger.sqlite'}").close()
    EventLog(scratch / "conversations.sqlite").close()
    store = DuckDBStore(scratch / "telemetry.duckdb")
    columns = store.rows(
        "SELECT table_name AS t, column_name AS c, data_type AS k FROM information_schema.columns"
    )
    store.close()
    telemetry: dict[str, list[str]] = {}
    for row in columns:
        telemetry.setdefault(row["t"], []).append(f"{row['c']} {row['k']}")
    return {
        "ledger": _sqlite_shape(scratch / "ledger.sqlite"),
        "conversations": _sqlite_shape(scratch / "conversations.sqlite"),
        "telemetry": {table: sorted(found) for table, found in telemetry.items()},
    }


def _sqlite_shape(path: Path) -> dict[str, list[str]]:
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            str(table): sorted(
                f"{row[1]} {row[2]}" for row in connection.execute(f"PRAGMA table_info({table})")
            )
            for (table,) in tables
            if not table.startswith("sqlite_")
        }


def _telemetry(root: Path) -> dict[str, int]:
    store = DuckDBStore(root / "telemetry.duckdb")
    tables = ("runs", "deployments", "events", "decisions", "queues")
    counts = {name: store.rows(f"SELECT count(*) AS n FROM {name}")[0]["n"] for name in tables}  # noqa: S608
    store.close()
    return counts


def _status(ship: RunningController, proposal_id: str) -> str:
    return str(ship.control_api().call("proposal", proposal_id=proposal_id)["status"])


def _environment(root: Path, who: str) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "PILOTAGE_STATE_DIR": str(root),
        "PILOTAGE_TOKEN_FILE": str(root / f"{who}.token"),
    }


def _cli(root: Path, *arguments: str, who: str = "pat") -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.console", *arguments],
        env=_environment(root, who),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def _pack(root: Path, archive: Path) -> None:
    """Pack the state directory without what a start makes again: sockets, locks, logs and settings of this machine."""
    left_out = {"up.lock", "pilotage.toml", "up.log", "agent.log", "password", "numbers.yaml"}

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(member.name).name
        if name in left_out or not (member.isfile() or member.isdir()):
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        tar.add(root, arcname=ROOT, filter=kept)
    print(f"{archive}: {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
