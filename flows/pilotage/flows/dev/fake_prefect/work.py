"""Which runs a worker is handed, and how the ranks of queues move."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from pilotage.flows.dev.fake_prefect.records import Json, Run, moment_of, text_of
from pilotage.flows.dev.fake_prefect.tables import Tables

OCCUPYING = ("RUNNING", "PENDING")
"""Types of state in which a run takes a place of its queue and pool."""


def handed_out(
    tables: Tables, pool: Json, names: Collection[str] | None, before: datetime | None, *, limit: int
) -> list[Run]:
    """Return the due runs that a worker of the pool may take now, first served first.

    The queues are served in the order of their ranks; each gives at most its free places, the pool at most its own.
    """
    if pool["is_paused"]:
        return []
    queues = tables.queues_of(pool["name"])
    busy: dict[str, int] = {queue["id"]: 0 for queue in queues}
    for state_type in OCCUPYING:
        for run in tables.by_type[state_type].values():
            if run.work_queue_id in busy:
                busy[run.work_queue_id] += 1
    waiting: dict[str, list[Run]] = {queue["id"]: [] for queue in queues}
    for run in tables.by_type["SCHEDULED"].values():
        due = run.next_scheduled_start_time
        # a run that retries in its own process is nobody's to start
        anybodys = run.work_queue_id in waiting and run.policy["retry_type"] != "in_process"
        if anybodys and (before is None or (due is not None and due <= before)):
            waiting[run.work_queue_id or ""].append(run)
    paths = _paths(pool["concurrency_limit"], sum(busy.values()), limit)
    given: list[Run] = []
    for queue in queues:
        if queue["is_paused"] or (names is not None and queue["name"] not in names):
            continue
        runs = sorted(
            waiting[queue["id"]], key=lambda run: (run.next_scheduled_start_time or run.created, run.id)
        )
        given += runs[: _paths(queue["concurrency_limit"], busy[queue["id"]], limit)]
    return given[:paths]


def _paths(limit: int | None, taken: int, most: int) -> int:
    return most if limit is None else min(most, max(0, limit - taken))


POLLED_LATELY = timedelta(seconds=60)
"""A queue and a deployment that nobody asked about for longer are not ready."""
OFFLINE_AFTER = 3
"""Heartbeats that a worker may miss."""


def polled(tables: Tables, pool: str, names: Collection[str] | None, now: datetime) -> None:
    """Note that a worker asked for the runs of these queues of a pool, or of all of them."""
    asked = set()
    for queue in tables.queues_of(pool):
        if names is None or queue["name"] in names:
            asked.add(queue["id"])
            queue["last_polled"] = text_of(now)
            if not queue["is_paused"]:
                queue["status"] = "READY"
    for deployment in tables.deployments.values():
        if deployment["work_queue_id"] in asked:
            deployment |= {"last_polled": text_of(now), "status": "READY"}


def mark_not_ready(tables: Tables, now: datetime) -> None:
    """Do what Prefect's foreman does: pools without a living worker, and what nobody polls, are not ready."""
    for pool in tables.pools.values():
        workers = [worker for (of, _), worker in tables.workers.items() if of == pool["name"]]
        if pool["status"] == "READY" and not any(online(worker, now) for worker in workers):
            pool["status"] = "NOT_READY"
    for row in (*tables.queues.values(), *tables.deployments.values()):
        asked = moment_of(row["last_polled"])
        if row["status"] == "READY" and (asked is None or asked < now - POLLED_LATELY):
            row["status"] = "NOT_READY"


def online(worker: Json, now: datetime) -> bool:
    """Return whether a worker has been heard lately enough."""
    heard = moment_of(worker["last_heartbeat_time"])
    silent = timedelta(seconds=(worker["heartbeat_interval_seconds"] or 30) * OFFLINE_AFTER)
    return heard is not None and heard > now - silent


def reranked(queues: list[Json], queue_id: str, rank: int) -> None:
    """Give one queue a rank. Ranks are unique: those that stand in its way move down by as little as will do.

    `queues` are all of the pool. As Prefect does it: a queue whose new rank is behind all others keeps it.
    """
    others = sorted((each for each in queues if each["id"] != queue_id), key=lambda each: each["priority"])
    moved = next(each for each in queues if each["id"] == queue_id)
    moved["priority"] = rank
    for index, each in enumerate(others):
        if each["priority"] >= rank:
            others.insert(index, moved)
            break
    last = 0
    for each in others:
        last = each["priority"] = max(each["priority"], last + 1)
