"""Offers the routes that change runs, limits and inputs; `PrefectApi` has all of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from pilotage.flows.prefect.http import PrefectHttpClient, each_of
from pilotage.flows.prefect.models import InputView, LimitView, RunView
from pilotage.telemetry.facts import TERMINAL, StateType, TaskRunFact
from pilotage.telemetry.prefect.models import task_run_fact

_PAGE = 200
"""Rows in one page; Prefect refuses more."""


class SteeringRoutes(PrefectHttpClient):
    """Routes that one family of levers needs each."""

    # -- runs ---------------------------------------------------------------------------------------------

    async def set_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Replace the run's parameters. Prefect takes any, so check them first."""
        await self._send("PATCH", f"/flow_runs/{run_id}", json={"parameters": dict(parameters)})

    async def patch_run(self, run_id: str, fields: Mapping[str, Any]) -> None:
        """Replace these fields of the run, each as a whole: `name`, `parameters`, `tags`, `job_variables`."""
        await self._send("PATCH", f"/flow_runs/{run_id}", json=dict(fields))

    async def set_empirical_policy(self, run_id: str, policy: Mapping[str, Any]) -> None:
        """Replace the run's retry policy as a whole: change a copy of the one that was read."""
        await self._send("PATCH", f"/flow_runs/{run_id}", json={"empirical_policy": dict(policy)})

    async def create_run_of(self, deployment_id: str, body: Mapping[str, Any]) -> RunView:
        """The new run of a deployment, or the one that was made before with the same idempotency key."""
        route = f"/deployments/{deployment_id}/create_flow_run"
        return await self._read("POST", route, RunView.read, json=dict(body))

    async def runs_with_key(self, key: str) -> tuple[RunView, ...]:
        """The runs that were made with this idempotency key."""
        body = {"flow_runs": {"idempotency_key": {"any_": [key]}}, "limit": 2}
        return await self._read("POST", "/flow_runs/filter", each_of(RunView.read), json=body)

    async def children(self, run_id: str) -> tuple[RunView, ...]:
        """The runs that this run started itself."""
        return await self.all_runs({"parent_flow_run_id": {"any_": [run_id]}}, most=1000)

    async def ended_runs(
        self, deployment_id: str, limit: int, among: Collection[StateType] = TERMINAL
    ) -> tuple[RunView, ...]:
        """The runs of a deployment that ended in one of these states, the last that ended first."""
        states = sorted(each.value for each in among)
        where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": states}}}
        body = {"flow_runs": where, "limit": limit, "sort": "END_TIME_DESC"}
        return await self._read("POST", "/flow_runs/filter", each_of(RunView.read), json=body)

    async def all_runs(self, where: Mapping[str, Any], *, most: int) -> tuple[RunView, ...]:
        """The runs that Prefect's `FlowRunFilter` finds, page by page, at most `most`; each of them once."""
        runs: dict[str, RunView] = {}
        for offset in range(0, most, _PAGE):
            # by id, so that runs which move while pages are turned are neither lost nor doubled
            body = {"flow_runs": where, "limit": _PAGE, "offset": offset, "sort": "ID_DESC"}
            page = await self._read("POST", "/flow_runs/filter", each_of(RunView.read), json=body)
            runs.update({run.id: run for run in page})
            if len(page) < _PAGE:
                break
        return tuple(runs.values())[:most]

    # -- task runs ----------------------------------------------------------------------------------------

    async def task_runs_of(self, run_id: str) -> tuple[TaskRunFact, ...]:
        """The newest task runs of all attempts of a run, one page; secrets in their messages are masked."""
        body = {"task_runs": {"flow_run_id": {"any_": [run_id]}}, "limit": _PAGE, "sort": "END_TIME_DESC"}
        return await self._read("POST", "/task_runs/filter", each_of(task_run_fact), json=body)

    async def create_task_run(self, body: Mapping[str, Any]) -> str:
        """The id of the task run; with the same run, task key and dynamic key it is the same one."""
        return await self._read("POST", "/task_runs/", lambda reply: str(reply["id"]), json=dict(body))

    async def end_task_run(self, task_run_id: str, *, message: str) -> None:
        """Set the task run, one of our own making, to Completed."""
        body = {"state": {"type": "COMPLETED", "name": "Completed", "message": message}, "force": False}
        await self._send("POST", f"/task_runs/{task_run_id}/set_state", json=body)

    # -- pools, queues and limits -------------------------------------------------------------------------

    async def set_queue_priority(self, pool: str, queue: str, priority: int) -> None:
        """Set the rank of the queue. Ranks are unique: the queues after it move down."""
        await self._send("PATCH", f"/work_pools/{pool}/queues/{queue}", json={"priority": priority})

    async def set_pool_limit(self, pool: str, limit: int | None) -> None:
        """Set the concurrency limit of the pool; None removes it."""
        await self._send("PATCH", f"/work_pools/{pool}", json={"concurrency_limit": limit})

    async def set_pool_paused(self, pool: str, paused: bool) -> None:
        """Pause the pool, or resume it."""
        await self._send("PATCH", f"/work_pools/{pool}", json={"is_paused": paused})

    async def limit(self, name: str) -> LimitView | None:
        """The global concurrency limit of this name or id, or None. A deployment's is `deployment:ID`."""
        answer = await self._send("GET", f"/v2/concurrency_limits/{name}", none_on=(404,))
        return None if answer is None else LimitView.read(answer.json())

    async def set_limit(self, name: str, limit: int) -> None:
        """Set the size of the global concurrency limit. Never 0: waiting tasks would fail."""
        await self._send("PATCH", f"/v2/concurrency_limits/{name}", json={"limit": limit})

    # -- inputs -------------------------------------------------------------------------------------------

    async def send_input(self, run_id: str, key: str, value: str, *, sender: str) -> bool:
        """Whether the input was put down now; False when one with this key is there already."""
        body = {"key": key, "value": value, "sender": sender}
        return await self._send("POST", f"/flow_runs/{run_id}/input", json=body, none_on=(409,)) is not None

    async def send_answer(self, run_id: str, key: str, answer: Mapping[str, Any], *, sender: str) -> bool:
        """Whether the answer was put down now; False when the run has one already."""
        return await self.send_input(run_id, key, json.dumps(dict(answer)), sender=sender)

    async def input(self, run_id: str, key: str) -> Any:
        """What was put down under this key, from JSON; None when nothing was."""
        answer = await self._send("GET", f"/flow_runs/{run_id}/input/{key}", none_on=(404,))
        return None if answer is None else answer.json()

    async def take_input_back(self, run_id: str, key: str) -> None:
        """Delete the input with this key. Only for inputs that pilotage wrote itself."""
        await self._send("DELETE", f"/flow_runs/{run_id}/input/{key}", none_on=(404,))

    async def inputs(self, run_id: str, prefix: str) -> tuple[InputView, ...]:
        """The run's inputs whose keys begin with this."""
        body = {"prefix": prefix, "limit": 200}
        route = f"/flow_runs/{run_id}/input/filter"
        return await self._read("POST", route, each_of(InputView.read), json=body)
