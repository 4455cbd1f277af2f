"""The agent's own record: spans into the store by the API, to OTLP where it is set up, and no word of a prompt in them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from opentelemetry.trace import get_current_span

from pilotage.flows.agent.tracing import as_json
from pilotage.flows.api.proposals import ProposalEndpoints
from pilotage.planner.chat.agent import ChatAgent
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.llm.budget import Budget
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import Script, status, text, tool
from pilotage.planner.llm.tracing import (
    FOREIGN_TRACERS,
    Send,
    Tracing,
    TurnTracer,
    silence_foreign_tracers,
    start_tracing,
)
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ApiError
from pilotage.telemetry.facts import SpanFact
from pilotage.telemetry.store.duckdb import DuckDBStore

SAID = "sesame-open-wide"
ANN = Identity(name="ann", kind="user", roles=frozenset({"viewer"}))
BOB = Identity(name="bob", kind="user", roles=frozenset({"viewer"}))
PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Whatever ran before in this process, nothing is traced when the test begins."""
    from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

    instrumentor: Any = LangChainInstrumentor()  # type: ignore[no-untyped-call]  # it publishes no types
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    yield
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield store
    store.close()


def api_of(store: DuckDBStore) -> ProposalEndpoints:
    unused = cast("Any", None)  # recording spans asks nothing else
    return ProposalEndpoints(
        ledger=unused, gate=unused, injector=unused, store=store, kill_switch=unused, mode=unused, clock=unused,
        health=dict, wake=lambda: None,
    )  # fmt: skip


class NoApi:
    def permitted_kinds(self) -> tuple[Any, ...]:
        return ()


def talk(store: DuckDBStore, script: Script, *tracers: TurnTracer) -> None:
    """One question by each of these agents, all at once."""

    async def one(base_url: str, tracer: TurnTracer) -> None:
        model = OpenAIModel(base_url=base_url, api_key="k", model="m", max_retries=0, timeout=30)
        agent = ChatAgent(
            tools=Toolbox(store=store, control_api=cast("Any", NoApi())), model=model, traces=tracer
        )
        async for part in agent.answer(f"what of the queues? {SAID}", "s1"):
            # what the reader does between two parts is not the agent's
            assert not get_current_span().get_span_context().is_valid, part
        await model.aclose()

    async def ask(base_url: str) -> None:
        await asyncio.gather(*(one(base_url, tracer) for tracer in tracers))

    with ScriptedLLM(script) as llm:
        asyncio.run(ask(llm.base_url))


def sender(store: DuckDBStore, caller: Identity, through: str = "") -> Send:
    """What hands spans to the API as this caller, in the API's own JSON."""
    operations = api_of(store)

    def send(spans: list[SpanFact]) -> None:
        wire = json.loads(json.dumps([as_json(span) for span in spans]))
        asyncio.run(operations.record_spans(caller, wire, through))

    return send


@contextmanager
def tracing() -> Iterator[Tracing]:
    begun = start_tracing(Budget(prompt_price=1_000_000, completion_price=2_000_000))
    assert begun is not None
    assert start_tracing() is None
    try:
        yield begun
    finally:
        begun.stop()


def traced(store: DuckDBStore, script: Script) -> list[dict[str, Any]]:
    """The stored spans of one conversation of Ann's."""
    with tracing() as begun:
        talk(store, script, begun.of("chat", sender(store, ANN, "agent")))
    return store.rows('SELECT * FROM agent_spans ORDER BY "at"')


def test_a_conversation_leaves_its_steps_with_their_cost_and_no_word_of_it(store: DuckDBStore) -> None:
    spans = traced(store, [tool("queues", {}), text(f"none {SAID}")])
    assert sorted((s["operation"], s["tool"]) for s in spans) == [
        ("chat", ""), ("chat", ""), ("execute_tool", "queues"), ("invoke_agent", ""), ("invoke_workflow", ""),
    ]  # fmt: skip
    (turn,) = (s for s in spans if s["operation"] == "invoke_agent")
    (graph,) = (s for s in spans if s["operation"] == "invoke_workflow")
    calls = [s for s in spans if s["operation"] == "chat"]
    assert (turn["name"], turn["parent_id"], graph["parent_id"]) == (
        "invoke_agent chat",
        None,
        turn["span_id"],
    )
    assert {s["parent_id"] for s in spans if s not in (turn, graph)} == {graph["span_id"]}
    assert len({s["trace_id"] for s in spans}) == 1
    assert turn["ms"] >= graph["ms"] >= max(s["ms"] for s in calls)
    assert {s["agent"] for s in spans} == {"agent-of-ann"}
    assert [(s["model"], s["input_tokens"], s["output_tokens"], s["cost"]) for s in calls] == [
        ("m", 11, 7, 25.0)
    ] * 2
    assert {s["conversation"] for s in calls} == {"chat:s1"}
    assert all(s["ms"] > 0 and s["first_token_ms"] > 0 for s in calls)
    assert SAID not in repr(spans)
    assert os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] == "NO_CONTENT"


