"""Offers the routes of Prefect's REST API that levers, target facts and notices use.

The raw routes are used because Prefect's Python client overwrites `transition_id`, which is what makes our
writes recognisable, and has no guarded write. Nothing here ever sends `force`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.prefect.holders import HolderRoutes
from pilotage.flows.prefect.http import TRIES as TRIES
from pilotage.flows.prefect.http import each_of as _each
from pilotage.flows.prefect.http import refusal as refusal
from pilotage.flows.prefect.http import translate as translate
from pilotage.flows.prefect.models import DeploymentView, PoolView, QueueView, RunView, StateView, Transition
from pilotage.flows.prefect.steering import SteeringRoutes
from pilotage.telemetry.facts import StateType

PAGE = 200
"""Rows in one page; Prefect refuses more."""
BULK = 50
"""Runs to which one call proposes a state; Prefect refuses more."""


class PrefectApi(SteeringRoutes, HolderRoutes):
    """Prefect's REST API, for one event loop at a time. Every method raises OrchestratorError only."""

    # -- runs ---------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> RunView:
        """The flow run as it is now."""
        return await self._read("GET", f"/flow_runs/{run_id}", RunView.read)

    async def history(self, run_id: str) -> tuple[StateView, ...]:
        """Every state of the run, oldest first."""
        states = await self._read(
            "GET", "/flow_run_states/", _each(StateView.read), params={"flow_run_id": run_id}
        )
        return tuple(sorted(states, key=lambda state: state.at))

    async def runs(self, where: Mapping[str, Any], *, limit: int = PAGE) -> tuple[RunView, ...]:
        """The runs that Prefect's `FlowRunFilter` finds, next to start first."""
        body = {"flow_runs": where, "limit": limit, "sort": "NEXT_SCHEDULED_START_TIME_ASC"}
        return await self._read("POST", "/flow_runs/filter", _each(RunView.read), json=body)

    async def runs_of_queue(
        self, pool: str, queue: str, where: Mapping[str, Any], *, limit: int = PAGE
    ) -> tuple[RunView, ...]:
        """The runs of one queue of one pool that the filter finds, latest start first."""
        body = {
            "flow_runs": where,
            "work_pools": {"name": {"any_": [pool]}},
            "work_pool_queues": {"name": {"any_": [queue]}},
            "limit": limit,
            "sort": "START_TIME_DESC",
        }
        return await self._read("POST", "/flow_runs/filter", _each(RunView.read), json=body)

    async def set_state(
        self,
        run_id: str,
        type_: StateType,
        name: str,
        *,
        message: str,
        idempotency_key: str,
        scheduled_for: datetime | None = None,
    ) -> Transition:
        """The ruling on a proposed state, whatever the run's present one. Prefer `set_state_if`."""
        body = {"state": _state(type_, name, message, idempotency_key, scheduled_for), "force": False}
        return await self._read("POST", f"/flow_runs/{run_id}/set_state", Transition.read, json=body)

    async def set_state_if(
        self,
        run_id: str,
        among: Sequence[StateType],
        type_: StateType,
        name: str,
        *,
        message: str,
        idempotency_key: str,
        scheduled_for: datetime | None = None,
        due_after: datetime | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Transition:
        """The ruling on a proposed state, made only if the run is `among` these state types.

        With `due_after` it must also be scheduled for later than that. Ruling `NONE` when it is not so.
        Prefect filters and writes in two transactions: a window of milliseconds stays open, so verify.
        """
        where: dict[str, Any] = {"id": {"any_": [run_id]}, "state": {"type": {"any_": list(among)}}}
        if due_after is not None:
            where["next_scheduled_start_time"] = {"after_": due_after.isoformat()}
        state = _state(type_, name, message, idempotency_key, scheduled_for)
        state["state_details"] |= dict(details or {})
        body = {"flow_runs": where, "state": state, "force": False, "limit": 1}

        def first(reply: Any) -> Transition:
            results = reply["results"]
            return Transition.read(results[0]) if results else Transition(ruling="NONE", state=None)

        return await self._read("POST", "/flow_runs/bulk_set_state", first, json=body)

    async def set_states_if(
        self,
        run_ids: Sequence[str],
        among: Sequence[StateType],
        type_: StateType,
        name: str,
        *,
        message: str,
        idempotency_key: str,
        scheduled_for: datetime | None = None,
    ) -> dict[str, Transition]:
        """The rulings, by run id, on one state proposed for at most `BULK` runs; a run that is not `among` has none.

        Prefect finds them all first and writes one after the other, for seconds where it is busy: for runs that
        nobody can take up meanwhile.
        """
        where = {"id": {"any_": list(run_ids)}, "state": {"type": {"any_": list(among)}}}
        state = _state(type_, name, message, idempotency_key, scheduled_for)
        body = {"flow_runs": where, "state": state, "force": False, "limit": BULK}

        def each(reply: Any) -> dict[str, Transition]:
            return {transition["flow_run_id"]: Transition.read(transition) for transition in reply["results"]}

        return await self._read("POST", "/flow_runs/bulk_set_state", each, json=body)

    async def set_job_variables(self, run_id: str, variables: Mapping[str, Any]) -> None:
        """Replace the run's job variables. The run must be SCHEDULED."""
        await self._send("PATCH", f"/flow_runs/{run_id}", json={"job_variables": dict(variables)})

    async def add_labels(self, run_id: str, labels: Mapping[str, str | int | float | bool]) -> None:
        """Add these labels to those the run has."""
        await self._send("PATCH", f"/flow_runs/{run_id}/labels", json=dict(labels))

    # -- pools and queues ---------------------------------------------------------------------------------

    async def pool(self, name: str) -> PoolView:
        """The work pool."""
        return await self._read("GET", f"/work_pools/{name}", PoolView.read)

    async def queues(self, pool: str) -> tuple[QueueView, ...]:
        """Every queue of the pool, first served first."""
        found = await self._read("POST", f"/work_pools/{pool}/queues/filter", _each(QueueView.read), json={})
        return tuple(sorted(found, key=lambda queue: queue.priority))

    async def set_queue_limit(self, pool: str, queue: str, limit: int | None) -> None:
        """Set the concurrency limit of the queue; None removes it."""
        await self._send("PATCH", f"/work_pools/{pool}/queues/{queue}", json={"concurrency_limit": limit})

    async def set_queue_paused(self, pool: str, queue: str, paused: bool) -> None:
        """Pause the queue, or resume it."""
        await self._send("PATCH", f"/work_pools/{pool}/queues/{queue}", json={"is_paused": paused})

    # -- deployments --------------------------------------------------------------------------------------

    async def deployment(self, deployment_id: str) -> DeploymentView:
        """The deployment."""
        return await self._read("GET", f"/deployments/{deployment_id}", DeploymentView.read)

    async def deployments_of_queue(
        self, pool: str, queue: str, *, limit: int = PAGE
    ) -> tuple[DeploymentView, ...]:
        """The deployments whose runs go to this queue, or to any queue of the pool when it is empty, at most `limit`."""
        body: dict[str, Any] = {"work_pools": {"name": {"any_": [pool]}}, "limit": limit}
        if queue:
            body["work_pool_queues"] = {"name": {"any_": [queue]}}
        return await self._read("POST", "/deployments/filter", _each(DeploymentView.read), json=body)

    async def flow_name(self, flow_id: str) -> str:
        """The name of a flow."""
        return await self._read("GET", f"/flows/{flow_id}", lambda reply: str(reply["name"]))

    async def pause_deployment(self, deployment_id: str) -> None:
        """Pause the deployment: its schedules stop and Prefect deletes its future auto-scheduled runs."""
        await self._send("POST", f"/deployments/{deployment_id}/pause_deployment")

    async def resume_deployment(self, deployment_id: str) -> None:
        """Resume the deployment: its schedules run again and Prefect makes their next runs."""
        await self._send("POST", f"/deployments/{deployment_id}/resume_deployment")
        await self._send("POST", f"/deployments/{deployment_id}/schedule", json={})

    # -- what people see ----------------------------------------------------------------------------------

    async def emit(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Send events to Prefect. An event whose id it has already is kept once."""
        await self._send("POST", "/events", json=[dict(event) for event in events])

    async def event_exists(self, event_id: str, since: datetime) -> bool:
        """Whether the event can be read back; Prefect writes events in batches, seconds later."""
        where = {"id": {"id": [event_id]}, "occurred": {"since": (since - timedelta(minutes=1)).isoformat()}}
        body = {"filter": where, "limit": 1}
        return await self._read("POST", "/events/filter", lambda reply: bool(reply["events"]), json=body)

    async def worker_released(self, run_id: str, since: datetime) -> bool:
        """Whether a worker has reported the end of the run's process since then, as far as events are written.

        Fits `WorkerReleased` of the retry lever. A store that listens to events knows it seconds earlier.
        """
        where = {
            "event": {"name": ["prefect.worker.executed-flow-run"]},
            "related": {"id": [f"prefect.flow-run.{run_id}"]},
            "occurred": {"since": since.isoformat()},
        }
        body = {"filter": where, "limit": 1}
        return await self._read("POST", "/events/filter", lambda reply: bool(reply["events"]), json=body)

    async def put_artifact(self, run_id: str, key: str, markdown: str, *, description: str) -> None:
        """Write an artifact of the run under the key. Prefect keeps earlier versions."""
        body = {
            "key": key,
            "type": "markdown",
            "description": description,
            "data": markdown,
            "flow_run_id": run_id,
        }
        await self._send("POST", "/artifacts/", json=body)

    # -- what has to survive a crash ----------------------------------------------------------------------

    async def variable(self, name: str) -> Any:
        """The value of a Prefect variable, or None."""
        reply = await self._send("GET", f"/variables/name/{name}", none_on=(404,))
        return None if reply is None else reply.json()["value"]

    async def variables_like(self, part: str) -> dict[str, Any]:
        """The Prefect variables whose names contain this."""
        policies: dict[str, Any] = {}
        while True:
            where = {"name": {"like_": f"%{part}%"}}
            body = {"variables": where, "limit": PAGE, "offset": len(policies), "sort": "NAME_ASC"}
            page: dict[str, Any] = await self._read(
                "POST",
                "/variables/filter",
                lambda reply: {each["name"]: each["value"] for each in reply},
                json=body,
            )
            policies.update(page)
            if len(page) < PAGE:
                return policies

    async def set_variable(self, name: str, value: Any) -> None:
        """Set the variable."""
        changed = await self._send("PATCH", f"/variables/name/{name}", json={"value": value}, none_on=(404,))
        if changed is None:
            await self._send("POST", "/variables/", json={"name": name, "value": value, "tags": ["pilotage"]})

    async def delete_variable(self, name: str) -> None:
        """Delete the variable; it need not exist."""
        await self._send("DELETE", f"/variables/name/{name}", none_on=(404,))


def _state(
    type_: StateType, name: str, message: str, idempotency_key: str, scheduled_for: datetime | None
) -> dict[str, Any]:
    details: dict[str, Any] = {"transition_id": idempotency_key}
    if scheduled_for is not None:
        details["scheduled_time"] = scheduled_for.isoformat()
    return {"type": type_.value, "name": name, "message": message, "state_details": details}
