"""The steps of an agent on their way to the store: the agent is no writer of it, so the desk takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pilotage.flows.desk_client import DeskClient
from pilotage.flows.settings import Settings
from pilotage.planner.tracing import silence_foreign_tracers, start_tracing
from pilotage.telemetry.facts import SpanFact


def trace_to(desk: DeskClient, settings: Settings) -> Callable[[], None]:
    """What ends the tracing of this process's agent. Without a model or without the extra there is nothing to trace."""
    silence_foreign_tracers()

    def send(spans: list[SpanFact]) -> None:
        desk.call("record_spans", spans=[as_json(span) for span in spans])

    stop = start_tracing(send, settings.llm.budget) if settings.llm.configured else None
    return stop or (lambda: None)


def as_json(span: SpanFact) -> dict[str, Any]:
    """The span as the desk takes it."""
    return {**asdict(span), "at": span.at.isoformat()}
