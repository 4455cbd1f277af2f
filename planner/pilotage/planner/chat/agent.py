"""The chat agent: a model with the tools of one caller, or rules where there is none.

A graph of two nodes, agent and tools. Tools read, or draft an action and return at once; none waits for a person, so
a conversation never hangs on a decision. A person's next message is a new turn whatever was drafted in the last. What
was said is remembered by the checkpoints that it is given, each person's part for itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, SystemMessage, ToolMessage
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime

from pilotage.planner.chat.final_message import final_part
from pilotage.planner.chat.history import forgotten, said_by_a_person, said_by_the_model
from pilotage.planner.chat.parts import ChatPart
from pilotage.planner.chat.rules import NO_MODEL, RulesAnswer, Talk, answer_by_rules, answer_from_memory
from pilotage.planner.chat.situation import in_words, situation
from pilotage.planner.chat.tool_calls import goes_round, guarded, langchain_tools, tool_failed
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.chat.turn import TurnResult, told
from pilotage.planner.checkpoints import Checkpoints, MemoryCheckpoints, keep_newest
from pilotage.planner.llm.budget import attribute_cost
from pilotage.planner.llm.json_tool_loop import next_step
from pilotage.planner.llm.prompts import CHAT
from pilotage.planner.llm.protocol import LanguageModel, Token, ToolsLacking
from pilotage.planner.llm.tracing import TurnSpan, TurnTracer, Untraced
from pilotage.planner.llm.usage import Meter, metered, usage
from pilotage.telemetry.errors import AdapterError, CheckpointError, ModelError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

log = logging.getLogger(__name__)

CALLS_PER_ANSWER = 16
"""Model calls for one question: an investigation needs a dozen, and small models call the same tool for ever."""
CHAT_CASE = "chat"
"""What conversations are charged to."""
MOST_TALKS = 500
"""Conversations of which it is remembered, without a model, what they were about."""
REMEMBERED_TOKENS = 8_000
"""Of the turns before this one, estimated, as a model is shown them."""


class Turn(MessagesState):
    """A conversation, and how often the model was asked in the present turn."""

    calls: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What the nodes work with in one turn; never checkpointed."""

    meter: Meter
    moment: Mapping[str, Any]
    """See `pilotage.planner.chat.situation.situation`."""


