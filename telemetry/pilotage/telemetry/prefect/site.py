"""What governs the runs of a site: deployments, schedules, pools, workers, queues, limits, automations, with their age;
and the tasks that wait.

These change seldom, so they are asked for seldom: each kind of fact after a time of its own, all of them together at
most ten times a minute. An event that says that one changed has it asked for at once, as far as that number goes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.fact_ages import EVERY
from pilotage.telemetry.facts import AskedFact, DeploymentFact, LimitFact, PoolFact, RunFact, ScheduleFact
from pilotage.telemetry.prefect.fire_times import with_fire_times
from pilotage.telemetry.prefect.http import PAGE, PrefectReader
from pilotage.telemetry.prefect.models import (
    automation_fact,
    limit_fact,
    moment,
    pool_fact,
    queue_facts,
    schedule_facts,
    task_run_fact,
    worker_fact,
)
from pilotage.telemetry.prefect.sync import RunSync
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.schema import TABLES, facts_from_rows
from pilotage.telemetry.times import utc_now

REQUESTS_A_MINUTE = 10
"""Requests for all these facts together; on Cloud, polling costs quota."""
RESERVE = 3
"""Of these, what events cannot use up: facts that nothing tells of grow old otherwise."""
NO_SOONER = timedelta(seconds=2)
"""A kind that events tell of is not asked for again sooner."""
CLOCKS_DIFFER = timedelta(seconds=5)
"""By so much the server's clock and ours may differ: an event that is older than the last asking tells nothing new."""
TOLD_BY = (
    ("prefect.work-pool.", ("pools",)),
    ("prefect.work-queue.", ("queues",)),
    ("prefect.deployment.", ("deployments",)),
    ("prefect.concurrency-limit.created", ("limits",)),
    ("prefect.concurrency-limit.updated", ("limits",)),
    ("prefect.concurrency-limit.deleted", ("limits",)),
    ("prefect.automation.action.executed", ("pools", "queues", "deployments")),
    ("prefect.automation.created", ("automations",)),
    ("prefect.automation.updated", ("automations",)),
    ("prefect.automation.deleted", ("automations",)),
)
"""Which kinds an event tells of, by the begin of its name."""
NOT_BEGUN = {
    "task_runs": {"state": {"type": {"any_": ["PENDING", "SCHEDULED"]}}},
    "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
}
"""The tasks of running flows that have no start yet, and so are in no list of what started lately: those that wait for
a limit by tag, and those that stand for a child which waits."""
POLLED_LATELY = timedelta(minutes=2)
"""Workers ask for runs every 10 to 15 s, and queues are asked about every 30 s."""
PUSHED = (":push", ":managed")
"""Ends of the types of pools that no worker serves."""


def kinds_told_of(event: str) -> tuple[str, ...]:
    """Return the kinds of facts that may have changed when an event of this name occurs."""
    return next((kinds for prefix, kinds in TOLD_BY if event.startswith(prefix)), ())


class Budget:
    """So many requests in any minute, and no more."""

    def __init__(self, per_minute: int, clock: Callable[[], datetime]) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._made: deque[datetime] = deque()

    def left(self) -> int:
        """Return how many requests may be made now."""
        since = self._clock() - timedelta(minutes=1)
        while self._made and self._made[0] <= since:
            self._made.popleft()
        return self._per_minute - len(self._made)

    def spend(self, requests: int) -> None:
        """Count requests that were made."""
        self._made.extend([self._clock()] * requests)


