"""No code of the controller reaches a route of Prefect that no admitted row of the outbox names."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa
from tests.compat.versions import DATA

import pilotage.flows
from pilotage.flows.execution.permits import clearing_notes, permit_for, reach_of, releasing_queues
from pilotage.flows.execution.receipts import step_key
from pilotage.flows.levers import build_levers
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import ADMITTED, READING, TELLING, Guard, Permit, permitted
from pilotage.flows.prefect.writes import Asked, Reach, set_state
from pilotage.planner.actions.types import ACTIONS, Action, BaseAction, CancelTree, RetryRun, SpreadRuns
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of, idempotency_key_of
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.prefect.http import PrefectReader

PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
FOREIGN = "99999999-9999-4999-8999-999999999999"
FOREIGN_BODIES: Mapping[str, Any] = {
    "POST /flow_runs/bulk_set_state": {
        "flow_runs": {"id": {"any_": [FOREIGN]}},
        "state": {"type": "CANCELLED", "name": "Cancelled"},
        "force": False,
        "limit": 1,
    },
    "POST /events": [{"event": "prefect.flow-run.Failed"}],
    "POST /artifacts/": {"key": "report", "type": "markdown", "data": "x"},
    "POST /variables/": {"name": "theirs", "value": 1},
    "POST /task_runs/": {"flow_run_id": FOREIGN, "task_key": "pilotage.remediation"},
    "POST /concurrency_limits/decrement": {"names": ["theirs"], "task_run_id": FOREIGN},
    "POST /v2/concurrency_limits/decrement": {"names": [f"deployment:{FOREIGN}"], "slots": 1},
}
"""What a request says whose route alone does not say what it is about."""


class Seen:
    """A Prefect that notes what arrives, and answers as it is told."""

    def __init__(self, replies: Mapping[str, Any] | None = None) -> None:
        self.arrived: list[str] = []
        self.replies = dict(replies or {})

    def api(self, guard: Guard | None) -> PrefectApi:
        return PrefectApi(
            "http://prefect.test/api",
            transport=httpx.MockTransport(self._answer),
            first_wait=0.0,
            guard=guard,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        what = f"{request.method} {request.url.path.removeprefix('/api')}"
        self.arrived.append(what)
        return httpx.Response(200, json=self.replies.get(what, {}))


def changing_routes() -> list[tuple[str, str, Any]]:
    """Every request that pilotage sends anywhere and that changes Prefect, about something foreign."""
    routes = [route.split(" ", 1) for route in json.loads((DATA / "requests.json").read_text())]
    more = [
        ("DELETE", "/flow_runs/{id}"),
        ("POST", "/flow_runs/{id}/set_state"),
        ("DELETE", "/deployments/{id}"),
    ]
    return [
        (method, _filled(route), FOREIGN_BODIES.get(f"{method} {route}", {"value": 1}))
        for method, route in [*routes, *more]
        if method != "GET" and not route.endswith("/filter") and route != "/ui/flow_runs/history"
    ]


def _filled(route: str) -> str:
    return "/".join(FOREIGN if part.startswith("{") else part for part in route.split("/"))


async def tried(api: PrefectApi, method: str, route: str, body: Any) -> str:
    """Why it was not sent, both through the client's own method and beside it; or empty."""
    why = ""
    for ask in (api._send, api._client.request):
        try:
            await ask(method, route, json=body)
        except OrchestratorError as error:
            why = str(error)
    return why


def every_lever(api: PrefectApi) -> Mapping[str, Any]:
    async def released(run_id: str, after: datetime) -> bool:
        return True

    return build_levers(worker_has_released=released, notifier=Notifier(api=api), api=api)


def sample(kind: type[BaseAction]) -> Action:
    return kind(**{**kind.example_target, **kind.example})


@pytest.mark.parametrize("guard", [READING, TELLING, ADMITTED], ids=["reading", "telling", "levers"])
def test_without_an_admitted_row_no_connection_of_the_controller_changes_prefect(guard: Guard) -> None:
    seen = Seen()

    async def work() -> None:
        async with seen.api(guard).opened() as api:
            for method, route, body in changing_routes():
                assert "not sent" in await tried(api, method, route, body), (method, route)

    asyncio.run(work())
    assert not seen.arrived
    assert len(changing_routes()) > 20


