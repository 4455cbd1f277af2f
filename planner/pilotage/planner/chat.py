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
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest

from pilotage.planner.chat_parts import ChatPart
from pilotage.planner.models import LanguageModel, Token
from pilotage.planner.prompts import CHAT
from pilotage.planner.rules_chat import NO_MODEL, answer_by_rules
from pilotage.planner.tools import ASKS, PROPOSING, READING, Toolbox
from pilotage.telemetry.errors import AdapterError, ModelError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

log = logging.getLogger(__name__)

CALLS_PER_ANSWER = 8
"""Model calls for one question; small models have been seen to call the same tool for ever."""
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
        try:
            async for part in self._by_model(text, session):
                yield part
        except (ModelError, GraphRecursionError) as error:
            log.warning("Chatting without the model: %s", error)
            yield ChatPart(kind="error", text=str(error), by="model")
            await self._close_turn(session)
            async for part in self._by_rules(
                text, "The language model gave no answer; rules answer instead."
            ):
                yield part

    # -- with a model

    def _build(self, checkpointer: BaseCheckpointSaver[Any]) -> Any:
        async def agent(state: Turn) -> dict[str, Any]:
            if self._model is None:
                raise ModelError("Answering a chat: found no model. Configure one.")
            write = get_stream_writer()
            shown = [SystemMessage(CHAT), *_newest(state["messages"])]
            reply: AIMessage | None = None
            async for part in self._model.stream(shown, self._tools):
                if isinstance(part, Token):
                    write(ChatPart(kind="token", text=part.text, by="model"))
                else:
                    reply = part.message
            if reply is None:
                raise ModelError("Answering a chat: found no reply. Ask again.", transient=True)
            return {"messages": [reply], "calls": state["calls"] + 1}

        def onward(state: Turn) -> Literal["tools", "__end__"]:
            last = state["messages"][-1]
            more = isinstance(last, AIMessage) and bool(last.tool_calls)
            return "tools" if more and state["calls"] < CALLS_PER_ANSWER else "__end__"

        graph = StateGraph(Turn)
        graph.add_node("agent", agent)
        graph.add_node(
            "tools", ToolNode(self._tools, handle_tool_errors=_tool_failed, awrap_tool_call=_only_when_asked)
        )
        graph.add_edge(START, "agent")
        graph.add_conditional_edges("agent", onward, ["tools", END])
        graph.add_edge("tools", "agent")
        return graph.compile(checkpointer=checkpointer, name="chat")

    def _config(self, session: str) -> dict[str, Any]:
        return {"configurable": {"thread_id": f"chat:{session}"}, "recursion_limit": 2 * CALLS_PER_ANSWER + 4}

    async def _by_model(self, text: str, session: str) -> AsyncIterator[ChatPart]:
        turn = {"messages": [HumanMessage(text)], "calls": 0}
        last, hanging = "", False
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
                    if isinstance(message, AIMessage):
                        last = str(message.text)
                        hanging = bool(message.tool_calls)
        if hanging:
            await self._close_turn(session)
            last = last or "I stopped: that question led to too many look-ups. Ask for one thing at a time."
        yield ChatPart(kind="final", text=last, by="model")

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
        await self._graph.aupdate_state(config, {"messages": closing, "calls": 0}, as_node="agent")

    # -- by rules

    async def _by_rules(self, text: str, why: str) -> AsyncIterator[ChatPart]:
        try:
            found = await asyncio.to_thread(answer_by_rules, text, self._toolbox)
        except AdapterError as error:
            yield ChatPart(kind="error", text=str(error))
            yield ChatPart(kind="final", text=f"{why} The records cannot be read now: {error}")
            return
        if found.tool:
            yield ChatPart(kind="tool_call", tool=found.tool, detail=found.arguments)
            kind: Literal["proposal", "tool_result"] = (
                "proposal" if found.tool in PROPOSING and "proposal_id" in found.result else "tool_result"
            )
            yield ChatPart(kind=kind, tool=found.tool, detail=found.result, by="tool")
        yield ChatPart(kind="final", text=f"{why}\n{found.text}")


def langchain_tools(toolbox: Toolbox) -> list[BaseTool]:
    """The toolbox as a model calls it: everything that reads, and the proposals that are offered."""
    offered = toolbox.desk.offered()
    names = [*READING, *(name for name, kind in PROPOSING.items() if kind in offered)]
    return [_tool(toolbox, name) for name in names]


def _tool(toolbox: Toolbox, name: str) -> BaseTool:
    return StructuredTool.from_function(func=getattr(toolbox, name), name=name)


async def _only_when_asked(request: ToolCallRequest, execute: Any) -> Any:
    """The tool's result; a refusal for a proposal that the person did not ask for in their own last message.

    A model can be talked into a call by a log line that it has just read; a person's words cannot be.
    """
    name = request.tool_call["name"]
    if name in ASKS:
        words = [str(m.text) for m in request.state["messages"] if isinstance(m, HumanMessage)]
        if not words or not ASKS[name].search(words[-1]):
            refusal = {
                "status": "refused",
                "error": f"{name}: the person did not ask for this in their message",
            }
            return ToolMessage(json.dumps(refusal), tool_call_id=request.tool_call["id"], name=name)
    return await execute(request)


def _tool_failed(error: Exception) -> str:
    """What the model is told when a tool broke."""
    return json.dumps({"error": str(error)[:300]})


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
            try:
                result = json.loads(str(message.content))
            except ValueError:
                result = {"text": str(message.content)}
            filed = str(message.name) in PROPOSING and "proposal_id" in result
            kind: Literal["proposal", "tool_result"] = "proposal" if filed else "tool_result"
            return [ChatPart(kind=kind, tool=str(message.name), detail=result, by="tool")]
        case _:
            return []
