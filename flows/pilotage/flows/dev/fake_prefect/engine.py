"""How runs are made and moved: proposals of states, what follows from them, and what Prefect's services do by themselves.

The services are not loops. What a service would find at some time is entered in the agenda when it comes about, so
that a month of simulated time costs what happens in it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pilotage.flows.dev.fake_prefect.clock import Agenda
from pilotage.flows.dev.fake_prefect.filters import BadRequest, unprocessable
from pilotage.flows.dev.fake_prefect.records import (
    NO_DETAILS,
    NO_POLICY,
    STATE_TYPES,
    Json,
    Run,
    State,
    TaskRun,
    moment_of,
    text_of,
)
from pilotage.flows.dev.fake_prefect.rules import (
    FLOW_RULES,
    FORCED_RULES,
    LATE_RULES,
    Proposed,
    Row,
    Ruling,
    Transition,
    ruling_on,
)
from pilotage.flows.dev.fake_prefect.tables import Tables
from pilotage.flows.dev.fake_prefect.work import mark_not_ready

LATE_AFTER = timedelta(seconds=15)
LATE_EVERY = timedelta(seconds=5)
PAUSES_EVERY = timedelta(seconds=5)
FOREMAN_EVERY = timedelta(seconds=15)
LEASES_EVERY = timedelta(seconds=15)
CANCELLING_FOR = timedelta(seconds=300)
"""How long a run may be Cancelling before Prefect calls it Cancelled itself."""
_TICK = timedelta(microseconds=1)


def proposed_from(body: Any) -> Proposed:
    """Return the state that a body proposes. Raises BadRequest when it is none."""
    known = {"type", "name", "message", "data", "state_details"}
    if not isinstance(body, dict) or body.get("type") not in STATE_TYPES:
        raise unprocessable(f"state.type: Input should be one of {', '.join(sorted(STATE_TYPES))}")
    if unknown := set(body) - known:
        raise unprocessable(f"state.{min(unknown)}: Extra inputs are not permitted")
    details = {
        key: value
        for key, value in (body.get("state_details") or {}).items()
        if key in NO_DETAILS and value != NO_DETAILS[key]
    }
    for key in ("scheduled_time", "pause_timeout"):
        if key in details:
            try:
                details[key] = text_of(moment_of(details[key]))
            except (TypeError, ValueError) as exc:
                raise unprocessable(f"state.state_details.{key}: Input should be a valid datetime") from exc
    name = body.get("name") or body["type"].capitalize()
    return Proposed(
        type=body["type"], name=name, message=body.get("message"), data=body.get("data"), details=details
    )


class Engine:
    """The part of the server that knows what a state means."""

    def __init__(self, tables: Tables, agenda: Agenda, started: datetime) -> None:
        self.tables = tables
        self.agenda = agenda
        self.started = started
        self.watchers: list[Callable[[Run, State], None]] = []
        """Told of every state that a flow run enters."""

    # -- flow runs ----------------------------------------------------------------------------------------

    def propose(
        self, run: Run, proposed: Proposed, now: datetime, rules: tuple[Row, ...] = FLOW_RULES
    ) -> Ruling:
        """Put the run into the proposed state, or into another, or leave it; return what was said to it."""
        if proposed.type == "SCHEDULED" and "scheduled_time" not in proposed.details:
            proposed.details["scheduled_time"] = text_of(now)
        transition = Transition(tables=self.tables, run=run, initial=run.state, proposed=proposed, now=now)
        ruling = ruling_on(transition, rules)
        if ruling.status == "ACCEPT":
            for work in transition.then:
                work()
            self._enter(run, proposed, now, kept=False)
            for work in transition.afterwards:
                work()
        elif ruling.instead is not None:
            self._enter(run, ruling.instead, now, kept=ruling.instead.name == "AwaitingRetry")
        return ruling

    def answer(self, run: Run, proposed: Proposed, now: datetime, *, force: bool) -> Json:
        """Propose a state and return the reply of `set_state`."""
        ruling = self.propose(run, proposed, now, FORCED_RULES if force else FLOW_RULES)
        kind = {"ACCEPT": "accept", "REJECT": "reject", "ABORT": "abort", "WAIT": "wait"}[ruling.status]
        details: Json = {"type": f"{kind}_details"}
        if ruling.status != "ACCEPT":
            details["reason"] = ruling.reason
        if ruling.status == "WAIT":
            details["delay_seconds"] = ruling.delay
        return {"state": run.state.reply(), "status": ruling.status, "details": details}

    def new_run(self, run: Run, first: Proposed, now: datetime) -> Run:
        """Keep a new run and put it into its first state, or return the one with the same idempotency key."""
        if run.idempotency_key and (same := self.tables.by_key.get((run.flow_id, run.idempotency_key))):
            return same
        self.tables.add_run(run)
        if first.type == "SCHEDULED" and "scheduled_time" not in first.details:
            first.details["scheduled_time"] = text_of(now)
        self._enter(run, first, now, kept=False)
        return run

    def _enter(self, run: Run, proposed: Proposed, now: datetime, *, kept: bool) -> None:
        """Write the state, and everything that Prefect's global rules change with it.

        `kept`: the run retries in its process and keeps its deployment's slot.
        """
        before = run.state if run.states else None
        # no two states of a run have one time, so that their order is told by it
        at = max(now, before.timestamp + _TICK) if before else now
        details = {**proposed.details, "flow_run_id": run.id}
        if run.parent_task_run_id:
            details["task_run_id"] = run.parent_task_run_id
        state = State(
            id=self.tables.new_id(now),
            type=proposed.type,
            name=proposed.name,
            timestamp=at,
            message=proposed.message,
            data=proposed.data,
            details=details,
        )
        self._count(run, before, state)
        self.tables.enter(run, state)
        if before is not None and not kept:
            self._release(run, before, state, now)
        if task := self.tables.task_runs.get(run.parent_task_run_id or ""):
            self._enter_task(task, Proposed(type=state.type, name=state.name, message=state.message), now)
        self._foresee(run, state)
        self.emit_state(run, before, state)
        for watcher in self.watchers:
            watcher(run, state)

    @staticmethod
    def _count(run: Run, before: State | None, state: State) -> None:
        if state.type == "RUNNING":
            run.start_time = run.start_time or state.timestamp
            run.run_count += 0 if run.policy["resuming"] else 1
        if before is not None and before.ended and not state.ended:
            run.end_time = None
        if state.ended and run.end_time is None:
            run.start_time = run.start_time or state.timestamp
            run.end_time = state.timestamp
        if before is not None and before.type == "RUNNING":
            run.total_run_time += state.timestamp - before.timestamp
        if run.policy["resuming"] and (state.type == "RUNNING" or state.ended):
            run.policy = run.policy | {"resuming": False}
        scheduled = state.scheduled_time if state.type == "SCHEDULED" else None
        run.expected_start_time = run.expected_start_time or scheduled or state.timestamp
        if state.type == "SCHEDULED" or (before is not None and before.type == "SCHEDULED"):
            run.next_scheduled_start_time = scheduled

    def _release(self, run: Run, before: State, state: State, now: datetime) -> None:
        """Give the deployment's slot back as the run leaves what holds one."""
        holding = ("RUNNING", "CANCELLING", "PENDING")
        if before.type not in holding or state.type in holding or not run.deployment_id:
            return
        limit = self.tables.limit_of_deployment(run.deployment_id)
        if before.lease_id and self.tables.end_lease(before.lease_id, now):
            return
        # without its lease, a slot is given back all the same: it may be another run's
        if limit is not None:
            self.tables.give_slots((limit["id"],), 1, now)

    def _foresee(self, run: Run, state: State) -> None:
        """Enter in the agenda what a service would find once time has passed."""
        due = state.scheduled_time
        if state.type == "SCHEDULED" and state.name == "Scheduled" and due is not None:
            self._later(
                run, state, self._looked_at(max(due + LATE_AFTER, state.timestamp), LATE_EVERY), self._late
            )
        timeout = moment_of(state.details.get("pause_timeout"))
        if state.type == "PAUSED" and timeout is not None:
            self._later(run, state, self._looked_at(timeout + _TICK, PAUSES_EVERY), self._never_resumed)
        if state.type == "CANCELLING":
            self._later(run, state, state.timestamp + CANCELLING_FOR, self._cancelled_at_last)
        if state.type == "CANCELLED":
            self._later(run, state, state.timestamp, self._cancel_children)

    def _looked_at(self, moment: datetime, every: timedelta) -> datetime:
        """Return when a service that looks so often looks first after a moment."""
        return moment + (self.started - moment) % every

    def _later(self, run: Run, state: State, at: datetime, work: Callable[[Run, datetime], None]) -> None:
        def when_due(moment: datetime) -> None:
            if run.states and run.state is state and run.id in self.tables.runs:
                work(run, moment)

        self.agenda.at(at, when_due)

    def _late(self, run: Run, now: datetime) -> None:
        due = {"scheduled_time": text_of(run.next_scheduled_start_time)}
        self.propose(run, Proposed(type="SCHEDULED", name="Late", details=due), now, LATE_RULES)

    def _never_resumed(self, run: Run, now: datetime) -> None:
        failed = Proposed(type="FAILED", name="Failed", message="The flow was paused and never resumed.")
        self.propose(run, failed, now, FORCED_RULES)

    def _cancelled_at_last(self, run: Run, now: datetime) -> None:
        said = "The flow run was cancelled, but its infrastructure did not say that it ended."
        self.propose(run, Proposed(type="CANCELLED", name="Cancelled", message=said), now, FORCED_RULES)

    def _cancel_children(self, run: Run, now: datetime) -> None:
        said = "The parent flow run was cancelled."
        for task in list(self.tables.tasks_of.get(run.id, {}).values()):
            child = self.tables.by_parent_task.get(task.id)
            if child is not None and not child.state.ended and child.state.type != "CANCELLING":
                kind = "CANCELLING" if child.deployment_id else "CANCELLED"
                self.propose(child, Proposed(type=kind, name=kind.capitalize(), message=said), now)
            if task.states and not task.states[-1].ended and child is None:
                self._enter_task(task, Proposed(type="CANCELLED", name="Cancelled", message=said), now)

    def keep_ready(self) -> None:
        """Let Prefect's foreman see what is not served any more, for as long as the server runs."""
        work = partial(mark_not_ready, self.tables)
        self.agenda.every(FOREMAN_EVERY, self.started + FOREMAN_EVERY, work)

    def keep_leases(self) -> None:
        """Let Prefect's service end leases that expired, for as long as the server runs."""
        self.agenda.every(LEASES_EVERY, self.started + LEASES_EVERY, self._end_expired_leases)

    def _end_expired_leases(self, now: datetime) -> None:
        for lease in [lease for lease in self.tables.leases.values() if lease.expires <= now]:
            self.tables.end_lease(lease.id, now)

    # -- task runs ----------------------------------------------------------------------------------------

    def new_task_run(self, body: Json, now: datetime) -> TaskRun:
        """Return the task run of a body: a new one, or the one of the same flow run, task and dynamic key."""
        run_id, key, dynamic = body.get("flow_run_id"), body["task_key"], body["dynamic_key"]
        for known in self.tables.tasks_of.get(run_id or "", {}).values():
            if (known.task_key, known.dynamic_key) == (key, dynamic):
                return known
        task = TaskRun(
            id=str(body.get("id") or self.tables.new_id(now)),
            name=body.get("name") or f"{key}-{dynamic}",
            task_key=key,
            dynamic_key=dynamic,
            flow_run_id=run_id,
            tags=list(body.get("tags") or ()),
            created=now,
            updated=now,
        )
        self.tables.task_runs[task.id] = task
        if run_id:
            self.tables.tasks_of[run_id][task.id] = task
        self._enter_task(task, proposed_from(body.get("state") or {"type": "PENDING"}), now)
        return task

    def answer_task(self, task: TaskRun, proposed: Proposed, now: datetime) -> Json:
        """Put a task run into a state and return the reply of `set_state`."""
        self._enter_task(task, proposed, now)
        return {"state": task.states[-1].reply(), "status": "ACCEPT", "details": {"type": "accept_details"}}

    def _enter_task(self, task: TaskRun, proposed: Proposed, now: datetime) -> None:
        details = {**proposed.details, "flow_run_id": task.flow_run_id, "task_run_id": task.id}
        state = State(
            id=self.tables.new_id(now),
            type=proposed.type,
            name=proposed.name,
            timestamp=now,
            message=proposed.message,
            data=proposed.data,
            details=details,
        )
        if task.states and task.states[-1].type == "RUNNING":
            task.total_run_time += now - task.states[-1].timestamp
        if state.type == "RUNNING":
            task.run_count += 1
            task.start_time = task.start_time or now
        task.end_time = now if state.ended else None
        task.expected_start_time = task.expected_start_time or now
        task.updated = now
        task.states.append(state)

    # -- events -------------------------------------------------------------------------------------------

    def emit_state(self, run: Run, before: State | None, state: State) -> None:
        """Keep the event that Prefect makes of a state."""
        self.emit(
            {
                "id": state.id,
                "occurred": text_of(state.timestamp),
                "event": f"prefect.flow-run.{state.name}",
                "resource": {
                    "prefect.resource.id": f"prefect.flow-run.{run.id}",
                    "prefect.resource.name": run.name,
                    "prefect.run-count": str(run.run_count),
                    "prefect.state-message": state.message or "",
                    "prefect.state-name": state.name,
                    "prefect.state-timestamp": text_of(state.timestamp),
                    "prefect.state-type": state.type,
                },
                "related": self.related_to(run),
                "payload": {
                    "intended": {"from": before.type if before else None, "to": state.type},
                    "initial_state": _short(before),
                    "validated_state": _short(state),
                },
            },
            state.timestamp,
        )

    def related_to(self, run: Run) -> list[Json]:
        """Return the resources that belong to a run, as its events name them."""
        upcoming: list[tuple[str, Json | None]] = [
            ("flow", self.tables.flows.get(run.flow_id)),
            ("deployment", self.tables.deployments.get(run.deployment_id or "")),
            ("work-queue", queue := self.tables.queue_of(run)),
            ("work-pool", self.tables.pools.get(queue["work_pool_name"]) if queue else None),
        ]
        related = [
            {
                "prefect.resource.id": f"prefect.{role}.{row['id']}",
                "prefect.resource.role": role,
                "prefect.resource.name": row["name"],
            }
            for role, row in upcoming
            if row is not None
        ]
        tags = [
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
            for tag in sorted(run.tags)
        ]
        return related + tags

    def emit(self, event: Json, now: datetime) -> None:
        """Keep an event; one that is known by its id stays as it was."""
        if not event.get("event") or "prefect.resource.id" not in (event.get("resource") or {}):
            raise unprocessable("event.resource: resources must include the prefect.resource.id label")
        event_id = str(event.get("id") or self.tables.new_id(now))
        self.tables.events.setdefault(
            event_id,
            {
                "occurred": event.get("occurred") or text_of(now),
                "event": event["event"],
                "resource": event["resource"],
                "related": list(event.get("related") or ()),
                "payload": event.get("payload") or {},
                "id": event_id,
                "account": "00000000-0000-0000-0000-000000000000",
                "workspace": "00000000-0000-0000-0000-000000000000",
                "follows": event.get("follows"),
                "received": text_of(now),
            },
        )


def _short(state: State | None) -> Json | None:
    if state is None:
        return None
    return {"type": state.type, "name": state.name, "message": state.message or ""}


def policy_from(body: Json | None) -> Json:
    """Return an `empirical_policy` with its defaults; what Prefect does not know is dropped, as it drops it."""
    return NO_POLICY | {key: value for key, value in (body or {}).items() if key in NO_POLICY}


def not_found(what: str) -> BadRequest:
    """Return the error for what does not exist."""
    return BadRequest(404, f"{what} not found")
