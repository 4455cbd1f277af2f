"""What governs the runs of a site, as it is now: everything that the question "why does it wait" needs, with its age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pilotage.telemetry.facts import (
    AskedFact,
    AutomationFact,
    DeploymentFact,
    LimitFact,
    PoolFact,
    QueueFact,
    RunFact,
    ScheduleFact,
    TaskRunFact,
    WorkerFact,
)
from pilotage.telemetry.queries import heartbeats
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.heartbeats import Heartbeat
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import TABLES, facts_from_rows

MOST_LIVE = 5000
"""Living runs that are looked at together."""
SLOTS_OF_HISTORY = timedelta(days=7)
"""How far back it is looked which deployments take slots of which global limit; Prefect keeps events for so long."""
ACTS_OF_HISTORY = timedelta(days=7)
"""The same for what automations and we did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What somebody did to a deployment, pool or queue: one of Prefect's automations, or we."""

    at: datetime
    by: str
    """In words: `the automation "…"`, `pilotage (p-…)`."""
    kind: str
    """Such as `pause-deployment`, `hold_queue`."""
    targets: tuple[str, ...]
    """Ids or names of what it was done to."""
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOut:
    """When a worker said that it had taken a run."""

    at: datetime
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """What is known of one site at one moment."""

    now: datetime
    asked: Mapping[str, AskedFact] = field(default_factory=dict)
    """By kind: when it was last asked for."""
    pools: Mapping[str, PoolFact] = field(default_factory=dict)
    queues: Mapping[tuple[str, str], QueueFact] = field(default_factory=dict)
    """By pool and name."""
    workers: tuple[WorkerFact, ...] = ()
    limits: Mapping[str, LimitFact] = field(default_factory=dict)
    """By name."""
    deployments: Mapping[str, DeploymentFact] = field(default_factory=dict)
    schedules: Mapping[str, tuple[ScheduleFact, ...]] = field(default_factory=dict)
    """By deployment."""
    automations: tuple[AutomationFact, ...] = ()
    acts: tuple[Act, ...] = ()
    """Newest first."""
    live: tuple[RunFact, ...] = ()
    """The runs that have not ended and are due, or living otherwise."""
    upcoming: Mapping[str, datetime] = field(default_factory=dict)
    """By deployment, the next start that Prefect has made a run for."""
    last_start: Mapping[str, datetime] = field(default_factory=dict)
    """By deployment, the newest time up to now for which a run of it was made by a schedule, whatever became of it."""
    last_run: Mapping[str, str] = field(default_factory=dict)
    """By deployment, its newest run: whose owner is told of what is no run's."""
    was_in: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By deployment with a living run that is in no pool: pool and queue of its newest run that was in one."""
    tasks: Mapping[str, tuple[TaskRunFact, ...]] = field(default_factory=dict)
    """By run, the task runs of living runs that have not ended."""
    task_owners: Mapping[str, str] = field(default_factory=dict)
    """By task run, its flow run: of parents and of holders of limits."""
    handed_out: Mapping[str, HandedOut] = field(default_factory=dict)
    """By run."""
    takers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By deployment, the ids of the global limits that its runs took slots of lately."""
    slot_holders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By id of a limit, the runs that took slots of it and were not heard to give them back."""
    usually_pending: Mapping[str, timedelta] = field(default_factory=dict)
    """By pool, how long nineteen of twenty of its runs were Pending at most, where ten or more lately were."""
    usually_cancelling: Mapping[str, timedelta] = field(default_factory=dict)
    """The same from Cancelling to Cancelled."""
    heard: Mapping[str, datetime] = field(default_factory=dict)
    """By living run, its newest event or line of log."""
    acted: Mapping[str, datetime] = field(default_factory=dict)
    """The same without heartbeats, which a run that waits sends as well."""
    beating: frozenset[str] = frozenset()
    """The living runs that have sent a heartbeat."""
    silent: Mapping[str, Heartbeat] = field(default_factory=dict)
    """By run, the RUNNING ones that are silent for longer than a living one is."""
    queue_paused_since: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    """By pool and queue; those that have been paused for as long as is kept are missing."""
    queue_last_open: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    """When each of these was last seen not to be paused: its pause is younger than that."""

    def age(self, kind: str) -> timedelta | None:
        """How long ago a kind of fact was last asked for, or None when it never was."""
        known = self.asked.get(kind)
        return self.now - known.at if known and known.at else None

    def run(self, run_id: str) -> RunFact | None:
        """A living run, or None."""
        return next((run for run in self.live if run.run_id == run_id), None)


def site_facts(store: Store, now: datetime, *, extra: Sequence[str] = ()) -> SiteFacts:
    """Read what is known of the site; `extra` names runs that are wanted although they are not due."""
    live = _live(store, now, extra)
    limits = {fact.name: fact for fact in _all(store, "limits")}
    tasks = _tasks(store, live)
    owners = {task.task_run_id: str(task.run_id) for each in tasks.values() for task in each}
    wanted = {one for limit in limits.values() for one in limit.holders}
    wanted |= {run.parent_task_run_id for run in live if run.parent_task_run_id}
    owners |= _owners(store, sorted(wanted - set(owners)))
    takers, holders = _slots(store, now, {run.run_id for run in live})
    schedules: dict[str, tuple[ScheduleFact, ...]] = {}
    for schedule in _all(store, "schedules"):
        schedules[schedule.deployment_id] = (*schedules.get(schedule.deployment_id, ()), schedule)
    queues = run_queries.queue_snapshots(store)
    heard, acted, beating = _heard(store, live)
    paused_since, last_open = _paused_since(store, [fact for fact in queues if fact.paused])
    return SiteFacts(
        now=now,
        asked={fact.kind: fact for fact in _all(store, "asked")},
        pools={fact.pool: fact for fact in _all(store, "pools")},
        queues={(fact.pool, fact.queue): fact for fact in queues},
        workers=tuple(_all(store, "workers")),
        limits=limits,
        deployments={fact.deployment_id: fact for fact in _all(store, "deployments")},
        schedules=schedules,
        automations=tuple(_all(store, "automations")),
        acts=_acts(store, now),
        live=live,
        upcoming=_upcoming(store, now),
        last_start=_last_start(store, now),
        last_run=_last_run(store),
        was_in=_was_in(store, live),
        tasks=tasks,
        task_owners=owners,
        handed_out=_handed_out(store, live),
        takers=takers,
        slot_holders=holders,
        usually_pending=_usually(store, now, live, "PENDING", ("Pending", "Running")),
        usually_cancelling=_usually(store, now, live, "CANCELLING", ("Cancelling", "Cancelled")),
        heard=heard,
        acted=acted,
        beating=beating,
        silent={each.run.run_id: each for each in heartbeats.silent(store, now)},
        queue_paused_since=paused_since,
        queue_last_open=last_open,
    )


def _all(store: Store, table: str) -> list[Any]:
    name = TABLES[table].identity
    return facts_from_rows(TABLES[table].fact, store.rows(f"SELECT * FROM {table} ORDER BY {name}"))  # noqa: S608


def _live(store: Store, now: datetime, extra: Sequence[str]) -> tuple[RunFact, ...]:
    sql = (
        "SELECT * FROM runs WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING', 'PAUSED') "
        "OR (state_type = 'SCHEDULED' AND (next_start <= ? OR state_name = 'AwaitingConcurrencySlot')) "
        "OR run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY next_start, run_id LIMIT ?"
    )
    return tuple(facts_from_rows(RunFact, store.rows(sql, [now, list(extra), MOST_LIVE])))


def _upcoming(store: Store, now: datetime) -> dict[str, datetime]:
    sql = (
        "SELECT deployment_id, min(next_start) AS first FROM runs WHERE state_type = 'SCHEDULED' "
        "AND auto_scheduled AND next_start > ? AND deployment_id IS NOT NULL GROUP BY deployment_id"
    )
    return {row["deployment_id"]: row["first"] for row in store.rows(sql, [now])}


def _last_start(store: Store, now: datetime) -> dict[str, datetime]:
    sql = (
        "SELECT deployment_id, max(expected_start) AS last FROM runs WHERE auto_scheduled AND expected_start <= ? "
        "AND deployment_id IS NOT NULL GROUP BY deployment_id"
    )
    return {row["deployment_id"]: row["last"] for row in store.rows(sql, [now])}


def _last_run(store: Store) -> dict[str, str]:
    # one that is still to begin may be gone before anybody looks at it: what began stays
    sql = (
        "SELECT deployment_id, first(run_id ORDER BY started IS NULL, coalesce(started, created) DESC) AS run_id "
        "FROM runs WHERE deployment_id IS NOT NULL GROUP BY deployment_id"
    )
    return {row["deployment_id"]: row["run_id"] for row in store.rows(sql)}


def _was_in(store: Store, live: Sequence[RunFact]) -> dict[str, tuple[str, str]]:
    # when a queue or its pool is deleted, Prefect empties the place of every run and deployment that was in it
    lost = sorted({run.deployment_id for run in live if run.deployment_id and run.pool is None})
    if not lost:
        return {}
    sql = (
        "SELECT deployment_id, arg_max(pool, created) AS pool, arg_max(coalesce(queue, ''), created) AS queue FROM runs "
        "WHERE deployment_id IN (SELECT unnest(?::VARCHAR[])) AND pool IS NOT NULL GROUP BY deployment_id"
    )
    return {row["deployment_id"]: (row["pool"], row["queue"]) for row in store.rows(sql, [lost])}


def _tasks(store: Store, live: Sequence[RunFact]) -> dict[str, tuple[TaskRunFact, ...]]:
    ids = [run.run_id for run in live if run.started is not None]
    if not ids:
        return {}
    sql = (
        "SELECT * FROM task_runs WHERE run_id IN (SELECT unnest(?::VARCHAR[])) AND ended IS NULL "
        "AND state_type NOT IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') ORDER BY updated, task_run_id LIMIT ?"
    )
    by_run: dict[str, tuple[TaskRunFact, ...]] = {}
    for task in facts_from_rows(TaskRunFact, store.rows(sql, [ids, MOST_LIVE])):
        by_run[str(task.run_id)] = (*by_run.get(str(task.run_id), ()), task)
    return by_run


def _owners(store: Store, tasks: Sequence[str]) -> dict[str, str]:
    if not tasks:
        return {}
    sql = (
        "SELECT task_run_id, run_id FROM task_runs WHERE task_run_id IN (SELECT unnest(?::VARCHAR[])) "
        "AND run_id IS NOT NULL"
    )
    return {row["task_run_id"]: row["run_id"] for row in store.rows(sql, [list(tasks)])}


def _slots(
    store: Store, now: datetime, live: set[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Which deployments take slots of which global limits, and which living runs hold some."""
    sql = """
        SELECT e.resource_id, e.run_id, r.deployment_id,
               count(*) FILTER (e.name = 'prefect.concurrency-limit.acquired') AS took,
               count(*) FILTER (e.name = 'prefect.concurrency-limit.released') AS gave
        FROM events e LEFT JOIN runs r USING (run_id)
        WHERE e.occurred > ? AND e.run_id IS NOT NULL
        AND e.name IN ('prefect.concurrency-limit.acquired', 'prefect.concurrency-limit.released')
        GROUP BY ALL ORDER BY e.resource_id, e.run_id LIMIT ?
    """
    takers: dict[str, tuple[str, ...]] = {}
    holders: dict[str, tuple[str, ...]] = {}
    for row in store.rows(sql, [now - SLOTS_OF_HISTORY, MOST_LIVE]):
        limit = str(row["resource_id"]).removeprefix("prefect.concurrency-limit.")
        if (deployment := row["deployment_id"]) and limit not in takers.get(deployment, ()):
            takers[deployment] = (*takers.get(deployment, ()), limit)
        if row["took"] > row["gave"] and row["run_id"] in live:
            holders[limit] = (*holders.get(limit, ()), row["run_id"])
    return takers, holders


