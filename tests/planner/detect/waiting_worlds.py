"""Sites on the fake Prefect in which something stands still, each built as it comes about.

Everything is read as the collector reads it, over HTTP, into a store; the clock is the fake's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from pilotage.flows.dev.fake_prefect import API_URL, FakePrefect, FrozenClock
from pilotage.flows.dev.fake_prefect.records import Run
from pilotage.flows.dev.fake_prefect.workers import SimulatedWorker, Step, completes, fails
from pilotage.planner.detect.blockage import Cause
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.prefect.answers import AnswerTimes
from pilotage.telemetry.prefect.http import PrefectReader
from pilotage.telemetry.prefect.models import event_fact, task_run_fact
from pilotage.telemetry.prefect.site import SiteSync
from pilotage.telemetry.prefect.sync import RunSync
from pilotage.telemetry.queries.heartbeats import HEARTBEAT
from pilotage.telemetry.queries.site import SiteFacts, site_facts
from pilotage.telemetry.store.duckdb import DuckDBStore

START = datetime(2027, 3, 1, 9, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What stands still, and what is to be said of it."""

    cause: Cause
    entity: str
    run_id: str = ""
    deployment_id: str = ""
    by: str = ""
    """A word of who brought it about."""


def reader_of(fake: FakePrefect) -> PrefectReader:
    """What reads a fake server, as the collector reads a real one."""

    async def refuse(response: httpx.Response) -> None:
        response.raise_for_status()

    client = httpx.AsyncClient(transport=fake.transport, base_url=API_URL, event_hooks={"response": [refuse]})
    return PrefectReader(client)


