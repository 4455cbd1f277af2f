"""The row of every table of signs, and the small language in which its phrases are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from pilotage.planner.findings import Cure, FailureClass
from pilotage.telemetry.facts import StateType

ENDED_BADLY = frozenset({StateType.FAILED, StateType.CRASHED})
CRASHED = frozenset({StateType.CRASHED})
FAILED = frozenset({StateType.FAILED})
GAP = 120
"""Characters that a `*` of a phrase may stand for."""
_WORD = re.compile(r"[a-z0-9_]+")


_ENDING = re.compile(r"(?:ing|ed|es|s|e)$")


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return a word without its ending, so that `throttle`, `throttled` and `throttling` are found by one key."""
    return _ENDING.sub("", word) if len(word) > 4 else word


Strength = Literal["code", "phrase", "family", "builtin", "weak"]
"""`code`, `phrase` and `family` decide wherever they stand; `builtin` (an exception of the language) decides where the
run's own end shows it; `weak` only when nothing else is found."""

CONFIDENCE: dict[Strength, float] = {
    "code": 0.95,
    "phrase": 0.9,
    "family": 0.88,
    "builtin": 0.75,
    "weak": 0.65,
}


@dataclass(frozen=True)
class Phrase:
    """Literal words, in lower case, with `*` for up to 120 characters of anything on the same line."""

    text: str

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The literal parts between the gaps."""
        return tuple(part.strip() for part in self.text.lower().split("*") if part.strip())

    @cached_property
    def key(self) -> str:
        """The longest whole word: a text without it cannot hold the phrase."""
        words = [word for part in self.segments for word in _WORD.findall(part)]
        return max(words, key=len, default="")

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        if len(self.segments) == 1:
            return None
        return re.compile(rf"[^\n]{{0,{GAP}}}?".join(re.escape(part) for part in self.segments))

    def found_in(self, lowered: str) -> bool:
        """Return whether a text, already in lower case, holds the phrase."""
        if self._pattern is None:
            return self.segments[0] in lowered
        return all(part in lowered for part in self.segments) and self._pattern.search(lowered) is not None


@dataclass(frozen=True, kw_only=True)
class FailureRule:
    """One row: it fits when every column it fills is true. A column left empty asks for nothing."""

    id: str
    failure_class: FailureClass
    because: str
    """The row in words, for the evidence."""
    strength: Strength = "phrase"
    cure: Cure | None = None
    """What helps, where it is not what helps the class in general."""
    state_types: frozenset[StateType] = ENDED_BADLY
    state_names: frozenset[str] = frozenset()
    exceptions: frozenset[str] = frozenset()
    """Names of exception types without their module, any of which must occur."""
    codes: frozenset[str] = frozenset()
    """Codes as `source:value`, any of which must occur, such as `http:429`, `exit:137`, `sqlstate:40001`."""
    phrases: tuple[Phrase, ...] = ()
    """Any of these must occur."""
    also: tuple[Phrase, ...] = ()
    """And any of these."""
    unless: tuple[Phrase, ...] = ()
    """And none of these."""
    exclusive: frozenset[str] = frozenset()
    """Codes none of which may occur."""
    despite: frozenset[str] = frozenset()
    """Ids of rows for permanent faults that may stand beside this one: it knows better. `*` stands for all of them. Any
    other permanent row that the same evidence fits makes a retry by this row uncertain."""
    sure: float | None = None
    """How sure the row is, where its strength says too little or too much."""

    @property
    def confidence(self) -> float:
        """How sure the row is: what it says itself, else by the strength of its kind of sign."""
        return CONFIDENCE[self.strength] if self.sure is None else self.sure


def words(text: str) -> frozenset[str]:
    """Return the blank-separated words of a table cell."""
    return frozenset(text.split())


def phrases(*texts: str) -> tuple[Phrase, ...]:
    """Return the phrases of a table cell."""
    return tuple(Phrase(text) for text in texts)


def coded(source: str, values: str) -> frozenset[str]:
    """Return the codes of one source: `coded("http", "429 503")`."""
    return frozenset(f"{source}:{value}" for value in values.split())
