"""Choose the remedy of a diagnosis by expected cost.

A diagnosis is a belief about what would help; each remedy has a cost under each truth. The numbers are minutes of
people's attention, and a site may change them (`[planner.costs]`). Three things are not for sale: a run that may still
be alive is never started again, a run that ran out of memory never goes again at its size, and what nobody understands
is not retried for the want of an explanation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from pilotage.planner.findings import Cure
from pilotage.planner.parameters import RemedyCosts


class Remedy(StrEnum):
    """What is done about a failed run."""

    RETRY_NOW = "retry_now"
    """Again within 30 seconds."""
    RETRY_LATER = "retry_later"
    """Again after a backoff of minutes."""
    MORE_MEMORY = "more_memory"
    """Again with a larger size."""
    TELL_OWNER = "tell_owner"
    """Not again: its owner hears of it."""
    HOLD = "hold"
    """Not yet: it may still be alive, and its death is being proven."""
    ASK = "ask"
    """A person decides."""
    NOTHING = "nothing"
    """It has not failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemedyContext:
    """What is known beside the diagnosis."""

    p_fail: float | None = None
    """The forecast of another attempt."""
    p_retry: float | None = None
    """The forecast that another attempt succeeds, from what became of retries here."""
    retries_known: int = 0
    """Outcomes of retries that `p_retry` rests on."""
    safe_to_repeat: bool = False
    """Whether owners declared the deployment safe to repeat, or it is not production."""
    retry_unknown_below: float = 0.6
    """What nobody explains is tried again only when the forecast is better than this."""
    proven_dead: bool = False
    """Whether two signs say that the process has ended."""

    @property
    def p_again(self) -> float | None:
        """The chance that another attempt fails: by retries where enough are known, else as any attempt's."""
        if self.p_retry is not None and self.retries_known >= FEWEST_RETRIES:
            return 1 - self.p_retry
        return self.p_fail


FEWEST_RETRIES = 8
"""Outcomes of retries below which a forecast of them overrules no other."""
SIGN_COUNTS = 10.0
"""For as many outcomes of retries a sign's own belief counts: with so many known, both weigh the same."""
MOST_RETRIES = 40
"""Outcomes that count at most: a sign of today is never wholly outvoted by what other failures did."""

MIXED: Mapping[Cure, Mapping[Cure, float]] = {
    Cure.SECONDS: {Cure.SECONDS: 0.8, Cure.MINUTES: 0.12, Cure.OWNER: 0.08},
    Cure.MINUTES: {Cure.SECONDS: 0.1, Cure.MINUTES: 0.75, Cure.OWNER: 0.15},
    Cure.MEMORY: {Cure.MEMORY: 0.9, Cure.OWNER: 0.07, Cure.SECONDS: 0.03},
    Cure.OWNER: {Cure.OWNER: 0.9, Cure.MINUTES: 0.06, Cure.SECONDS: 0.04},
    Cure.DEATH: {Cure.DEATH: 0.5, Cure.SECONDS: 0.35, Cure.OWNER: 0.15},
    Cure.UNCLEAR: {Cure.OWNER: 0.57, Cure.SECONDS: 0.23, Cure.MINUTES: 0.18, Cure.DEATH: 0.02},
}
"""How often each truth was met where a sign of the row's kind stood, judged on public threads; the sign's own confidence
mixes it with the row of no sign at all."""


def beliefs(cure: Cure, confidence: float, context: RemedyContext) -> dict[Cure, float]:
    """Return the probability of each truth, given what a sign says and how sure it is."""
    certain, unsure = MIXED[cure], MIXED[Cure.UNCLEAR]
    mixed: dict[Cure, float] = {
        truth: confidence * certain.get(truth, 0.0) + (1 - confidence) * unsure.get(truth, 0.0)
        for truth in Cure
        if truth is not Cure.UNCLEAR
    }
    if context.proven_dead or (context.safe_to_repeat and cure is not Cure.DEATH):
        mixed[Cure.SECONDS] += mixed[Cure.DEATH]
        mixed[Cure.DEATH] = 0.0
    if context.p_fail is not None and cure is Cure.UNCLEAR:
        # of a fault that nobody explains, the forecast knows more than the prior
        passing = mixed[Cure.SECONDS] + mixed[Cure.MINUTES]
        for truth in (Cure.SECONDS, Cure.MINUTES):
            mixed[truth] *= (1 - context.p_fail) / passing if passing else 1.0
        mixed[Cure.OWNER] = context.p_fail
    if context.p_retry is not None and cure in (Cure.SECONDS, Cure.MINUTES, Cure.UNCLEAR):
        _learn_from_retries(mixed, context.p_retry, min(context.retries_known, MOST_RETRIES))
    total = sum(mixed.values())
    return {truth: share / total for truth, share in mixed.items()}


