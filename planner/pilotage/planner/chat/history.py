"""What of a conversation is remembered: its newest turns within a budget, and no secret. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from pilotage.planner.llm.protocol import CHARS_PER_TOKEN
from pilotage.telemetry.redaction import redact_json
from pilotage.telemetry.token_detectors import fit_for_a_prompt


def forgotten(messages: Sequence[BaseMessage], tokens: int) -> list[BaseMessage]:
    """The messages that no longer fit the budget, the oldest first.

    The newest turns stay whole as long as they fit; of one that does not, the look-ups go and the words stay, and
    when not even these fit, it goes with all that is older. What stays begins with a person's words, and no call in
    it is without its result.
    """
    left = tokens * CHARS_PER_TOKEN
    dropped: list[BaseMessage] = []
    for turn in reversed(_turns(messages)):
        words = [
            m for m in turn if isinstance(m, HumanMessage) or (isinstance(m, AIMessage) and not m.tool_calls)
        ]
        kept = next((part for part in (turn, words) if part and _size(part) <= left), [])
        if not kept or not isinstance(kept[0], HumanMessage):
            kept, left = [], 0
        left -= _size(kept)
        stays = {id(message) for message in kept}
        dropped[:0] = [message for message in turn if id(message) not in stays]
    return dropped


def _turns(messages: Sequence[BaseMessage]) -> list[list[BaseMessage]]:
    """The messages by turn; each but perhaps the first begins with a person's words."""
    turns: list[list[BaseMessage]] = []
    for message in messages:
        if isinstance(message, HumanMessage) or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _size(messages: Sequence[BaseMessage]) -> int:
    """Characters that a model would read of them."""
    calls = [call["args"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    return sum(len(str(m.content)) for m in messages) + len(json.dumps(calls, default=str) if calls else "")


def said_by_a_person(text: str) -> HumanMessage:
    """A person's words as they are remembered."""
    return HumanMessage(fit_for_a_prompt(text))


def said_by_the_model(reply: AIMessage) -> AIMessage:
    """A model's words and calls as they are remembered."""
    calls = [{**call, "args": redact_json(call["args"])} for call in reply.tool_calls]
    return reply.model_copy(update={"content": fit_for_a_prompt(str(reply.text)), "tool_calls": calls})


def without_secrets(value: Any) -> Any:
    """The same value with every secret in its texts masked; what stands under a telling name is kept as it is."""
    match value:
        case dict():
            return {key: without_secrets(item) for key, item in value.items()}
        case list() | tuple():
            return [without_secrets(item) for item in value]
        case str():
            return fit_for_a_prompt(value)
        case _:
            return value