class World:
    """One fake server with a store beside it."""

    def __init__(self, path: Path, rng: random.Random | None = None, start: datetime = START) -> None:
        self.rng = rng or random.Random(1)
        self.fake = FakePrefect(FrozenClock(start))
        self.store = DuckDBStore(path / f"world-{uuid4().hex[:8]}.duckdb")
        self.runs_sync = RunSync(self.store)
        self.sync = SiteSync(self.store, self.runs_sync, clock=self.fake.clock.now)
        self.made = self.told = 0
        self.collected = start
        self.plans: dict[str, timedelta | None] = {}
        """By deployment: how long its runs take; None for ever."""
        self.breaks: dict[str, Callable[[Run], bool]] = {}
        """By deployment: which of its runs fail."""
        self.answers = AnswerTimes()
        """How Prefect answered, to whoever asked in this world."""

    @property
    def now(self) -> datetime:
        return self.fake.clock.now()

    def close(self) -> None:
        self.store.close()

    # -- making

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self.fake.ask(method, path, body)

    def word(self, of: str) -> str:
        return f"{of}-{self.rng.randrange(16**5):05x}"

    def pool(self, *queues: str, name: str = "", **more: Any) -> str:
        name = name or self.word("pool")
        self.ask("POST", "/work_pools/", {"name": name, "type": "process", **more})
        for queue in queues:
            self.ask("POST", f"/work_pools/{name}/queues", {"name": queue})
        return name

    def deployment(
        self, pool: str = "", queue: str = "default", takes: timedelta | None = MINUTE, **more: Any
    ) -> str:
        flow = self.ask("POST", "/flows/", {"name": self.word("flow")})
        place = {"work_pool_name": pool, "work_queue_name": queue} if pool else {}
        made = self.ask(
            "POST", "/deployments/", {"name": self.word("dep"), "flow_id": flow["id"], **place, **more}
        )
        self.plans[made["id"]] = takes
        return str(made["id"])

    def run(self, deployment_id: str, due: timedelta = timedelta(0), **more: Any) -> str:
        # no two requests come at one time; with one they would be twins
        self.made += 1
        at = (self.now + (due or timedelta(microseconds=self.made))).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}
        made = self.ask("POST", f"/deployments/{deployment_id}/create_flow_run", {"state": state, **more})
        return str(made["id"])

    def worker(self, pool: str, queues: tuple[str, ...] | None = None, slots: int = 1000) -> SimulatedWorker:
        def script(run: Run) -> tuple[Step, ...]:
            takes = self.plans.get(run.deployment_id or "", MINUTE)
            if takes is not None and (breaks := self.breaks.get(run.deployment_id or "")) and breaks(run):
                return fails(takes, "ValueError: no such thing")
            return () if takes is None else completes(takes)

        poll = timedelta(seconds=self.rng.choice((10, 15)))
        return SimulatedWorker(
            server=self.fake,
            pool=pool,
            script=script,
            queues=queues,
            slots=slots,
            poll=poll,
            name=self.word("worker"),
        )

    def passes(self, minutes: float) -> None:
        self.fake.advance(timedelta(minutes=minutes))

    def limit(self, name: str, size: int) -> str:
        return str(self.ask("POST", "/v2/concurrency_limits", {"name": name, "limit": size})["id"])

    def slots(self, limit_id: str, run_id: str, what: str = "acquired") -> None:
        """As the process of a run does that takes or gives back a slot of a global limit."""
        name = self.ask("GET", f"/v2/concurrency_limits/{limit_id}")["name"]
        if what == "acquired":
            body = {"names": [name], "slots": 1, "lease_duration": 86400}
            self.ask("POST", "/v2/concurrency_limits/increment-with-lease", body)
        else:
            self.ask("POST", "/v2/concurrency_limits/decrement", {"names": [name], "slots": 1})
        about = {"prefect.resource.id": f"prefect.flow-run.{run_id}", "prefect.resource.role": "flow-run"}
        self.fake.engine.emit(
            {
                "event": f"prefect.concurrency-limit.{what}",
                "resource": {"prefect.resource.id": f"prefect.concurrency-limit.{limit_id}"},
                "related": [about],
            },
            self.now,
        )

    def beats(self, *runs: str, minutes: float) -> None:
        """Time passes, and the processes of these runs send a heartbeat every half minute."""
        for _ in range(round(minutes * 2)):
            for run in runs:
                about = {"prefect.resource.id": f"prefect.flow-run.{run}"}
                self.fake.engine.emit({"event": HEARTBEAT, "resource": about}, self.now)
            self.passes(0.5)

    def automation_acts(self, name: str, kind: str, target: str) -> None:
        """As Prefect says when an automation has done something."""
        self.fake.engine.emit(
            {
                "event": "prefect.automation.action.executed",
                "resource": {
                    "prefect.resource.id": f"prefect.automation.{uuid4()}",
                    "prefect.resource.name": name,
                },
                "related": [{"prefect.resource.id": target, "prefect.resource.role": "target"}],
                "payload": {"action_type": kind, "action_index": 0},
            },
            self.now,
        )

    def task(self, run_id: str, tags: list[str], state: str) -> str:
        body = {"flow_run_id": run_id, "task_key": "t", "dynamic_key": uuid4().hex, "tags": tags}
        return str(self.ask("POST", "/task_runs/", {**body, "state": {"type": state}})["id"])

    def says(self, run_id: str, event: str = "someone.did-something") -> None:
        """As the process of a run does that is at work."""
        about = {"prefect.resource.id": f"prefect.flow-run.{run_id}"}
        self.fake.engine.emit({"event": event, "resource": about}, self.now)

    def taken(self, run_id: str, worker: str) -> None:
        """As a worker says when it has started the infrastructure of a run."""
        self.fake.engine.emit(
            {
                "event": "prefect.worker.submitted-flow-run",
                "resource": {"prefect.resource.id": f"prefect.worker.process.{worker}"},
                "related": [
                    {"prefect.resource.id": f"prefect.flow-run.{run_id}", "prefect.resource.role": "flow-run"}
                ],
            },
            self.now,
        )

    def asks(self, times: int, *, in_vain: bool) -> None:
        """Ask the server so often; in vain, it answers 503."""

        async def refuse(response: httpx.Response) -> None:
            response.raise_for_status()

        def busy(_: httpx.Request) -> httpx.Response:
            return httpx.Response(503, text="QueuePool limit of size 5 overflow 10 reached")

        async def work() -> None:
            transport = httpx.MockTransport(busy) if in_vain else self.fake.transport
            client = httpx.AsyncClient(
                transport=transport, base_url=API_URL, event_hooks={"response": [refuse]}
            )
            async with PrefectReader(client) as reader:
                reader.answers = self.answers
                for _ in range(times):
                    with contextlib.suppress(OrchestratorError):
                        await reader.every("/work_pools/filter", {})

        asyncio.run(work())

    # -- looking

    def collect(self) -> None:
        """Read all of the server into the store."""

        async def work() -> None:
            async with reader_of(self.fake) as reader:
                reader.answers = self.answers
                await self.sync.everything(reader)
                live = []
                since = (self.collected - timedelta(minutes=1)).isoformat()
                for wanted in (
                    {
                        "state": {
                            "type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"]}
                        }
                    },
                    {"end_time": {"after_": since}},
                ):
                    async for rows in reader.pages(
                        "/flow_runs/filter", {"flow_runs": wanted}, sort="ID_DESC"
                    ):
                        facts = await self.runs_sync.run_facts(reader, rows)
                        self.store.merge_runs(facts)
                        live += [fact for fact in facts if fact.ended is None]
                kept = {row["run_id"] for row in self.store.rows("SELECT run_id FROM runs")}
                self.store.forget_runs(sorted(kept - set(self.fake.tables.runs)))
                for tasks in (
                    {"task_runs": {"start_time": {"after_": since}}},
                    {"flow_runs": {"end_time": {"after_": since}}},
                ):
                    async for rows in reader.pages("/task_runs/filter", tasks):
                        self.store.merge_task_runs([task_run_fact(row) for row in rows])
                events = list(self.fake.tables.events.values())
                self.store.add_events([event_fact(row) for row in events[self.told :]])
                self.told, self.collected = len(events), self.now
                await self.sync.snapshot(live)

        asyncio.run(work())

    def look(self, *runs: str) -> SiteFacts:
        """Collect, and return what is known."""
        self.collect()
        return site_facts(self.store, self.now, extra=runs)

    # -- a healthy rest

    def crowd(self, deployments: int = 4) -> None:
        """Deployments that are as they should be."""
        pool = self.pool("fast")
        self.worker(pool)
        for number in range(deployments):
            schedule = {
                "cron": f"{self.rng.randrange(60)} {self.rng.randrange(24)} * * *",
                "timezone": "Europe/Berlin",
            }
            self.deployment(
                pool,
                self.rng.choice(("default", "fast")),
                schedules=[{"schedule": schedule}] if number else [{"schedule": {"interval": 600}}],
                takes=timedelta(minutes=self.rng.choice((1, 2, 4))),
            )


