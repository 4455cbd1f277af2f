"""Budgets hold across processes, and no strategy is tried twice in vain."""

from __future__ import annotations

import asyncio
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from pilotage.planner.llm.budget import (
    Budget,
    BudgetSpent,
    LlmBudget,
    ModelCapabilities,
    Spent,
    attribute_cost,
)
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import cut, status, text
from pilotage.telemetry.errors import ModelError

CASE = "i-0123456789ab"


class Colour(BaseModel):
    name: Literal["red", "green"]


class Day:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def asked(llm: ScriptedLLM, book: LlmBudget, case: str = CASE) -> Any:
    """One answer in prose from a fresh client, as a restarted process has one."""

    async def ask() -> str:
        model = OpenAIModel(
            base_url=llm.base_url, api_key="k", model="m", max_retries=0, timeout=5, book=book
        )
        try:
            with attribute_cost(case):
                return await model.ask_text([HumanMessage("hello")])
        finally:
            await model.aclose()

    return asyncio.run(ask())


def test_what_was_spent_is_counted_by_day_and_by_case(tmp_path: Path) -> None:
    day = Day()
    book = LlmBudget(tmp_path / "a" / "models.sqlite", Budget(prompt_price=2, completion_price=10), clock=day)
    with ScriptedLLM([text("a"), text("b"), text("c", usage=(1000, 500))]) as llm:
        asked(llm, book)
        asked(llm, book, case="chat")
        day.now += timedelta(minutes=2)
        asked(llm, book)
    ever, today = book.on(CASE), book.today()
    assert (ever.calls, ever.tokens, today.calls, today.tokens) == (2, 1518, 1, 1500)
    assert ever.cost == pytest.approx((1011 * 2 + 507 * 10) / 1e6)
    assert today.cost == pytest.approx(0.007)
    assert (tmp_path / "a" / "models.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("budget", "case", "said"),
    [
        (Budget(tokens_per_incident=18), CASE, f"incident {CASE}, 18 tokens"),
        (Budget(tokens_per_day=18), "chat", "today, 18 tokens"),
        (Budget(cost_per_incident=0.00001, prompt_price=1), CASE, f"incident {CASE}, a cost of 1e-05"),
        (Budget(cost_per_day=0.00001, completion_price=2), "chat", "today, a cost of 1e-05"),
    ],
)
def test_over_budget_nothing_is_asked_any_more_and_it_is_no_fault_of_the_model(
    tmp_path: Path, budget: Budget, case: str, said: str
) -> None:
    path = tmp_path / "models.sqlite"
    with ScriptedLLM([text("a")]) as llm:
        asked(llm, LlmBudget(path, budget), case)
        model = OpenAIModel(base_url=llm.base_url, api_key="k", model="m", book=LlmBudget(path, budget))
        for ask in (model.ask_text([HumanMessage("x")]), model.ask_typed(Colour, [HumanMessage("x")])):
            with attribute_cost(case), pytest.raises(BudgetSpent, match=said):
                asyncio.run(ask)
        asyncio.run(model.aclose())
        assert len(llm.requests) == 1
    assert (model.usage.failures, model.down) == (0, False)


def test_another_incident_and_another_day_have_budgets_of_their_own(tmp_path: Path) -> None:
    day = Day()
    book = LlmBudget(tmp_path / "m.sqlite", Budget(tokens_per_incident=18, tokens_per_day=30), clock=day)
    with ScriptedLLM([text("a"), text("b"), text("c")]) as llm:
        asked(llm, book)
        asked(llm, book, case="i-000000000002")
        with pytest.raises(BudgetSpent, match="today"):
            asked(llm, book, case="i-000000000003")
        day.now += timedelta(minutes=2)
        asked(llm, book, case="i-000000000003")
        with pytest.raises(BudgetSpent, match=CASE):
            asked(llm, book)


def test_a_conversation_has_no_budget_of_an_incident(tmp_path: Path) -> None:
    book = LlmBudget(tmp_path / "m.sqlite", Budget(tokens_per_incident=1))
    with ScriptedLLM([text("a"), text("b")]) as llm:
        assert [asked(llm, book, case="chat") for _ in range(2)] == ["a", "b"]


def test_tokens_that_nobody_counted_are_estimated_also_of_half_an_answer(tmp_path: Path) -> None:
    book = LlmBudget(tmp_path / "m.sqlite")

    async def streamed(model: OpenAIModel) -> None:
        with attribute_cost(CASE), pytest.raises(ModelError):
            async for _ in model.stream([HumanMessage("x" * 400)]):
                pass
        await model.aclose()

    with ScriptedLLM([cut("half an answer", after=3)]) as llm:
        asyncio.run(
            streamed(OpenAIModel(base_url=llm.base_url, api_key="k", model="m", max_retries=0, book=book))
        )
    assert book.on(CASE).tokens > 100


def test_a_refused_call_costs_nothing(tmp_path: Path) -> None:
    book = LlmBudget(tmp_path / "m.sqlite")
    with ScriptedLLM([status(500)]) as llm, pytest.raises(ModelError):
        asked(llm, book)
    assert book.on(CASE) == Spent()


def _spend(path: Path) -> None:
    book = LlmBudget(path)
    for _ in range(20):
        with attribute_cost(CASE):
            book.spend(1, 1)


def test_two_processes_keep_one_book(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_spend, args=(path,)) for _ in range(2)]
    for one in others:
        one.start()
    for one in others:
        one.join(120)
    assert [one.exitcode for one in others] == [0, 0]
    assert LlmBudget(path).on(CASE) == Spent(calls=40, tokens=80)


def test_the_rung_that_worked_is_remembered_by_address_and_model(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"

    def colour(llm: ScriptedLLM, name: str = "m") -> Colour:
        async def ask() -> Colour:
            model = OpenAIModel(
                base_url=llm.base_url, api_key="k", model=name, max_retries=0, book=LlmBudget(path)
            )
            try:
                return await model.ask_typed(Colour, [HumanMessage("which?")])
            finally:
                await model.aclose()

        return asyncio.run(ask())

    red = text('{"name": "red"}')
    with ScriptedLLM([status(400), status(400), red, red, red]) as llm:
        assert colour(llm).name == "red"
        assert colour(llm).name == "red"
        formats = [request.get("response_format", {}).get("type") for request in llm.requests]
        assert formats == ["json_schema", None, "json_object", "json_object"]
        colour(llm, "another")
        assert llm.requests[-1]["response_format"]["type"] == "json_schema"
        assert LlmBudget(path).capabilities(llm.base_url, "m") == ModelCapabilities(strategy=2)


def test_a_broken_book_is_a_model_error_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "m.sqlite").write_text("this is no database, and long enough to be read as one" * 100)
    with pytest.raises(ModelError, match="Keeping the model's book"):
        LlmBudget(tmp_path / "m.sqlite")
