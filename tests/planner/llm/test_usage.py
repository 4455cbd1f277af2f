"""What an answer cost is told with it: calls, tokens, money and the part of the day's budget, also when rules answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.planner.planner_fixture import NoApi

from pilotage.planner.chat.agent import ChatAgent
from pilotage.planner.chat.parts import ChatPart
from pilotage.planner.chat.tools import Toolbox
from pilotage.planner.llm.budget import Budget, LlmBudget
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.llm.scripted.steps import Step, status, text, tool
from pilotage.planner.llm.usage import Meter, usage
from pilotage.telemetry.store.duckdb import DuckDBStore

PRICED = Budget(prompt_price=1_000_000, completion_price=2_000_000, tokens_per_day=3600, cost_per_day=1000)


@pytest.fixture
def store(tmp_path: Path, make: Any) -> Iterator[DuckDBStore]:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    store.add_queues([make.queue("fast", 1, running=2, waiting=3)])
    yield store
    store.close()


def finals(store: DuckDBStore, script: list[Step], book: LlmBudget | None, *sessions: str) -> list[ChatPart]:
    """The ends of answers to one question in each session, all asked at once."""

    async def one(agent: ChatAgent, session: str) -> ChatPart:
        [*parts] = [part async for part in agent.answer("how are the queues?", session)]
        return parts[-1]

    async def go(base_url: str) -> list[ChatPart]:
        model = OpenAIModel(base_url=base_url, api_key="k", model="m", max_retries=0, timeout=30, book=book)
        agent = ChatAgent(tools=Toolbox(store=store, control_api=cast("Any", NoApi())), model=model)
        found = await asyncio.gather(*(one(agent, session) for session in sessions))
        await model.aclose()
        return list(found)

    with ScriptedLLM(script) as llm:
        return asyncio.run(go(llm.base_url))


def test_an_answer_says_what_it_cost_and_how_much_of_the_day_is_spent(
    store: DuckDBStore, tmp_path: Path
) -> None:
    book = LlmBudget(tmp_path / "m.sqlite", PRICED)
    book.spend(144, 0)
    [final] = finals(store, [tool("queues", {}), text("One waits.")], book, "a")
    assert final.detail["usage"] == {
        "calls": 2, "input_tokens": 22, "output_tokens": 14, "cost": 50.0,
        "budget_share": 0.05,  # of the money, which is more than of the tokens
        "today": 0.194,
    }  # fmt: skip


def test_without_prices_and_limits_nothing_is_made_up(store: DuckDBStore, tmp_path: Path) -> None:
    book = LlmBudget(tmp_path / "m.sqlite", Budget(tokens_per_day=0))
    [final] = finals(store, [text("One waits.")], book, "a")
    assert final.detail["usage"] == {"calls": 1, "input_tokens": 11, "output_tokens": 7}


def test_answers_at_the_same_time_are_counted_apart(store: DuckDBStore) -> None:
    found = finals(store, [text("One."), text("Two."), text("Three.")], None, "a", "b", "c")
    assert [final.detail["usage"]["calls"] for final in found] == [1, 1, 1]


def test_what_a_model_cost_that_failed_is_told_by_the_rules_that_answer(store: DuckDBStore) -> None:
    [final] = finals(store, [tool("queues", {}), status(500)], None, "a")
    assert (final.by, final.detail["usage"]["calls"]) == ("rules", 1)


def test_who_asked_no_model_paid_nothing(tmp_path: Path) -> None:
    assert usage(Meter(), LlmBudget(tmp_path / "m.sqlite", PRICED)) == {}