@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_the_row_of_one_target_opens_no_way_to_another(kind: str) -> None:
    seen = Seen()

    async def work() -> None:
        async with seen.api(ADMITTED).opened() as api:
            action, key = sample(ACTIONS[kind]), str(uuid4())
            writes = every_lever(api)[kind].writes
            with permitted(Permit(about=kind, writes=writes, reach=reach_of(action, key))):
                for method, route, body in changing_routes():
                    await tried(api, method, route, body)

    asyncio.run(work())
    assert not seen.arrived


def test_notices_are_pilotages_own_events_and_artifacts() -> None:
    seen = Seen()

    async def work() -> None:
        async with seen.api(TELLING).opened() as api:
            await api.emit([{"event": "pilotage.injected"}])
            await api.put_artifact(FOREIGN, "pilotage-1", "text", description="d")
            for event in (
                [{"event": "prefect.flow-run.Failed"}],
                [{"event": "pilotage.x"}, {"event": "theirs"}],
            ):
                with pytest.raises(OrchestratorError):
                    await api.emit(event)
            with pytest.raises(OrchestratorError):
                await api.put_artifact(FOREIGN, "report", "text", description="d")

    asyncio.run(work())
    assert seen.arrived == ["POST /events", "POST /artifacts/"]


def test_the_collectors_reader_sends_only_what_reads() -> None:
    seen = Seen({"POST /flow_runs/filter": []})
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(seen._answer), base_url="http://prefect.test/api"
    )

    async def work() -> None:
        async with PrefectReader(client) as reader:
            await reader.page("/flow_runs/filter", {}, limit=1)
            with pytest.raises(OrchestratorError, match="for reading only"):
                await reader._ask("POST", "/flow_runs/bulk_set_state", json={})
            with pytest.raises(OrchestratorError):
                await client.delete(f"/flow_runs/{FOREIGN}")

    asyncio.run(work())
    assert seen.arrived == ["POST /flow_runs/filter"]


# -- what belongs to a target is what Prefect says ----------------------------------------------------------


def cancel(api: PrefectApi, run_id: str, *, force: bool = False, operator: str = "") -> Callable[[], Any]:
    where: dict[str, Any] = {"id": {"any_": [run_id]}, **({"operator": operator} if operator else {})}
    body = {"flow_runs": where, "state": {"type": "CANCELLED"}, "force": force, "limit": 1}
    return lambda: api._send("POST", "/flow_runs/bulk_set_state", json=body)


@pytest.mark.parametrize(
    ("where", "belongs"),
    [
        ({"deployment_id": {"any_": ["TARGET"]}}, True),
        ({"deployment_id": {"any_": ["TARGET", FOREIGN]}}, False),
        ({"deployment_id": {"any_": []}}, False),
        ({"deployment_id": {"any_": ["TARGET"]}, "operator": "or_"}, False),
        ({"parent_flow_run_id": {"any_": ["TARGET"]}}, False),
        ({"idempotency_key": {"any_": [FOREIGN]}}, False),
        ({}, False),
    ],
)
def test_only_runs_that_prefect_finds_for_the_target_are_within_reach(where: Any, belongs: bool) -> None:
    action = sample(SpreadRuns)
    target = action.deployment_changed()
    where = json.loads(json.dumps(where).replace("TARGET", target))
    found = str(uuid4())
    seen = Seen({"POST /flow_runs/filter": [{"id": found, "deployment_id": target}]})

    async def work() -> None:
        async with seen.api(ADMITTED).opened() as api:
            reach = reach_of(action, str(uuid4()))
            with permitted(Permit(about="x", writes=[set_state(StateType.CANCELLED)], reach=reach)):
                await api._send("POST", "/flow_runs/filter", json={"flow_runs": where})
                if belongs:
                    await cancel(api, found)()
                for wrong in (
                    cancel(api, FOREIGN),
                    cancel(api, found, force=True),
                    cancel(api, found, operator="or_"),
                ):
                    with pytest.raises(OrchestratorError):
                        await wrong()
                if not belongs:
                    with pytest.raises(OrchestratorError):
                        await cancel(api, found)()

    asyncio.run(work())
    assert seen.arrived.count("POST /flow_runs/bulk_set_state") == (1 if belongs else 0)


