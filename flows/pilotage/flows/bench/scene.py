"""A scene: one world with its seed on a stage, over Prefect's REST API. The same in both modes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.flows.bench.arms import every_run
from pilotage.flows.bench.outside import Outside
from pilotage.flows.bench.world import Act, Answer, Json, Request, Worker, World
from pilotage.telemetry.errors import OrchestratorError

POOL = "bench"
ENTRYPOINT = "pilotage.flows.bench.flow.work"
RETRYING = "pilotage.flows.bench.flow.work_with_retries"
OWNED = ("env:staging", "tier:2", "team:data")
"""What the docs tell owners to say about an ordinary deployment that is not production."""
DEPLOYMENT = "bench"
"""The name of every deployment; flows are told apart."""
MEMORY_MB = 128
NEVER = datetime.min.replace(tzinfo=UTC)


def template() -> Json:
    """Return the job template of the bench's pools: a process that is told its memory and whose code it runs."""
    text = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    return {
        "job_configuration": {
            "command": "{{ command }}",
            "env": {"PILOTAGE_MEMORY": "{{ memory_mb }} MiB", "PILOTAGE_BENCH": "{{ bench }}"},
            "labels": "{{ labels }}",
            "name": "{{ name }}",
            "stream_output": "{{ stream_output }}",
            "working_dir": "{{ working_dir }}",
        },
        "variables": {
            "type": "object",
            "properties": {
                "memory_mb": {"type": "integer", "title": "Memory", "default": MEMORY_MB, "minimum": 16},
                "bench": {**text, "default": "", "title": "Whose code it runs, as JSON"},
                "name": {**text, "title": "Name"},
                "labels": {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "title": "Labels",
                },
                "command": {**text, "title": "Command"},
                "stream_output": {"type": "boolean", "default": True, "title": "Stream Output"},
                "working_dir": {**text, "title": "Working Directory"},
            },
        },
    }


class Machine:
    """What a stage has that differs between real and simulated: who starts workers, and what time does."""

    def hire(self, pool: str, name: str) -> Worker:
        """Start a worker."""
        raise NotImplementedError

    def at(self, moment: datetime, act: Act) -> None:
        """Do something at a time."""
        raise NotImplementedError

    def pool_template(self) -> Json:
        """Return the job template of a pool."""
        return template()