State = Callable[[World], Subject]


def no_worker(w: World) -> Subject:
    pool = w.pool()
    run = w.run(w.deployment(pool))
    w.passes(w.rng.uniform(6, 90))
    return Subject(cause=Cause.NO_WORKER, entity=f"pool:{pool}", run_id=run)


def worker_died(w: World) -> Subject:
    pool = w.pool()
    worker = w.worker(pool)
    deployment = w.deployment(pool)
    w.run(deployment)
    w.passes(w.rng.uniform(3, 20))
    worker.kill()
    w.passes(w.rng.uniform(3, 20))
    run = w.run(deployment)
    w.passes(w.rng.uniform(6, 30))
    return Subject(cause=Cause.NO_WORKER, entity=f"pool:{pool}", run_id=run)


def worker_hangs(w: World) -> Subject:
    """It is heard and does not ask for runs any more."""
    pool = w.pool()
    worker = w.worker(pool)
    deployment = w.deployment(pool)
    w.run(deployment)
    w.passes(w.rng.uniform(3, 20))
    worker.stop()
    run = w.run(deployment)
    for _ in range(w.rng.randrange(6, 30)):
        beat = {"name": worker.name, "heartbeat_interval_seconds": 30}
        w.ask("POST", f"/work_pools/{pool}/workers/heartbeat", beat)
        w.passes(0.5)
        w.ask("POST", f"/work_pools/{pool}/workers/heartbeat", beat)
        w.passes(0.5)
    return Subject(cause=Cause.NO_WORKER, entity=f"pool:{pool}", run_id=run)


def worker_on_another_queue(w: World) -> Subject:
    pool = w.pool("other")
    w.worker(pool, ("other",))
    run = w.run(w.deployment(pool))
    w.run(w.deployment(pool, "other"))
    w.passes(w.rng.uniform(6, 40))
    return Subject(cause=Cause.QUEUE_NOT_POLLED, entity=f"queue:{pool}/default", run_id=run)


def pool_paused(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool)
    w.collect()
    w.passes(w.rng.uniform(2, 30))
    w.ask("PATCH", f"/work_pools/{pool}", {"is_paused": True})
    run = w.run(deployment)
    w.passes(w.rng.uniform(6, 40))
    return Subject(cause=Cause.POOL_PAUSED, entity=f"pool:{pool}", run_id=run)


def queue_paused(w: World) -> Subject:
    pool = w.pool("held")
    w.worker(pool)
    deployment = w.deployment(pool, "held")
    w.collect()
    w.passes(w.rng.uniform(2, 30))
    w.ask("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": True})
    run = w.run(deployment)
    w.passes(w.rng.uniform(6, 40))
    return Subject(cause=Cause.QUEUE_PAUSED, entity=f"queue:{pool}/held", run_id=run)