class SiteSync:
    """Keeps the facts about what governs runs in one store."""

    def __init__(
        self,
        store: DuckDBStore,
        runs: RunSync,
        *,
        clock: Callable[[], datetime] = utc_now,
        per_minute: int = REQUESTS_A_MINUTE,
    ) -> None:
        """`runs` learns the names of deployments and flows along the way; `clock` is moved by tests."""
        self._store, self._runs, self._clock = store, runs, clock
        self._budget = Budget(per_minute, clock)
        self._asked: dict[str, AskedFact] = {}
        self._tried: dict[str, datetime] = {}
        self._hinted: set[str] = set()
        self._pools: list[dict[str, Any]] = []
        self._queues: list[dict[str, Any]] = []
        self._loaded = False
        self._old_deployments: dict[str, DeploymentFact] = {}
        self._old_schedules: dict[str, ScheduleFact] = {}
        self._old_pools: dict[str, PoolFact] = {}
        self._old_limits: dict[str, LimitFact] = {}

    def hint(self, events: Iterable[tuple[str, datetime]]) -> bool:
        """Note events by name and time. Return whether one of them tells of a fact that was not asked for since."""
        told = {
            kind
            for event, occurred in events
            for kind in kinds_told_of(event)
            if kind not in self._tried or occurred > self._tried[kind] - CLOCKS_DIFFER
        }
        self._hinted |= told
        return bool(told)

    async def refresh(self, reader: PrefectReader) -> None:
        """Ask for what has become too old or was told of, the most overdue first, as far as requests are left."""
        await self._load()
        for kind in self._in_order():
            if self._cost(kind) > self._budget.left():
                break
            before = reader.requests
            try:
                await self._ask(reader, kind)
            finally:
                self._budget.spend(max(1, reader.requests - before))
        await self._note_answers(reader)

    async def everything(self, reader: PrefectReader) -> None:
        """Ask for all of it now, whatever it costs: after a start, or where somebody waits for it.

        What it costs is not set against the requests of the next minute: what changes right after a start is seen.
        """
        await self._load()
        for kind in ("deployments", "pools", "queues", "limits", "tag_limits", "automations", "tasks"):
            await self._ask(reader, kind)
        for kind in self._workers_wanted():
            await self._ask(reader, kind)
        await self._note_answers(reader)

    async def snapshot(self, live: Iterable[RunFact]) -> None:
        """Store how every queue is now: as Prefect last said, counted from the runs that have not ended.

        All of them at once: a reader that saw some of them renewed would take the others for gone.
        """
        now, runs = self._clock(), tuple(live)
        facts = [
            fact
            for pool in self._pools
            for fact in queue_facts(
                pool, [each for each in self._queues if each.get("work_pool_name") == pool["name"]], runs, now
            )
        ]
        await asyncio.to_thread(self._store.add_queues, facts)
        if (asked := self._asked.get("queues")) is not None:
            await asyncio.to_thread(self._store.put, "asked", [asked])

    # -- what is asked next

    def _worker_kinds(self) -> list[str]:
        return [f"workers:{p['name']}" for p in self._pools if not str(p.get("type")).endswith(PUSHED)]

    def _workers_wanted(self) -> list[str]:
        """Return the kinds of those pools that nobody is seen to serve: of the others it is known that workers live."""
        since = self._clock() - POLLED_LATELY
        served = {
            queue["work_pool_name"]
            for queue in self._queues
            if (polled := moment(queue.get("last_polled"))) is not None and polled > since
        }
        return [kind for kind in self._worker_kinds() if kind.partition(":")[2] not in served]

    def _in_order(self) -> list[str]:
        kinds = [kind for kind in EVERY if kind != "workers"] + self._workers_wanted()
        if not any(limit.name.startswith("tag:") for limit in self._old_limits.values()):
            kinds.remove("tag_limits")
        overdue = {kind: self._overdue(kind) for kind in kinds}
        return sorted((kind for kind in kinds if overdue[kind] >= 1), key=lambda kind: -overdue[kind])

    def _overdue(self, kind: str) -> float:
        """Return how old a kind of fact is, in times of what it may become."""
        tried = self._tried.get(kind)
        if tried is None:
            return 100.0
        age = self._clock() - tried
        family = kind.partition(":")[0]
        if family in self._hinted and age >= NO_SOONER and self._budget.left() > RESERVE:
            return 50.0
        return age / EVERY[family]

    def _cost(self, kind: str) -> int:
        known = self._asked.get(kind)
        return max(1, known.requests if known else 1)

    # -- asking

    async def _load(self) -> None:
        """Remember what an earlier process saw, so that it stays known since when something is so."""
        if self._loaded:
            return
        self._loaded = True

        def kept(table: str) -> list[Any]:
            return facts_from_rows(TABLES[table].fact, self._store.rows(f"SELECT * FROM {table}"))  # noqa: S608

        def read() -> None:
            self._old_deployments = {fact.deployment_id: fact for fact in kept("deployments")}
            self._old_schedules = {fact.schedule_id: fact for fact in kept("schedules")}
            self._old_pools = {fact.pool: fact for fact in kept("pools")}
            self._old_limits = {fact.limit_id: fact for fact in kept("limits")}

        await asyncio.to_thread(read)

    async def _ask(self, reader: PrefectReader, kind: str) -> None:
        before, started = reader.requests, asyncio.get_running_loop().time()
        family, _, pool = kind.partition(":")
        self._tried[kind] = self._clock()
        known = self._asked.get(kind) or AskedFact(kind=kind)
        try:
            if family == "workers":
                await self._workers(reader, pool)
            else:
                await getattr(self, f"_{family}_are")(reader)
        except AdapterError as exc:
            self._asked[kind] = replace(known, failures=known.failures + 1, error=str(exc)[:300])
            await asyncio.to_thread(self._store.put, "asked", [self._asked[kind]])
            if exc.transient:
                raise
            return  # what this server refuses for good keeps the other facts from nobody
        made = reader.requests - before
        self._hinted.discard(family)
        took = (asyncio.get_running_loop().time() - started) * 1000
        self._asked[kind] = AskedFact(kind=kind, at=self._clock(), ms=round(took, 1), requests=made)
        if (
            kind != "queues"
        ):  # these are stored with the next snapshot: known as asked for before, they would seem gone
            await asyncio.to_thread(self._store.put, "asked", [self._asked[kind]])

    async def _note_answers(self, reader: PrefectReader) -> None:
        """Store how quickly Prefect answered lately, to whatever it was asked."""
        seen = reader.answers.summary()
        if seen.requests:
            fact = AskedFact(
                kind="api", at=self._clock(), ms=seen.p95_ms, requests=seen.requests, failures=seen.failures,
                error=seen.error,
            )  # fmt: skip
            await asyncio.to_thread(self._store.put, "asked", [fact])

    async def _pools_are(self, reader: PrefectReader) -> None:
        self._pools = await reader.every("/work_pools/filter", {})
        now, facts = self._clock(), list[PoolFact]()
        for raw in self._pools:
            fact = pool_fact(raw, now)
            old = self._old_pools.get(fact.pool)
            if old is not None:
                same = (old.paused, old.status) == (fact.paused, fact.status)
                fact = replace(fact, changed=old.changed if same else now)
            facts.append(fact)
        self._old_pools = {fact.pool: fact for fact in facts}
        await asyncio.to_thread(self._store.replace, "pools", facts)
        gone = {kind for kind in self._asked if kind.startswith("workers:")} - set(self._worker_kinds())
        for kind in gone:
            del self._asked[kind]
            await asyncio.to_thread(self._store.replace, "workers", [], of_pool=kind.partition(":")[2])

    async def _queues_are(self, reader: PrefectReader) -> None:
        rows = await reader.every("/work_queues/filter", {})
        self._queues = [row for row in rows if row.get("work_pool_name")]

    async def _deployments_are(self, reader: PrefectReader) -> None:
        rows = await reader.every("/deployments/filter", {})
        facts, now = await self._runs.deployment_facts(reader, rows), self._clock()
        facts = [self._with_pause(fact, now) for fact in facts]
        schedules = [
            with_fire_times(self._with_stop(each, now), now)
            for row in rows
            for each in schedule_facts(row, now)
        ]
        self._old_deployments = {fact.deployment_id: fact for fact in facts}
        self._old_schedules = {fact.schedule_id: fact for fact in schedules}
        await asyncio.to_thread(self._store.replace, "deployments", facts)
        await asyncio.to_thread(self._store.replace, "schedules", schedules)

    def _with_pause(self, fact: DeploymentFact, now: datetime) -> DeploymentFact:
        old = self._old_deployments.get(fact.deployment_id)
        if not fact.paused or old is None:
            return fact
        return replace(fact, paused_since=old.paused_since if old.paused else min(fact.updated, now))

    def _with_stop(self, fact: ScheduleFact, now: datetime) -> ScheduleFact:
        old = self._old_schedules.get(fact.schedule_id)
        if fact.active or old is None:
            return fact
        return replace(fact, inactive_since=old.inactive_since if not old.active else fact.changed or now)

    async def _limits_are(self, reader: PrefectReader) -> None:
        rows = await reader.every("/v2/concurrency_limits/filter", {})
        now, facts = self._clock(), []
        for raw in rows:
            fact = limit_fact(raw, now)
            old = self._old_limits.get(fact.limit_id)
            full = fact.taken >= fact.limit
            since = (old.full_since if old and old.full_since else now) if full else None
            facts.append(replace(fact, full_since=since, holders=old.holders if old else ()))
        self._old_limits = {fact.limit_id: fact for fact in facts}
        await asyncio.to_thread(self._store.replace, "limits", facts)

    async def _tag_limits_are(self, reader: PrefectReader) -> None:
        rows = await reader.every("/concurrency_limits/filter", {})
        for raw in rows:
            if (known := self._old_limits.get(str(raw["id"]))) is not None:
                holders = tuple(str(each) for each in raw.get("active_slots") or ())
                self._old_limits[known.limit_id] = replace(known, holders=holders)
        await asyncio.to_thread(self._store.replace, "limits", list(self._old_limits.values()))

    async def _tasks_are(self, reader: PrefectReader) -> None:
        rows = await reader.page("/task_runs/filter", NOT_BEGUN, limit=PAGE)
        await asyncio.to_thread(self._store.merge_task_runs, [task_run_fact(row) for row in rows])

    async def _automations_are(self, reader: PrefectReader) -> None:
        rows = await reader.every("/automations/filter", {})
        now = self._clock()
        await asyncio.to_thread(
            self._store.replace, "automations", [automation_fact(row, now) for row in rows]
        )

    async def _workers(self, reader: PrefectReader, pool: str) -> None:
        rows = await reader.page(f"/work_pools/{pool}/workers/filter", {}, limit=PAGE)
        now = self._clock()
        facts = [worker_fact(row, pool, now) for row in rows]
        await asyncio.to_thread(self._store.replace, "workers", facts, of_pool=pool)