def test_cost_and_latency_are_one_query_away(store: DuckDBStore) -> None:
    traced(store, [tool("queues", {}), text("none")])
    sql = (
        "SELECT sum(cost) AS cost, quantile_cont(ms, 0.95) AS p95, sum(input_tokens + output_tokens) AS tokens "
        "FROM agent_spans WHERE operation = 'chat'"
    )
    [row] = store.ad_hoc(sql)[0].to_pylist()
    assert (row["cost"], row["tokens"]) == (50.0, 36)
    assert row["p95"] > 0
    [day] = Toolbox(store=store, control_api=cast("Any", None)).agent_costs()["days"]
    assert (day["calls"], day["failed"], day["cost"]) == (2, 0, 50.0)


ONE_QUERY = """
    SELECT turn.agent, turn.ms, sum(call.cost) AS cost, count(call.span_id) AS calls
    FROM agent_spans turn LEFT JOIN agent_spans call ON call.trace_id = turn.trace_id AND call.operation = 'chat'
    WHERE turn.operation = 'invoke_agent' GROUP BY ALL ORDER BY turn.agent
"""


def test_several_people_are_served_and_each_ones_steps_go_their_own_way(store: DuckDBStore) -> None:
    with tracing() as begun:
        agents = [begun.of("chat", sender(store, who, "agent")) for who in (ANN, BOB)]
        talk(store, lambda body: text("none"), *agents)
        talk(store, [status(500)], agents[1])
    rows = store.ad_hoc(ONE_QUERY)[0].to_pylist()
    assert [(r["agent"], r["calls"]) for r in rows] == [
        ("agent-of-ann", 1), ("agent-of-bob", 1), ("agent-of-bob", 1),
    ]  # fmt: skip
    assert [r["cost"] for r in rows if r["agent"] == "agent-of-ann"] == [25.0]
    assert all(r["ms"] > 0 for r in rows)
    found = Toolbox(store=store, control_api=cast("Any", None)).agent_costs()["agents"]
    assert [(a["agent"], a["answers"], a["failed"], a["cost"]) for a in found] == [
        ("agent-of-ann", 1, 0, 25.0), ("agent-of-bob", 2, 1, 25.0),
    ]  # fmt: skip
    assert all(a["ms_p95"] >= a["ms_p50"] > 0 for a in found)


def test_whose_steps_they_are_is_not_for_the_sender_to_say(store: DuckDBStore) -> None:
    span = SpanFact(
        span_id="s", trace_id="t", at=datetime.now(UTC), ms=1.0, name="n", operation="chat", agent="planner"
    )
    sender(store, ANN)([span])
    assert store.rows("SELECT agent FROM agent_spans") == [{"agent": "ann"}]


def test_a_thought_of_the_planner_is_a_turn_too(store: DuckDBStore) -> None:
    with tracing() as begun:
        tracer = begun.of("planner", sender(store, PLANNER))
        with tracer.turn("i-0123456789ab", "m") as span, span.inside():
            graph = StateGraph(MessagesState)
            graph.add_node("think", lambda state: {})
            graph.add_edge(START, "think")
            graph.compile(name="planner").invoke({"messages": []})
    turn, inner = store.rows("SELECT * FROM agent_spans ORDER BY parent_id NULLS FIRST")
    assert (turn["name"], turn["conversation"], turn["agent"]) == (
        "invoke_agent planner", "i-0123456789ab", "planner",
    )  # fmt: skip
    assert (inner["operation"], inner["parent_id"]) == ("invoke_workflow", turn["span_id"])


def test_a_failed_call_is_on_record_with_what_failed(store: DuckDBStore) -> None:
    spans = traced(store, [status(500, f"no {SAID}")])
    assert [s["error"].rpartition(".")[2] for s in spans if s["operation"] == "chat"] == ["OpenAIAPIError"]
    assert SAID not in repr(spans)


def test_a_desk_that_is_away_costs_the_spans_and_nothing_else(store: DuckDBStore) -> None:
    def send(spans: list[SpanFact]) -> None:
        raise ApiError("Asking the API: nobody answers. Start it.", transient=True)

    with tracing() as begun:
        talk(store, [text("hello")], begun.of("chat", send))
    assert store.rows("SELECT count(*) AS n FROM agent_spans") == [{"n": 0}]


def test_with_an_endpoint_in_the_environment_the_spans_go_to_otlp_too(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is inherited
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    traced(store, [text(f"hello {SAID}")])
    server.shutdown()
    server.server_close()
    assert {path for path, _ in received} == {"/v1/traces"}
    body = b"".join(payload for _, payload in received)
    assert b"gen_ai.usage.input_tokens" in body
    assert SAID.encode() not in body


def test_foreign_tracers_are_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOREIGN_TRACERS:
        monkeypatch.setenv(name, "true")
    silence_foreign_tracers()
    assert "LANGSMITH_TRACING" not in os.environ
    assert not any(name in os.environ for name in FOREIGN_TRACERS)


def test_without_the_extra_tracing_is_off_and_with_it_nothing_is_imported_before_it_starts() -> None:
    code = (
        "import sys, importlib.util\n"
        "import pilotage.planner.llm.tracing as t\n"
        "assert not any(name.startswith('opentelemetry.sdk.trace') for name in sys.modules), 'imported too early'\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if 'genai' in name else real(name, *a)\n"
        "assert t.start_tracing() is None\n"
        "assert not any(name.startswith('opentelemetry.sdk.trace') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_same_span_twice_is_once(store: DuckDBStore) -> None:
    spans = traced(store, [text("hello")])
    facts = [SpanFact(**row) for row in spans]
    assert store.add_spans(facts) == 0
    assert asdict(facts[0])["span_id"]
