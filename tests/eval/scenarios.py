"""Scenarios of `scenarios.yaml` as stores: every fact that a scenario does not name is that of a healthy installation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from pilotage.telemetry.facts import (
    AskedFact,
    DeploymentFact,
    EventFact,
    LimitFact,
    LogLine,
    PoolFact,
    QueueFact,
    RunFact,
    ScheduleFact,
    StateType,
    TaskRunFact,
    WorkerFact,
)
from pilotage.telemetry.store.duckdb import DuckDBStore

NOW = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
FILE = Path(__file__).with_name("scenarios.yaml")
LEVELS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One trouble with a known cause."""

    id: str
    level: int
    given: Mapping[str, Any]

    @property
    def wanted(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.given["wanted"]
        return found

    @property
    def forbidden(self) -> frozenset[str]:
        return frozenset(self.given.get("forbidden", ()))


def scenarios() -> list[Scenario]:
    rows = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return [Scenario(id=row["id"], level=row["level"], given=row) for row in rows]


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def deployment_id(name: str, scenario: Scenario) -> str:
    return f"dddddddd-0000-4000-8000-{list(scenario.given['deployments']).index(name):012d}"


def run_id(n: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{n:012d}"


@dataclass(kw_only=True)
class Filled:
    """The names of a scenario as ids."""

    runs: dict[str, str]
    """By name."""
    of: dict[str, list[str]]
    """By deployment, the ids of its runs."""
    subject: str

    def meant(self, ref: str) -> set[str]:
        """The references that a name in `cites` or `root` stands for."""
        kind, _, name = ref.partition(":")
        if kind in ("run", "log") and name in self.runs:
            return {f"{kind}:{self.runs[name]}"} | (
                {f"log:{self.runs[name]}-{n}" for n in range(9)} if kind == "log" else set()
            )
        if kind == "run" and name in self.of:
            return {f"run:{each}" for each in self.of[name]}
        if kind == "deployment" and name in self.of:
            return {f"deployment:dddddddd-0000-4000-8000-{list(self.of).index(name):012d}"}
        return {ref}


def fill(store: DuckDBStore, scenario: Scenario) -> Filled:
    """Put the scenario into an empty store."""
    given = scenario.given
    deployments: dict[str, dict[str, Any]] = given["deployments"]
    names: dict[str, str] = {}
    of: dict[str, list[str]] = {name: [] for name in deployments}
    runs: list[tuple[RunFact, dict[str, Any]]] = []
    for row in given.get("runs", ()):
        for k in range(row.get("n", 1)):
            name = row.get("name") or f"run-{len(runs)}"
            fact = _run(run_id(len(runs)), name, row, k, scenario)
            names[name] = fact.run_id
            of[row["of"]].append(fact.run_id)
            runs.append((fact, row))
    parents = {row["parent"]: fact for fact, row in runs if "parent" in row}
    store.merge_task_runs(
        [
            TaskRunFact(task_run_id=f"t-{fact.run_id}", run_id=names[parent], name="child", task_key="child",
                        state_type=StateType.FAILED, state_name="Failed", updated=fact.updated)
            for parent, fact in parents.items()
        ]
    )  # fmt: skip
    store.merge_runs([fact for fact, _ in runs])
    store.add_logs(
        [
            LogLine(log_id=f"{fact.run_id}-{n}", run_id=fact.run_id, at=(fact.ended or NOW) - timedelta(seconds=9 - n),
                    level=level, message=message)
            for fact, row in runs
            for n, (level, message) in enumerate(row.get("logs", ()))
        ]
    )  # fmt: skip
    store.add_events([event for fact, row in runs for event in _beats(fact, row)])
    _governing(store, scenario)
    about = given["about"]
    subject = (
        f"deployment:{deployment_id(about, scenario)}" if about in deployments else f"run:{names[about]}"
    )
    return Filled(runs=names, of=of, subject=subject)


def _run(key: str, name: str, row: Mapping[str, Any], k: int, scenario: Scenario) -> RunFact:
    place = scenario.given["deployments"][row["of"]]
    state = StateType(row["state"])
    ended = ago(row["ended"] + k * row.get("every", 60)) if "ended" in row else None
    started = (
        ago(row["started"]) if "started" in row else ended and ended - timedelta(minutes=row.get("took", 3))
    )
    due = ago(row["due"]) if "due" in row else (started or NOW) - timedelta(seconds=5)
    late = state is StateType.SCHEDULED and due < NOW
    flow, _, short = row["of"].partition("/")
    return RunFact(
        run_id=key, name=name, flow_name=flow, state_type=state,
        state_name=row.get("state_name") or ("Late" if late else state.capitalize()), state_id=f"s-{key}",
        state_message=row.get("message", ""), deployment_id=deployment_id(row["of"], scenario), deployment_name=short,
        pool=place.get("pool", "k8s"), queue=place.get("queue", "default"), run_count=0 if state == "SCHEDULED" else 1,
        created=due - timedelta(minutes=60), expected_start=due, next_start=due if state == "SCHEDULED" else None,
        started=started, ended=ended, updated=ended or started or due, tags=tuple(row.get("tags", ())),
        parameters=row.get("parameters", {}), job_variables=row.get("job_variables", {}), auto_scheduled=True,
        parent_task_run_id=f"t-{key}" if "parent" in row else None, state_at=ended or started or due,
    )  # fmt: skip


def _beats(fact: RunFact, row: Mapping[str, Any]) -> list[EventFact]:
    """A heartbeat every half minute from the start of a running run, up to now or until it falls silent."""
    if "beats" not in row and "beats_until" not in row:
        return []
    until = row.get("beats_until", 0)
    times = [ago(until + n * 0.5) for n in range(int(2 * (row["started"] - until)))]
    return [
        EventFact(event_id=f"e-{fact.run_id}-{n}", occurred=at, name="prefect.flow-run.heartbeat",
                  resource_id=f"prefect.flow-run.{fact.run_id}", run_id=fact.run_id)
        for n, at in enumerate(times)
    ]  # fmt: skip


def _governing(store: DuckDBStore, scenario: Scenario) -> None:
    given = scenario.given
    deployments: dict[str, dict[str, Any]] = given["deployments"]
    pools: dict[str, dict[str, Any]] = {"k8s": {}} | given.get("pools", {})
    queues: dict[str, dict[str, Any]] = {f"{pool}/default": {} for pool in pools} | given.get("queues", {})

    def polled(value: Any) -> datetime | None:
        return None if value is None else ago(value)

    store.replace(
        "pools",
        [
            PoolFact(pool=name, type="kubernetes", paused=pool.get("paused", False), limit=pool.get("limit"), seen=NOW,
                     status="PAUSED" if pool.get("paused") else pool.get("status", "READY"))
            for name, pool in pools.items()
        ],
    )  # fmt: skip
    store.replace(
        "workers",
        [
            WorkerFact(worker_id=f"{name}-{n}", pool=name, name=worker["name"], status=worker["status"],
                       heard=ago(worker["heard"]), every=30, seen=NOW)
            for name, pool in pools.items()
            for n, worker in enumerate(pool.get("workers", [{"name": f"{name}-1", "status": "ONLINE", "heard": 0}]))
        ],
    )  # fmt: skip
    store.add_queues(
        [
            QueueFact(at=NOW - timedelta(minutes=back), pool=key.partition("/")[0], queue=key.partition("/")[2], priority=1,
                      paused=queue.get("paused", False), pool_paused=pools[key.partition("/")[0]].get("paused", False),
                      pool_limit=queue.get("pool_limit"), running=queue.get("running", 0), waiting=queue.get("waiting", 0),
                      status="PAUSED" if queue.get("paused") else "READY",
                      last_polled=polled(queue.get("polled", pools[key.partition("/")[0]].get("polled", 0))))
            for key, queue in queues.items()
            for back in (1, 0)
        ]
    )  # fmt: skip
    store.merge_deployments(
        [
            DeploymentFact(deployment_id=deployment_id(name, scenario), name=name.partition("/")[2],
                           flow_name=name.partition("/")[0], paused=place.get("paused", False),
                           paused_since=polled(place.get("paused_since")), tags=tuple(place.get("tags", ("env:dev",))),
                           pool=place.get("pool", "k8s"), queue=place.get("queue", "default"),
                           job_variables=place.get("job_variables", {}), updated=ago(10_000), status="READY",
                           last_polled=NOW)
            for name, place in deployments.items()
        ]
    )  # fmt: skip
    store.replace(
        "schedules",
        [
            ScheduleFact(schedule_id=f"h-{name}", deployment_id=deployment_id(name, scenario), interval=3600, every=3600,
                         active=schedule.get("active", True), inactive_since=polled(schedule.get("inactive")),
                         last_due=ago(schedule["last_due"]),
                         next_due=None if not schedule.get("active", True) else ago(-30),
                         anchor=ago(100_000), changed=ago(50_000), seen=NOW)
            for name, place in deployments.items()
            if (schedule := place.get("schedule"))
        ],
    )  # fmt: skip
    store.replace(
        "limits",
        [
            LimitFact(limit_id=f"x-{n}", name=_limit_name(name, scenario), limit=row["limit"], taken=row["taken"],
                      full_since=polled(row.get("full")), seen=NOW)
            for n, (name, row) in enumerate(given.get("limits", {}).items())
        ],
    )  # fmt: skip
    kinds = ["pools", "queues", "deployments", "limits", "tag_limits", "automations", "api"]
    store.put(
        "asked", [AskedFact(kind=kind, at=NOW) for kind in (*kinds, *(f"workers:{pool}" for pool in pools))]
    )


def _limit_name(name: str, scenario: Scenario) -> str:
    scope, _, of = name.partition(":")
    return f"deployment:{deployment_id(of, scenario)}" if scope == "deployment" else name


def shown(value: Any) -> str:
    """A value as a report shows it."""
    return value if isinstance(value, str) else json.dumps(value)