def _handed_out(store: Store, live: Sequence[RunFact]) -> dict[str, HandedOut]:
    ids = [run.run_id for run in live if run.state_type in ("PENDING", "CANCELLING", "RUNNING")]
    if not ids:
        return {}
    sql = (
        "SELECT run_id, max(occurred) AS at, arg_max(resource_id, occurred) AS worker FROM events "
        "WHERE run_id IN (SELECT unnest(?::VARCHAR[])) AND name = 'prefect.worker.submitted-flow-run' GROUP BY run_id"
    )
    return {
        row["run_id"]: HandedOut(at=row["at"], worker=str(row["worker"]).rpartition(".")[2])
        for row in store.rows(sql, [ids])
    }


def _usually(
    store: Store, now: datetime, live: Sequence[RunFact], state: str, names: tuple[str, str]
) -> dict[str, timedelta]:
    """How long runs are usually in a state, of the pools in which a run is in it now."""
    pools = sorted({run.pool for run in live if run.pool and run.state_type == state})
    if not pools:
        return {}
    sql = """
        WITH passed AS (
            SELECT run_id, max(occurred) FILTER (name = ?) AS came, max(occurred) FILTER (name = ?) AS went
            FROM events WHERE occurred > ? AND name IN (?, ?) GROUP BY run_id
        )
        SELECT r.pool, quantile_cont(epoch(p.went - p.came), 0.95) AS seconds FROM passed p JOIN runs r USING (run_id)
        WHERE p.went >= p.came AND r.pool IN (SELECT unnest(?::VARCHAR[])) GROUP BY r.pool HAVING count(*) >= 10
    """
    came, went = (f"prefect.flow-run.{name}" for name in names)
    rows = store.rows(sql, [came, went, now - ACTS_OF_HISTORY, came, went, pools])
    return {row["pool"]: timedelta(seconds=row["seconds"]) for row in rows}


