"""What the fake server has in memory, with the few indexes that keep ten thousand runs quick to ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from uuid import UUID

from pilotage.flows.dev.fake_prefect.records import Json, Run, State, TaskRun, text_of


@dataclass(slots=True, kw_only=True)
class Lease:
    """A slot of some limits that somebody keeps until it expires."""

    id: str
    limit_ids: tuple[str, ...]
    slots: int
    expires: datetime
    holder: Json | None = None


@dataclass(slots=True)
class Tables:
    """Everything that the server knows."""

    flows: dict[str, Json] = field(default_factory=dict)
    deployments: dict[str, Json] = field(default_factory=dict)
    pools: dict[str, Json] = field(default_factory=dict)
    """By name."""
    queues: dict[str, Json] = field(default_factory=dict)
    workers: dict[tuple[str, str], Json] = field(default_factory=dict)
    """By pool and name."""
    runs: dict[str, Run] = field(default_factory=dict)
    by_type: dict[str, dict[str, Run]] = field(default_factory=lambda: defaultdict(dict))
    by_deployment: dict[str, dict[str, Run]] = field(default_factory=lambda: defaultdict(dict))
    by_parent_task: dict[str, Run] = field(default_factory=dict)
    by_key: dict[tuple[str, str], Run] = field(default_factory=dict)
    """By flow and idempotency key."""
    task_runs: dict[str, TaskRun] = field(default_factory=dict)
    tasks_of: dict[str, dict[str, TaskRun]] = field(default_factory=lambda: defaultdict(dict))
    """By flow run."""
    limits: dict[str, Json] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    variables: dict[str, Json] = field(default_factory=dict)
    """By name."""
    inputs: dict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    """By flow run and key."""
    events: dict[str, Json] = field(default_factory=dict)
    logs: dict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))
    """By flow run."""
    artifacts: list[Json] = field(default_factory=list)
    automations: list[Json] = field(default_factory=list)
    """Kept and told of; none is ever triggered."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def new_id(self, now: datetime) -> str:
        """Return a new id. As with Prefect's, a later one sorts after an earlier one."""
        milliseconds = int(now.timestamp() * 1000)
        number = next(self._numbers)
        bits = (
            (milliseconds << 80) | (7 << 76) | ((number >> 50) << 64) | (2 << 62) | (number & ((1 << 50) - 1))
        )
        return str(UUID(int=bits))

    def queue_of(self, run: Run) -> Json | None:
        """Return the work queue that the run is in."""
        return self.queues.get(run.work_queue_id or "")

    def queues_of(self, pool: str) -> list[Json]:
        """Return the queues of a pool, first served first."""
        queues = [queue for queue in self.queues.values() if queue["work_pool_name"] == pool]
        return sorted(queues, key=lambda queue: queue["priority"])

    def limit_named(self, name_or_id: str) -> Json | None:
        """Return the concurrency limit of this id or name."""
        if name_or_id in self.limits:
            return self.limits[name_or_id]
        return next((limit for limit in self.limits.values() if limit["name"] == name_or_id), None)

    def limit_of_deployment(self, deployment_id: str | None) -> Json | None:
        """Return the concurrency limit of a deployment."""
        deployment = self.deployments.get(deployment_id or "")
        return self.limits.get((deployment or {}).get("concurrency_limit_id") or "")

    def parent_of(self, run: Run) -> str | None:
        """Return the id of the flow run that started this one."""
        task = self.task_runs.get(run.parent_task_run_id or "")
        return task.flow_run_id if task else None

    def add_run(self, run: Run) -> None:
        """Keep a new run; `enter` gives it its first state."""
        self.runs[run.id] = run
        if run.deployment_id:
            self.by_deployment[run.deployment_id][run.id] = run
        if run.parent_task_run_id:
            self.by_parent_task[run.parent_task_run_id] = run
        if run.idempotency_key:
            self.by_key[run.flow_id, run.idempotency_key] = run

    def enter(self, run: Run, state: State) -> None:
        """Put the run into a state."""
        if run.states:
            self.by_type[run.state.type].pop(run.id, None)
        run.states.append(state)
        run.updated = state.timestamp
        self.by_type[state.type][run.id] = run

    def drop_run(self, run_id: str) -> bool:
        """Forget a run and all that hangs on it. Return whether there was one."""
        run = self.runs.pop(run_id, None)
        if run is None:
            return False
        if run.states:
            self.by_type[run.state.type].pop(run_id, None)
        self.by_deployment[run.deployment_id or ""].pop(run_id, None)
        if run.idempotency_key:
            self.by_key.pop((run.flow_id, run.idempotency_key), None)
        for task in self.tasks_of.pop(run_id, {}).values():
            self.task_runs.pop(task.id, None)
        self.inputs.pop(run_id, None)
        self.logs.pop(run_id, None)
        return True

    # -- slots --------------------------------------------------------------------------------------------

    def take_slots(self, limit_ids: tuple[str, ...], slots: int, now: datetime) -> bool:
        """Take slots of every one of these limits, or of none. Return whether they were taken."""
        wanted = [self.limits[limit_id] for limit_id in limit_ids]
        if any(limit["active_slots"] + slots > limit["limit"] for limit in wanted):
            return False
        for limit in wanted:
            limit["active_slots"] += slots
            limit["updated"] = text_of(now)
        return True

    def give_slots(self, limit_ids: tuple[str, ...], slots: int, now: datetime) -> None:
        """Give slots back; a limit never has fewer than none in use."""
        for limit_id in limit_ids:
            if limit := self.limits.get(limit_id):
                limit["active_slots"] = max(0, limit["active_slots"] - slots)
                limit["updated"] = text_of(now)

    def new_lease(
        self, limit_ids: tuple[str, ...], slots: int, expires: datetime, holder: Json | None, now: datetime
    ) -> Lease:
        """Keep a lease on slots that were taken."""
        lease = Lease(id=self.new_id(now), limit_ids=limit_ids, slots=slots, expires=expires, holder=holder)
        self.leases[lease.id] = lease
        return lease

    def renew_lease(self, lease_id: str, expires: datetime, now: datetime) -> bool:
        """Let a lease expire later. Return whether it stood."""
        lease = self.leases.get(lease_id)
        if lease is None or lease.expires <= now:
            return False
        lease.expires = expires
        return True

    def end_lease(self, lease_id: str, now: datetime) -> bool:
        """End a lease and give its slots back. Return whether there was one."""
        lease = self.leases.pop(lease_id, None)
        if lease is not None:
            self.give_slots(lease.limit_ids, lease.slots, now)
        return lease is not None
