"""The controller, `pilotage up`: the only one that holds the Prefect credential, the store file and the ledger.

Composition and nothing else: collector, store owner, gate, injector, ledger, API, and the key-less agent
process beside it, which is started with a scrubbed environment and a token that lives as long as it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pilotage.flows.api.admin import AdminEndpoints, PeriodicMaintenance
from pilotage.flows.api.login import LoginThrottle
from pilotage.flows.api.oidc import OidcSignIn
from pilotage.flows.api.proposals import ProposalEndpoints
from pilotage.flows.api.publishing import Publishing, begin_with
from pilotage.flows.api.queries import QueryEndpoints
from pilotage.flows.api.refused_requests import RefusedRequests
from pilotage.flows.api.server import ApiServer
from pilotage.flows.api.sessions import SessionEndpoints
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.settings import Settings
from pilotage.flows.config.state_directory import prepare_state_directory
from pilotage.flows.controller.backup import backup_operations
from pilotage.flows.controller.checkpoints import CheckpointSigner, signer_of
from pilotage.flows.controller.greeting import Start, greeting, read_watched
from pilotage.flows.controller.incidents import IncidentKeeper
from pilotage.flows.controller.loop_times import LoopTimes
from pilotage.flows.controller.measures import MeasureReader, collector_health
from pilotage.flows.controller.outside import AgentStart, Connections, Outside
from pilotage.flows.controller.owner import ensure_admin
from pilotage.flows.controller.retention import Upkeep
from pilotage.flows.controller.shutdown import CANCEL_WITHIN, end_tasks, unless_stopped
from pilotage.flows.execution.deliveries import Deliveries
from pilotage.flows.execution.injector import Injector, InjectorLimits
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.flows.execution.mode import ModeSwitch
from pilotage.flows.execution.permits import releasing_queues
from pilotage.flows.levers import build_levers
from pilotage.flows.levers.docs import in_words
from pilotage.flows.levers.record_cleanup import RecordCleanup
from pilotage.flows.levers.reschedule_run import RescheduleLever
from pilotage.flows.notify.channels import Channels, channels_of
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.notify.pager import IncidentPager
from pilotage.flows.notify.projector import AuditProjector
from pilotage.flows.prefect.guard import ADMITTED, READING, TELLING
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.policies.audit.ed25519 import Ed25519Verifier
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.publishing import misfit
from pilotage.policies.types import Identity, Mode
from pilotage.telemetry.errors import AdapterError, ConfigError, InvariantError, UnreadableRowError
from pilotage.telemetry.prefect.collector import PrefectCollector
from pilotage.telemetry.prefect.http import ServerVersion, check_server
from pilotage.telemetry.prefect.servers import kinds_not_offered, remarks
from pilotage.telemetry.queries.runs import queue_snapshots, worker_released
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.socket import StoreServer

log = logging.getLogger("pilotage.up")

LOOK_BACK = timedelta(hours=24)
"""After a long absence only failures of the last day are taken up; older ones are history."""

AT_ONCE = 100
"""Proposals that are admitted in one turn of the loop."""

AGENT = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))


@contextlib.contextmanager
def only_one(paths: StatePaths) -> Iterator[tuple[Path, ...]]:
    """Holds the state directory's lock. Raises ConfigError naming the process that has it.

    The directory is made ready for it before; ConfigError too when it cannot be. Yields the paths in it that
    others could open until now.
    """
    tightened = prepare_state_directory(paths.root)
    with paths.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ConfigError(
                f"Starting in {paths.root}: process {holder} already runs `pilotage up` here. "
                "Stop it, or choose another directory with --state-dir."
            ) from exc
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield tightened


class Controller:
    """Everything that runs in `pilotage up`."""

    def __init__(
        self,
        settings: Settings,
        *,
        say: Callable[[str], None] = lambda text: None,
        outside: Outside | None = None,
    ) -> None:
        self._settings = settings
        self._outside = outside or Outside()
        self._clock = self._outside.clock
        self._paths = settings.paths
        self._say = say
        self._notices: list[str] = []
        """What is unusual about this start."""
        self._wake = asyncio.Event()
        self._channels: Channels | None = None
        self._times = LoopTimes()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then leaves no process, socket or lock behind."""
        settings, paths = self._settings, self._paths
        with contextlib.ExitStack() as stack:
            # what a person must mend is found before Prefect is asked anything
            tightened = stack.enter_context(only_one(paths))
            if tightened:
                self._notices.append(
                    f"others could open {len(tightened)} path(s) of the state directory, and cannot any more"
                )
            configured = Bundle.load(settings.policies, guardrails=settings.guardrails)
            self._channels = channels_of(settings.pages)
            book = IdentityBook(paths.users)
            if token := ensure_admin(book, paths):
                self._notices.append(token.as_text())
            store = self._outside.store(paths.telemetry)
            stack.callback(store.close)
            ledger = SqlLedger(f"sqlite:///{paths.ledger}", current_identity=book.current_identity)
            stack.callback(ledger.close)
            bundle = begin_with(
                ledger,
                signer_of(paths),
                configured,
                policies=settings.policies,
                guardrails=settings.guardrails,
                now=self._clock(),
            )
            if bundle.hash != configured.hash:
                self._notices.append(
                    f"policies {configured.hash[:12]} of {configured.directory} are not in force: "
                    f"{bundle.hash[:12]} was published; see `pilotage policy published`"
                )
            if why := misfit(bundle):
                self._notices.append(
                    f"the published policies {bundle.hash[:12]} do not fit this version, so everything is denied "
                    f"({why}); run `pilotage policy publish` with ones that do"
                )
            self._say(f"starting in {paths.root}, asking Prefect at {self._outside.address()}")
            try:
                server = await unless_stopped(stop, check_server(self._outside.reader))
            except AdapterError:
                for notice in self._notices:
                    self._say(notice)
                raise
            if server is None:
                self._say("stopped")
                return
            reader = StoreServer(store, paths.store_socket, changes=store.changes)
            stack.callback(reader.close)
            opened = self._outside.open_prefect
            async with (
                opened(READING).opened() as api,
                opened(TELLING).opened() as notices,
                opened(ADMITTED).opened() as levers,
            ):
                # the three are one to whoever counts requests
                notices.answers = levers.answers = api.answers
                notices.pace = levers.pace = api.pace
                api.pace.a_minute = settings.loop.requests_a_minute
                connections = Connections(reading=api, notices=notices, levers=levers)
                await self._run(
                    stop,
                    server=server,
                    bundle=bundle,
                    book=book,
                    store=store,
                    ledger=ledger,
                    prefect=connections,
                )

    async def _run(
        self,
        stop: asyncio.Event,
        *,
        server: ServerVersion,
        bundle: Bundle,
        book: IdentityBook,
        store: DuckDBStore,
        ledger: SqlLedger,
        prefect: Connections,
    ) -> None:
        settings, paths = self._settings, self._paths
        gate = Gate(bundle, server_lacks=kinds_not_offered(server.version))
        self._notices += remarks(server.version)
        kill_switch = KillSwitch(
            paths.stop_file, ledger, resume_votes=lambda: gate.bundle.guardrails.resume_votes
        )
        switch = ModeSwitch(ledger, settings.mode, self._clock)
        collector = PrefectCollector(
            store,
            interval=settings.loop.queue_interval,
            on_change=lambda runs: self._wake.set(),
            clock=self._clock,
            reader=self._outside.reader,
            events=self._outside.events,
            pace=prefect.reading.pace,
        )

        async def worker_has_released(run_id: str, after: datetime) -> bool:
            return await asyncio.to_thread(worker_released, store, run_id, after)

        async def drained(pool: str, queue: str) -> bool:
            known = {(q.pool, q.queue): q for q in await asyncio.to_thread(queue_snapshots, store)}
            return (pool, queue) in known and known[pool, queue].waiting == 0

        ui_url = prefect.reading.api_url.removesuffix("/api")
        notifier = Notifier(
            webhook_url=settings.webhook_url.get_secret_value(),
            routing_key=settings.webhook_routing_key.get_secret_value(),
            ui_url=ui_url,
            api=prefect.notices,
            transport=self._outside.webhook,
            channels=self._channels,
        )
        levers = build_levers(worker_has_released=worker_has_released, notifier=notifier, api=prefect.levers)
        injector = Injector(
            ledger=ledger,
            gate=gate,
            facts=PrefectFacts(prefect.reading, parameters=settings.planner),
            levers=levers,
            mode=switch.mode,
            stopped=kill_switch.stopped,
            clock=self._clock,
            owner=f"up-{os.getpid()}",
            drained=drained,
            limits=InjectorLimits(lease=settings.loop.lease, max_attempts=settings.loop.max_attempts),
        )
        pager = IncidentPager(
            ledger=ledger,
            notifier=notifier,
            mode=switch.mode,
            clock=self._clock,
            rules=settings.pages,
            console_url=settings.pages.console_url,
        )
        notifier.tell_owner = pager.tell_owner
        chronicle = AuditProjector(
            ledger=ledger, store=store, notifier=notifier, mode=switch.mode, clock=self._clock
        )
        operations = ProposalEndpoints(
            ledger=ledger,
            gate=gate,
            injector=injector,
            store=store,
            kill_switch=kill_switch,
            mode=switch.mode,
            clock=self._clock,
            health=lambda: collector_health(collector, self._clock(), injector.defects.rows()),
            wake=self._wake.set,
            verifier=Ed25519Verifier(signer_of(paths).public()),
        )
        governance = AdminEndpoints(
            ledger=ledger,
            gate=gate,
            judge=injector.judge,
            mode=switch,
            clock=self._clock,
            wake=self._wake.set,
            current_identity=book.current_identity,
        )
        publishing = Publishing(
            ledger=ledger,
            gate=gate,
            signer=signer_of(paths),
            current_identity=book.current_identity,
            mode=switch.mode,
            clock=self._clock,
            swapped=lambda now: self._say(f"policies {now.hash} are in force now"),
        )
        queries = QueryEndpoints(
            ledger=ledger,
            gate=gate,
            agent=AGENT,
            mode=switch.mode,
            clock=self._clock,
            levers=in_words(levers),
            paths={"ui": ui_url},
            store=store,
            parameters=settings.planner,
        )
        refusals = RefusedRequests(ledger, self._clock)
        signed_in = SessionEndpoints(ledger, book, self._clock)
        provider = OidcSignIn(settings.oidc, book, self._clock, signed_in.note)
        measures = MeasureReader(
            ledger=ledger,
            store=store,
            collector=collector,
            levers=prefect.reading.answers,
            loop=self._times,
            defects=injector.defects.rows,
            paths=paths,
            mode=lambda: switch.mode().value,
            bundle=lambda: gate.bundle.hash,
            stopped=kill_switch.stopped,
            clock=self._clock,
        )
        measures.begin()
        upkeep = Upkeep(
            store=store,
            ledger=ledger,
            lives=settings.retention,
            paths=paths,
            signer=signer_of(paths),
            checkpoints=settings.checkpoints,
            clock=self._clock,
        )
        control_api = ApiServer(
            paths.api_socket,
            {
                **operations.table(),
                **governance.table(),
                **publishing.table(),
                **queries.table(),
                **measures.table(),
                **upkeep.table(),
                **backup_operations(paths, store.copied, self._clock),
                **refusals.table(),
                **signed_in.table(),
            },
            book.authenticate,
            strangers={
                "sign_in": LoginThrottle(book, self._clock, signed_in.note).sign_in,
                "oidc_offered": provider.offered,
                "oidc_begin": provider.begin,
                "oidc_finish": provider.finish,
            },
            record=refusals.record,
        )
        await control_api.start()
        watch_from = _watch_from(store, self._clock())
        lapsed = switch.begin()
        if lapsed:
            self._notices.append(f"{lapsed} open proposal(s) were made for another mode and have lapsed")
        token = book.issue_session_token(AGENT)
        # a process that died while it moved a due run may have left its queue on hold
        writing = switch.mode() in (Mode.APPROVE, Mode.AUTO)
        with releasing_queues():
            freed = (
                await unless_stopped(stop, RescheduleLever(prefect.levers).release_all()) if writing else 0
            )
        if freed:
            self._notices.append(f"released {freed} queue(s) that a process before us had left on hold")
        if switch.held_back is not None and settings.mode is not None:
            self._notices.append(
                f"configured is mode {settings.mode.value}, but a person asked for {switch.held_back.value}; "
                f"`pilotage mode set {settings.mode.value}` takes that back"
            )
        start = Start(
            server=server.version,
            api_url=server.api_url,
            mode=switch.mode(),
            source=switch.source,
            policies=bundle.hash,
            root=paths.root,
            token_file=paths.token,
            watched=await unless_stopped(stop, read_watched(prefect.reading)),
            notices=self._notices,
        )
        for line in greeting(start):
            self._say(line)
        deliveries = Deliveries(injector, wake=self._wake.set, at_once=settings.loop.deliveries_at_once)
        steps: dict[str, Callable[[], Awaitable[Any]]] = {
            "kill switch": lambda: asyncio.to_thread(kill_switch.adopt, self._clock()),
            "judging again": lambda: judge_deferred(injector, ledger, kill_switch, now=self._clock()),
            "admitting": lambda: _admit_all(injector, ledger, switch.mode(), self._clock()),
            "delivering": deliveries.start,
            "verifying": injector.verify,
            "undoing": injector.undo_due,
            "keeping incidents": IncidentKeeper(ledger=ledger, store=store, clock=self._clock).keep,
            "housekeeping": PeriodicMaintenance(ledger=ledger, gate=gate, clock=self._clock).keep,
            "tidying": RecordCleanup(
                prefect.levers, writing=lambda: switch.mode() in (Mode.APPROVE, Mode.AUTO), clock=self._clock
            ).keep,
            "expiring": lambda: asyncio.to_thread(ledger.expire, self._clock()),
            "ending votes": lambda: asyncio.to_thread(ledger.lapse_bundle, self._clock()),
        }
        if settings.checkpoints is not None:
            steps["signing checkpoints"] = CheckpointSigner(
                ledger=ledger, paths=paths, directory=settings.checkpoints, clock=self._clock
            ).sign_checkpoint
        agent = AgentStart(
            paths=paths,
            token=token,
            watch_from=watch_from,
            stop=stop,
            say=self._say,
            api=control_api,
            store=store,
        )
        # apart from the loop: a slow pager must not hold up a delivery
        telling = {"writing the chronicle": chronicle.catch_up, "telling of incidents": pager.keep}
        tasks = [
            asyncio.create_task(collector.run(stop), name="collector"),
            asyncio.create_task(self._turn(steps, stop, self._wake), name="loop"),
            asyncio.create_task(self._turn(telling, stop, asyncio.Event()), name="chronicle"),
            asyncio.create_task(_run_agent(self._outside, agent), name="agent"),
            asyncio.create_task(upkeep.run(stop), name="retention"),
            asyncio.create_task(self._score_forecasts(store, stop), name="scoring of forecasts"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.get_name() != "stop" and not stop.is_set():
                    await task  # a part that ends by itself is a fault: say which
                    raise InvariantError(f"the {task.get_name()} ended by itself")
        finally:
            stop.set()
            await end_tasks(tasks)
            await deliveries.end()
            with contextlib.suppress(AdapterError, TimeoutError):
                await asyncio.wait_for(chronicle.catch_up(), CANCEL_WITHIN)
            await control_api.close()
            self._say("stopped")

    async def _turn(
        self, steps: Mapping[str, Callable[[], Awaitable[Any]]], stop: asyncio.Event, wake: asyncio.Event
    ) -> None:
        """The loop. An AdapterError waits for the next turn; anything else stops everything."""
        while not stop.is_set():
            wake.clear()
            turn_began = time.monotonic()
            for name, step in steps.items():
                began, failed = time.monotonic(), False
                try:
                    await step()
                except AdapterError as exc:
                    failed = True
                    log.warning("%s: %s", name, exc)
                self._times.step(name, time.monotonic() - began, failed=failed)
            if wake is self._wake:
                self._times.turn(time.monotonic() - turn_began)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), self._settings.loop.tick.total_seconds())

    async def _score_forecasts(self, store: DuckDBStore, stop: asyncio.Event) -> None:
        """Writes down how the attempts went that were forecast, once a minute."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(store.score_forecasts, self._clock())
            except AdapterError as exc:
                log.warning("scoring the forecasts: %s", exc)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SCORING_EVERY.total_seconds())


SCORING_EVERY = timedelta(minutes=1)
_BEING_JUDGED = timedelta(seconds=30)
"""So long after it was filed a proposal may be with the gate."""


async def _run_agent(outside: Outside, start: AgentStart) -> None:
    await outside.agent(start)


def _watch_from(store: DuckDBStore, now: datetime) -> datetime:
    """From when on failures are taken up: the first start of this installation, at most a day ago."""
    first = store.watermark("watch_from")
    if first is None:
        first = now
        store.set_watermark("watch_from", first)
    return max(first, now - LOOK_BACK)


async def judge_deferred(
    injector: Injector, ledger: SqlLedger, kill_switch: KillSwitch, *, now: datetime
) -> None:
    """Judges what only the kill switch or Prefect's silence had denied, once that is over.

    Besides, what a process that died had filed and not judged.
    """
    if kill_switch.stopped():
        return
    for status in ("held", "filed"):
        for row in await asyncio.to_thread(ledger.proposals, status, 100):
            try:
                filed = await asyncio.to_thread(ledger.filed, row["proposal_id"])
            except UnreadableRowError as exc:
                await asyncio.to_thread(ledger.set_aside, row["proposal_id"], str(exc), now)
                continue
            if filed is None or (status == "filed" and now - filed.filed_at < _BEING_JUDGED):
                continue
            if await injector.judge_again(filed) is None:
                return  # nobody answers: the others are asked about next time


async def _admit_all(injector: Injector, ledger: SqlLedger, mode: Mode, now: datetime) -> None:
    if mode in (Mode.OBSERVE, Mode.SHADOW):
        return
    for proposal_id in (await asyncio.to_thread(ledger.admissible, now))[:AT_ONCE]:
        await injector.admit(proposal_id)
