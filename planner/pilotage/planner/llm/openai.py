"""Any OpenAI-compatible endpoint as a `LanguageModel`: the one place that knows the client and its errors.

Endpoints differ in what they support, so a typed answer is asked for in four ways, the strictest first, and
the way that worked is remembered. Every answer is validated here; half an answer is no answer. Secrets are
redacted from every message on its way out, whoever wrote it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import openai
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from pydantic import SecretStr, ValidationError

from pilotage.planner.llm.budget import BudgetSpent, LlmBudget, ModelCapabilities
from pilotage.planner.llm.protocol import CHARS_PER_TOKEN, Answer, Reply, Token, ToolsLacking, Usage
from pilotage.planner.llm.usage import METER
from pilotage.telemetry.errors import ModelError
from pilotage.telemetry.redaction import redact
from pilotage.telemetry.token_detectors import fit_for_a_prompt

STRUCTURED_OUTPUT_STRATEGIES = ("json_schema", "function_calling", "json_mode", "prompt")
UNSUPPORTED = (
    openai.BadRequestError,
    openai.NotFoundError,
    openai.UnprocessableEntityError,
    NotImplementedError,
)
"""How endpoints say that they lack a way of answering."""
FAILURES_UNTIL_DOWN = 2
DOWN_FOR = 30.0
"""Seconds that a failing model is left alone; its callers have rules to go on with."""
NO_KEEPALIVE = type(openai.DEFAULT_CONNECTION_LIMITS)(max_keepalive_connections=0)
DEPTH_OF_REASON = 300
"""Characters of a foreign error that are shown."""


class OpenAIModel:
    """A model behind an OpenAI-compatible base URL. Works from any event loop; keeps no connection open."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        model: str,
        timeout: float = 30.0,
        max_retries: int = 1,
        max_tokens: int = 0,
        calls_tools: bool = True,
        clock: Callable[[], float] = time.monotonic,
        book: LlmBudget | None = None,
    ) -> None:
        """With a book, its budget holds and what the endpoint can do is remembered beyond this object.

        `max_tokens` bounds one reply, 0 does not; with `calls_tools` false the endpoint is not asked for calls.
        """
        self._base_url, self._name, self._clock = base_url, model, clock
        # the client's own timeout restarts with every byte; this one does not
        self._deadline = timeout * (max_retries + 2)
        # Connections that outlive a call belong to an event loop that may not.
        self._http = openai.DefaultAsyncHttpxClient(timeout=timeout, limits=NO_KEEPALIVE)
        self._chat = ChatOpenAI(
            base_url=base_url,
            api_key=SecretStr(api_key or "none"),
            model=model,
            timeout=timeout,
            max_retries=max_retries,
            use_responses_api=False,
            stream_usage=True,
            http_async_client=self._http,
            **({"max_completion_tokens": max_tokens} if max_tokens else {}),
        )
        self._book = book
        known = book.capabilities(base_url, model) if book else ModelCapabilities()
        self._rung = min(known.strategy, len(STRUCTURED_OUTPUT_STRATEGIES) - 1)
        self._calls_tools = calls_tools and known.calls_tools
        self._tools_doubted = False
        self._failed_in_row = 0
        self._down_until = 0.0
        self._usage = Usage()

    @property
    def name(self) -> str:
        return self._name

    @property
    def usage(self) -> Usage:
        return self._usage

    @property
    def book(self) -> LlmBudget | None:
        return self._book

    @property
    def strategy(self) -> str:
        """The way of typed answering that is tried first."""
        return STRUCTURED_OUTPUT_STRATEGIES[self._rung]

    @property
    def calls_tools(self) -> bool:
        return self._calls_tools

    @property
    def down(self) -> bool:
        return self._clock() < self._down_until

    async def aclose(self) -> None:
        """Lets the client go; harmless when called twice."""
        await self._http.aclose()

    async def ask_text(self, messages: Sequence[BaseMessage]) -> str:
        """An answer in prose. Raises ModelError."""
        self._refuse_while_down()
        try:
            reply = await self._call(self._chat, messages)
            if not reply.text.strip():
                raise self._error("an empty answer", transient=True)
        except BudgetSpent:
            raise
        except ModelError:
            self._failed()
            raise
        self._answered()
        return str(reply.text)

    async def ask_typed(self, schema: type[Answer], messages: Sequence[BaseMessage]) -> Answer:
        """An answer that the schema accepts, by the first rung that gives one. Raises ModelError."""
        self._refuse_while_down()
        last: ModelError | None = None
        try:
            for at in range(self._rung, len(STRUCTURED_OUTPUT_STRATEGIES)):
                try:
                    answer = await self._with_strategy(STRUCTURED_OUTPUT_STRATEGIES[at], schema, messages)
                except _StrategyUnsupported as lacking:
                    last = lacking.error
                    continue
                self._learn(
                    ModelCapabilities(strategy=at, calls_tools=self._calls_tools and not self._tools_doubted)
                )
                self._answered()
                return answer
            # what worked once may have been a lower rung than there is already: the next call climbs from the top
            self._learn(ModelCapabilities(strategy=0, calls_tools=self._calls_tools))
            raise last or self._error("no way of answering left", transient=False)
        except BudgetSpent:
            raise
        except ModelError:
            self._failed()
            raise

    async def stream(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Any] = (),
        *,
        choice: Literal["auto", "none"] = "auto",
    ) -> AsyncIterator[Token | Reply]:
        """Tokens as they come, then the whole reply. Raises ModelError, also for a stream that ends too early."""
        self._refuse_while_down()
        self._refuse_over_budget()
        asked: Runnable[Any, Any] = self._chat
        if tools:
            asked = self._chat.bind_tools(list(tools), tool_choice=None if choice == "auto" else choice)
        whole: AIMessageChunk | None = None
        charged = False
        try:
            try:
                async with asyncio.timeout(self._deadline):
                    async for chunk in asked.astream(await asyncio.to_thread(_redacted, messages)):
                        whole = chunk if whole is None else whole + chunk
                        if chunk.text:
                            yield Token(text=str(chunk.text))
            except UNSUPPORTED as error:
                if not tools or choice == "none":  # the tools themselves were taken a moment ago
                    raise self._translated(error) from error
                self._tools_doubted = (
                    True  # the same refusal may have other reasons: a typed answer will tell
                )
                raise ToolsLacking(str(self._translated(error))) from error
            except Exception as error:
                raise self._translated(error) from error
            charged = True
            message = self._checked(whole, messages)
            # the client mends broken fragments into arguments nobody sent, so they are parsed here again
            if whole is not None and not all(_is_json(call["args"]) for call in whole.tool_call_chunks):
                raise self._error("a tool call whose arguments are not JSON", transient=True)
        except ToolsLacking:
            raise  # it has answered, if only that
        except ModelError:
            self._failed()
            raise
        finally:
            # cut, cancelled or too late: what came was thought all the same
            if whole is not None and not charged:
                self._spend(*self._tokens(whole, messages))
        self._answered()
        yield Reply(
            message=AIMessage(
                content=str(message.text),
                tool_calls=message.tool_calls,
                response_metadata={"finish_reason": message.response_metadata["finish_reason"]},
            )
        )

    # -- one call

    async def _call(self, asked: Runnable[Any, Any], messages: Sequence[BaseMessage]) -> AIMessage:
        self._refuse_over_budget()
        try:
            async with asyncio.timeout(self._deadline):
                reply = await asked.ainvoke(await asyncio.to_thread(_redacted, messages))
        except Exception as error:
            raise self._translated(error) from error
        return self._checked(reply, messages)

    def _checked(self, reply: Any, messages: Sequence[BaseMessage]) -> AIMessage:
        """The reply, when it is whole. A stream may end politely with half an answer and raise nothing."""
        if not isinstance(reply, AIMessage):
            raise self._error("no answer at all", transient=True)
        self._spend(*self._tokens(reply, messages))
        if (ended := reply.response_metadata.get("finish_reason")) in (None, "length", "content_filter"):
            cut = self._error(f"an answer that was cut short ({ended or 'no finish reason'})", transient=True)
            raise _AtItsBound(str(cut), transient=True) if ended == "length" else cut
        return reply

    # -- counting

    def _refuse_over_budget(self) -> None:
        if self._book is not None:
            self._book.refuse_if_spent()

    def _tokens(self, reply: AIMessage, messages: Sequence[BaseMessage]) -> tuple[int, int]:
        """Prompt and completion tokens, estimated where the endpoint did not count them."""
        if reply.usage_metadata:
            return reply.usage_metadata["input_tokens"], reply.usage_metadata["output_tokens"]
        said = len(str(reply.content)) + sum(len(str(call["args"])) for call in reply.tool_calls)
        heard = sum(len(str(message.content)) for message in messages)
        return 1 + heard // CHARS_PER_TOKEN, 1 + said // CHARS_PER_TOKEN

    def _spend(self, prompt: int, completion: int) -> None:
        self._usage = replace(
            self._usage,
            calls=self._usage.calls + 1,
            prompt_tokens=self._usage.prompt_tokens + prompt,
            completion_tokens=self._usage.completion_tokens + completion,
        )
        if (meter := METER.get()) is not None:
            meter.add(prompt, completion)
        if self._book is not None:
            self._book.spend(prompt, completion)

    def _learn(self, seen: ModelCapabilities) -> None:
        if (seen.strategy, seen.calls_tools) != (self._rung, self._calls_tools) and self._book is not None:
            self._book.learn(self._base_url, self._name, seen)
        self._rung, self._calls_tools = seen.strategy, seen.calls_tools

    # -- typed answers

    async def _with_strategy(
        self, strategy: str, schema: type[Answer], messages: Sequence[BaseMessage]
    ) -> Answer:
        asked, turns = self._bound(strategy, schema, messages)
        problem = ""
        for _ in range(2):  # the answer, and one repair
            try:
                reply = await self._call(asked, turns)
            except _AtItsBound as error:
                problem = str(error)
                turns = [*turns, HumanMessage("That became too long. Send a shorter one.")]
                continue
            except ModelError as error:
                if isinstance(error.__cause__, UNSUPPORTED):
                    raise _StrategyUnsupported(error) from error
                raise
            body = _body_of(reply)
            try:
                return schema.model_validate_json(_json_in(body))
            except (ValidationError, ValueError) as invalid:
                problem = str(invalid)[:DEPTH_OF_REASON]
                correction = HumanMessage(f"That did not validate: {problem}\nSend only the corrected JSON.")
                turns = [*turns, AIMessage(body or "(empty)"), correction]
        raise _StrategyUnsupported(self._error(f"no valid {schema.__name__}: {problem}", transient=False))

    def _bound(
        self, strategy: str, schema: type[Answer], messages: Sequence[BaseMessage]
    ) -> tuple[Runnable[Any, Any], list[BaseMessage]]:
        shape, name = schema.model_json_schema(), schema.__name__
        described = SystemMessage(
            "Answer with one JSON object that matches this JSON Schema, and nothing else:\n"
            + json.dumps(shape)
        )
        match strategy:
            case "json_schema":
                # without "strict": optional fields and open objects stay legal, and we validate ourselves
                wanted = {"type": "json_schema", "json_schema": {"name": name, "schema": shape}}
                return self._chat.bind(response_format=wanted), list(messages)
            case "function_calling":
                function = {"name": name, "description": schema.__doc__ or name, "parameters": shape}
                tools = [{"type": "function", "function": function}]
                return self._chat.bind_tools(tools, tool_choice=name), list(messages)
            case "json_mode":
                return self._chat.bind(response_format={"type": "json_object"}), [described, *messages]
            case _:
                return self._chat, [described, *messages]

    # -- failing

    def _refuse_while_down(self) -> None:
        if self.down:
            raise self._error(f"it failed {self._failed_in_row} times and rests", transient=True)

    def _answered(self) -> None:
        self._failed_in_row = 0

    def _failed(self) -> None:
        self._failed_in_row += 1
        self._usage = replace(self._usage, failures=self._usage.failures + 1)
        if self._failed_in_row >= FAILURES_UNTIL_DOWN:
            self._down_until = self._clock() + DOWN_FOR

    def _error(self, cause: str, *, transient: bool) -> ModelError:
        return ModelError(
            f"Asking the model {self._name} at {redact(self._base_url)}: found {cause}. "
            "Rules answer instead; check the endpoint, the model's name and the key.",
            transient=transient,
        )

    def _translated(self, error: Exception) -> ModelError:
        """The one translation of whatever the client raises; what is unforeseen is a malformed answer."""
        if isinstance(error, ModelError):
            return error
        reason = redact(f"{type(error).__name__}: {error}")[:DEPTH_OF_REASON]
        match error:
            case openai.APIStatusError():
                transient = error.status_code in (408, 409, 429) or error.status_code >= 500
                return self._error(f"HTTP {error.status_code} ({reason})", transient=transient)
            case openai.APITimeoutError() | TimeoutError():
                return self._error("no answer in time", transient=True)
            case openai.APIConnectionError():
                return self._error(f"no connection ({reason})", transient=True)
            case openai.LengthFinishReasonError():
                return _AtItsBound(
                    str(self._error("an answer that was cut short", transient=True)), transient=True
                )
            case _:
                return self._error(f"an answer that cannot be read ({reason})", transient=True)


