"""Keep what a language model has cost and what its endpoint can do, in one small file that several processes share.

Spending is kept by day and by case, so that a budget holds across processes and restarts. What an endpoint can do is
kept by base URL and model, so that no strategy is tried twice in vain.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pilotage.telemetry.errors import ModelError

CASE: ContextVar[str] = ContextVar("pilotage_case", default="")
"""What the calls of this task are about: an incident's id, or `chat`."""
INCIDENT = "i-"
"""How the id of an incident begins; the budget of one holds for nothing else."""
MILLION = 1_000_000


class Budget(BaseModel):
    """How much a language model may be asked. 0 stands for no limit, and for no price."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens_per_incident: int = Field(default=50_000, ge=0)
    """Prompt and completion tokens spent on one incident, ever."""
    tokens_per_day: int = Field(default=2_000_000, ge=0)
    """Prompt and completion tokens of one UTC day, conversations included."""
    cost_per_incident: float = Field(default=0.0, ge=0)
    """In the currency of the prices."""
    cost_per_day: float = Field(default=0.0, ge=0)
    """In the currency of the prices."""
    prompt_price: float = Field(default=0.0, ge=0)
    """Of a million prompt tokens."""
    completion_price: float = Field(default=0.0, ge=0)
    """Of a million completion tokens."""

    def cost(self, prompt: int, completion: int) -> float:
        """What so many tokens cost."""
        return (prompt * self.prompt_price + completion * self.completion_price) / MILLION

    @property
    def priced(self) -> bool:
        """Whether there is a price at all."""
        return self.prompt_price > 0 or self.completion_price > 0

    def share_of_day(self, tokens: int, cost: float) -> float | None:
        """The part of a day's budget that this is, of tokens or of money whichever is more; None without a limit."""
        limits = ((tokens, self.tokens_per_day), (cost, self.cost_per_day))
        return max((spent / limit for spent, limit in limits if limit), default=None)


class BudgetSpent(ModelError):
    """The model may not be asked any more for now; rules answer instead."""

    def __init__(self, said: str) -> None:
        super().__init__(f"Asking the model: {said}. Rules answer instead; raise `llm.budget` to go on.")
        self.said = said
        """The same for a person, as the beginning of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent in some stretch."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCapabilities:
    """What one model at one endpoint can do, as far as it was seen."""

    strategy: int = 0
    """Index of the first way of typed answering that worked."""
    calls_tools: bool = True


@contextlib.contextmanager
def attribute_cost(case: str) -> Iterator[None]:
    """Within it, calls of a model are charged to this case."""
    before = CASE.set(case)
    try:
        yield
    finally:
        CASE.reset(before)


class LlmBudget:
    """The file. Threads and processes may share it; each call is one short transaction."""

    def __init__(
        self,
        path: Path,
        budget: Budget | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Makes the file where there is none. Raises ModelError when that cannot be."""
        self.budget = budget or Budget()
        self._path, self._clock, self._lock = path, clock, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._open() as file:
            file.execute(
                "CREATE TABLE IF NOT EXISTS spent (day TEXT, case_id TEXT, calls INTEGER, prompt INTEGER, "
                "completion INTEGER, cost REAL, PRIMARY KEY (day, case_id))"
            )
            file.execute(
                "CREATE TABLE IF NOT EXISTS endpoints (base_url TEXT, model TEXT, rung INTEGER, calls_tools INTEGER, "
                "PRIMARY KEY (base_url, model))"
            )
        path.chmod(0o600)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                file = sqlite3.connect(self._path, timeout=10)
                try:
                    with file:
                        yield file
                finally:
                    file.close()
            except sqlite3.Error as exc:
                raise ModelError(
                    f"Keeping the model's book {self._path}: {exc}. Move the file away; it is made again."
                ) from exc

    # -- spending

    def today(self) -> Spent:
        """What was spent since midnight, UTC."""
        return self._sum("day = ?", self._day())

    def on(self, case: str) -> Spent:
        """What was ever spent on one case."""
        return self._sum("case_id = ?", case)

    def ever(self) -> tuple[Spent, int, int]:
        """What was ever spent, and how many of its tokens were prompt and completion."""
        with self._open() as file:
            calls, prompt, completion, cost = file.execute(
                "SELECT coalesce(sum(calls), 0), coalesce(sum(prompt), 0), coalesce(sum(completion), 0), "
                "coalesce(sum(cost), 0.0) FROM spent"
            ).fetchone()
        return Spent(calls=calls, tokens=prompt + completion, cost=cost), prompt, completion

    def refuse_if_spent(self) -> None:
        """Returns while the case in hand and the day have something left. Raises BudgetSpent."""
        limits, case = self.budget, CASE.get()
        stretches = [("of today", self.today(), limits.tokens_per_day, limits.cost_per_day)]
        if case.startswith(INCIDENT):
            stretches.append(
                (f"of incident {case}", self.on(case), limits.tokens_per_incident, limits.cost_per_incident)
            )
        for name, spent, tokens, cost in stretches:
            if tokens and spent.tokens >= tokens:
                raise BudgetSpent(f"The language model's budget {name}, {tokens} tokens, is spent")
            if cost and spent.cost >= cost:
                raise BudgetSpent(f"The language model's budget {name}, a cost of {cost:g}, is spent")

    def spend(self, prompt: int, completion: int) -> None:
        """Charges one call to the case in hand."""
        cost = self.budget.cost(prompt, completion)
        with self._open() as file:
            file.execute(
                "INSERT INTO spent VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT (day, case_id) DO UPDATE SET "
                "calls = calls + 1, prompt = prompt + excluded.prompt, "
                "completion = completion + excluded.completion, cost = cost + excluded.cost",
                (self._day(), CASE.get(), prompt, completion, cost),
            )

    def _sum(self, condition: str, value: str) -> Spent:
        sql = f"SELECT sum(calls), sum(prompt + completion), sum(cost) FROM spent WHERE {condition}"  # noqa: S608
        with self._open() as file:
            calls, tokens, cost = file.execute(sql, (value,)).fetchone()
        return Spent(calls=calls or 0, tokens=tokens or 0, cost=cost or 0.0)

    def _day(self) -> str:
        return self._clock().astimezone(UTC).date().isoformat()

    # -- endpoints

    def capabilities(self, base_url: str, model: str) -> ModelCapabilities:
        """What was seen of this model at this endpoint; the best is hoped of one that is new."""
        with self._open() as file:
            row = file.execute(
                "SELECT rung, calls_tools FROM endpoints WHERE base_url = ? AND model = ?", (base_url, model)
            ).fetchone()
        return ModelCapabilities(strategy=row[0], calls_tools=bool(row[1])) if row else ModelCapabilities()

    def learn(self, base_url: str, model: str, seen: ModelCapabilities) -> None:
        """Remembers what this model at this endpoint can do."""
        with self._open() as file:
            file.execute(
                "INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?, ?)",
                (base_url, model, seen.strategy, int(seen.calls_tools)),
            )
