"""Copies what Prefect's API says into the store, page by page: runs with their names, logs, task runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from pilotage.telemetry.facts import DeploymentFact, LogLine, RunFact
from pilotage.telemetry.prefect.http import PrefectReader
from pilotage.telemetry.prefect.models import deployment_fact, log_line, run_fact, task_run_fact
from pilotage.telemetry.redaction import LineStream
from pilotage.telemetry.store.duckdb import DuckDBStore

LAST_LINES = 50
"""Lines of any level that are kept from the end of a run, beside all warnings and worse."""

MOST_STREAMS = 1_000
"""Runs whose key block has begun and not ended that are remembered."""


class RunSync:
    """Writes into one store. Remembers the names of flows and deployments, which runs only refer to by id."""

    def __init__(self, store: DuckDBStore) -> None:
        self._store = store
        self._flows: dict[str, str] = {}
        self._deployments: dict[str, str] = {}
        self._streams: dict[tuple[str, str], LineStream] = {}

    async def run_facts(self, reader: PrefectReader, rows: list[dict[str, Any]]) -> list[RunFact]:
        """The facts that rows of `/flow_runs/filter` stand for; deployments that are met for the first time are stored."""
        await self._learn_names(reader, rows)
        return [
            run_fact(
                row,
                flow_name=self._flows.get(str(row.get("flow_id")), ""),
                deployment_name=self._deployments.get(str(row.get("deployment_id"))),
            )
            for row in rows
        ]

    async def _learn_names(self, reader: PrefectReader, rows: Iterable[Mapping[str, Any]]) -> None:
        flows = {str(row["flow_id"]) for row in rows if row.get("flow_id")} - set(self._flows)
        for flow in await reader.by_id("/flows/filter", "flows", sorted(flows)):
            self._flows[str(flow["id"])] = str(flow["name"])
        missing = {str(row["deployment_id"]) for row in rows if row.get("deployment_id")}
        missing -= set(self._deployments)
        if deployments := await reader.by_id("/deployments/filter", "deployments", sorted(missing)):
            # a run is never known without what governs it, however seldom that is asked for
            facts = await self.deployment_facts(reader, deployments)
            await asyncio.to_thread(self._store.merge_deployments, facts)

    async def run_logs(self, reader: PrefectReader, run_id: str) -> int:
        """How many lines were new of a run's warnings and its last lines."""
        own = {"flow_run_id": {"any_": [run_id]}}
        new = await self.logs(reader, {**own, "level": {"ge_": 30}})
        last = await reader.page("/logs/filter", {"logs": own}, limit=LAST_LINES, sort="TIMESTAMP_DESC")
        return new + await self._keep_logs(last)

    async def logs(self, reader: PrefectReader, wanted: Mapping[str, Any]) -> int:
        """How many lines were new of those that a filter gives."""
        new = 0
        async for rows in reader.pages("/logs/filter", {"logs": wanted}, sort="TIMESTAMP_ASC"):
            new += await self._keep_logs(rows)
        return new

    async def _keep_logs(self, rows: list[dict[str, Any]]) -> int:
        lines = self._redacted(rows)
        return await asyncio.to_thread(self._store.add_logs, lines)

    def _redacted(self, rows: list[dict[str, Any]]) -> list[LogLine]:
        """The lines in the order of time, each run's as one stream: a key block may be spread over several."""
        by_stream: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            key = (str(row.get("flow_run_id")), str(row.get("task_run_id")))
            by_stream.setdefault(key, []).append(row)
        lines: list[LogLine] = []
        for key, own in by_stream.items():
            own.sort(key=lambda row: str(row.get("timestamp")))
            stream = self._streams.pop(key, None) or LineStream()
            messages = stream.redacted([str(row.get("message") or "") for row in own])
            if stream.inside:
                self._streams[key] = stream
                while len(self._streams) > MOST_STREAMS:
                    del self._streams[next(iter(self._streams))]
            lines += [
                line
                for row, text in zip(own, messages, strict=True)
                if (line := log_line(row, text)) is not None
            ]
        return lines

    async def task_runs(self, reader: PrefectReader, wanted: Mapping[str, Any]) -> None:
        """Stores the task runs that a filter gives."""
        async for rows in reader.pages("/task_runs/filter", wanted):
            await asyncio.to_thread(self._store.merge_task_runs, [task_run_fact(row) for row in rows])

    async def deployment_facts(
        self, reader: PrefectReader, rows: list[dict[str, Any]]
    ) -> list[DeploymentFact]:
        """The facts that rows of `/deployments/filter` stand for; their names are remembered, nothing is stored."""
        await self._learn_names(reader, [{"flow_id": row.get("flow_id")} for row in rows])
        facts = [deployment_fact(row, flow_name=self._flows.get(str(row.get("flow_id")), "")) for row in rows]
        self._deployments.update({fact.deployment_id: fact.name for fact in facts})
        return facts
