"""The steps of agents on their way to the store: an agent is no writer of it, so the API takes them.

A process may work for several people. What an agent did for one of them is handed in under the name of that person's
agent, with that person's token: nobody's steps depend on somebody else being signed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pilotage.flows.api.client import ApiClient
from pilotage.flows.config.settings import Settings
from pilotage.planner.llm.tracing import TurnTracer, Untraced, silence_foreign_tracers, start_tracing
from pilotage.telemetry.facts import SpanFact


class Traces:
    """The tracing of this process's agents. Without a model or without the extra there is nothing to trace."""

    def __init__(self, settings: Settings) -> None:
        silence_foreign_tracers()
        self._tracing = start_tracing(settings.llm.budget) if settings.llm.configured else None

    def of_planner(self, control_api: ApiClient) -> TurnTracer:
        """For the planner itself, whose own token the client carries."""
        return self._tracing.of("planner", _sender(control_api, {})) if self._tracing else Untraced()

    def of_chat(self, control_api: ApiClient) -> TurnTracer:
        """For the agent of the person whose token the client carries."""
        return (
            self._tracing.of("chat", _sender(control_api, {"through": "agent"}))
            if self._tracing
            else Untraced()
        )

    def stop(self) -> None:
        """Sends what is left and ends it; harmless when called twice."""
        if self._tracing is not None:
            self._tracing.stop()
            self._tracing = None


def _sender(control_api: ApiClient, how: dict[str, str]) -> Callable[[list[SpanFact]], None]:
    def send(spans: list[SpanFact]) -> None:
        control_api.call("record_spans", spans=[as_json(span) for span in spans], **how)

    return send


def as_json(span: SpanFact) -> dict[str, Any]:
    """The span as the API takes it."""
    return {**asdict(span), "at": span.at.isoformat()}
