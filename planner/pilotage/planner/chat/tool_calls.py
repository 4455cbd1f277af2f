"""The toolbox as a language model calls it: its description, its results, and the calls that are not carried out."""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.prebuilt.tool_node import ToolCallRequest

from pilotage.planner.actions.forms import literals, said_in, signature
from pilotage.planner.actions.types import ACTIONS
from pilotage.planner.chat.citations import key_of, references
from pilotage.planner.chat.history import without_secrets
from pilotage.planner.chat.tools import DRAFTING, READING, LookedUp, Toolbox, looked_up
from pilotage.telemetry.store.schema import TABLES

SAME_CALL = 2
"""How often one call with one set of arguments is carried out in a turn; small models repeat it for ever."""
KNOWN = "this was looked up twice already"
LONGEST_RESULT = 12_000
"""Characters of one result that a model is shown."""
FOR_PEOPLE_ONLY = frozenset({"example"})
"""Parts of a result that a model is not shown: whole lines of other people's text, where a template does."""


def langchain_tools(toolbox: Toolbox) -> list[BaseTool]:
    """Everything that reads, and what drafts the kinds that are offered."""
    permitted_kinds = toolbox.control_api.permitted_kinds()
    names = [*READING, *(DRAFTING if permitted_kinds else ())]
    return [_tool(toolbox, name, permitted_kinds) for name in names]


def _tool(toolbox: Toolbox, name: str, permitted_kinds: Sequence[str]) -> BaseTool:
    """One tool. A model gets the result as text; the whole of it and its evidence travel beside it."""
    method = getattr(toolbox, name)
    shape = StructuredTool.from_function(func=method, name=name)

    @functools.wraps(method)
    def call(**arguments: Any) -> tuple[str, dict[str, Any]]:
        started = time.monotonic()
        lookup = looked_up(toolbox, name, arguments)
        took = time.monotonic() - started
        result = without_secrets(lookup.result)  # it is remembered, and what is remembered is on a disk
        content = json.dumps({"cite": lookup.citation["key"], **_for_model(result)}, default=str)
        if len(content) > LONGEST_RESULT:
            content = f"{content[:LONGEST_RESULT]} … this result is cut: ask for less of it"
        return content, {
            "result": result,
            "citation": without_secrets(lookup.citation),
            "named": list(dict.fromkeys(references(result))),
            "seconds": took,
        }

    about = shape.description + {
        "sql": f" {tables_in_words()}",
        "chart": " The tables are those of `sql`.",
        "draft": f" The kinds, each with its target and arguments: {'; '.join(map(signature, permitted_kinds))}.",
    }.get(name, "")
    return StructuredTool(
        name=name,
        description=about,
        args_schema=shape.args_schema,
        func=call,
        response_format="content_and_artifact",
    )


@functools.cache
def tables_in_words() -> str:
    """The tables and their columns, in one line for a prompt."""
    tables = "; ".join(
        f"{table.name}({', '.join(_column(c.name) for c in table.columns)})" for table in TABLES.values()
    )
    return f"Times are TIMESTAMPTZ in UTC. The tables: {tables}."


def _column(name: str) -> str:
    return f'"{name}"' if name in ("at", "limit") else name


def _for_model(value: Any) -> Any:
    match value:
        case dict():
            return {key: _for_model(item) for key, item in value.items() if key not in FOR_PEOPLE_ONLY}
        case list():
            return [_for_model(item) for item in value]
        case _:
            return value


async def guarded(request: ToolCallRequest, execute: Any) -> Any:
    """The tool's result, or a refusal in its place."""
    call = request.tool_call
    if why := refusal(call["name"], call["args"], request.state["messages"]):
        content = json.dumps({"status": "refused", "error": why})
        return ToolMessage(content, tool_call_id=call["id"], name=call["name"])
    return await execute(request)


def refusal(name: str, arguments: dict[str, Any], messages: Sequence[BaseMessage]) -> str:
    """Why a call is not carried out, or an empty string.

    A model can be talked into an action by a log line that it has just read, so it may draft and no more: what is sent,
    a person sends. A draft's target must have been named by a person or by a look-up, and so must its values, in
    whatever language and in however long a result.
    """
    if name in DRAFTING and (why := _unnamed(arguments, messages)):
        return f"{name}: {why}"
    turn = messages[max((i for i, m in enumerate(messages) if isinstance(m, HumanMessage)), default=0) :]
    asked = Counter(
        key_of(call["name"], call["args"]) for m in turn if isinstance(m, AIMessage) for call in m.tool_calls
    )
    if asked[key_of(name, arguments)] > SAME_CALL:
        return f"{name}: {KNOWN}; answer from what it said"
    return ""


def goes_round(messages: Sequence[BaseMessage]) -> bool:
    """Whether the model has just asked once more for what it knows: then it is time for words."""
    return bool(messages) and isinstance(messages[-1], ToolMessage) and KNOWN in str(messages[-1].content)


def _unnamed(arguments: dict[str, Any], messages: Sequence[BaseMessage]) -> str:
    """What in this draft nobody has named, or an empty string."""
    said = [str(m.text) for m in messages if isinstance(m, HumanMessage)]
    kind, target = str(arguments.get("kind", "")), str(arguments.get("target", ""))
    if kind not in ACTIONS:
        return ""  # there is no such kind, as it will be told
    words, seen = " ".join(said), {ref.partition(":")[2].lower() for ref in _looked_up(messages)}

    def named(text: str) -> bool:
        return (
            said_in(text, words)
            or text.lower() in seen
            or any(ref.endswith(f"/{text.lower()}") for ref in seen)
        )

    whole = target.rpartition(":")[2]
    if not target or not (named(whole) or all(named(part) for part in whole.split("/"))):
        return f"nobody has named {target!r} and no look-up has returned it"
    given = arguments.get("arguments")
    strange = [
        literal for literal in literals(kind, given if isinstance(given, dict) else {}) if not named(literal)
    ]
    if strange:
        return f"nobody has said {strange[0][:60]!r}, and no model may choose it"
    return ""


def _looked_up(messages: Sequence[BaseMessage]) -> Iterator[str]:
    for message in messages:
        if isinstance(message, ToolMessage) and isinstance(message.artifact, dict):
            cited = [ref["ref"] for ref in message.artifact["citation"]["refs"]]
            yield from map(str, message.artifact.get("named", cited))


def found_in(message: ToolMessage) -> LookedUp | None:
    """The look-up that a tool's message carries, or None when it was refused or broke."""
    beside = message.artifact
    if not isinstance(beside, dict):
        return None
    return LookedUp(result=beside["result"], citation=beside["citation"])


def tool_failed(error: Exception) -> str:
    """What the model is told when a tool broke."""
    return json.dumps({"error": str(error)[:300]})
