"""Composition of a conversation: the chat agent with the telemetry socket, the desk and the configured model.

It holds no Prefect credential: what it may do is what its person's token may do at the desk.
"""

from __future__ import annotations

from pathlib import Path

from pilotage.flows.agent_process import language_model, refuse_keys
from pilotage.flows.desk_client import DeskClient
from pilotage.flows.places import Places
from pilotage.flows.settings import load_settings
from pilotage.planner.chat import ChatAgent
from pilotage.planner.tools import Toolbox
from pilotage.telemetry import connect


def chat_agent(where: Places, desk: DeskClient, *, config: Path | None = None) -> ChatAgent:
    """An agent for the person whose token `desk` carries.

    Raises ConfigError when the environment holds a Prefect credential or a setting is wrong, StoreError when
    there is no telemetry to read.
    """
    settings = load_settings(config=config, state_dir=where.root)
    return ChatAgent(tools=toolbox(where, desk), model=language_model(settings))


def toolbox(where: Places, desk: DeskClient) -> Toolbox:
    """The look-ups of the person whose token `desk` carries. Raises as `chat_agent` does."""
    refuse_keys()
    return Toolbox(store=connect(where.root), desk=desk)
