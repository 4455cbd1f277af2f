"""A API, a ledger, a store and the console's server, all real and all in this process; only Prefect is played."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from pilotage.console.session.engine import Engine
from pilotage.console.session.follower import Watcher
from pilotage.console.session.log import EventLog
from pilotage.console.session.services import services_for, user_with
from pilotage.console.web.app import Federation, create_app
from pilotage.console.web.sessions import Sessions
from pilotage.flows.api.admin import AdminEndpoints
from pilotage.flows.api.client import ApiClient
from pilotage.flows.api.login import LoginThrottle
from pilotage.flows.api.oidc import OidcSignIn
from pilotage.flows.api.proposals import ProposalEndpoints
from pilotage.flows.api.queries import QueryEndpoints
from pilotage.flows.api.refused_requests import RefusedRequests
from pilotage.flows.api.server import ApiServer, Operation
from pilotage.flows.api.sessions import SessionEndpoints
from pilotage.flows.config.credentials import PREFECT_KEYS
from pilotage.flows.config.oidc import OidcSettings
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.controller.loop_times import LoopTimes
from pilotage.flows.controller.measures import MeasureReader
from pilotage.flows.execution.injector import Injector, InjectorLimits
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.flows.execution.mode import ModeSwitch
from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.prefect.writes import Write
from pilotage.planner.actions.types import Action, RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import Identity, Mode, TargetFacts
from pilotage.telemetry.facts import LogLine, RunFact, StateType
from pilotage.telemetry.prefect.answers import AnswerTimes
from pilotage.telemetry.prefect.collector import PrefectCollector
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.socket import StoreServer

AGENT = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
PEOPLE = {"pat": ("operator", "admin"), "ann": ("approver",), "vic": ("viewer",)}
PASSWORD = "correct horse battery"
UI = "http://127.0.0.1:4200"


@dataclass
class PlayedLever:
    """Does as it is told, and counts."""

    kind: str = "any"
    window: timedelta = timedelta(minutes=1)
    undoable: str = "always"
    writes: tuple[Write, ...] = ()
    executed: int = 0

    async def execute(
        self, action: Action, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        self.executed += 1
        return Delivery(effect=Effect.DONE)

    async def verify(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Check:
        return Check(judgement=Judgement.VERIFIED, detail="it completed", final_state="COMPLETED")

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        return Delivery(effect=Effect.DONE)


class PlayedFacts:
    """A failed run of a staging deployment, whatever is asked about."""

    async def target(self, action: Action) -> TargetFacts:
        return TargetFacts(
            target=target_of(action),
            read_at=datetime.now(UTC),
            state_type="FAILED",
            state_name="Failed",
            state_id="s-1",
            deployment_id="d-1",
            deployment_name="etl/nightly",
            env="staging",
            tier=2,
            memory_mb=128,
        )


class Web:
    """The console's server. Few tests want one, so it is started by the first that asks."""

    def __init__(self, make: Callable[[], FastAPI]) -> None:
        self.url = ""
        self.starting = threading.Lock()
        """Held by who starts it, or asks whether it was."""
        self._make = make
        self._end: Callable[[], None] = lambda: None
        self._serving: asyncio.Future[None] | None = None

    async def start(self) -> str:
        """Its address, on a free port of loopback."""
        app = self._make()
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1, ws="none")
        )
        self._serving = asyncio.ensure_future(server.serve())
        while not server.started and not self._serving.done():
            await asyncio.sleep(0.01)
        assert server.started, "the server did not start"

        def end() -> None:
            app.state.tail.close()
            server.should_exit = True

        self._end = end
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        return self.url

    async def stop(self) -> None:
        """End it, if it was ever started."""
        self._end()
        if self._serving is not None:
            await self._serving