def test_what_a_run_started_is_within_reach_of_the_tree_alone() -> None:
    run = str(uuid4())
    asked = Asked(
        method="POST",
        parts=("flow_runs", "filter"),
        body={"flow_runs": {"parent_flow_run_id": {"any_": [run]}}},
    )
    for action, expected in ((CancelTree(run_id=run), {run, "child"}), (RetryRun(run_id=run), {run})):
        reach = reach_of(action, str(uuid4()))
        reach.learn(asked, [{"id": "child"}])
        assert reach.runs == expected


def test_a_note_opens_a_queue_only_to_the_delivery_that_left_it() -> None:
    key, pool, queue = str(uuid4()), "p", "etl"
    asked = Asked(method="POST", parts=("variables", "filter"), body={})
    value = {"pool": pool, "queue": queue}
    for holder, within in (
        (step_key(key, f"{pool}/{queue}"), True),
        (step_key(key, "p/other"), False),
        (FOREIGN, False),
    ):
        reach = reach_of(sample(SpreadRuns), key)
        reach.learn(asked, [{"name": f"pilotage_hold_{holder}", "value": value}])
        assert ((pool, queue) in reach.queues) is within


def test_chores_reach_what_deliveries_left_and_nothing_else() -> None:
    note = f"pilotage_hold_{uuid4()}"
    seen = Seen({"POST /variables/filter": [{"name": note, "value": {"pool": "p", "queue": "a"}}]})

    async def work() -> None:
        async with seen.api(ADMITTED).opened() as api:
            with releasing_queues():
                await api.variables_like("pilotage_hold_")
                await api.set_queue_paused("p", "a", False)
                with pytest.raises(OrchestratorError):
                    await api.set_queue_paused("p", "b", False)
                with pytest.raises(OrchestratorError):
                    await api.set_queue_priority("p", "a", 1)
                for name in ("theirs", "pilotage_pause_theirs"):
                    with pytest.raises(OrchestratorError):
                        await api.delete_variable(name)
            with clearing_notes():
                await api.delete_variable(note)
                with pytest.raises(OrchestratorError):
                    await api.set_variable(note, {})

    asyncio.run(work())
    assert seen.arrived[1:] == ["PATCH /work_pools/p/queues/a", f"DELETE /variables/name/{note}"]


def test_what_goes_on_after_a_delivery_may_write_no_more() -> None:
    seen = Seen()

    async def work() -> None:
        async with seen.api(ADMITTED).opened() as api:
            over = asyncio.Event()

            async def late() -> None:
                await over.wait()
                await api.add_labels(FOREIGN, {})

            action = RetryRun(run_id=FOREIGN)
            permit = Permit(
                about="x", writes=every_lever(api)["retry_run"].writes, reach=reach_of(action, str(uuid4()))
            )
            with permitted(permit):
                await api.add_labels(FOREIGN, {})
                leaked = asyncio.create_task(late())
                await asyncio.sleep(0)
            over.set()
            with pytest.raises(OrchestratorError, match="has ended"):
                await leaked

    asyncio.run(work())
    assert len(seen.arrived) == 1


def test_names_that_walk_out_of_a_route_reach_nothing() -> None:
    seen = Seen()

    async def work() -> None:
        async with seen.api(ADMITTED).opened() as api:
            reach = Reach(queues={("p", "a"), ("..", "a"), ("p/queues/b", "a")})
            writes = every_lever(api)["hold_queue"].writes
            with permitted(Permit(about="x", writes=writes, reach=reach)):
                for pool, queue in (("p/queues/b", "a"), ("../deployments", FOREIGN), ("p", "a/../../b")):
                    with pytest.raises(OrchestratorError):
                        await api.set_queue_paused(pool, queue, True)

    asyncio.run(work())
    assert not seen.arrived


