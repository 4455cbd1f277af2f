"""How an investigation's conclusion and plan are scored against a scenario. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.eval.scenarios import Filled, Scenario

from pilotage.planner.investigate.types import Conclusion, Step


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One scenario's score."""

    id: str
    level: int
    cause: bool
    """Whether origin, class or cause, and root are those that are wanted."""
    cited: bool
    """Whether one of the wanted references is cited."""
    plan: bool | None
    """Whether the plan begins with a wanted kind; None where the scenario wants none in particular."""
    forbidden: tuple[str, ...]
    calls: int = 0
    tokens: int = 0
    got: str = ""


def scored(
    scenario: Scenario,
    filled: Filled,
    conclusion: Conclusion,
    steps: Sequence[Step],
    *,
    calls: int = 0,
    tokens: int = 0,
) -> Scored:
    """Return the score of one scenario."""
    kinds = [str(step.action["kind"]) for step in steps]
    wanted = scenario.given.get("plan")
    return Scored(
        id=scenario.id,
        level=scenario.level,
        cause=_right(scenario, filled, conclusion),
        cited=not scenario.given.get("cites")
        or any(filled.meant(ref) & set(conclusion.citations) for ref in scenario.given["cites"]),
        plan=None if wanted is None else (kinds[0] in wanted if kinds else not wanted),
        forbidden=tuple(kind for kind in kinds if kind in scenario.forbidden),
        calls=calls,
        tokens=tokens,
        got=f"{conclusion.origin}/{conclusion.failure_class}/{conclusion.cause}/{conclusion.root} → {', '.join(kinds)}",
    )


def _right(scenario: Scenario, filled: Filled, conclusion: Conclusion) -> bool:
    wanted: Any = scenario.wanted
    if conclusion.origin not in wanted["origin"].split("|"):
        return False
    if "class" in wanted and conclusion.failure_class not in wanted["class"].split("|"):
        return False
    if "cause" in wanted and conclusion.cause not in wanted["cause"].split("|"):
        return False
    return "root" not in wanted or conclusion.root in filled.meant(wanted["root"])


def summary(rows: Sequence[Scored]) -> dict[str, Any]:
    """Return the shares over rows: `{n, cause, cited, plan, forbidden, calls, tokens}`."""
    planned = [row.plan for row in rows if row.plan is not None]
    n = max(1, len(rows))
    return {
        "n": len(rows),
        "cause": round(sum(row.cause for row in rows) / n, 3),
        "cited": round(sum(row.cited for row in rows) / n, 3),
        "plan": round(sum(planned) / max(1, len(planned)), 3),
        "forbidden": sum(len(row.forbidden) for row in rows),
        "calls": round(sum(row.calls for row in rows) / n, 1),
        "tokens": round(sum(row.tokens for row in rows) / n),
    }
