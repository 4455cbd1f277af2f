"""What came of one turn of a conversation: its messages as parts for people, and what the answer rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from pilotage.planner.chat.final_message import final_part
from pilotage.planner.chat.parts import ChatPart
from pilotage.planner.chat.rules import RulesAnswer
from pilotage.planner.chat.tool_calls import found_in
from pilotage.planner.chat.tools import DRAFTING, LookedUp


@dataclass(slots=True)
class TurnResult:
    """What a model's turn has brought so far."""

    last: str = ""
    """The model's newest words."""
    hanging: bool = False
    """Whether these ended in calls that nobody carried out."""
    found: list[LookedUp] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def take(self, message: BaseMessage) -> list[ChatPart]:
        """The parts that one message is shown as; what it brought is kept."""
        match message:
            case AIMessage():
                self.last, self.hanging = str(message.text), bool(message.tool_calls)
                return [
                    ChatPart(kind="tool_call", tool=call["name"], detail=call["args"], by="model")
                    for call in message.tool_calls
                ]
            case ToolMessage():
                return [self._result(message)]
            case _:
                return []

    def _result(self, message: ToolMessage) -> ChatPart:
        lookup, tool = found_in(message), str(message.name)
        if lookup is None:
            result = _result_of(message)
            self.gaps.append(f"{tool}: {result.get('error', 'no result')}")
            return ChatPart(kind="tool_result", tool=tool, detail=result, by="tool")
        self.found.append(lookup)
        return ChatPart(
            kind=_kind(tool, lookup.result),
            tool=tool,
            detail=lookup.result,
            by="tool",
            citation=lookup.citation,
            seconds=float(message.artifact["seconds"]),
        )


def told(answer: RulesAnswer, why: str, usage: Mapping[str, Any] | None = None) -> list[ChatPart]:
    """The parts of an answer that no model gave; `why` none did stands before its words, `usage` is what it tried."""
    parts: list[ChatPart] = []
    for lookup in answer.found:
        tool = lookup.citation["tool"]
        parts.append(ChatPart(kind="tool_call", tool=tool, detail=lookup.citation["arguments"]))
        kind = _kind(tool, lookup.result)
        parts.append(
            ChatPart(kind=kind, tool=tool, detail=lookup.result, by="tool", citation=lookup.citation)
        )
    words = f"{why}\n{answer.text}" if why else answer.text
    by: Literal["memory", "rules"] = "memory" if answer.remembered else "rules"
    final = final_part(words, answer.found, by=by, usage=usage)
    if not answer.understood:
        final = replace(final, detail={**final.detail, "understood": False})
    return [*parts, final]


def _kind(tool: str, result: dict[str, Any]) -> Literal["draft", "tool_result"]:
    return "draft" if tool in DRAFTING and "draft_id" in result else "tool_result"


def _result_of(message: ToolMessage) -> dict[str, Any]:
    """What a tool that was refused, that is unknown or that broke left as its result."""
    try:
        result = json.loads(str(message.content))
    except ValueError:
        return {"error": str(message.content)[:300]}
    return result if isinstance(result, dict) else {"error": str(result)[:300]}
