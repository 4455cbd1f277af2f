"""Reads from the Prefect server what the doctor looks at. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.flows.doctor.facts import DeploymentFacts, PoolFacts, QueueFacts, ServerFacts
from pilotage.flows.prefect.http import PrefectHttpClient
from pilotage.flows.prefect.models import moment

PAGE = 200
"""Rows in one page; Prefect refuses more."""
AT_ONCE = 8
"""Work pools that are asked about at the same time."""
BACK = timedelta(days=1)
"""How far back heartbeats and long runs are looked for."""
LONG = timedelta(minutes=7)
"""A run of this length sends at least two heartbeats at Prefect's own interval of three minutes."""
HEARTBEAT = "prefect.flow-run.heartbeat"


class KeyRefusedError(Exception):
    """The server is there and refuses the credential."""


class ServerReader(PrefectHttpClient):
    """The routes that the doctor reads. Every method raises OrchestratorError."""

    async def version(self) -> str:
        """Return the server's version. Raises KeyRefusedError when it answers and refuses the credential."""
        answer = await self._send("GET", "/admin/version", none_on=(401, 403))
        if answer is None:
            raise KeyRefusedError
        return str(await self._read("GET", "/admin/version", lambda reply: reply))

    async def read(self, version: str) -> ServerFacts:
        """Return everything that the checks of the server are made of."""
        flows, deployments, pools, beat, long_runs = await asyncio.gather(
            self._flow_names(), self._rows("deployments"), self._pools(), self._heartbeat(), self._long_runs()
        )
        return ServerFacts(
            version=version,
            deployments=tuple(_deployment(row, flows) for row in deployments),
            pools=pools,
            last_heartbeat=beat,
            long_runs=long_runs,
        )

    async def deployments(self) -> tuple[DeploymentFacts, ...]:
        """Return every deployment."""
        flows, rows = await asyncio.gather(self._flow_names(), self._rows("deployments"))
        return tuple(_deployment(row, flows) for row in rows)

    async def pool_count(self) -> int:
        """Return how many work pools there are."""
        return len(await self._rows("work_pools"))

    async def _flow_names(self) -> dict[str, str]:
        return {row["id"]: row["name"] for row in await self._rows("flows")}

    async def _rows(self, kind: str, within: str = "", **wanted: Any) -> list[Mapping[str, Any]]:
        return [row async for page in self._pages(f"{within}/{kind}/filter", wanted) for row in page]

    async def _pages(self, route: str, wanted: Mapping[str, Any]) -> AsyncIterator[list[Mapping[str, Any]]]:
        offset = 0
        while True:
            body = {**wanted, "limit": PAGE, "offset": offset}
            rows: list[Mapping[str, Any]] = await self._read("POST", route, list, json=body)
            yield rows
            if len(rows) < PAGE:
                return
            offset += PAGE

    async def _pools(self) -> tuple[PoolFacts, ...]:
        limit = asyncio.Semaphore(AT_ONCE)

        async def one_pool(row: Mapping[str, Any]) -> PoolFacts:
            async with limit:
                within = f"/work_pools/{row['name']}"
                workers, queues = await asyncio.gather(
                    self._rows("workers", within), self._rows("queues", within)
                )
            return _pool(row, workers, queues)

        return tuple(await asyncio.gather(*(one_pool(row) for row in await self._rows("work_pools"))))

    async def _heartbeat(self) -> datetime | None:
        now = datetime.now(UTC)
        wanted = {
            "event": {"name": [HEARTBEAT]},
            "occurred": {"since": (now - BACK).isoformat(), "until": now.isoformat()},
        }
        events = await self._read(
            "POST", "/events/filter", lambda reply: reply["events"], json={"filter": wanted, "limit": 1}
        )
        return moment(events[0]["occurred"]) if events else None

    async def _long_runs(self) -> int:
        """Runs of the last day that lasted `LONG`, among the newest page of those that ended and those that run."""
        now = datetime.now(UTC)
        ended = {"end_time": {"after_": (now - BACK).isoformat()}}
        running = {
            "state": {"type": {"any_": ["RUNNING"]}},
            "start_time": {"before_": (now - LONG).isoformat(), "after_": (now - BACK).isoformat()},
        }
        counts = []
        for wanted in (ended, running):
            body = {"flow_runs": wanted, "limit": PAGE, "sort": "END_TIME_DESC"}
            rows: list[Mapping[str, Any]] = await self._read("POST", "/flow_runs/filter", list, json=body)
            counts.append(sum(1 for row in rows if wanted is running or _lasted(row) >= LONG))
        return sum(counts)


def _lasted(row: Mapping[str, Any]) -> timedelta:
    return timedelta(seconds=float(row.get("total_run_time") or 0))


def _deployment(row: Mapping[str, Any], flows: Mapping[str, str]) -> DeploymentFacts:
    return DeploymentFacts(
        name=f"{flows.get(row['flow_id'], 'unknown')}/{row['name']}",
        tags=tuple(row.get("tags") or ()),
        pool=row.get("work_pool_name") or "",
        queue=row.get("work_queue_name") or "",
        paused=bool(row.get("paused")),
    )


def _pool(
    row: Mapping[str, Any], workers: list[Mapping[str, Any]], queues: list[Mapping[str, Any]]
) -> PoolFacts:
    template = row.get("base_job_template") or {}
    variables = (template.get("variables") or {}).get("properties") or {}
    return PoolFacts(
        name=row["name"],
        type=row["type"],
        paused=bool(row.get("is_paused")),
        variables=tuple(variables),
        workers_online=sum(1 for worker in workers if worker.get("status") == "ONLINE"),
        queues=tuple(QueueFacts(name=queue["name"], status=queue.get("status") or "") for queue in queues),
    )
