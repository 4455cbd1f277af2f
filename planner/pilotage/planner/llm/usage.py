"""What one answer cost: every call of a model under a meter is counted, also those that failed or were repaired."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pilotage.planner.llm.budget import LlmBudget
from pilotage.telemetry.errors import ModelError

ROUND = 6
"""Decimals of a share: a budget of millions of tokens is spent in small parts."""


@dataclass(slots=True)
class Meter:
    """Runs as long as it is read."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0

    def add(self, prompt: int, completion: int) -> None:
        """Counts one call, in tokens."""
        self.calls += 1
        self.prompt += prompt
        self.completion += completion


METER: ContextVar[Meter | None] = ContextVar("pilotage_meter", default=None)
"""Counts the calls of this task, or nothing does."""


@contextlib.contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Within it, calls of a model are counted by this meter."""
    before = METER.set(meter)
    try:
        yield
    finally:
        METER.reset(before)


def usage(meter: Meter, book: LlmBudget | None) -> dict[str, Any]:
    """What was counted, in plain JSON; empty when no model was asked.

    `{calls, input_tokens, output_tokens}`; with a book that has prices `cost`; with one that has a limit for a day
    `budget_share`, the part of it that this took, and `today`, the part that is spent already.
    """
    if not meter.calls:
        return {}
    totals: dict[str, Any] = {
        "calls": meter.calls,
        "input_tokens": meter.prompt,
        "output_tokens": meter.completion,
    }
    if book is None:
        return totals
    cost = book.budget.cost(meter.prompt, meter.completion)
    if book.budget.priced:
        totals["cost"] = round(cost, ROUND)
    share = book.budget.share_of_day(meter.prompt + meter.completion, cost)
    if share is not None:
        totals["budget_share"] = round(share, ROUND)
        with contextlib.suppress(ModelError):  # the book is away: what this took is told all the same
            spent = book.today()
            totals["today"] = round(book.budget.share_of_day(spent.tokens, spent.cost) or 0.0, ROUND)
    return totals
