"""The chat agent: a model with the tools of one caller, or rules where there is none.

A graph of two nodes, agent and tools. Tools read, or hand in proposals and return at once; none waits for a
person, so a conversation never hangs on a decision. A person's next message is a new turn whatever was proposed
in the last.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from pilotage.planner.chat_parts import ChatPart
from pilotage.planner.chat_tools import found_in, guarded, langchain_tools, tool_failed
from pilotage.planner.finals import final_part
from pilotage.planner.model_book import charged_to
from pilotage.planner.models import LanguageModel, Token, ToolsLacking
from pilotage.planner.prompts import CHAT
from pilotage.planner.rules_chat import NO_MODEL, RulesAnswer, answer_by_rules, answer_from_memory
from pilotage.planner.stepping import next_step
from pilotage.planner.tools import PROPOSING, LookedUp, Toolbox
from pilotage.telemetry.errors import AdapterError, ModelError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

log = logging.getLogger(__name__)

CALLS_PER_ANSWER = 8
"""Model calls for one question; small models have been seen to call the same tool for ever."""
CHAT_CASE = "chat"
"""What conversations are charged to."""
REMEMBERED_MESSAGES = 40
"""The newest messages of a conversation that a model is shown."""


class Turn(MessagesState):
    """A conversation, and how often the model was asked in the present turn."""

    calls: int


class ChatAgent:
    """Answers questions of one caller, whose tools it is given."""

    def __init__(
        self,
        *,
        tools: Toolbox,
        model: LanguageModel | None = None,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
    ) -> None:
        """Without a checkpointer a conversation is remembered as long as this object lives."""
        from langgraph.checkpoint.memory import InMemorySaver

        self._toolbox, self._model = tools, model
        self._tools = langchain_tools(tools)
        self._graph = self._build(checkpointer if checkpointer is not None else InMemorySaver())

    async def answer(self, text: str, session: str) -> AsyncIterator[ChatPart]:
        """The parts of the answer, ending with one `final`. Never raises an AdapterError."""
        if self._model is None:
            async for part in self._by_rules(text, NO_MODEL):
                yield part
            return
        if remembered := await self._recalled(text):
            for part in _told(remembered, ""):
                yield part
            return
        try:
            async for part in self._by_model(text, session):
                yield part
        except (ModelError, GraphRecursionError) as error:
            log.warning("Chatting without the model: %s", error)
            yield ChatPart(kind="error", text=str(error), by="model")
            await self._close_turn(session)
            async for part in self._by_rules(text, instead_of(error)):
                yield part

    async def _recalled(self, text: str) -> RulesAnswer | None:
        try:
            return await asyncio.to_thread(answer_from_memory, text, self._toolbox)
        except AdapterError as error:
            log.warning("Answering without memory: %s", error)
            return None

    # -- with a model

    def _build(self, checkpointer: BaseCheckpointSaver[Any]) -> Any:
        async def agent(state: Turn) -> dict[str, Any]:
            if self._model is None:
                raise ModelError("Answering a chat: found no model. Configure one.")
            write = get_stream_writer()
            shown = [SystemMessage(CHAT), *_newest(state["messages"])]
            reply = await self._reply(self._model, shown, write)
            return {"messages": [reply], "calls": state["calls"] + 1}

        def onward(state: Turn) -> Literal["tools", "__end__"]:
            last = state["messages"][-1]
            more = isinstance(last, AIMessage) and bool(last.tool_calls)
            return "tools" if more and state["calls"] < CALLS_PER_ANSWER else "__end__"

        graph = StateGraph(Turn)
        graph.add_node("agent", agent)
        graph.add_node(
            "tools", ToolNode(self._tools, handle_tool_errors=tool_failed, awrap_tool_call=guarded)
        )
        graph.add_edge(START, "agent")
        graph.add_conditional_edges("agent", onward, ["tools", END])
        graph.add_edge("tools", "agent")
        return graph.compile(checkpointer=checkpointer, name="chat")

    async def _reply(self, model: LanguageModel, shown: list[BaseMessage], write: Any) -> AIMessage:
        with charged_to(CHAT_CASE):
            return await self._said(model, shown, write)

    async def _said(self, model: LanguageModel, shown: list[BaseMessage], write: Any) -> AIMessage:
        if model.calls_tools:
            try:
                reply: AIMessage | None = None
                async for part in model.stream(shown, self._tools):
                    if isinstance(part, Token):
                        write(ChatPart(kind="token", text=part.text, by="model"))
                    else:
                        reply = part.message
                if reply is None:
                    raise ModelError("Answering a chat: found no reply. Ask again.", transient=True)
                return reply
            except ToolsLacking as lacking:
                log.info("%s", lacking)
        return await next_step(model, shown, self._tools)

    def _config(self, session: str) -> dict[str, Any]:
        return {"configurable": {"thread_id": f"chat:{session}"}, "recursion_limit": 2 * CALLS_PER_ANSWER + 4}

    async def _by_model(self, text: str, session: str) -> AsyncIterator[ChatPart]:
        await self._close_turn(session)  # the turn before this may have been cancelled anywhere
        turn = {"messages": [HumanMessage(text)], "calls": 0}
        last, hanging = "", False
        found: list[LookedUp] = []
        gaps: list[str] = []
        stream = self._graph.astream(
            turn, self._config(session), stream_mode=["custom", "updates"], version="v2", durability="sync"
        )
        async for piece in stream:
            if piece["type"] == "custom":
                yield piece["data"]
                continue
            for update in piece["data"].values():
                for message in (update or {}).get("messages", ()):
                    for part in _parts_of(message):
                        yield part
                    if isinstance(message, ToolMessage):
                        look_up = found_in(message)
                        found += [look_up] if look_up else []
                        gaps += (
                            []
                            if look_up
                            else [f"{message.name}: {_result_of(message).get('error', 'no result')}"]
                        )
                    if isinstance(message, AIMessage):
                        last = str(message.text)
                        hanging = bool(message.tool_calls)
        if hanging:
            await self._close_turn(session)
            gaps.append(
                f"the question led to more than {CALLS_PER_ANSWER} calls of the model, so it was stopped"
            )
            last = last or "I stopped: that question led to too many look-ups. Ask for one thing at a time."
        elif not last.strip():
            raise ModelError("Answering a chat: found an answer without words. Ask again.", transient=True)
        yield final_part(last, found, by="model", asked=text, gaps=gaps)

    async def _close_turn(self, session: str) -> None:
        """Answers tool calls that nobody answered: endpoints refuse a conversation with one left open."""
        config = self._config(session)
        state = await self._graph.aget_state(config)
        messages = state.values.get("messages", []) if state.values else []
        answered = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
        open_calls = [
            call["id"]
            for m in messages
            if isinstance(m, AIMessage)
            for call in m.tool_calls
            if call["id"] not in answered
        ]
        closing: list[BaseMessage] = [ToolMessage("not carried out", tool_call_id=c) for c in open_calls if c]
        if not messages or not (closing or state.next):
            return
        await self._graph.aupdate_state(config, {"messages": closing, "calls": 0}, as_node="agent")

    # -- by rules

    async def _by_rules(self, text: str, why: str) -> AsyncIterator[ChatPart]:
        try:
            found = await asyncio.to_thread(answer_by_rules, text, self._toolbox)
        except AdapterError as error:
            yield ChatPart(kind="error", text=str(error))
            told = f"{why} The records cannot be read now: {error}"
            yield final_part(told, (), by="rules", gaps=["the records could not be read"])
            return
        for part in _told(found, why):
            yield part


def instead_of(error: Exception) -> str:
    """Why rules answer, in words for the person."""
    said = getattr(error, "said", "") or "The language model gave no answer"
    return f"{said}; rules answer instead."


def _told(answer: RulesAnswer, why: str) -> list[ChatPart]:
    """The parts of an answer that no model gave."""
    parts: list[ChatPart] = []
    for one in answer.found:
        tool = one.citation["tool"]
        parts.append(ChatPart(kind="tool_call", tool=tool, detail=one.citation["arguments"]))
        filed: Literal["proposal", "tool_result"] = (
            "proposal" if tool in PROPOSING and "proposal_id" in one.result else "tool_result"
        )
        parts.append(ChatPart(kind=filed, tool=tool, detail=one.result, by="tool", citation=one.citation))
    words = f"{why}\n{answer.text}" if why else answer.text
    by: Literal["memory", "rules"] = "memory" if answer.remembered else "rules"
    return [*parts, final_part(words, answer.found, by=by)]


def _newest(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The newest messages, beginning with a person's: a result without its call is refused by endpoints."""
    newest = list(messages[-REMEMBERED_MESSAGES:])
    while newest and not isinstance(newest[0], HumanMessage):
        newest.pop(0)
    return newest


def _parts_of(message: BaseMessage) -> list[ChatPart]:
    match message:
        case AIMessage():
            return [
                ChatPart(kind="tool_call", tool=call["name"], detail=call["args"], by="model")
                for call in message.tool_calls
            ]
        case ToolMessage():
            found = found_in(message)
            result = found.result if found else _result_of(message)
            filed = str(message.name) in PROPOSING and "proposal_id" in result
            kind: Literal["proposal", "tool_result"] = "proposal" if filed else "tool_result"
            return [
                ChatPart(
                    kind=kind,
                    tool=str(message.name),
                    detail=result,
                    by="tool",
                    citation=found.citation if found else {},
                    seconds=float(message.artifact["seconds"]) if found else 0.0,
                )
            ]
        case _:
            return []


def _result_of(message: ToolMessage) -> dict[str, Any]:
    """What a tool that was refused, that is unknown or that broke left as its result."""
    try:
        result = json.loads(str(message.content))
    except ValueError:
        return {"error": str(message.content)[:300]}
    return result if isinstance(result, dict) else {"error": str(result)[:300]}