def queue_full(w: World) -> Subject:
    pool = w.pool("narrow")
    size = w.rng.randrange(1, 4)
    w.ask("PATCH", f"/work_pools/{pool}/queues/narrow", {"concurrency_limit": size})
    w.worker(pool)
    long = w.deployment(pool, "narrow", takes=None)
    for _ in range(size):
        w.run(long)
    w.passes(2)
    run = w.run(w.deployment(pool, "narrow"))
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.QUEUE_FULL, entity=f"queue:{pool}/narrow", run_id=run)


def pool_full(w: World) -> Subject:
    size = w.rng.randrange(1, 4)
    pool = w.pool("low", concurrency_limit=size)
    w.worker(pool)
    long = w.deployment(pool, takes=None)
    for _ in range(size):
        w.run(long)
    w.passes(2)
    run = w.run(w.deployment(pool, "low"))
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.POOL_FULL, entity=f"pool:{pool}", run_id=run)


def deployment_limit(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    size = w.rng.randrange(1, 4)
    deployment = w.deployment(pool, takes=None, concurrency_limit=size)
    for _ in range(size):
        w.run(deployment)
    w.passes(2)
    for lease in w.fake.tables.leases.values():
        lease.expires += timedelta(days=9)  # a living process renews its lease
    run = w.run(deployment)
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.DEPLOYMENT_LIMIT, entity=f"limit:deployment:{deployment}", run_id=run)


def tag_limit(w: World) -> Subject:
    pool, tag = w.pool(), w.word("db")
    w.worker(pool)
    limit = w.limit(f"tag:{tag}", 1)
    holder, run = w.run(w.deployment(pool, takes=None)), w.run(w.deployment(pool, takes=None))
    w.passes(2)
    task = w.task(holder, [tag], "RUNNING")
    w.ask("POST", "/concurrency_limits/increment", {"names": [tag], "task_run_id": task})
    w.task(run, [tag], "PENDING")
    w.passes(1)
    w.collect()  # since when it is full is known from when it was seen
    w.passes(w.rng.uniform(31, 60))
    return Subject(
        cause=Cause.TAG_LIMIT,
        entity=f"limit:{w.ask('GET', f'/v2/concurrency_limits/{limit}')['name']}",
        run_id=run,
    )


def global_limit(w: World) -> Subject:
    pool, name = w.pool(), w.word("warehouse")
    w.worker(pool)
    limit = w.limit(name, 1)
    deployment = w.deployment(pool, takes=timedelta(minutes=3))
    earlier = w.run(deployment)
    w.passes(1)
    w.slots(limit, earlier)
    w.passes(1)
    w.slots(limit, earlier, "released")
    w.passes(10)
    w.plans[deployment] = None
    holder = w.run(w.deployment(pool, takes=None))
    w.passes(1)
    w.slots(limit, holder)
    run = w.run(deployment)
    w.passes(1)
    w.collect()
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.GLOBAL_LIMIT, entity=f"limit:{name}", run_id=run)


def no_pool(w: World) -> Subject:
    run = w.run(w.deployment())
    w.passes(w.rng.uniform(6, 60))
    deployment = str(w.fake.tables.runs[run].deployment_id)
    return Subject(cause=Cause.NO_POOL, entity=f"deployment:{deployment}", run_id=run)


def deployment_paused(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, schedules=[{"schedule": {"interval": w.rng.choice((300, 600, 900))}}])
    w.passes(20)
    w.collect()
    w.ask("POST", f"/deployments/{deployment}/pause_deployment")
    w.passes(w.rng.uniform(31, 90))
    return Subject(cause=Cause.DEPLOYMENT_PAUSED, entity=f"deployment:{deployment}", deployment_id=deployment)


def paused_by_automation(w: World) -> Subject:
    subject = deployment_paused(w)
    name = w.word("too many failures")
    row = w.fake.tables.deployments[subject.deployment_id]
    back = w.now
    event_at = datetime.fromisoformat(row["updated"].replace("Z", "+00:00"))
    w.automation_acts(name, "pause-deployment", f"prefect.deployment.{subject.deployment_id}")
    newest = list(w.fake.tables.events.values())[-1]
    newest["occurred"] = (event_at + timedelta(seconds=1)).isoformat()
    assert back == w.now
    return Subject(cause=subject.cause, entity=subject.entity, deployment_id=subject.deployment_id, by=name)


