"""Composition of the engine: the API and telemetry sockets of one state directory, per caller."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pilotage.console.session.engine import Engine
from pilotage.console.session.log import EventLog
from pilotage.console.session.ports import Services, User
from pilotage.flows.api.client import ApiClient
from pilotage.flows.config.credentials import drop_keys
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.settings import load_settings
from pilotage.telemetry.errors import StoreError

if TYPE_CHECKING:
    from pilotage.flows.agent.tracing import Traces
    from pilotage.planner.chat.agent import ChatAgent
    from pilotage.planner.chat.tools import Toolbox

SCRIPTED = "scripted"
"""The name of the model that is none: whoever sees its answers is told."""
EVENTS_FILE = "conversations.sqlite"


def engine_for(where: StatePaths, *, config: Path | None = None) -> Engine:
    """The engine of a state directory. Raises StoreError when its conversations cannot be opened."""
    drop_keys()
    log = EventLog(where.root / "console" / EVENTS_FILE)
    life = load_settings(config=config, state_dir=where.root).retention.conversations
    if life:
        log.forget(datetime.now(UTC) - life)
    return Engine(log=log, services=services_for(where, config=config))


def services_for(where: StatePaths, *, config: Path | None = None) -> Services:
    """How to reach the API, telemetry and the agent in a caller's name."""
    agents: dict[str, ChatAgent] = {}
    toolboxes: dict[str, Toolbox] = {}
    models: list[dict[str, object]] = []
    traces: list[Traces] = []
    closed = threading.Event()
    one_at_a_time = (
        threading.RLock()
    )  # look-ups run in threads: two of them must not open two readers for one person

    def control_api(user: User) -> ApiClient:
        return ApiClient(where.api_socket, user.token)

    def toolbox(user: User) -> Toolbox:
        from pilotage.flows.agent.chat import toolbox  # start-up time: the planner

        with one_at_a_time:
            if closed.is_set():
                raise StoreError("Looking at telemetry: this console is closing.")
            if user.token not in toolboxes:
                toolboxes[user.token] = toolbox(where, control_api(user), user.name)
            return toolboxes[user.token]

    def agent(user: User) -> ChatAgent:
        from pilotage.flows.agent.chat import chat_agent
        from pilotage.flows.agent.tracing import Traces  # start-up time: the planner
        from pilotage.flows.config.settings import load_settings

        with one_at_a_time:
            if not traces:  # one for the process, whoever it works for
                traces.append(Traces(load_settings(config=config, state_dir=where.root)))
            if user.token not in agents:
                agents[user.token] = chat_agent(
                    where,
                    control_api(user),
                    person=user.name,
                    config=config,
                    tools=toolbox(user),
                    traces=traces[0],
                )
            return agents[user.token]

    def model() -> dict[str, object]:
        from pilotage.flows.config.settings import load_settings  # start-up time: pydantic-settings

        if not models:
            llm = load_settings(config=config, state_dir=where.root).llm
            mock = llm.model == SCRIPTED
            models.append({"configured": llm.configured, "name": llm.model, "mock": llm.configured and mock})
        return models[0]

    def close() -> None:
        with one_at_a_time:
            closed.set()
            for each_trace in traces:
                each_trace.stop()
            for each in toolboxes.values():
                each.store.close()

    return Services(control_api=control_api, toolbox=toolbox, agent=agent, model=model, close=close)


def user_with(where: StatePaths, token: str) -> User:
    """Who the token says is calling. Raises ApiRejection when nobody has it, ApiError when no API is there."""
    me = ApiClient(where.api_socket, token).call("whoami")
    return User(name=me["name"], roles=frozenset(me["roles"]), teams=frozenset(me["teams"]), token=token)