@dataclass
class ConsoleStack:
    """What a test asks for."""

    paths: StatePaths
    book: IdentityBook
    tokens: dict[str, str]
    ledger: SqlLedger
    store: DuckDBStore
    engine: Engine
    injector: Injector
    lever: PlayedLever
    sessions: Sessions
    web: Web
    operations: dict[str, Operation]
    collector: PrefectCollector
    """Never started; what measures are made of."""
    provider: OidcSignIn
    """Signs in by a team's identity provider; none is set at first."""
    health: dict[str, Any]
    """What the API's `status` says of collecting."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @property
    def url(self) -> str:
        """Where the server is; whoever asks first has it started."""
        with self.web.starting:
            return self.web.url or asyncio.run_coroutine_threadsafe(self.web.start(), self.loop).result(60)

    def client(self, name: str | None = None, **more: Any) -> httpx.Client:
        """A client of the server, with this person's token or without any."""
        headers = {"Authorization": f"Bearer {self.tokens[name]}"} if name else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False, **more)

    def control_api(self, name: str) -> ApiClient:
        """The API, asked by this person."""
        return ApiClient(self.paths.api_socket, self.tokens[name])

    def failed_run(self, message: str = "connection reset by peer", name: str = "brave-otter") -> str:
        """The id of a failed run with one log line, both known to telemetry."""
        run_id, now = str(uuid4()), datetime.now(UTC)
        self.store.merge_runs(
            [
                RunFact(
                    run_id=run_id,
                    name=name,
                    flow_name="etl",
                    state_type=StateType.FAILED,
                    state_name="Failed",
                    state_id="s-1",
                    state_message=message,
                    deployment_id="d-1",
                    deployment_name="nightly",
                    pool="p",
                    queue="default",
                    run_count=1,
                    created=now - timedelta(minutes=3),
                    expected_start=now - timedelta(minutes=3),
                    started=now - timedelta(minutes=2),
                    ended=now - timedelta(minutes=1),
                    updated=now,
                    tags=("env:staging",),
                )
            ]
        )
        self.store.add_logs([LogLine(log_id=str(uuid4()), run_id=run_id, at=now, level=40, message=message)])
        return run_id

    def plan_of(self, runs: int) -> tuple[str, list[dict[str, Any]]]:
        """The id of an incident of so many failed runs with one cause, and what is proposed about each, judged."""
        cause = f"fault:{uuid4().hex}"
        rows = [self.proposal(self.failed_run(), causes=(cause,)) for _ in range(runs)]
        filed = [self.ledger.proposal(row["proposal_id"]) or {} for row in rows]
        return self.ledger.incident_of(filed[0]["run_id"]), filed

    def proposal(self, run_id: str = "", action: Action | None = None, **case: Any) -> dict[str, Any]:
        """A proposal as the agent files it, judged."""
        wanted = action or RetryRun(run_id=run_id or str(uuid4()))
        number = uuid4().hex[:12]
        proposal = Proposal(
            id=f"p-{number}",
            incident_id=f"i-{number}",
            action=wanted,
            expires_at=datetime.now(UTC) + timedelta(hours=1),
            evidence=("state:s-1",),
        )
        told = CaseFile(
            **({"subject": target_of(wanted), "failure_class": "transient", "p_fail": 0.12} | case)
        )
        return self.control_api("planner").file(proposal, told)

    def work(self) -> None:
        """One turn of the loop: what is allowed is injected and verified."""

        async def turn() -> None:
            for row in self.ledger.proposals("allowed", 100):
                await self.injector.admit(row["proposal_id"])
            while await self.injector.deliver():
                pass
            await self.injector.verify()

        asyncio.run_coroutine_threadsafe(turn(), self.loop).result(30)

    def watch(self) -> None:
        """One look of the watcher."""
        user = user_with(self.paths, self.tokens["pat"])
        watcher = Watcher(self.engine, user, self.control_api("pat"))

        async def look() -> None:
            while await watcher.look():
                pass

        asyncio.run_coroutine_threadsafe(look(), self.loop).result(30)


@functools.cache
def shipped() -> Bundle:
    """The shipped policies: a value, read once for all harbours."""
    return Bundle.load()


