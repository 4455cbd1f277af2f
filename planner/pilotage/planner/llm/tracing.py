"""What the agent did, step by step, as OpenTelemetry spans: into the telemetry store, and to OTLP where it is set up.

Needs the extra `pilotage[otel]`, and is off without it. Spans hold names, counts and times: no prompt, no answer, no
argument. What leaves for the store is built from a table of known attributes, so nothing else can. Each turn of an
agent is a trace of its own, and goes to the store by the way that it was begun with.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pilotage.planner.llm.budget import Budget
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.facts import SpanFact

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

Send = Callable[[list[SpanFact]], None]
"""Takes finished spans to the store. May raise AdapterError; the spans are then lost, and nothing else is."""
NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.instrumentation.genai.langchain")
FOREIGN_TRACERS = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2")
"""Variables that would send prompts to somebody else's service."""
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
LONGEST = 200
"""Characters of one attribute."""
WAYS = 1000
"""Turns whose way to the store is known; spans leave seconds after they end."""
Piece = TypeVar("Piece")


class TurnSpan(Protocol):
    """One turn of an agent, while it lasts."""

    def around(self, stream: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """The same stream; what is done to fetch its pieces counts as done in this turn."""
        ...

    def inside(self) -> AbstractContextManager[None]:
        """What is done within it, in one task, counts as done in this turn."""
        ...

    def failed(self, error: BaseException) -> None:
        """Notes what went wrong, by its type; an answer may come all the same."""
        ...


class TurnTracer(Protocol):
    """Traces the turns of one agent."""

    def turn(self, conversation: str, model: str = "") -> AbstractContextManager[TurnSpan]:
        """A turn that lasts until the context is left."""
        ...


class Untraced:
    """Traces nothing: both a `TurnTracer` and its `TurnSpan`."""

    @contextlib.contextmanager
    def turn(self, conversation: str, model: str = "") -> Iterator[TurnSpan]:
        """As `TurnTracer`."""
        yield self

    async def around(self, stream: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """As `TurnSpan`."""
        async with aclosing(stream):
            async for piece in stream:
                yield piece

    def inside(self) -> AbstractContextManager[None]:
        """As `TurnSpan`."""
        return contextlib.nullcontext()

    def failed(self, error: BaseException) -> None:
        """As `TurnSpan`."""


def available() -> bool:
    """Whether the extra is installed."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in NEEDED)
    except ModuleNotFoundError:
        return False


def silence_foreign_tracers() -> None:
    """Keep every library in this process from sending prompts anywhere."""
    for name in FOREIGN_TRACERS:
        os.environ.pop(name, None)


@dataclass(frozen=True, slots=True)
class Tracing:
    """The tracing of this process."""

    _tracer: Any
    _ways: OrderedDict[int, Send]
    stop: Callable[[], None]
    """Ends it and sends the rest."""

    def of(self, agent: str, send: Send) -> TurnTracer:
        """Traces the turns of the agent so named; its steps reach the store by `send`, and by nothing else."""
        return _Turns(agent, send, self._tracer, self._ways)


def start_tracing(budget: Budget | None = None) -> Tracing | None:
    """The tracing of this process; None when the extra is absent, or when it is on already."""
    silence_foreign_tracers()
    if not available():
        log.info("The agent is not traced: install the extra `pilotage[otel]`.")
        return None
    os.environ[CAPTURE] = "NO_CONTENT"
    from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor  # start-up time: a second
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    instrumentor: Any = LangChainInstrumentor()  # type: ignore[no-untyped-call]  # it publishes no types
    if instrumentor.is_instrumented_by_opentelemetry:
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": "pilotage-agent"}))
    ways: OrderedDict[int, Send] = OrderedDict()
    exporter = _exporter(ways, budget or Budget())
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    if any(os.environ.get(name) for name in OTLP):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # it asks for `langchain`, but listens to langchain-core
    instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)

    def stop() -> None:
        instrumentor.uninstrument()
        provider.shutdown()

    return Tracing(provider.get_tracer("pilotage"), ways, stop)


@dataclass(frozen=True, slots=True)
class _Turns:
    agent: str
    send: Send
    tracer: Any
    ways: OrderedDict[int, Send]

    @contextlib.contextmanager
    def turn(self, conversation: str, model: str = "") -> Iterator[TurnSpan]:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": self.agent,
            "gen_ai.conversation.id": conversation,
            **({"gen_ai.request.model": model} if model else {}),
        }
        # with no parent: whatever surrounds it, each turn is a trace of its own
        span: Span = self.tracer.start_span(
            f"invoke_agent {self.agent}", context=Context(), attributes=attributes
        )
        self.ways[span.get_span_context().trace_id] = self.send
        while len(self.ways) > WAYS:
            self.ways.popitem(last=False)
        turn = _Turn(span, set_span_in_context(span))
        try:
            yield turn
        except BaseException as error:
            turn.failed(error)
            raise
        finally:
            span.end()


@dataclass(frozen=True, slots=True)
class _Turn:
    span: Span
    context: Context

    async def around(self, stream: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        # piece by piece: between two of them whoever reads the stream does things of their own
        async with aclosing(stream):
            while True:
                try:
                    with self.inside():
                        piece = await anext(stream)
                except StopAsyncIteration:
                    return
                yield piece

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        from opentelemetry.context import attach, detach

        token = attach(self.context)
        try:
            yield
        finally:
            detach(token)

    def failed(self, error: BaseException) -> None:
        self.span.set_attribute("error.type", type(error).__qualname__)


def _exporter(ways: Mapping[int, Send], budget: Budget) -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class StoreExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            bundles: dict[Send, list[SpanFact]] = {}
            for span in spans:
                context = span.get_span_context()
                if (send := ways.get(context.trace_id if context else 0)) is not None:
                    bundles.setdefault(send, []).append(fact_of(span, budget))
            done = SpanExportResult.SUCCESS
            for send, facts in bundles.items():
                try:
                    send(facts)
                except AdapterError as exc:
                    log.warning("%d steps of the agent are not on record: %s", len(facts), exc)
                    done = SpanExportResult.FAILURE
            return done

    return StoreExporter()


def fact_of(span: ReadableSpan, budget: Budget) -> SpanFact:
    """The span as it is stored."""
    attributes: Mapping[str, Any] = span.attributes or {}
    context, began, ended = span.get_span_context(), span.start_time or 0, span.end_time or 0
    spent = [int(attributes.get(f"gen_ai.usage.{side}_tokens", 0)) for side in ("input", "output")]
    first = attributes.get("gen_ai.response.time_to_first_chunk")

    def word(name: str) -> str:
        return str(attributes.get(name, ""))[:LONGEST]

    return SpanFact(
        span_id=f"{context.span_id:016x}" if context else "",
        trace_id=f"{context.trace_id:032x}" if context else "",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
        at=datetime.fromtimestamp(began / 1e9, UTC),
        ms=(ended - began) / 1e6,
        name=span.name[:LONGEST],
        operation=word("gen_ai.operation.name"),
        conversation=word("gen_ai.conversation.id"),
        model=word("gen_ai.request.model"),
        tool=word("gen_ai.tool.name"),
        input_tokens=spent[0],
        output_tokens=spent[1],
        cost=budget.cost(*spent),
        first_token_ms=None if first is None else 1000 * float(first),
        error=word("error.type"),
    )