@dataclass(slots=True, kw_only=True)
class PlayedScene:
    """As `Scene`."""

    key: str
    world: World
    seed: int
    tagged: bool
    retries: bool
    """Whether flows retry by themselves."""
    clock: Callable[[], datetime]
    scale: float
    prefect: Callable[[str, str, Any], Any]
    outside: Outside
    url: str
    """Where flows reach the outside."""
    machine: Machine
    source: str
    """Where a process finds the world: `module:Class` or `file.py:Class`."""
    began: datetime = NEVER
    deployments: dict[str, str] = field(default_factory=dict)
    """Ids by name."""
    started: dict[str, str] = field(default_factory=dict)
    """Ids of runs by name; the first of a name."""
    pools: list[str] = field(default_factory=list)
    harms: list[str] = field(default_factory=list)
    works: dict[str, str] = field(default_factory=dict)
    """Methods by deployment id."""
    missing: set[str] = field(default_factory=set)
    """Deployments whose flow file is not there."""
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Answer for the world."""
        self.outside.answerers[self.key] = self._answer

    def _answer(self, request: Request) -> Answer:
        return self.world.answer(self, request)

    def now(self) -> datetime:
        """As `Scene`."""
        return self.clock()

    def seconds(self, seconds: float) -> timedelta:
        """As `Scene`."""
        return timedelta(seconds=seconds * self.scale)

    def after(self, seconds: float, act: Act) -> None:
        """As `Scene`."""
        self.machine.at(self.now() + self.seconds(seconds), act)

    def fault(self) -> datetime:
        """As `Scene`."""
        return self.outside.first_call.get(self.key, self.now())

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """As `Scene`."""
        return self.prefect(method, path, body)

    def deploy(
        self,
        name: str,
        work: str,
        *,
        tags: Sequence[str] = (),
        pool: str = "",
        queue: str = "default",
        limit: int | None = None,
        every: float | None = None,
        memory_mb: int | None = None,
        missing: bool = False,
        **parameters: Any,
    ) -> str:
        """As `Scene`."""
        flow = self.ask("POST", "/flows/", {"name": f"{self.key}-{name}"})
        owned = [
            *(each for each in OWNED if each.partition(":")[0] not in {t.partition(":")[0] for t in tags}),
            *tags,
        ]
        own = {
            "key": self.key,
            "source": self.source,
            "seed": self.seed,
            "work": work,
            "url": self.url,
            "scale": self.scale,
        }
        body: Json = {
            "name": DEPLOYMENT,
            "flow_id": flow["id"],
            "work_pool_name": pool or POOL,
            "work_queue_name": queue,
            "entrypoint": RETRYING if self.retries else ENTRYPOINT,
            "tags": owned if self.tagged else [],
            "parameters": {"parameters": parameters},
            "enforce_parameter_schema": False,
            "job_variables": {
                "bench": json.dumps(own),
                **({} if memory_mb is None else {"memory_mb": memory_mb}),
            },
        }
        if limit is not None:
            body["concurrency_limit"] = limit
        if missing:
            body |= {"entrypoint": f"flows/{name}.py:{name}", "path": "."}
        if every is not None:
            schedule = {
                "interval": self.seconds(every).total_seconds(),
                "anchor_date": self.now().isoformat(),
            }
            body["schedules"] = [{"schedule": schedule, "active": True}]
        made = self.ask("POST", "/deployments/", body)
        self.deployments[name] = str(made["id"])
        self.works[str(made["id"])] = work
        if missing:
            self.missing.add(str(made["id"]))
        return str(made["id"])

    def pool(
        self, *, limit: int | None = None, queues: Sequence[str] = ("default",), worker: bool = True
    ) -> tuple[str, Worker | None]:
        """As `Scene`."""
        name = f"{self.key}-pool" + (f"-{len(self.pools)}" if self.pools else "")
        body: Json = {"name": name, "type": "process", "base_job_template": self.machine.pool_template()}
        if limit is not None:
            body["concurrency_limit"] = limit
        self.ask("POST", "/work_pools/", body)
        for rank, queue in enumerate(queues, start=1):
            if queue != "default":
                self.ask("POST", f"/work_pools/{name}/queues", {"name": queue, "priority": rank})
        for rank, queue in enumerate(queues, start=1):
            self.ask("PATCH", f"/work_pools/{name}/queues/{queue}", {"priority": rank})
        self.pools.append(name)
        return name, self.hire(name) if worker else None

    def hire(self, pool: str) -> Worker:
        """As `Scene`."""
        worker = self.machine.hire(pool, f"{pool}-worker-{len(self.workers) + 1}")
        self.workers.append(worker)
        return worker

    def start(
        self,
        deployment: str,
        name: str = "run",
        *,
        after: float = 0,
        at: datetime | None = None,
        tags: Sequence[str] = (),
        **parameters: Any,
    ) -> str:
        """As `Scene`."""
        deployment_id = self.deployments[deployment]
        due = (at or self.now() + self.seconds(after)).isoformat()
        body: Json = {
            "state": {"type": "SCHEDULED", "name": "Scheduled", "state_details": {"scheduled_time": due}},
            "name": f"{self.key}-{name}",
            "tags": list(tags),
            "enforce_parameter_schema": False,
        }
        if parameters:
            body["parameters"] = {"parameters": parameters}
        made = str(self.ask("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"])
        self.started.setdefault(name, made)
        return made

    def run(self, run_id: str) -> Json:
        """As `Scene`."""
        found: Json = self.ask("GET", f"/flow_runs/{run_id}")
        return found

    def runs(self) -> list[Json]:
        """As `Scene`."""
        return every_run(self.ask, self.deployments.values()) if self.deployments else []

    def count(self, key: str) -> int:
        """As `Scene`."""
        return self.outside.counts[self.key, key]

    def note(self, key: str) -> None:
        """As `Scene`."""
        self.outside.counts[self.key, key] += 1

    def harm(self, text: str) -> None:
        """As `Scene`."""
        self.harms.append(text)


def checked(status: int, method: str, path: str, body: Any) -> Any:
    """Return the body of a reply. Raises OrchestratorError for one that is an error."""
    if status >= 400:
        raise OrchestratorError(
            f"{method} {path}: Prefect answered {status}: {str(body)[:300]}", transient=status in (429, 503)
        )
    return body
