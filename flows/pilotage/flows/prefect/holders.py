"""Offers the routes that say who holds what in Prefect and when it was last heard; `PrefectApi` has all of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from pilotage.flows.prefect.http import PrefectHttpClient, each_of
from pilotage.flows.prefect.models import EventView, WorkerView, moment
from pilotage.telemetry.facts import LogLine
from pilotage.telemetry.prefect.models import log_line

_SHORTEST_LEASE = 60
"""Seconds; Prefect takes no shorter renewal."""
_LINES_READ = 200
"""Log lines of a run that are read again before it is acted on."""


class HolderRoutes(PrefectHttpClient):
    """Workers, leases, the holders of slots, and what was heard of a run."""

    async def workers(self, pool: str) -> tuple[WorkerView, ...]:
        """The workers that Prefect knows of a pool, at most 200."""
        body = {"limit": 200}
        return await self._read(
            "POST", f"/work_pools/{pool}/workers/filter", each_of(WorkerView.read), json=body
        )

    async def events_about(
        self,
        run_id: str,
        since: datetime,
        *,
        names: Sequence[str] = (),
        prefix: str = "prefect.",
        most: int = 5,
    ) -> tuple[EventView, ...]:
        """The newest events since then on the run or related to it, newest first, at most `most`."""
        name = {"name": list(names)} if names else {"prefix": [prefix]}
        where = {
            "any_resource": {"id": [f"prefect.flow-run.{run_id}"]},
            "event": name,
            "occurred": {"since": since.isoformat()},
            "order": "DESC",
        }
        return await self._events(where, most)

    async def events_between(self, since: datetime, until: datetime) -> tuple[EventView, ...]:
        """One event that happened in that time, whoever's; none when Prefect was told of none."""
        return await self._events(
            {"occurred": {"since": since.isoformat(), "until": until.isoformat()}, "order": "DESC"}, 1
        )

    async def last_log(self, run_id: str) -> datetime | None:
        """When the run last wrote a line."""
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_DESC", "limit": 1}
        return await self._read(
            "POST",
            "/logs/filter",
            lambda reply: moment(reply[0]["timestamp"]) if reply else None,
            json=body,
        )

    async def last_lines(self, run_id: str) -> list[LogLine]:
        """The run's newest lines from WARNING on, oldest first."""
        own = {"flow_run_id": {"any_": [run_id]}, "level": {"ge_": logging.WARNING}}
        body = {"logs": own, "sort": "TIMESTAMP_DESC", "limit": _LINES_READ}
        return await self._read("POST", "/logs/filter", _lines, json=body)

    async def lease_stands(self, lease_id: str) -> bool:
        """Whether Prefect still keeps this lease of a slot. Asking is renewing: it stands for another minute."""
        route = f"/v2/concurrency_limits/leases/{lease_id}/renew"
        body = {"lease_duration": _SHORTEST_LEASE}
        return await self._send("POST", route, json=body, none_on=(httpx.codes.GONE,)) is not None

    async def holders_of_tag(self, tag: str) -> tuple[str, ...]:
        """The ids of the task runs that hold a slot of the tag's limit under a lease that stands."""
        return await self._read(
            "GET",
            f"/concurrency_limits/tag/{tag}",
            lambda reply: tuple(str(each) for each in reply["active_slots"]),
        )

    async def release_holder(self, tag: str, task_run_id: str) -> None:
        """Release the slot that this task run holds in the tag's limit; no other slot is touched."""
        await self._send(
            "POST", "/concurrency_limits/decrement", json={"names": [tag], "task_run_id": task_run_id}
        )

    async def give_back(self, limit: str, slots: int) -> None:
        """Release so many slots of the limit, whoever held them."""
        body = {"names": [limit], "slots": slots}
        await self._send("POST", "/v2/concurrency_limits/decrement", json=body)

    async def run_of_task(self, task_run_id: str) -> str:
        """The id of the flow run that a task run belongs to, or empty."""
        answer = await self._send("GET", f"/task_runs/{task_run_id}", none_on=(404,))
        return "" if answer is None else str(answer.json().get("flow_run_id") or "")

    async def _events(self, where: dict[str, Any], most: int) -> tuple[EventView, ...]:
        def read(reply: Any) -> tuple[EventView, ...]:
            return tuple(EventView.read(each) for each in reply["events"])

        return await self._read("POST", "/events/filter", read, json={"filter": where, "limit": most})


def _lines(reply: Any) -> list[LogLine]:
    return [line for row in reversed(reply) if (line := log_line(row)) is not None]
