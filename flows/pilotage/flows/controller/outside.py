"""What the controller touches of the world outside, as one value: a simulated world is another such value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from pilotage.flows.api.server import ApiServer
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.controller.supervisor import keep_agent
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import Guard
from pilotage.telemetry.prefect.http import PrefectReader, api_address, events_as_they_happen
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.times import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStart:
    """What the agent needs to begin, and what runs beside it."""

    paths: StatePaths
    token: str
    """The agent's own, for the API."""
    watch_from: datetime
    """From when on failures are taken up."""
    stop: asyncio.Event
    say: Callable[[str], None]
    api: ApiServer
    """The control API; the agent's process asks it through its socket."""
    store: DuckDBStore
    """The telemetry; the agent's process reads it through its socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Prefect behind each of its guards: whoever gets one of them may do with it what its guard admits."""

    reading: PrefectApi
    """For facts about targets, and whatever else looks only."""
    notices: PrefectApi
    """For pilotage's own events and artifacts."""
    levers: PrefectApi
    """For levers, while one of them delivers what was admitted."""


async def _agent_process(start: AgentStart) -> None:
    await keep_agent(start.paths, start.token, start.watch_from, start.stop, start.say)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The time, Prefect, the pager, and where the agent runs. The defaults are the real ones."""

    clock: Callable[[], datetime] = utc_now
    """The time, aware, in UTC. All of the control plane asks this one clock."""
    address: Callable[[], str] = api_address
    """Prefect's address, without a password."""
    reader: Callable[[], PrefectReader] = PrefectReader
    """Opens Prefect for reading, as the collector does."""
    events: Callable[[Callable[[], None]], AsyncIterator[dict[str, Any]]] = events_as_they_happen
    """Prefect's event stream; see `events_as_they_happen`."""
    prefect: Callable[[Guard], PrefectApi] | None = None
    """Opens Prefect behind a guard; None for the active profile's."""
    webhook: Callable[[], httpx.AsyncBaseTransport] | None = None
    """Makes what carries a call to the webhook; None for the network."""
    store: Callable[[Path], DuckDBStore] = DuckDBStore
    """Opens the telemetry store. Raises StoreError."""
    agent: Callable[[AgentStart], Awaitable[None]] = _agent_process
    """Keeps the agent going until it is told to stop."""

    def open_prefect(self, guard: Guard) -> PrefectApi:
        """Return Prefect's API behind this guard. Raises OrchestratorError when no address is set."""
        if self.prefect:
            return self.prefect(guard)
        return PrefectApi.from_prefect_settings(clock=self.clock, guard=guard)
