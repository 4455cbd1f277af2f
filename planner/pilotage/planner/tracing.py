"""What the agent did, step by step, as OpenTelemetry spans: into the telemetry store, and to OTLP where it is set up.

Needs the extra `pilotage[otel]`, and is off without it. Spans hold names, counts and times: no prompt, no answer, no
argument. What leaves for the store is built from a table of known attributes, so nothing else can.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pilotage.planner.model_book import Budget
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.facts import SpanFact

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

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


def available() -> bool:
    """Whether the extra is installed."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in NEEDED)
    except ModuleNotFoundError:
        return False


def silence_foreign_tracers() -> None:
    """Nothing; no library in this process sends prompts anywhere after it."""
    for name in FOREIGN_TRACERS:
        os.environ.pop(name, None)


def start_tracing(send: Send, budget: Budget | None = None) -> Callable[[], None] | None:
    """What ends the tracing and sends the rest; None when it is off, or on already in this process."""
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
    exporter = _exporter(send, budget or Budget())
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    if any(os.environ.get(name) for name in OTLP):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # it asks for `langchain`, but listens to langchain-core
    instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)

    def stop() -> None:
        instrumentor.uninstrument()
        provider.shutdown()

    return stop


def _exporter(send: Send, budget: Budget) -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class StoreExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            try:
                send([fact_of(span, budget) for span in spans])
            except AdapterError as exc:
                log.warning("%d steps of the agent are not on record: %s", len(spans), exc)
                return SpanExportResult.FAILURE
            return SpanExportResult.SUCCESS

    return StoreExporter()


def fact_of(span: ReadableSpan, budget: Budget) -> SpanFact:
    """The span as it is stored."""
    told: Mapping[str, Any] = span.attributes or {}
    context, began, ended = span.get_span_context(), span.start_time or 0, span.end_time or 0
    spent = [int(told.get(f"gen_ai.usage.{side}_tokens", 0)) for side in ("input", "output")]
    first = told.get("gen_ai.response.time_to_first_chunk")

    def word(name: str) -> str:
        return str(told.get(name, ""))[:LONGEST]

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