def _heard(
    store: Store, live: Sequence[RunFact]
) -> tuple[dict[str, datetime], dict[str, datetime], frozenset[str]]:
    """When each living run was heard last at all, and last otherwise than by a heartbeat; and which have sent one."""
    ids = [run.run_id for run in live if run.state_type in ("RUNNING", "PENDING", "CANCELLING")]
    if not ids:
        return {}, {}, frozenset()
    sql = (
        "SELECT run_id, max(moment) AS heard, max(moment) FILTER (name <> ?) AS acted, bool_or(name = ?) AS beats FROM "
        "(SELECT run_id, occurred AS moment, name FROM events WHERE NOT starts_with(name, 'pilotage.') "
        "UNION ALL SELECT run_id, \"at\", '' FROM logs) "
        "WHERE run_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY run_id"
    )
    rows = store.rows(sql, [heartbeats.HEARTBEAT, heartbeats.HEARTBEAT, ids])
    return (
        {row["run_id"]: row["heard"] for row in rows},
        {row["run_id"]: row["acted"] for row in rows if row["acted"]},
        frozenset(row["run_id"] for row in rows if row["beats"]),
    )


def _paused_since(
    store: Store, paused: Sequence[QueueFact]
) -> tuple[dict[tuple[str, str], datetime], dict[tuple[str, str], datetime]]:
    """Since when each of these queues has been seen paused without a break, and when it was seen open before that;
    nothing for those never seen otherwise.
    """
    if not paused:
        return {}, {}
    sql = """
        WITH open AS (
            SELECT pool, queue, max("at") AS last FROM queues WHERE NOT paused GROUP BY pool, queue
        )
        SELECT q.pool, q.queue, min(q."at") AS since, o.last FROM queues q JOIN open o USING (pool, queue)
        WHERE q.paused AND q."at" > o.last GROUP BY q.pool, q.queue, o.last
    """
    wanted = {(fact.pool, fact.queue) for fact in paused}
    rows = {(row["pool"], row["queue"]): row for row in store.rows(sql)}
    known = {key: row for key, row in rows.items() if key in wanted}
    return {key: row["since"] for key, row in known.items()}, {key: row["last"] for key, row in known.items()}


