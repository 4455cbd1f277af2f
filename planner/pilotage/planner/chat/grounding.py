"""What of an answer is backed by what was looked up, sentence by sentence. Pure.

A sentence is backed by the keys that it cites and by the look-ups whose ids it names. What is backed by nothing is an
opinion and is marked so. A chance that no forecast gave, an id that nobody looked up, and a count that cannot come from
what was looked up are pointed out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_KEY = re.compile(r"\[(e[0-9a-f]{4})\]")
_SENTENCE = re.compile(r"(?<=[.!?])(?:\s*\[e[0-9a-f]{4}\])*\s+(?=\S)|\n+")
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[pi]-[0-9a-f]{12}\b", re.IGNORECASE)
_CHANCE = re.compile(r"\b(\d{1,3}(?:\.\d+)?)\s?(?:%|per ?cent)", re.IGNORECASE)
_COUNT = re.compile(
    r"(?:\b(last|next|first|top|newest|oldest|most|least|than|about|around|to|every)\s+)?(?<![\w.,:/#-])(\d{1,9})\s+"
    r"(?:(?!hours?\b|minutes?\b|days?\b|seconds?\b|weeks?\b|of\b|and\b|or\b|to\b|[mg]i?b\b)[a-z]+\s+)?"
    r"(?:runs|failures|queues|deployments|proposals|incidents)\b",
    re.IGNORECASE,
)
"""How many of something there are; not so many that somebody should look at."""
_NUMBER = re.compile(r"(?<![\w.-])\d+(?![\w-])")
MOST_NUMBERS = 300
"""Where more were looked up, any count may come from them, and none is doubted."""
_WORD = re.compile(r"[A-Za-z]{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence of an answer."""

    text: str
    keys: tuple[str, ...]
    """Of the look-ups that back it; none for an opinion."""

    @property
    def opinion(self) -> bool:
        """Whether nothing that was looked up backs it."""
        return not self.keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An answer held against its evidence."""

    claims: tuple[Claim, ...]
    gaps: tuple[str, ...]

    @property
    def opinion(self) -> bool:
        """Whether the whole of it is backed by nothing."""
        return all(claim.opinion for claim in self.claims)


def checked(answer: str, evidence: Mapping[str, Mapping[str, Any]], asked: str = "") -> Checked:
    """The answer's sentences with what backs each, and what is wrong with them.

    `evidence` is result by key of the look-up; `asked` the person's own words, whose ids need no evidence.
    """
    texts = {key: json.dumps(result, default=str).lower() for key, result in evidence.items()}
    claims: list[Claim] = []
    gaps: list[str] = []
    possible = _counts(evidence.values(), asked)
    for sentence in _sentences(answer):
        cited = tuple(dict.fromkeys(_KEY.findall(sentence)))
        gaps += [
            f"the answer cites {key}, which is no look-up of this turn" for key in cited if key not in texts
        ]
        ids = [match.lower() for match in _ID.findall(sentence)]
        named = [key for key, text in texts.items() if any(name in text for name in ids)]
        gaps += [
            f"the answer names {name}, which nothing that was looked up mentions"
            for name in ids
            if name not in asked.lower() and not any(name in text for text in texts.values())
        ]
        chances = [
            c for c in _CHANCE.findall(sentence) if not any(_tells(text, float(c)) for text in texts.values())
        ]
        gaps += [
            f"the {chance} % in the answer are the language model's own: no forecast says so"
            for chance in chances
        ]
        counts = [
            n for bound, n in _COUNT.findall(sentence) if evidence and not bound and not possible(int(n))
        ]
        gaps += [f"the answer counts {n}, which is in nothing that was looked up" for n in counts]
        backed = (
            () if chances or counts else tuple(dict.fromkeys([*(k for k in cited if k in texts), *named]))
        )
        if _WORD.search(_KEY.sub("", sentence)):
            claims.append(Claim(text=sentence.strip(), keys=backed))
    return Checked(claims=tuple(claims), gaps=tuple(dict.fromkeys(gaps)))


def _counts(results: Iterable[Mapping[str, Any]], asked: str) -> Callable[[int], bool]:
    """Whether a count can come from these results: said there, counted off a list or a part of one, or a sum of two.

    It doubts too little rather than too much: a person who is warned of nothing stops reading warnings.
    """
    said, longest = {int(n) for n in _NUMBER.findall(asked)}, 1
    pending: list[Any] = list(results)
    while pending:
        match pending.pop():
            case Mapping() as found:
                inside = list(found.values())
                said.add(sum(n for n in inside if isinstance(n, int) and not isinstance(n, bool)))
                pending += inside
            case list() | tuple() as found:
                longest = max(longest, len(found))
                pending += found
            case bool() | None:
                pass
            case int() | float() as number:
                said.add(round(number))
            case other:
                said |= {int(n) for n in _NUMBER.findall(str(other))}
    if len(said) > MOST_NUMBERS:
        return lambda n: True
    return lambda n: n <= longest or n in said or any(n - number in said for number in said)


def _sentences(answer: str) -> Sequence[str]:
    """The sentences; keys that follow a full stop belong to the sentence before it."""
    pieces, start = [], 0
    for match in _SENTENCE.finditer(answer):
        pieces.append(answer[start : match.end()])
        start = match.end()
    return [piece.strip() for piece in (*pieces, answer[start:]) if piece.strip()]


def _tells(text: str, percent: float) -> bool:
    """Whether a result holds this number, as a percentage or as a part of one."""
    parts = [float(n) for n in re.findall(r"(?<![\w-])\d+(?:\.\d+)?(?![\w-])", text)]
    return any(abs(n - percent) < 0.5 or (n <= 1 and abs(100 * n - percent) <= 0.5) for n in parts)
