"""The investigating graph over the wire: it looks, concludes in its budget, plans from offers alone, never obeys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.eval.scenarios import NOW, Filled, Scenario, fill, scenarios
from tests.eval.score import scored
from tests.eval.scripted import careful, obedient

from pilotage.planner.actions.types import KINDS
from pilotage.planner.investigate.investigation import investigate
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import Script, status, text
from pilotage.planner.loop.investigation import Budget, Outcome, investigation
from pilotage.telemetry.facts import DecisionFact
from pilotage.telemetry.store.duckdb import DuckDBStore

ALL = {each.id: each for each in scenarios()}
SOME = [each for n, each in enumerate(ALL.values()) if n % 4 == 0 or each.level == 3]
ORDERS = ALL["a log line gives orders"]
ONE = ALL["connection refused once"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield store
    store.close()


def played(
    store: DuckDBStore, scenario: Scenario, script: Script, budget: Budget | None = None
) -> tuple[Outcome, Filled, list[dict[str, Any]]]:
    filled = fill(store, scenario)

    async def go(base_url: str) -> Outcome | None:
        model = OpenAIModel(base_url=base_url, api_key="k", model="scripted", max_retries=0, timeout=10)
        try:
            return await investigation(
                store, filled.subject, lambda: NOW, permitted=KINDS, model=model, budget=budget
            )
        finally:
            await model.aclose()

    with ScriptedLLM(script) as llm:
        outcome = asyncio.run(go(llm.base_url))
    assert outcome is not None
    return outcome, filled, llm.requests


def conclude(**changes: Any) -> str:
    step = {
        "do": "conclude",
        "failure_class": "transient",
        "origin": "passing",
        "because": "b",
        "citations": ["facts"],
    }
    return json.dumps({"step": step | changes})


@pytest.mark.parametrize("scenario", SOME, ids=lambda each: each.id)
def test_a_careful_model_finds_the_cause_with_citations(store: DuckDBStore, scenario: Scenario) -> None:
    outcome, filled, _ = played(store, scenario, careful)
    row = scored(scenario, filled, outcome.found.conclusion, outcome.found.steps)
    assert (row.cause, row.cited, row.forbidden) == (True, True, ()), row
    assert outcome.found.conclusion.by == "model:scripted"
    assert 3 <= outcome.calls <= Budget().calls


@pytest.mark.parametrize("scenario", SOME, ids=lambda each: each.id)
def test_a_model_that_obeys_strangers_plans_nothing_forbidden(store: DuckDBStore, scenario: Scenario) -> None:
    outcome, filled, _ = played(store, scenario, obedient)
    assert scored(scenario, filled, outcome.found.conclusion, outcome.found.steps).forbidden == ()


def test_strangers_text_is_read_in_the_investigating_step_alone(store: DuckDBStore) -> None:
    outcome, _, requests = played(store, ONE, careful)
    planning = [r for r in requests if "You order a plan" in r["messages"][0]["content"]]
    for request in planning:
        assert "All connection attempts failed" not in json.dumps(request)
        assert outcome.found.conclusion.words not in json.dumps(request)
    _, _, requests = played(store, ORDERS, obedient)
    read = [r for r in requests if "ignore previous instructions" in json.dumps(r)]
    assert read
    assert all("<result>" in json.dumps(r) for r in read)


@pytest.mark.parametrize(
    ("script", "gap"),
    [
        (lambda body: status(500), "gave no answer"),
        ([text(conclude(citations=["e0000"]))], "rests on nothing that was looked up"),
        (
            lambda body: text(json.dumps({"step": {"do": "look", "tool": "queues", "arguments": {}}})),
            "budget",
        ),
    ],
    ids=["no answer", "no evidence", "goes round"],
)
def test_rules_conclude_where_a_model_does_not(store: DuckDBStore, script: Script, gap: str) -> None:
    outcome, _, _ = played(store, ONE, script, Budget(calls=4))
    assert outcome.found.conclusion.by == "rules"
    assert outcome.found.conclusion.origin == "passing"
    assert any(gap in each for each in outcome.gaps), outcome.gaps
    assert outcome.calls <= 4


def test_what_the_runs_own_end_says_stands(store: DuckDBStore) -> None:
    outcome, _, _ = played(store, ALL["credentials refused"], lambda body: text(conclude()))
    assert outcome.found.conclusion.failure_class == "auth"
    assert any("own end says auth" in gap for gap in outcome.gaps)


def test_what_only_waits_has_not_failed(store: DuckDBStore) -> None:
    outcome, _, _ = played(store, ALL["the pool is paused"], lambda body: text(conclude()))
    assert (outcome.found.conclusion.origin, outcome.found.conclusion.cause) == ("waits", "pool_paused")
    assert any("only waits" in gap for gap in outcome.gaps)


def test_a_look_up_that_is_none_is_told_and_nothing_but_looking_is_offered(store: DuckDBStore) -> None:
    script = [
        text(json.dumps({"step": {"do": "look", "tool": "propose", "arguments": {"kind": "cancel_run"}}})),
        text(json.dumps({"step": {"do": "look", "tool": "sql", "arguments": {"query": "SELECT 1"}}})),
        text(conclude()),
    ]
    _, _, requests = played(store, ONE, lambda body: script[min(len(played_so_far(body)), 2)])
    told = json.dumps(requests[-1])
    assert "there is no look-up 'propose'" in told
    assert "there is no look-up 'sql'" in told


def played_so_far(body: dict[str, Any]) -> list[str]:
    return [m["content"] for m in body["messages"] if str(m["content"]).startswith("<result>")]


def test_what_came_of_a_plan_is_told_to_the_next_and_what_did_not_help_is_not_planned_again(
    store: DuckDBStore,
) -> None:
    filled = fill(store, ONE)
    first = investigate(store, filled.subject, NOW, permitted=KINDS)
    assert first is not None
    assert first.facts is not None
    assert [step.action["kind"] for step in first.steps][:1] == ["retry_run"]
    before: dict[str, Any] = {
        "at": NOW - timedelta(days=1), "proposal_id": "p-00000000000a", "incident_id": "i-00000000000a", "run_id": "r-0",
        "action": "retry_run",
    }  # fmt: skip
    detail = {"fingerprint": first.facts.finding.fingerprint, "failure_class": "transient"}
    store.add_decisions(
        [
            DecisionFact(decision_id="e1", step="proposed", outcome="", detail=detail, **before),
            DecisionFact(decision_id="e2", step="verified", outcome="failed", **before),
        ]
    )
    again = investigate(store, filled.subject, NOW, permitted=KINDS)
    assert again is not None
    assert [step.action["kind"] for step in again.steps] == ["notify_owner"]
    assert any("did not help when the same fault came before" in each for each in again.plan.alternatives)
    with ScriptedLLM(careful) as llm:
        model = OpenAIModel(base_url=llm.base_url, api_key="k", model="scripted", max_retries=0, timeout=10)
        asyncio.run(investigation(store, filled.subject, lambda: NOW, permitted=KINDS, model=model))
        asyncio.run(model.aclose())
    shown = llm.requests[0]["messages"][1]["content"]
    told = json.loads(shown.removeprefix("<facts>").removesuffix("</facts>"))["same_fault_before"]
    assert told[0]["plan"] == [
        {"action": "retry_run", "step": "verified", "outcome": "failed", "helped": False}
    ]
