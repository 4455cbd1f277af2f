"""State directories made by earlier code are opened by this code: nothing in them is lost, everything goes on.

`make_installation.py` makes them. Before a stored schema changes, an installation with the schema before it is kept
under `tests/data/installations/`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PrefectServer
from tests.flows.make_installation import POOL, QUEUES, ROOT, schemas_of, shapes_of
from tests.flows.running_controller import eventually, running_controller

from pilotage.console.session.log import SCHEMA_VERSION as CONVERSATIONS
from pilotage.console.session.log import EventLog
from pilotage.flows.levers.idempotency import ChangeRecords
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.checkpoints import SqliteCheckpoints
from pilotage.policies.audit.checkpoints import kept_in
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.checkpoint_job import verifier_for
from pilotage.policies.ledger.schema import SCHEMA_VERSION as LEDGER
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.publishing import misfit
from pilotage.telemetry.queries.runs import kpis, latest_runs, logs_of, queue_snapshots
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.schema import SCHEMA_VERSION as TELEMETRY

KEPT = Path(__file__).parents[1] / "data" / "installations"
CURRENT = {"ledger": LEDGER, "telemetry": TELEMETRY, "conversations": CONVERSATIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One state directory, unpacked, and what must be found in it."""

    root: Path
    expected: dict[str, Any]


def expected_of(name: str) -> dict[str, Any]:
    return dict(json.loads((KEPT / name / "expected.json").read_text()))


NAMES = sorted(path.name for path in KEPT.iterdir() if path.is_dir())