class ChatAgent:
    """Answers questions of one caller, whose tools it is given."""

    def __init__(
        self,
        *,
        tools: Toolbox,
        model: LanguageModel | None = None,
        memory: Checkpoints | None = None,
        remembered_tokens: int = REMEMBERED_TOKENS,
        person: str = "",
        traces: TurnTracer | None = None,
    ) -> None:
        """Without a memory a conversation is remembered as long as this object lives.

        `person` keeps apart what several people say in one conversation: nobody's words stand in another's prompt.
        """
        self._toolbox, self._model, self._person = tools, model, person
        self._memory = memory or MemoryCheckpoints()
        self._remembered_tokens = remembered_tokens
        self._traces = traces or Untraced()
        self._tools = langchain_tools(tools)
        self._talks: dict[str, Talk] = {}
        self._graph = self._build()

    async def answer(self, text: str, session: str) -> AsyncIterator[ChatPart]:
        """The parts of the answer, ending with one `final`. Never raises an AdapterError."""
        if self._model is None:
            async for part in self._by_rules(text, session, NO_MODEL):
                yield part
            return
        with self._traces.turn(f"chat:{session}", self._model.name) as span:
            async for part in self._answer(self._model, text, session, span):
                yield part

    async def _answer(
        self, model: LanguageModel, text: str, session: str, span: TurnSpan
    ) -> AsyncIterator[ChatPart]:
        if remembered := await self._recalled(text):
            for part in told(remembered, ""):
                yield part
            return
        meter = Meter()
        try:
            async for part in self._by_model(text, session, meter, span):
                yield part
        except (ModelError, CheckpointError, GraphRecursionError) as error:
            log.warning("Chatting without the model: %s", error)
            span.failed(error)
            yield ChatPart(kind="error", text=str(error), by="model")
            async for part in self._by_rules(text, session, instead_of(error), usage(meter, model.book)):
                yield part

    async def _recalled(self, text: str) -> RulesAnswer | None:
        try:
            return await asyncio.to_thread(answer_from_memory, text, self._toolbox)
        except AdapterError as error:
            log.warning("Answering without memory: %s", error)
            return None

    # -- with a model

    def _build(self) -> StateGraph[Turn, Spending, Turn, Turn]:
        async def agent(state: Turn, runtime: Runtime[Spending]) -> dict[str, Any]:
            if self._model is None:
                raise ModelError("Answering a chat: found no model. Configure one.")
            moment = in_words(runtime.context.moment)
            shown: list[BaseMessage] = [SystemMessage(CHAT + moment), *state["messages"]]
            last = state["calls"] + 1 >= CALLS_PER_ANSWER or goes_round(state["messages"])
            with attribute_cost(CHAT_CASE), metered(runtime.context.meter):
                reply = await self._said(self._model, shown, runtime.stream_writer, last=last)
            return {
                "messages": [await asyncio.to_thread(said_by_the_model, reply)],
                "calls": state["calls"] + 1,
            }

        def onward(state: Turn) -> Literal["tools", "__end__"]:
            last = state["messages"][-1]
            more = isinstance(last, AIMessage) and bool(last.tool_calls)
            return "tools" if more and state["calls"] < CALLS_PER_ANSWER else "__end__"

        graph = StateGraph(Turn, context_schema=Spending)
        graph.add_node("agent", agent)
        graph.add_node(
            "tools", ToolNode(self._tools, handle_tool_errors=tool_failed, awrap_tool_call=guarded)
        )
        graph.add_edge(START, "agent")
        graph.add_conditional_edges("agent", onward, ["tools", END])
        graph.add_edge("tools", "agent")
        return graph

    async def _said(
        self, model: LanguageModel, shown: list[BaseMessage], write: Any, *, last: bool
    ) -> AIMessage:
        """The next message; `last` asks for words from what was looked up, since no call would be carried out."""
        if model.calls_tools:
            try:
                reply: AIMessage | None = None
                async for part in model.stream(shown, self._tools, choice="none" if last else "auto"):
                    if isinstance(part, Token):
                        write(ChatPart(kind="token", text=part.text, by="model"))
                    else:
                        reply = part.message
                if reply is None:
                    raise ModelError("Answering a chat: found no reply. Ask again.", transient=True)
                return reply
            except ToolsLacking as lacking:
                log.info("%s", lacking)
        return await next_step(model, shown, () if last else self._tools)

    async def _by_model(
        self, text: str, session: str, meter: Meter, span: TurnSpan
    ) -> AsyncIterator[ChatPart]:
        thread = f"chat:{session}:{self._person}" if self._person else f"chat:{session}"
        config: Any = {"configurable": {"thread_id": thread}, "recursion_limit": 2 * CALLS_PER_ANSWER + 4}
        heard = TurnResult()
        async with AsyncExitStack() as stack:
            saver, before = await self._similar_incident(stack, config, heard)
            turn: Any = {
                "messages": [
                    *(RemoveMessage(id=str(m.id)) for m in forgotten(before, self._remembered_tokens)),
                    await asyncio.to_thread(said_by_a_person, text),
                ],
                "calls": 0,
            }
            graph: Any = self._graph.compile(checkpointer=saver, name="chat")
            stream = graph.astream(
                turn,
                config,
                context=Spending(meter, await asyncio.to_thread(situation, self._toolbox, self._person)),
                stream_mode=["custom", "updates"],
                version="v2",
                durability="sync",
            )
            async for piece in await stack.enter_async_context(aclosing(span.around(stream))):
                if piece["type"] == "custom":
                    yield piece["data"]
                    continue
                for update in piece["data"].values():
                    for message in (update or {}).get("messages", ()):
                        for part in heard.take(message):
                            yield part
            await keep_newest(saver, thread)
        if heard.hanging:
            heard.gaps.append(
                f"the question led to more than {CALLS_PER_ANSWER} calls of the model, so it was stopped"
            )
            heard.last = (
                heard.last
                or "I stopped: that question led to too many look-ups. Ask for one thing at a time."
            )
        elif not heard.last.strip():
            raise ModelError("Answering a chat: found an answer without words. Ask again.", transient=True)
        spent = usage(meter, self._model.book if self._model else None)
        yield final_part(heard.last, heard.found, by="model", asked=text, gaps=heard.gaps, usage=spent)

    async def _similar_incident(
        self, stack: AsyncExitStack, config: dict[str, Any], heard: TurnResult
    ) -> tuple[BaseCheckpointSaver[Any], list[BaseMessage]]:
        """The memory, opened, and the conversation so far; an empty one where it cannot be had, which is told."""
        try:
            saver = await stack.enter_async_context(self._memory.opened())
            return saver, await _whole(self._graph.compile(checkpointer=saver), config)
        except CheckpointError as error:
            log.warning("Answering without what was said before: %s", error)
            heard.gaps.append(f"what was said before this question is not known: {error}")
            return await stack.enter_async_context(MemoryCheckpoints().opened()), []

    # -- by rules

    async def _by_rules(
        self, text: str, session: str, why: str, spent: Mapping[str, Any] | None = None
    ) -> AsyncIterator[ChatPart]:
        if len(self._talks) > MOST_TALKS:
            self._talks.clear()
        talk = self._talks.setdefault(session, Talk())
        try:
            answer = await asyncio.to_thread(answer_by_rules, text, self._toolbox, talk)
        except AdapterError as error:
            yield ChatPart(kind="error", text=str(error))
            words = f"{why} The records cannot be read now: {error}"
            yield final_part(words, (), by="rules", gaps=["the records could not be read"], usage=spent)
            return
        for part in told(answer, why, spent):
            yield part


async def _whole(graph: CompiledStateGraph[Any, Any, Any, Any], config: Any) -> list[BaseMessage]:
    """The conversation so far, each call with a result: the turn before may have ended anywhere.

    Calls that nobody answered are answered: endpoints refuse a conversation with one left open.
    """
    state = await graph.aget_state(config)
    messages = list(state.values.get("messages", ())) if state.values else []
    answered = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
    calls = [call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    closing = [ToolMessage("not carried out", tool_call_id=c) for c in calls if c and c not in answered]
    if not messages or not (closing or state.next):
        return messages
    await graph.aupdate_state(config, {"messages": closing, "calls": 0}, as_node="agent")
    return list((await graph.aget_state(config)).values["messages"])


def instead_of(error: Exception) -> str:
    """Why rules answer, in words for the person."""
    said = getattr(error, "said", "") or "The language model gave no answer"
    return f"{said}; rules answer instead."