@contextmanager
def console_stack(root: Path, *, mode: Mode = Mode.APPROVE) -> Iterator[ConsoleStack]:
    """Everything, in the directory `root`, until the end of the block."""
    paths = StatePaths(root=root)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    book = IdentityBook(paths.users)
    tokens = {name: book.add(name, roles=roles) for name, roles in PEOPLE.items()}
    tokens["planner"] = book.issue_session_token(AGENT)
    paths.token.touch(mode=0o600)
    paths.token.write_text(tokens["pat"])
    store = DuckDBStore(paths.telemetry)
    ledger = SqlLedger(f"sqlite:///{paths.ledger}", current_identity=book.current_identity)
    reader = StoreServer(store, paths.store_socket)
    lever = PlayedLever()
    gate = Gate(shipped())
    switch = ModeSwitch(ledger, mode, _now)
    switch.begin()
    kill_switch = KillSwitch(paths.stop_file, ledger, resume_votes=lambda: 1)

    async def drained(pool: str, queue: str) -> bool:
        return False

    injector = Injector(
        ledger=ledger,
        gate=gate,
        facts=PlayedFacts(),
        levers=dict.fromkeys(("retry_run", "resize_run", "cancel_run", "notify_owner"), lever),
        mode=switch.mode,
        stopped=kill_switch.stopped,
        clock=_now,
        owner="console",
        drained=drained,
        limits=InjectorLimits(lease=timedelta(seconds=5), max_attempts=3),
    )
    health: dict[str, Any] = {"connected": True}
    words = {
        kind: {"on": "run", "does": "as told", "undo": "always", "within": "1 min"}
        for kind in ("retry_run", "resize_run", "cancel_run", "notify_owner")
    }
    tables = (
        ProposalEndpoints(
            ledger=ledger, gate=gate, injector=injector, store=store, kill_switch=kill_switch, mode=switch.mode,
            clock=_now, health=lambda: health, wake=lambda: None,
        ),
        AdminEndpoints(
            ledger=ledger, gate=gate, judge=injector.judge, mode=switch, clock=_now, wake=lambda: None,
            current_identity=book.current_identity,
        ),
        QueryEndpoints(
            ledger=ledger, gate=gate, agent=AGENT, mode=switch.mode, clock=_now, levers=words, paths={"ui": UI}, store=store
        ),
    )  # fmt: skip
    collector = PrefectCollector(store)
    measures = MeasureReader(
        ledger=ledger, store=store, collector=collector, levers=AnswerTimes(), loop=LoopTimes(),
        defects=injector.defects.rows, paths=paths,
        mode=lambda: switch.mode().value, bundle=lambda: gate.bundle.hash, stopped=kill_switch.stopped, clock=_now,
    )  # fmt: skip
    measures.begin()
    operations = {name: row for table in (*tables, measures) for name, row in table.table().items()}
    sessions = Sessions()
    with contextlib.ExitStack() as stack:
        without_credentials = stack.enter_context(pytest.MonkeyPatch.context())
        for name in PREFECT_KEYS:  # a server that other tests of the session use may be named there
            without_credentials.delenv(name, raising=False)
        stack.callback(store.close)
        stack.callback(ledger.close)
        stack.callback(reader.close)
        engine = Engine(log=EventLog(root / "console.sqlite"), services=services_for(paths))
        refusals = RefusedRequests(ledger, _now)
        signed_in = SessionEndpoints(ledger, book, _now)
        provider = OidcSignIn(OidcSettings(), book, _now, signed_in.note)
        stranger = ApiClient(paths.api_socket, "")
        control_api = ApiServer(
            paths.api_socket,
            {**operations, **refusals.table(), **signed_in.table()},
            book.authenticate,
            strangers={
                "sign_in": LoginThrottle(book, _now, signed_in.note).sign_in,
                "oidc_offered": provider.offered,
                "oidc_begin": provider.begin,
                "oidc_finish": provider.finish,
            },
            record=refusals.record,
        )

        def password(name: str, given: str) -> str:
            return str(ApiClient(paths.api_socket, "").call("sign_in", name=name, password=given)["token"])

        async def status() -> Mapping[str, Any]:
            pat = await asyncio.to_thread(user_with, paths, tokens["pat"])
            reply: Mapping[str, Any] = await engine.ask(pat, "status")
            return reply

        def make() -> FastAPI:
            return create_app(
                engine,
                identify=lambda token: user_with(paths, token),
                password=password,
                sessions=sessions,
                status=status,
                federation=Federation(
                    offered=lambda: bool(stranger.call("oidc_offered")["oidc"]),
                    begin=lambda: stranger.call("oidc_begin"),
                    finish=lambda state, code: str(
                        stranger.call("oidc_finish", state=state, code=code)["token"]
                    ),
                ),
            )

        port = ConsoleStack(
            paths=paths, book=book, tokens=tokens, ledger=ledger, store=store, engine=engine,
            injector=injector, lever=lever, sessions=sessions, web=Web(make), operations=operations,
            collector=collector, health=health, provider=provider,
        )  # fmt: skip
        with _open(port, control_api):
            yield port


@contextmanager
def _open(port: ConsoleStack, control_api: ApiServer) -> Iterator[None]:
    ready, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        await control_api.start()
        ready.set()
        await stop.wait()
        await port.web.stop()
        await port.engine.close()
        await control_api.close()

    thread = threading.Thread(target=lambda: port.loop.run_until_complete(run()))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        port.loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        port.loop.close()


def _now() -> datetime:
    return datetime.now(UTC)
