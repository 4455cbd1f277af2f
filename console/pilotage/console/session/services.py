"""Composition of the engine: the desk and telemetry sockets of one state directory, per caller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pilotage.console.session.engine import Engine
from pilotage.console.session.log import EventLog
from pilotage.console.session.ports import Caller, Crew
from pilotage.flows.api.client import DeskClient
from pilotage.flows.config.credentials import drop_keys
from pilotage.flows.config.paths import Places

if TYPE_CHECKING:
    from pilotage.flows.agent.tracing import Traces
    from pilotage.planner.chat.agent import ChatAgent
    from pilotage.planner.chat.tools import Toolbox

SCRIPTED = "scripted"
"""The name of the model that is none: whoever sees its answers is told."""
EVENTS_FILE = "conversations.sqlite"


def engine_for(where: Places, *, config: Path | None = None) -> Engine:
    """The engine of a state directory. Raises StoreError when its conversations cannot be opened."""
    drop_keys()
    return Engine(log=EventLog(where.root / "console" / EVENTS_FILE), crew=crew_of(where, config=config))


def crew_of(where: Places, *, config: Path | None = None) -> Crew:
    """How to reach the desk, telemetry and the agent in a caller's name."""
    agents: dict[str, ChatAgent] = {}
    toolboxes: dict[str, Toolbox] = {}
    models: list[dict[str, object]] = []
    traces: list[Traces] = []

    def desk(caller: Caller) -> DeskClient:
        return DeskClient(where.desk_socket, caller.token)

    def looks(caller: Caller) -> Toolbox:
        from pilotage.flows.agent.chat import toolbox  # start-up time: the planner

        if caller.token not in toolboxes:
            toolboxes[caller.token] = toolbox(where, desk(caller))
        return toolboxes[caller.token]

    def agent(caller: Caller) -> ChatAgent:
        from pilotage.flows.agent.chat import chat_agent
        from pilotage.flows.agent.tracing import Traces  # start-up time: the planner
        from pilotage.flows.config.settings import load_settings

        if not traces:  # one for the process, whoever it works for
            traces.append(Traces(load_settings(config=config, state_dir=where.root)))
        if caller.token not in agents:
            agents[caller.token] = chat_agent(
                where,
                desk(caller),
                person=caller.name,
                config=config,
                tools=looks(caller),
                traces=traces[0],
            )
        return agents[caller.token]

    def model() -> dict[str, object]:
        from pilotage.flows.config.settings import load_settings  # start-up time: pydantic-settings

        if not models:
            llm = load_settings(config=config, state_dir=where.root).llm
            mock = llm.model == SCRIPTED
            models.append({"configured": llm.configured, "name": llm.model, "mock": llm.configured and mock})
        return models[0]

    def close() -> None:
        for each_trace in traces:
            each_trace.stop()
        for each in toolboxes.values():
            each.store.close()

    return Crew(desk=desk, looks=looks, agent=agent, model=model, close=close)


def caller_with(where: Places, token: str) -> Caller:
    """Who the token says is calling. Raises DeskRefusal when nobody has it, DeskError when no desk is there."""
    me = DeskClient(where.desk_socket, token).call("whoami")
    return Caller(name=me["name"], roles=frozenset(me["roles"]), token=token)