class _AtItsBound(ModelError):
    """An answer that was cut because it reached the most that it may have."""


class _StrategyUnsupported(Exception):
    """This rung gave nothing; the next one may."""

    def __init__(self, error: ModelError) -> None:
        super().__init__(str(error))
        self.error = error


def _redacted(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [
        message.model_copy(update={"content": fit_for_a_prompt(message.content)})
        if isinstance(message.content, str)
        else message
        for message in messages
    ]


def _is_json(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except ValueError:
        return False


def _body_of(reply: AIMessage) -> str:
    """The text of a typed answer, wherever it stands: some endpoints ignore a named tool choice."""
    if reply.tool_calls:
        return json.dumps(reply.tool_calls[0]["args"])
    if reply.invalid_tool_calls:
        return reply.invalid_tool_calls[0]["args"] or ""
    return str(reply.text)


def _json_in(body: str) -> str:
    """The first JSON object of a text, whatever prose, thinking or fences surround it. Raises ValueError."""
    body = re.sub(r"<think>.*?</think>", "", body, flags=re.DOTALL)
    fenced = re.search(r"```(?:json)?\s*(.*?)```", body, flags=re.DOTALL)
    body = fenced.group(1) if fenced else body
    start = body.find("{")
    if start < 0:
        raise ValueError("there is no JSON object in the answer")
    return json.dumps(json.JSONDecoder().raw_decode(body[start:])[0])
