"""No text makes a pattern take its time: each is pumped where it repeats, and must stay near linear."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from re import _constants as sre
from re import _parser as parser
from typing import Any

import pytest

import pilotage.console
import pilotage.flows
import pilotage.planner
import pilotage.policies
import pilotage.telemetry

LENGTH = 8_000
"""Characters: the longest message that somebody may send."""
BOUND = 0.5
"""Seconds of CPU for one text on one pattern; a linear one takes under a hundredth of it."""
_PLAIN = (
    " ",
    "a",
    "A1",
    "=",
    ":",
    '"',
    "'",
    "://",
    ".",
    "-",
    "_",
    "\\",
    "key",
    "key ",
    "(",
    "[",
    "{",
    "<",
    "@",
    "eyJ",
)


def _inside(value: Any, depth: int = 0) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        if isinstance(value.pattern, str):
            yield value
    elif depth < 3 and isinstance(value, tuple | list | frozenset):
        for item in value:
            yield from _inside(item, depth + 1)
    elif depth < 3 and isinstance(value, dict):
        for item in value.values():
            yield from _inside(item, depth + 1)
    elif depth < 3 and type(value).__module__.startswith("pilotage.") and hasattr(value, "__slots__"):
        for name in value.__slots__:
            yield from _inside(getattr(value, name, None), depth + 1)


def _ours() -> dict[str, re.Pattern[str]]:
    found: dict[str, re.Pattern[str]] = {}
    for package in (
        pilotage.telemetry,
        pilotage.planner,
        pilotage.policies,
        pilotage.flows,
        pilotage.console,
    ):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if (
                ".examples" in module.name
                or ".demo" in module.name
                or module.name.endswith(("__main__", "_worker"))
            ):
                continue
            for value in vars(importlib.import_module(module.name)).values():
                for pattern in _inside(value):
                    found.setdefault(pattern.pattern, pattern)
    return found


def _theirs() -> dict[str, re.Pattern[str]]:
    from pilotage.telemetry.token_detectors import _detectors

    return {p.pattern: p for detector in _detectors() for p in getattr(detector, "denylist", ())}


def _sample(parsed: Any) -> str:
    """A text that the parsed pattern takes, as short as can be; looking around is left out."""
    text = ""
    for op, argument in parsed:
        match op:
            case sre.LITERAL:
                text += chr(argument)
            case sre.NOT_LITERAL:
                text += "a" if argument != ord("a") else "b"
            case sre.ANY:
                text += "a"
            case sre.IN:
                text += _one_of(argument)
            case sre.MAX_REPEAT | sre.MIN_REPEAT | sre.POSSESSIVE_REPEAT:
                text += _sample(argument[2]) * argument[0]
            case sre.SUBPATTERN:
                text += _sample(argument[3])
            case sre.BRANCH:
                text += _sample(argument[1][0])
            case _:
                pass
    return text


def _one_of(choices: Any) -> str:
    op, argument = choices[0]
    match op:
        case sre.LITERAL:
            return chr(argument)
        case sre.RANGE:
            return chr(argument[0])
        case sre.CATEGORY:
            return {"SPACE": " ", "DIGIT": "1", "WORD": "a"}.get(str(argument).rpartition("_")[2], "-")
        case _:
            return next(c for c in "a1 .~\x00" if re.fullmatch(r"[^\s'\"<>:/@,;&|\\]", c) or c == "a")


def _attacks(pattern: re.Pattern[str]) -> Iterator[str]:
    """Texts that repeat what the pattern repeats, behind what leads there, and then do not end as it wants."""
    flags = pattern.flags & ~re.UNICODE
    parsed = parser.parse(pattern.pattern, flags)
    whole = _sample(parsed)
    yield from (unit * (LENGTH // len(unit)) for unit in _PLAIN)
    if whole:
        yield whole * (LENGTH // len(whole) + 1)
        yield whole[:-1] * (LENGTH // max(1, len(whole) - 1) + 1)
    yield from _pumped(parsed, "")
    for lead in ("key", "token", "password", "sk-", "a:"):
        yield lead + " " * LENGTH + ":= a"


def _pumped(parsed: Any, before: str) -> Iterator[str]:
    lead = before
    for op, argument in parsed:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            unit = _sample(argument[2]) or "a"
            if argument[1] is sre.MAXREPEAT or argument[1] > 20:
                yield (lead + unit * (LENGTH // len(unit)))[:LENGTH] + "\x00"
            yield from _pumped(argument[2], lead)
        elif op is sre.SUBPATTERN:
            yield from _pumped(argument[3], lead)
        elif op is sre.BRANCH:
            for branch in argument[1]:
                yield from _pumped(branch, lead)
        lead += _sample([(op, argument)])


def _slow(patterns: dict[str, re.Pattern[str]], squeeze: bool = False) -> list[str]:
    from pilotage.telemetry.token_detectors import _SPACES, LONGEST_PIECE

    slow = []
    for pattern in patterns.values():
        for attack in _attacks(pattern):
            text = _SPACES.sub(" ", attack[:LONGEST_PIECE]) if squeeze else attack
            began = time.process_time()
            for _ in pattern.finditer(text):
                pass
            if time.process_time() - began > BOUND:
                slow.append(
                    f"{time.process_time() - began:.1f} s: {pattern.pattern[:120]!r} on {text[:40]!r}"
                )
                break
    return slow


def test_every_pattern_of_ours_stays_near_linear() -> None:
    patterns = _ours()
    assert len(patterns) > 100
    assert not _slow(patterns)


def test_every_detector_stays_near_linear_on_what_it_is_given() -> None:
    assert not _slow(_theirs(), squeeze=True)


@pytest.mark.parametrize("text", ["key" + " " * 1500 + ":= a", "ibm key" + " " * 8000 + "= x", "a" * 100_000])
def test_a_message_that_froze_the_page_takes_milliseconds(text: str) -> None:
    from pilotage.telemetry.token_detectors import fit_for_a_prompt

    fit_for_a_prompt("warm up")
    began = time.process_time()
    fit_for_a_prompt(text)
    assert time.process_time() - began < 1