def schedule_inactive(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, schedules=[{"schedule": {"interval": 600}}])
    w.passes(30)
    w.collect()
    schedule = w.fake.tables.deployments[deployment]["schedules"][0]["id"]
    w.ask("PATCH", f"/deployments/{deployment}/schedules/{schedule}", {"active": False})
    for run in list(w.fake.tables.by_deployment[deployment].values()):
        if run.state.type == "SCHEDULED":
            w.fake.tables.drop_run(run.id)
    w.passes(w.rng.uniform(31, 90))
    return Subject(cause=Cause.SCHEDULE_INACTIVE, entity=f"deployment:{deployment}", deployment_id=deployment)


def wrong_zone(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    for hour in range(5):
        w.deployment(pool, schedules=[{"schedule": {"cron": f"0 {hour} * * *", "timezone": "Europe/Berlin"}}])
    # noon in Berlin is 11:00 UTC, and 12:00 UTC is an hour later
    hour = (w.now + timedelta(hours=1)).hour
    deployment = w.deployment(pool, schedules=[{"schedule": {"cron": f"15 {hour} * * *"}}])
    w.passes(w.rng.uniform(2, 30))
    return Subject(cause=Cause.WRONG_ZONE, entity=f"deployment:{deployment}", deployment_id=deployment)


def pending_for_ever(w: World) -> Subject:
    pool = w.pool()
    worker = w.worker(pool)
    worker.start_up = timedelta(days=9)
    run = w.run(w.deployment(pool))
    w.passes(w.rng.uniform(20, 120))
    return Subject(cause=Cause.NEVER_STARTED, entity=f"pool:{pool}", run_id=run)


def cancelling_for_ever(w: World) -> Subject:
    pool = w.pool()
    worker = w.worker(pool)
    run = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    worker.kill()
    w.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    # an old server never ends it by itself
    w.fake.engine._cancelled_at_last = lambda *_: None  # type: ignore[method-assign]
    w.fake.agenda._heap = [
        each for each in w.fake.agenda._heap if "_later" not in getattr(each[2], "__qualname__", "")
    ]
    w.passes(w.rng.uniform(10, 60))
    return Subject(cause=Cause.CANCELLING_TOO_LONG, entity=f"pool:{pool}", run_id=run)


def slots_of_nobody(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, concurrency_limit=1)
    name = f"deployment:{deployment}"
    w.ask("POST", "/v2/concurrency_limits/increment", {"names": [name], "slots": 1})
    run = w.run(deployment)
    w.passes(1)
    w.collect()
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.SLOTS_OF_NOBODY, entity=f"limit:{name}", run_id=run)


def ring(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    limits = [w.limit(w.word(name), 1) for name in ("red", "blue")]
    deployments = [w.deployment(pool, takes=None) for _ in limits]
    runs = [w.run(each) for each in deployments]
    w.passes(1)
    for run in runs:  # both have taken both, one after the other
        for limit in limits:
            w.slots(limit, run)
            w.slots(limit, run, "released")
    w.passes(1)
    for run, limit in zip(runs, limits, strict=True):
        w.slots(limit, run)
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.RING, entity="ring:" + ",".join(sorted(runs)), run_id=runs[0])


def worker_limit(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool, slots=1)
    w.run(w.deployment(pool, takes=None))
    w.passes(2)
    run = w.run(w.deployment(pool))
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.NOT_TAKEN, entity=f"queue:{pool}/default", run_id=run)


def child_behind_parent(w: World) -> Subject:
    """A parent keeps the only place of the pool, and its child waits for one."""
    pool = w.pool(concurrency_limit=1)
    w.worker(pool)
    parent = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    task = w.task(parent, [], "RUNNING")
    child = w.run(w.deployment(pool), parent_task_run_id=task)
    w.passes(w.rng.uniform(31, 60))
    return Subject(cause=Cause.RING, entity="ring:" + ",".join(sorted((parent, child))), run_id=child)


STATES: Mapping[str, State] = {
    each.__name__: each
    for each in (
        no_worker,
        worker_died,
        worker_hangs,
        worker_on_another_queue,
        pool_paused,
        queue_paused,
        queue_full,
        pool_full,
        deployment_limit,
        tag_limit,
        global_limit,
        no_pool,
        deployment_paused,
        paused_by_automation,
        schedule_inactive,
        wrong_zone,
        pending_for_ever,
        slots_of_nobody,
        ring,
        child_behind_parent,
        worker_limit,
        cancelling_for_ever,
    )
}
"""Every way to stand still that is built here."""