def _learn_from_retries(mixed: dict[Cure, float], p_retry: float, known: int) -> None:
    """Move the share that passes by itself towards what retries did here, as their number and SIGN_COUNTS weigh."""
    passing = mixed[Cure.SECONDS] + mixed[Cure.MINUTES]
    open_share = passing + mixed[Cure.OWNER]
    if not passing or not open_share:
        return
    believed = passing / open_share
    learned = (SIGN_COUNTS * believed + known * p_retry) / (SIGN_COUNTS + known)
    for truth in (Cure.SECONDS, Cure.MINUTES):
        mixed[truth] *= learned / believed
    mixed[Cure.OWNER] = (1 - learned) * open_share


def expected_costs(
    cure: Cure,
    confidence: float,
    costs: RemedyCosts | None = None,
    context: RemedyContext | None = None,
) -> dict[Remedy, float]:
    """Return the expected cost of each remedy that is open to a failure."""
    c, context = costs or RemedyCosts(), context or RemedyContext()
    table: dict[Remedy, dict[Cure, float]] = {
        Remedy.RETRY_NOW: {Cure.SECONDS: 0, Cure.MINUTES: c.wasted_attempt + c.delay, Cure.MEMORY: c.retry_same_size,
                           Cure.OWNER: c.retry_permanent, Cure.DEATH: c.retry_alive},
        Remedy.RETRY_LATER: {Cure.SECONDS: c.delay, Cure.MINUTES: 0, Cure.MEMORY: c.retry_same_size,
                             Cure.OWNER: c.retry_permanent, Cure.DEATH: c.retry_alive * 0.8},
        Remedy.MORE_MEMORY: {Cure.SECONDS: c.delay, Cure.MINUTES: c.wasted_attempt, Cure.MEMORY: 0,
                             Cure.OWNER: c.retry_permanent, Cure.DEATH: c.retry_alive},
        Remedy.TELL_OWNER: {Cure.SECONDS: c.give_up_passing + c.wake_somebody,
                            Cure.MINUTES: c.give_up_passing + c.wake_somebody,
                            Cure.MEMORY: c.give_up_passing, Cure.OWNER: 0, Cure.DEATH: c.give_up_passing},
        Remedy.ASK: dict.fromkeys(Cure, c.question) | {Cure.DEATH: c.question / 2},
        Remedy.HOLD: dict.fromkeys(Cure, c.watch + c.delay) | {Cure.DEATH: c.watch},
    }  # fmt: skip
    believed = beliefs(cure, confidence, context)
    costed = {
        remedy: round(sum(believed[truth] * row[truth] for truth in believed), 4)
        for remedy, row in table.items()
    }
    return {remedy: cost for remedy, cost in costed.items() if _open(remedy, cure, context)}


def _open(remedy: Remedy, cure: Cure, context: RemedyContext) -> bool:
    """Return whether a remedy may be weighed at all: some are never worth their price, whatever the numbers."""
    retries = remedy in (Remedy.RETRY_NOW, Remedy.RETRY_LATER)
    if cure is Cure.MEMORY and retries:
        return False
    if remedy is Remedy.MORE_MEMORY and cure is not Cure.MEMORY:
        return False
    if cure is Cure.OWNER and retries:
        return False
    if cure is Cure.DEATH and (retries or remedy is Remedy.MORE_MEMORY):
        return context.proven_dead
    if cure is Cure.UNCLEAR and retries:
        return (
            context.safe_to_repeat
            and context.p_again is not None
            and context.p_again < context.retry_unknown_below
        )
    return not (remedy in (Remedy.HOLD, Remedy.ASK) and cure is Cure.OWNER)


@lru_cache(maxsize=10_000)
def choose(
    cure: Cure,
    confidence: float,
    costs: RemedyCosts | None = None,
    context: RemedyContext | None = None,
) -> Remedy:
    """Return the remedy with the lowest expected cost; of equals, the one that does less."""
    costed = expected_costs(cure, confidence, costs, context)
    careful = list(reversed(Remedy))
    return min(costed, key=lambda remedy: (costed[remedy], careful.index(remedy)))
