"""Composition of a conversation: the chat agent with the telemetry socket, the API and the configured model.

It holds no Prefect credential. What it hands in is filed by an agent on behalf of its person: it needs the rights of
both, and that person does not approve it.
"""

from __future__ import annotations

from pathlib import Path

from pilotage.flows.agent.forecasts import ChatForecaster
from pilotage.flows.agent.process import language_model, refuse_keys
from pilotage.flows.agent.tracing import Traces
from pilotage.flows.api.client import ApiClient
from pilotage.flows.api.on_behalf_of import AgentApi
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.settings import load_settings
from pilotage.planner.chat.agent import ChatAgent
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.checkpoints import checkpoints_at
from pilotage.telemetry import connect
from pilotage.telemetry.forecast.registry import ModelRegistry


def chat_agent(
    where: StatePaths,
    control_api: ApiClient,
    *,
    person: str = "",
    config: Path | None = None,
    tools: Toolbox | None = None,
    traces: Traces | None = None,
) -> ChatAgent:
    """An agent for the person whose token `API` carries and whose name is given, with these tools or its own.

    It remembers its conversations with them from one process to the next; `traces` is the process's. Raises
    ConfigError when the environment holds a Prefect credential, a setting is wrong or an extra is lacking,
    StoreError when there is no telemetry to read.
    """
    settings = load_settings(config=config, state_dir=where.root)
    return ChatAgent(
        tools=tools or toolbox(where, control_api, person),
        model=language_model(settings),
        memory=checkpoints_at(settings.agent_memory.get_secret_value(), where.conversations),
        remembered_tokens=settings.llm.remembered_tokens,
        person=person,
        traces=traces.of_chat(control_api) if traces else None,
    )


def toolbox(where: StatePaths, control_api: ApiClient, person: str = "") -> Toolbox:
    """The tools of the person whose token `API` carries and whose name is given. Raises as `chat_agent` does."""
    refuse_keys()
    store = connect(where.root, asker=person)
    forecaster = ChatForecaster(store, ModelRegistry(where.forecast_models))
    return Toolbox(
        store=store,
        control_api=AgentApi(control_api),
        on_behalf_of=person,
        forecaster=forecaster,
        parameters=load_settings(state_dir=where.root).planner,
    )
