"""Log lines as templates with counts: what a run said, in as many lines as it said different things.

Lines are masked (ids, times, numbers, quoted words) and then merged where they have as many words, the same first
word and mostly the same others, after Drain (He, Zhu, Zheng, Lyu, "Drain: an online log parsing approach with fixed
depth tree", ICWS 2017), with a list in place of its tree: a run's newest thousand lines need none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pilotage.planner.detect.failures import normalised
from pilotage.telemetry.facts import LogLine

ALIKE = 0.6
"""The part of their words in which two lines agree that are one template."""
ANY = "<*>"
MOST = 500
"""Templates that are kept; a run that says more different things is told by its newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTemplate:
    """One kind of line."""

    words: tuple[str, ...]
    """Masked; what differs between its lines is `<*>`. Untrusted."""
    level: int
    """The highest level of its lines."""
    count: int
    first_at: datetime
    last_at: datetime
    first_log_id: str
    last_log_id: str
    example: str
    """The newest line, as it was; untrusted."""

    @property
    def text(self) -> str:
        """The template as one line."""
        return " ".join(self.words)


def mined(lines: Iterable[LogLine]) -> list[LogTemplate]:
    """The templates of these lines, that of the newest line last."""
    found: list[LogTemplate] = []
    for line in sorted(lines, key=lambda line: (line.at, line.log_id)):
        words = tuple(normalised(line.message).split(" "))
        at = next((i for i, known in enumerate(found) if _alike(known.words, words)), None)
        if at is None:
            merged = LogTemplate(
                words=words,
                level=line.level,
                count=1,
                first_at=line.at,
                last_at=line.at,
                first_log_id=line.log_id,
                last_log_id=line.log_id,
                example=line.message,
            )
        else:
            known = found.pop(at)
            merged = replace(
                known,
                words=tuple(a if a == b else ANY for a, b in zip(known.words, words, strict=True)),
                level=max(known.level, line.level),
                count=known.count + 1,
                last_at=line.at,
                last_log_id=line.log_id,
                example=line.message,
            )
        found.append(merged)
        del found[:-MOST]
    return found


def _alike(known: Sequence[str], words: Sequence[str]) -> bool:
    if len(known) != len(words) or (known[0] != words[0] and ANY not in (known[0], words[0])):
        return False
    return sum(a == b for a, b in zip(known, words, strict=True)) >= ALIKE * len(words)
