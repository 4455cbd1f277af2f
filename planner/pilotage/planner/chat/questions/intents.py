"""The table of what can be asked without a model, `intents.yaml`, and the first row that fits a question. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("intents.yaml")
_POLITE = (
    r"^(?:(?:please|pls|kindly|just|now|ok|okay|hey|hi|and|then|so|go ahead and|let us|can you|could you|"
    r"would you|will you|i want (?:you )?to|i would like (?:you )?to|we (?:need|have) to|propose(?: to)?|draft)[ ,:]+)*"
)
_LONG_WORD = re.compile(r"\b[a-z]{7,20}\b")
SHORT_FORMS: tuple[tuple[str, str], ...] = (
    (r"[’`]", "'"),
    (r"\b(what|who|where|when|how|it|that|there|he|she)'s\b", r"\1 is"),
    (r"\b(what|who|where|how)s\b", r"\1 is"),
    (r"\bwon'?t\b", "will not"),
    (r"\bcan'?t\b|\bcannot\b", "can not"),
    (r"\b(is|are|was|were|has|have|had|do|does|did|would|could|should)n'?t\b", r"\1 not"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"\bi'm\b", "i am"),
    (r"\blet's\b", "let us"),
    (r"\bgonna\b", "going to"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One kind of question."""

    name: str
    example: str
    """As help shows it."""
    patterns: tuple[re.Pattern[str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table, compiled."""

    intents: tuple[Intent, ...]
    drafts: tuple[tuple[str, re.Pattern[str]], ...]
    """Kinds of action with how an order of them begins."""
    spelled: frozenset[str]
    """Words that are read also where one letter is wrong."""


@cache
def table() -> Table:
    """Return the table. Raises what reading a damaged installation raises."""
    given = yaml.safe_load(TABLE.read_text(encoding="utf-8"))

    def compiled(pattern: str) -> re.Pattern[str]:
        for name, words in given["words"].items():
            pattern = pattern.replace(f"{{{name}}}", words)
        return re.compile(pattern)

    return Table(
        intents=tuple(
            Intent(name=row["intent"], example=row["example"], patterns=tuple(map(compiled, row["patterns"])))
            for row in given["intents"]
        ),
        drafts=tuple(
            (kind, re.compile(rf"{_POLITE}(?:{verbs})\b(?!.*\?$)")) for kind, verbs in given["drafts"].items()
        ),
        spelled=frozenset(given["spelled"]),
    )


def plain(question: str) -> str:
    """Return the question in lower case with its short forms written out and single blanks."""
    text = " ".join(question.lower().split())
    for pattern, whole in SHORT_FORMS:
        text = re.sub(pattern, whole, text)
    return text


def well_spelled(text: str) -> str:
    """Return the text with long words of the table in place of those that differ from them in one letter."""
    return _LONG_WORD.sub(lambda found: _spelled(found[0]), text)


@cache
def _spelled(word: str) -> str:
    known = table().spelled
    return word if word in known else next((each for each in sorted(known) if _one_off(word, each)), word)


def _one_off(word: str, meant: str) -> bool:
    """Whether one letter is missing, too many, another, or in its neighbour's place; neither the first nor an ending."""
    if word[0] != meant[0] or abs(len(word) - len(meant)) > 1:
        return False
    same = next(
        (n for n, (a, b) in enumerate(zip(word, meant, strict=False)) if a != b), min(len(word), len(meant))
    )
    rest, wanted = word[same:], meant[same:]
    if not rest or not wanted:
        return False  # another form of the word
    if rest[2:] == wanted[2:] and rest[:2] == wanted[:2][::-1]:
        return True
    return wanted == rest[1:] or rest == wanted[1:] or rest[1:] == wanted[1:]


def intent_of(text: str) -> Intent | None:
    """Return the first kind of question that the prepared text fits, or None."""
    return next((each for each in table().intents if any(p.search(text) for p in each.patterns)), None)


def drafted_kind(text: str) -> str:
    """Return the kind of action that an order in the prepared text asks for, or an empty string.

    Only what begins as an order is one: a question about a retry is none, and neither is "don't".
    """
    return next((kind for kind, pattern in table().drafts if pattern.search(text)), "")
