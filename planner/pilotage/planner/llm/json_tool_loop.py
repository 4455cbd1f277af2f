"""Conversation with an endpoint that cannot call tools: each step is one typed answer, a call or the last word.

The shape of a step names every tool with its arguments, so that an endpoint that keeps to a schema can only give a
call that is one. A small model keeps to it where its own words would not.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pilotage.planner.llm.protocol import LanguageModel

LONGEST_ANSWER = 2000
"""Characters of an answer that is one step; a model that repeats itself would go on to the end of its window."""
LONGEST_ARGUMENT = 500
"""Characters of a text in a call, and nobody needs more."""
MOST_ITEMS = 10
CALLING = (
    "Answer each time with one step: `do` is `call` to look something up with a tool, or `answer` to say the last word "
    "to the person. The tools:\n"
)


class Answer(BaseModel):
    """The last word to the person."""

    model_config = ConfigDict(extra="forbid")

    do: Literal["answer"]
    answer: str = Field(max_length=LONGEST_ANSWER)


class Call(BaseModel):
    """One look-up."""

    model_config = ConfigDict(extra="forbid")

    do: Literal["call"]
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Step(BaseModel):
    """Either one look-up or the answer to the person."""

    model_config = ConfigDict(extra="forbid")

    step: Answer | Call

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        # models that are only told of the schema leave its outer shell out
        return {"step": given} if isinstance(given, dict) and "step" not in given else given


async def next_step(
    model: LanguageModel, messages: Sequence[BaseMessage], tools: Sequence[BaseTool]
) -> AIMessage:
    """The model's next message, in the form that one with tools would have sent. Raises ModelError.

    Without tools only the last word is asked for.
    """
    described = "\n".join(f"- {tool.name}: {tool.description}" for tool in tools)
    system = [SystemMessage(CALLING + described)] if tools else []
    turns = [*system, *(_flat(message) for message in messages)]
    match made := (await model.ask_typed(step_with(tools), turns)).step:
        case Call():
            call = {"name": made.tool, "args": made.arguments, "id": f"call_{uuid.uuid4().hex[:12]}"}
            return AIMessage(content="", tool_calls=[{**call, "type": "tool_call"}])
        case _:
            return AIMessage(content=made.answer)


def step_with(tools: Sequence[BaseTool]) -> type[Step]:
    """The step that offers these tools. Its schema allows their calls only; any call is read, to be told of its faults."""

    class PermittedKinds(Step):
        """Either one look-up or the answer to the person."""

        @classmethod
        def model_json_schema(cls, *args: Any, **how: Any) -> dict[str, Any]:
            steps = [*map(_call_of, tools), _without_titles(Answer.model_json_schema())]
            return _object({"step": {"anyOf": steps}}, ["step"])

    return PermittedKinds


def _call_of(tool: BaseTool) -> dict[str, Any]:
    """The schema of a call of this tool."""
    takes = _bounded(_without_titles(tool.get_input_jsonschema()))
    arguments = _object(takes.get("properties", {}), takes.get("required", []))
    named = {"do": {"const": "call"}, "tool": {"const": tool.name}, "arguments": arguments}
    return _object(named, ["do", "tool", "arguments"])


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _bounded(schema: Any) -> Any:
    """The schema with an end to every text and list in it."""
    match schema:
        case {"type": "string"} if not {"enum", "const", "maxLength"} & set(schema):
            return schema | {"maxLength": LONGEST_ARGUMENT}
        case {"type": "array"}:
            return {"maxItems": MOST_ITEMS} | {key: _bounded(value) for key, value in schema.items()}
        case dict():
            return {key: _bounded(value) for key, value in schema.items()}
        case list():
            return [_bounded(item) for item in schema]
        case _:
            return schema


def _without_titles(schema: Any) -> Any:
    """The schema without the names that pydantic gives everything: a model would have to read them."""
    match schema:
        case dict():
            return {key: _without_titles(value) for key, value in schema.items() if not _is_title(key, value)}
        case list():
            return [_without_titles(item) for item in schema]
        case _:
            return schema


def _is_title(key: str, value: Any) -> bool:
    return key == "title" and isinstance(value, str)  # a field may be called so, and is then a schema


def _flat(message: BaseMessage) -> BaseMessage:
    """The message without what only endpoints with tools understand."""
    match message:
        case AIMessage() if message.tool_calls:
            call = message.tool_calls[0]
            return AIMessage(json.dumps({"do": "call", "tool": call["name"], "arguments": call["args"]}))
        case ToolMessage():
            return HumanMessage(f"<result of={json.dumps(message.name)}>{message.text}</result>")
        case _:
            return message
