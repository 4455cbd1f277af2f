"""Pilotage on the fake Prefect: the whole controller with its agent, in the virtual time of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx

from pilotage.flows.agent import process as agent
from pilotage.flows.api.client import ApiClient
from pilotage.flows.api.server import ApiServer
from pilotage.flows.bench.arms import ArmName
from pilotage.flows.bench.outside import OutsideTransport
from pilotage.flows.bench.pilot import prepared
from pilotage.flows.bench.round import Round
from pilotage.flows.bench.virtual_loop import awaited
from pilotage.flows.config.settings import Settings, load_settings
from pilotage.flows.controller.controller import Controller
from pilotage.flows.controller.outside import AgentStart, Outside
from pilotage.flows.dev.fake_prefect import API_URL
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.checkpoints import MemoryCheckpoints
from pilotage.planner.llm.budget import LlmBudget
from pilotage.planner.llm.protocol import Answer, Reply, Token, Usage
from pilotage.planner.llm.scripted.demo_replies import demo_script
from pilotage.telemetry.errors import ModelError
from pilotage.telemetry.prefect.http import PrefectReader
from pilotage.telemetry.store.duckdb import DuckDBStore

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from pilotage.flows.bench.simulated_stage import SimulatedStage

PAGER = "http://outside/pager"
TICK = 4.0
"""Seconds of the loop, and half of those between two snapshots of queues: a simulated second costs as much as a real
one would, and nothing that is scored hangs on one."""
START_UP = 5.0
"""Seconds before the trouble begins."""


class ScriptedModel:
    """As `LanguageModel`: the demo's scripted model without its server, which real sockets would need."""

    name = "scripted"
    down = False
    calls_tools = False
    usage = Usage()
    book: LlmBudget | None = None

    async def ask_typed(self, schema: type[Answer], messages: Sequence[BaseMessage]) -> Answer:
        """As `LanguageModel`. Raises ModelError for what the schema refuses."""
        said = demo_script({"messages": _plain(messages), "response_format": {"type": "json_object"}})
        try:
            return schema.model_validate_json(said.content or "")
        except ValueError as exc:
            raise ModelError(f"Asking the scripted model for {schema.__name__}: {exc}") from exc

    async def ask_text(self, messages: Sequence[BaseMessage]) -> str:
        """As `LanguageModel`."""
        return demo_script({"messages": _plain(messages)}).content or ""

    async def stream(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Any] = (),
        *,
        choice: Literal["auto", "none"] = "auto",
    ) -> AsyncIterator[Token | Reply]:
        """As `LanguageModel`; nobody chats with the bench."""
        yield Token(text=await self.ask_text(messages))


def _plain(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    return [{"role": message.type, "content": message.content} for message in messages]


class LoopApi(ApiClient):
    """The control API, asked by an agent in the same loop."""

    def __init__(self, server: ApiServer, token: str) -> None:
        super().__init__(Path(), token)
        self._server = server

    def _exchanged(self, request: bytes) -> bytes:
        return awaited(self._server.answer(request))


async def _raise_for_errors(response: httpx.Response) -> None:
    if response.is_error:
        await response.aread()
        response.raise_for_status()


def world_outside(stage: SimulatedStage, settings: Settings, arm: ArmName) -> Outside:
    """Return the fake Prefect, its clock and the pager, as the controller's outside."""

    def reader() -> PrefectReader:
        client = httpx.AsyncClient(
            transport=stage.fake.transport,
            base_url=API_URL,
            event_hooks={"response": [_raise_for_errors]},
        )
        return PrefectReader(client)

    async def events(connected: Callable[[], None]) -> AsyncIterator[dict[str, Any]]:
        connected()
        told = len(stage.fake.tables.events)
        while True:
            await asyncio.sleep(TICK / 2)
            known = stage.fake.tables.events
            if len(known) > told:
                for event in list(known.values())[told:]:
                    yield event
                told = len(known)

    async def keep_agent(start: AgentStart) -> None:
        await agent.run(
            settings,
            token=start.token,
            watch_from=start.watch_from,
            stop=start.stop,
            clock=stage.clock.now,
            store=start.store,
            control_api=LoopApi(start.api, start.token),
            checkpoints=MemoryCheckpoints(),
            model=ScriptedModel() if arm == "pilotage_llm" else None,
        )

    return Outside(
        clock=stage.clock.now,
        address=lambda: API_URL,
        reader=reader,
        events=events,
        prefect=lambda guard: PrefectApi(
            API_URL, transport=stage.fake.transport, clock=stage.clock.now, guard=guard
        ),
        webhook=lambda: OutsideTransport(stage.outside),
        # a round has few rows: what a second thread of a statement costs is more than it saves
        store=partial(DuckDBStore, threads=1),
        agent=keep_agent,
    )


async def run_controller(stage: SimulatedStage, root: Path, played: Round, arm: ArmName) -> None:
    """Run pilotage while the worlds of a round have their trouble, and stop it."""
    paths = prepared(root, mode=played.mode, pager=PAGER, scale=1.0, tick=TICK, queue=2 * TICK)
    settings = load_settings(config=paths.config, state_dir=paths.root)
    stop = asyncio.Event()
    controller = Controller(settings, outside=world_outside(stage, settings, arm))
    running = asyncio.create_task(controller.run(stop))
    try:
        await _unless_ended(running, START_UP)
        stage.drive()
        stage.fake.asked.clear()
        await _unless_ended(running, played.horizon.total_seconds())
    finally:
        stop.set()
        await running


async def _unless_ended(running: asyncio.Task[None], seconds: float) -> None:
    done, _ = await asyncio.wait({running}, timeout=seconds)
    if done:
        await running
        raise RuntimeError("the controller ended before the round did")
