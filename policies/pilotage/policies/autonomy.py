"""When a kind of action on one deployment may be trusted with more, or must be trusted with less.

A bad outcome takes trust away at once. Trust comes back, or grows, only by measured good outcomes: the lower
confidence bound of the success rate counts, so a few lucky ones are not enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import Any, Literal, assert_never

from pilotage.policies.ledger_facts import Autonomy

Z95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""
REMEMBERED = 500
"""Outcomes of one kind on one deployment that are looked back at, newest first."""

Judged = Literal["verified", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AutonomyRule:
    """The guardrails that bear on it."""

    threshold: int = 90
    """Percent, of the lower bound."""
    regain: int = 5
    """Good outcomes in a row that end a demotion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutonomyChange:
    """One decision on how far a kind of action is trusted; a row."""

    kind: str
    scope: str
    """Id of the deployment, or the target when it belongs to none."""
    level: Autonomy
    before: Autonomy
    at: datetime
    by: str
    why: str

    def as_detail(self) -> dict[str, Any]:
        """The change as the audit log has it."""
        return {
            "kind": self.kind,
            "scope": self.scope,
            "level": self.level,
            "before": self.before,
            "why": self.why,
        }


def wilson_lower(good: int, total: int, z: float = Z95) -> float:
    """The lower bound of Wilson's score interval for `good` of `total`; 0 when there were none."""
    if good <= 0:
        return 0.0
    share = good / total
    middle = share + z * z / (2 * total)
    spread = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (middle - spread) / (1 + z * z / total))


def next_level(level: Autonomy, outcomes: Sequence[Judged], rule: AutonomyRule) -> tuple[Autonomy, str]:
    """The level that these outcomes, newest first, lead to, and why; never lower than `level`.

    For a demoted kind they are those since its demotion.
    """
    good = outcomes.count("verified")
    row = next((n for n, outcome in enumerate(outcomes) if outcome != "verified"), len(outcomes))
    match level:
        case "demoted":
            if row >= rule.regain:
                return "standard", f"{row} good outcomes in a row (guardrail autonomy_regain {rule.regain})"
            return level, ""
        case "standard":
            bound = wilson_lower(good, len(outcomes))
            if bound * 100 >= rule.threshold:
                return "earned", (
                    f"{good} of {len(outcomes)} outcomes were good: at least {bound:.1%} "
                    f"(guardrail autonomy_threshold {rule.threshold} %)"
                )
            return level, ""
        case "earned":
            return level, ""
        case _:
            assert_never(level)