def _acts(store: Store, now: datetime) -> tuple[Act, ...]:
    since = now - ACTS_OF_HISTORY
    sql = (
        "SELECT occurred, payload FROM events WHERE name = 'prefect.automation.action.executed' AND occurred > ? "
        "ORDER BY occurred DESC LIMIT 500"
    )
    acts = [_automation_act(row["occurred"], row["payload"]) for row in store.rows(sql, [since])]
    sql = """
        SELECT "at", proposal_id, action, detail FROM decisions WHERE step = 'injected' AND "at" > ?
        AND coalesce(outcome, '') <> 'refused' AND action IN ('pause_deployment', 'hold_queue', 'reserve_slot', 'set_limit')
        ORDER BY "at" DESC LIMIT 500
    """
    acts += [_our_act(row) for row in store.rows(sql, [since])]
    return tuple(sorted(acts, key=lambda act: act.at, reverse=True))


def _automation_act(at: datetime, payload: str) -> Act:
    import json

    said = json.loads(payload or "{}")
    related = tuple(str(each).rpartition(".")[2] for each in said.get("related") or ())
    return Act(
        at=at,
        by=f'the automation "{str(said.get("automation") or "?")[:80]}"',
        kind=str(said.get("action_type") or ""),
        targets=related,
    )


def _our_act(row: Mapping[str, Any]) -> Act:
    import json

    detail = json.loads(row["detail"] or "{}")
    action = detail.get("action") if isinstance(detail.get("action"), Mapping) else detail
    named = [action.get("deployment_id"), action.get("name")]
    if action.get("pool"):
        named.append(f"{action['pool']}/{action.get('queue') or action.get('busy_queue') or ''}")
    return Act(
        at=row["at"],
        by=f"pilotage ({row['proposal_id']})",
        kind=str(row["action"]),
        targets=tuple(str(each) for each in named if each),
        ours=True,
    )
