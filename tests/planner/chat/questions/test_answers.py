"""What is answered without a model: from the records, with its evidence, or with the question asked back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, timedelta
from typing import Any

import pytest
from tests.planner.chat.questions.test_questions import GOLDEN, UNSEEN
from tests.planner.chat.questions.world import NOW, deployment_id, fill, run_id

from pilotage.planner.actions.types import KINDS, ActionKind
from pilotage.planner.chat.rules import Talk, answer_by_rules
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.telemetry.facts import DecisionFact, StateType
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.queries import runs
from pilotage.telemetry.store.duckdb import DuckDBStore


class Records:
    """An API with a ledger of one waiting proposal."""

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        return KINDS

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        raise AssertionError("nothing is handed in by an answer")

    def consider(self, action: Mapping[str, Any]) -> dict[str, Any]:
        return {"outcome": "needs_approval"}

    def read(self, op: str, **arguments: Any) -> Any:
        match op:
            case "whoami":
                return {"name": "ann", "roles": ["approver"]}
            case "proposals":
                waits = {"proposal_id": "p-0123456789ab", "kind": "retry_run", "target": f"run:{run_id(1)}"}
                expires = (NOW + timedelta(hours=1)).isoformat()
                return [waits | {"expires_at": expires, "verdict": {"requirements": ["approver"]}}]
            case _:
                steps = ({"step": "proposed", "actor": "planner"}, {"step": "approved", "actor": "ben"})
                return [{"at": NOW.isoformat(), "proposal_id": "p-0123456789ab", **step} for step in steps]


class Forecaster:
    def forecast(self, run_ids: Any) -> Any:
        return tuple(
            Forecast(
                run_id=each,
                made_at=NOW,
                p_fail=0.4,
                model="ewma",
                trained_on=9,
                reasons=("it failed before",),
            )
            for each in run_ids
        )


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolbox]:
    store = DuckDBStore(tmp_path_factory.mktemp("answers") / "telemetry.duckdb")
    fill(store)
    store.add_decisions(
        [
            DecisionFact(
                decision_id=f"d{n}", at=NOW - timedelta(hours=5), proposal_id="p-0123456789ab",
                incident_id="i-0123456789ab", run_id=run_id(1), step=step, action="retry_run", outcome=outcome, actor=actor,
            )
            for n, (step, outcome, actor) in enumerate(
                (("proposed", "", "planner"), ("approved", "", "ben"), ("injected", "done", "injector"),
                 ("verified", "verified", "injector"))
            )
        ]
    )  # fmt: skip
    yield Toolbox(
        store=store,
        control_api=Records(),
        forecaster=Forecaster(),
        clock=lambda: NOW,
        zone=UTC,
        on_behalf_of="ann",
    )
    store.close()


@pytest.mark.parametrize(
    ("question", "looks", "says"),
    [
        (
            "why did the nightly load fail?",
            ["why_run", "similar_incidents"],
            "All connection attempts failed",
        ),
        ("why did the last failed run fail?", ["why_run", "similar_incidents"], "shy-panda"),
        ("logs nightly-load", ["log_lines"], "> ConnectError: All connection attempts failed"),
        ("why is the churn model late", ["why_it_waits"], "gpu"),
        ("what is waiting and why", ["what_waits"], "dashing-ocelot"),
        ("which runs are likely to fail", ["riskiest_runs"], "40%"),
        ("what changed in nightly-load since it last worked", ["what_changed"], "parameter region: eu → us"),
        ("compare brave-otter with calm-heron", ["compare_runs"], "state: FAILED → COMPLETED"),
        ("compare brave-otter to the last good run", ["compare_runs"], "calm-heron"),
        ("how long does nightly-load take", ["run_durations"], "10 min in the median"),
        ("how often did nightly-load fail this week", ["how_often"], "1 failed"),
        ("who approved the retry of brave-otter", ["who_decided"], "approved by ben"),
        ("who paused nightly-load", ["decided_about"], "approved by ben"),
        ("what did you do last night", ["what_was_done"], "1 changes in Prefect"),
        ("what did you do in the last hour", ["what_was_done"], "0 changes in Prefect"),
        ("what failed last night", ["recent_failures"], "loud-finch"),
        ("what failed in the last 2 hours", ["recent_failures"], "shy-panda"),
        ("who holds the slots of the tag database", ["limits"], "2 of 2 taken"),
        ("are the workers of pool gpu alive", ["workers"], "4 h ago"),
        ("when does nightly-load run next", ["upcoming_load", "schedules"], "0 2 * * * Europe/Vienna"),
        ("list the automations", ["automations"], "cancel-stuck-runs"),
        ("what waits for me", ["waits_for_people"], "p-0123456789ab"),
        ("show the failed runs of sync-crm", ["find_runs"], "shy-panda"),
        ("what happened to brave-otter", ["run_timeline"], "retry_run verified"),
        ("retry brave-otter", ["draft"], "/send d-"),
        ("is everything ok?", ["cluster_status", "what_waits"], "Failed in the last day: 4"),
    ],
)
def test_an_answer_comes_from_the_records(tools: Toolbox, question: str, looks: list[str], says: str) -> None:
    answer = answer_by_rules(question, tools)
    assert [lookup.citation["tool"] for lookup in answer.found] == looks
    assert says in answer.text
    assert answer.understood


@pytest.mark.parametrize("wanted", [*GOLDEN, *UNSEEN], ids=lambda wanted: str(wanted["ask"])[:60])
def test_whatever_is_asked_is_answered_asked_back_or_helped(wanted: dict[str, Any], tools: Toolbox) -> None:
    answer = answer_by_rules(wanted["ask"], tools)
    assert answer.text
    assert answer.understood or not wanted["intent"] or "That needs" in answer.text
    if wanted.get("ambiguous"):
        assert "1. ingest-orders/eu\n2. ingest-orders/us" in answer.text
        assert answer.found == ()


def test_a_number_is_the_answer_to_a_question_that_was_asked_back(tools: Toolbox) -> None:
    talk = Talk()
    assert "2. ingest-orders/us" in answer_by_rules("why did ingest-orders fail", tools, talk).text
    assert "order_id" in answer_by_rules("2", tools, talk).text
    assert not answer_by_rules("2", tools, talk).understood  # it was answered


def test_it_is_what_was_talked_about_last(tools: Toolbox) -> None:
    talk = Talk()
    answer_by_rules("why did brave-otter fail", tools, talk)
    assert "ConnectError" in answer_by_rules("show the logs", tools, talk).text
    assert "brave-otter" in answer_by_rules("why did it fail", tools, talk).text


def test_what_is_assumed_is_said(tools: Toolbox) -> None:
    assert "names nothing that is known" in answer_by_rules("why did the weather report fail?", tools).text
    assert "names nothing that is known" not in answer_by_rules("why did brave-otter fail?", tools).text


def test_a_negated_order_drafts_nothing(tools: Toolbox) -> None:
    for words in (
        "don't retry brave-otter",
        "why was the retry of brave-otter denied?",
        "should I cancel brave-otter?",
    ):
        assert "draft" not in [lookup.citation["tool"] for lookup in answer_by_rules(words, tools).found]


def test_what_is_asked_of_another_state_is_told_of_that_state(tools: Toolbox) -> None:
    assert isinstance(tools.store, DuckDBStore)
    run = runs.run(tools.store, run_id(6))
    assert run is not None
    assert run.state_type is StateType.CANCELLED
    found = answer_by_rules("list the cancelled runs of sync-crm", tools).found[0]
    assert found.citation["arguments"]["deployment_id"] == deployment_id("sync-crm/hourly")
    assert [row["name"] for row in found.result["runs"]] == ["old-moth"]