# -- the ledger says which rows there are -------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield ledger
    ledger.close()


def filed(ledger: SqlLedger) -> FiledProposal:
    number = uuid4().hex[:12]
    proposal = Proposal(
        id=f"p-{number}",
        incident_id=f"i-{number}",
        action=RetryRun(run_id=FOREIGN),
        expires_at=NOW + timedelta(hours=1),
    )
    made = FiledProposal(
        proposal=proposal,
        case=CaseFile(subject="x", failure_class="transient"),
        proposer=PLANNER,
        digest=digest_of(proposal, PLANNER),
        filed_at=NOW,
    )
    assert ledger.file(made)
    return made


def admitted(ledger: SqlLedger) -> FiledProposal:
    made = filed(ledger)
    allow = Verdict(outcome=Outcome.ALLOW, policy_ids=("p",), reasons=(), bundle="b")
    ledger.record_verdict(made.proposal.id, "judge", allow, None, NOW)
    ledger.admit(made.proposal.id, lambda stored, facts: allow, Mode.AUTO, NOW, None)
    return made


def test_a_permit_needs_a_row_that_the_ledger_admitted_and_that_is_being_delivered(ledger: SqlLedger) -> None:
    with pytest.raises(OrchestratorError, match="no row of the outbox"):
        permit_for(ledger, "p-000000000000", "delivering", ())
    with pytest.raises(OrchestratorError, match="no row of the outbox"):
        permit_for(ledger, filed(ledger).proposal.id, "delivering", ())
    made = admitted(ledger)
    with pytest.raises(OrchestratorError, match="pending"):
        permit_for(ledger, made.proposal.id, "delivering", ())
    assert ledger.claim("test", NOW, timedelta(minutes=1)) is not None
    permit = permit_for(ledger, made.proposal.id, "delivering", ())
    assert permit.reach.runs == {FOREIGN}
    assert idempotency_key_of(made.digest) in permit.reach.keys
    with pytest.raises(OrchestratorError, match="claimed"):
        permit_for(ledger, made.proposal.id, "undoing", ())


def test_a_row_whose_text_is_not_the_admitted_one_opens_nothing(ledger: SqlLedger, tmp_path: Path) -> None:
    made = admitted(ledger)
    assert ledger.claim("test", NOW, timedelta(minutes=1)) is not None
    other = str(uuid4())
    with sa.create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}").begin() as connection:
        changed = connection.exec_driver_sql(
            "UPDATE proposals SET proposal = replace(proposal, ?, ?) WHERE id = ?",
            (FOREIGN, other, made.proposal.id),
        )
        assert changed.rowcount == 1
    with pytest.raises(OrchestratorError, match="not the one that was admitted"):
        permit_for(ledger, made.proposal.id, "delivering", ())


# -- nobody opens a connection past the guard ---------------------------------------------------------------

WORLDS_OF_ONES_OWN = ("dev", "demo", "bench", "examples")
"""Packages that set a stage on a Prefect which they started themselves."""


def test_the_product_opens_prefect_only_behind_a_guard() -> None:
    root = Path(next(iter(pilotage.flows.__path__)))
    opened: set[str] = set()
    for path in root.rglob("*.py"):
        place = path.relative_to(root)
        if place.parts[0] in WORLDS_OF_ONES_OWN:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "guard":
                unguarded = isinstance(node.value, ast.Constant) and node.value.value is None
                assert not unguarded, f"{place}: a connection without a guard"
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            if name in {"ADMITTED", "AdmittedWrites", "permitted", "Permit"}:
                opened.add(str(place))
            if name in {"AsyncClient", "Client", "get_client"} and isinstance(node, ast.Attribute | ast.Name):
                assert str(place) in {"prefect/http.py", "notify/notifier.py"} or place.parts[0] in {
                    "api",
                    "agent",
                    "sdk",
                    "doctor",
                    "replay",
                }, f"{place}: a client of its own"
    assert opened == {
        "controller/controller.py",
        "execution/injector.py",
        "execution/permits.py",
        "levers/registry.py",
        "prefect/guard.py",
    }