@pytest.fixture(params=NAMES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    with tarfile.open(KEPT / request.param / "state.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    return Installation(root=tmp_path / ROOT, expected=expected_of(request.param))


@pytest.fixture
def ledger(old: Installation) -> Iterator[SqlLedger]:
    opened = SqlLedger(f"sqlite:///{old.root / 'ledger.sqlite'}")
    yield opened
    opened.close()


@pytest.mark.parametrize("store", sorted(CURRENT))
def test_every_schema_that_was_left_behind_has_an_installation(store: str) -> None:
    kept = {expected_of(name)["schemas"][store] for name in NAMES}
    stale_resources = set(range(min(kept), CURRENT[store]))
    assert stale_resources <= kept, (
        f"the schema of {store} is {CURRENT[store]} now: check out the commit before the change, run "
        "`python -m tests.flows.make_installation tests/data/installations/COMMIT`, and keep what it makes"
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_schema_changes_without_a_new_version(name: str, tmp_path: Path) -> None:
    expected = expected_of(name)
    now = shapes_of(tmp_path)
    for store, version in CURRENT.items():
        if expected["schemas"][store] == version:
            assert now[store] == expected["shapes"][store], (
                f"the tables of {store} are not those of version {version}: raise its SCHEMA_VERSION, with a step "
                "that brings a store of the version before to it"
            )


def test_it_is_brought_to_the_present_schema(old: Installation, ledger: SqlLedger) -> None:
    DuckDBStore(old.root / "telemetry.duckdb").close()
    EventLog(old.root / "console" / "conversations.sqlite").close()
    assert schemas_of(old.root) == CURRENT


def test_the_ledger_has_every_proposal_where_it_stood(old: Installation, ledger: SqlLedger) -> None:
    rows = ledger.proposals(limit=1000)
    assert {row["proposal_id"]: row["status"] for row in rows} == old.expected["statuses"]
    assert {row["proposal_id"]: row["digest"] for row in rows} == old.expected["digests"]
    for proposal_id, steps in old.expected["steps"].items():
        assert len(ledger.story(proposal_id)) == steps, proposal_id
        filed = ledger.filed(proposal_id)
        assert filed is not None
        assert filed.digest == old.expected["digests"][proposal_id]
    assert [row["bundle"] for row in ledger.published(10)] == old.expected["published"]
    assert str(ledger.mode()) == old.expected["mode"]
    assert ledger.known_incidents()
    assert list(ledger.decisions())


def test_the_audit_log_is_what_was_signed(old: Installation, ledger: SqlLedger) -> None:
    signed = old.root / "checkpoints"
    checkpoints = kept_in(signed, verifier_for(signed, ""))
    report = ledger.verify_audit(checkpoints)
    assert report.ok, report
    assert checkpoints[-1].size == report.length
    said = {"length": report.length, "head": report.head, "root": report.root}
    assert said == old.expected["audit"]


def test_people_sign_in_and_are_who_they_were(old: Installation) -> None:
    book = IdentityBook(old.root / "users.toml")
    roles = {each.name: sorted(each.roles) for each in book.everyone()}
    assert roles == {"ada": ["admin"], "ann": ["approver"], "pat": ["admin", "operator"], "vic": ["viewer"]}
    for name in roles:
        known = book.authenticate((old.root / f"{name}.token").read_text().strip())
        assert known is not None
        assert known.name == name
    lasts = timedelta(hours=1)
    assert book.sign_in("ada", old.expected["password"], lasts)
    assert not book.sign_in("ada", "another", lasts)


def test_conversations_open(old: Installation) -> None:
    log = EventLog(old.root / "console" / "conversations.sqlite")
    try:
        thread = log.thread(old.expected["thread"])
        assert thread is not None
        said = [str(event.payload) for event in log.after(0, thread.id)]
        assert any(old.expected["runs"]["transient"] in text for text in said)
    finally:
        log.close()
    remembered = asyncio.run(_remembered(old.root / "agent" / "conversations.sqlite"))
    assert any(old.expected["runs"]["transient"] in text for text in remembered)


async def _remembered(path: Path) -> list[str]:
    async with SqliteCheckpoints(path).opened() as saver:
        return [str(kept.checkpoint["channel_values"]) async for kept in saver.alist(None)]


def test_telemetry_answers(old: Installation) -> None:
    store = DuckDBStore(old.root / "telemetry.duckdb")
    try:
        for table, rows in old.expected["telemetry"].items():
            counted = store.rows(f"SELECT count(*) AS n FROM {table}")  # noqa: S608
            assert counted[0]["n"] == rows, table
        runs = {run.run_id: run for run in latest_runs(store)}
        assert set(old.expected["runs"].values()) <= set(runs)
        assert logs_of(store, old.expected["runs"]["transient"]) == []
        assert {queue.pool for queue in queue_snapshots(store)} >= {POOL}
        assert kpis(store).verified >= 1
    finally:
        store.close()


@pytest.mark.prefect
def test_what_was_open_is_approved_undone_and_explained(
    old: Installation, prefect_server: PrefectServer
) -> None:
    """`pilotage up` on the old directory, against a server that has its pool."""
    made = old.expected["by_hand"]
    prefect_server.embedded.create_pool(POOL, queues=QUEUES)
    receipt = _receipt(old.root, made["verified"])
    asyncio.run(_as_it_was_left(receipt))
    with running_controller(
        old.root, prefect_server.env, mode="approve", forked=prefect_server.embedded
    ) as ship:
        pat, ann = ship.control_api(), ship.control_api("ann")
        assert pat.call("audit_verify")["ok"]
        seen = pat.call("proposal", proposal_id=made["open"])
        assert seen["status"] == "needs_approval"
        vote = {"proposal_id": made["open"], "digest": seen["digest"], "decision": "approve"}
        ann.call("vote", **vote, reason="still needed")
        eventually(
            lambda: pat.call("proposal", proposal_id=made["open"])["status"] == "verified",
            what="an old proposal, approved, injected and verified",
        )
        eventually(
            lambda: pat.call("proposal", proposal_id=made["verified"])["status"] == "undone",
            what="a hold that ran out while nothing was running, given back at the start",
        )
        assert pat.call("undo", proposal_id=made["open"])["effect"] == "done"
        for proposal_id in (made["verified"], made["open"]):
            steps = [step["step"] for step in pat.call("why", subject=proposal_id)]
            assert steps[-1] == "undone"
            assert {"proposed", "judged", "injected"} <= set(steps)
        assert pat.call("audit_verify")["ok"]
    assert not asyncio.run(_paused_queues())


async def _as_it_was_left(receipt: dict[str, Any]) -> None:
    async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
        await api.set_queue_paused(POOL, "a", True)
        await ChangeRecords(api).write("queue", receipt["mark"], receipt["before"])


async def _paused_queues() -> list[str]:
    async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
        return [queue.name for queue in await api.queues(POOL) if queue.paused]


def _receipt(root: Path, proposal_id: str) -> dict[str, Any]:
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        text = connection.execute("SELECT receipt FROM receipts WHERE proposal_id = ?", (proposal_id,))
        return dict(json.loads(text.fetchone()[0]))


def test_there_is_an_installation_with_a_proposal_in_every_status() -> None:
    from typing import get_args

    from pilotage.policies.ledger.protocol import Status

    found = {status for name in NAMES for status in expected_of(name)["statuses"].values()}
    never_stored = {"unknown"}
    assert found == set(get_args(Status)) - never_stored
    assert datetime.now(UTC) < datetime(2099, 1, 1, tzinfo=UTC), "the open ones have expired: make a new one"


def test_its_published_policies_can_be_asked_by_this_version(old: Installation, ledger: SqlLedger) -> None:
    """What is looked up today is more than its schema knows."""
    publication = ledger.in_force()
    assert publication is not None
    assert misfit(Bundle.of(publication.files, Path("its own"))) == ""
