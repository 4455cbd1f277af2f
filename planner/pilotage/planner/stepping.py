"""Conversation with an endpoint that cannot call tools: each step is one typed answer, a call or the last word."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field

from pilotage.planner.models import LanguageModel


class Step(BaseModel):
    """Either one look-up or the answer to the person."""

    model_config = ConfigDict(extra="forbid")

    do: Literal["call", "answer"]
    tool: str = ""
    """Its name, for a call."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    answer: str = ""
    """The words for the person, for an answer."""


async def next_step(
    model: LanguageModel, messages: Sequence[BaseMessage], tools: Sequence[BaseTool]
) -> AIMessage:
    """The model's next message, in the form that one with tools would have sent. Raises ModelError."""
    offered = "\n".join(
        f"- {tool.name}: {tool.description} Arguments: {json.dumps(tool.args, default=str)}" for tool in tools
    )
    system = SystemMessage(
        "Answer each time with one step: `do` is `call` to look something up with a tool, or `answer` to say the "
        f"last word to the person. The tools:\n{offered}"
    )
    step = await model.ask_typed(Step, [system, *(_flat(message) for message in messages)])
    if step.do == "call":
        call = {"name": step.tool, "args": step.arguments, "id": f"call_{uuid.uuid4().hex[:12]}"}
        return AIMessage(content="", tool_calls=[{**call, "type": "tool_call"}])
    return AIMessage(content=step.answer)


def _flat(message: BaseMessage) -> BaseMessage:
    """The message without what only endpoints with tools understand."""
    match message:
        case AIMessage() if message.tool_calls:
            call = message.tool_calls[0]
            said = Step(do="call", tool=call["name"], arguments=call["args"])
            return AIMessage(said.model_dump_json())
        case ToolMessage():
            return HumanMessage(f"<result of={json.dumps(message.name)}>{message.text}</result>")
        case _:
            return message
