"""From a question to its meaning: which kind it is, what it names, and which stretch of time it is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from pilotage.planner.chat.questions.intents import drafted_kind, intent_of, plain, well_spelled
from pilotage.planner.chat.questions.names import Mentions, Named, mentions_in
from pilotage.planner.chat.questions.windows import Window, window_in
from pilotage.telemetry.store.protocol import Store

LONGEST = 600
"""Characters of a question that are read."""
STATES = {
    "FAILED": r"\b(?:failed|failing|failures)\b", "CRASHED": r"\bcrashed\b", "CANCELLED": r"\bcancell?ed\b",
    "COMPLETED": r"\b(?:completed|succeeded|successful|finished|green)\b", "RUNNING": r"\brunning\b",
    "SCHEDULED": r"\bscheduled\b", "PENDING": r"\bpending\b", "PAUSED": r"\b(?:paused|suspended)\b",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a question means."""

    intent: str
    """The name of a row of `INTENTS`, `draft`, or empty where it is not understood."""
    kind: str = ""
    """Of a draft: the kind of action."""
    runs: tuple[Named, ...] = ()
    deployments: tuple[Named, ...] = ()
    """One where it is certain; several are what it may be."""
    others: tuple[Named, ...] = ()
    window: Window | None = None
    state: str = ""
    """The state type of runs that are asked for."""
    words: str = ""
    """What is left of the question when names are placeholders."""

    @property
    def ambiguous(self) -> bool:
        """Whether the person has to say which deployment is meant."""
        return len(self.deployments) > 1 and self.intent != "compare" and not self.runs

    def named(self, kind: str) -> str:
        """The name of the first other thing of a kind, or an empty string."""
        return next((each.key for each in self.others if each.kind == kind), "")


def meaning_of(question: str, store: Store, now: datetime) -> Meaning:
    """Return what the question means. `now` is aware, in the person's zone. Reads the store."""
    text, asked = plain(question[:LONGEST]), question.strip().endswith("?")
    window, without = window_in(text.rstrip(" ?!."), now)
    found = mentions_in(without, store)
    rest = well_spelled(" ".join(found.rest.split()))
    found.deployments = _compared(found, without, store) or found.deployments
    kind = drafted_kind(
        rest + ("?" if asked and not rest.startswith(("can", "could", "would", "please")) else "")
    )
    intent = "draft" if kind else _intent(rest, found)
    state = next((name for name, words in STATES.items() if re.search(words, rest)), "")
    return Meaning(
        intent=intent,
        kind=kind,
        runs=tuple(found.runs),
        deployments=tuple(found.deployments),
        others=tuple(found.others),
        window=window,
        state=state,
        words=rest,
    )


def _intent(rest: str, found: Mentions) -> str:
    chosen = intent_of(rest)
    if chosen is None:
        return "story" if found.runs or found.deployments else ""
    named = found.runs or found.deployments
    if chosen.name == "failures" and found.runs:
        return "why_failed"
    if chosen.name == "failures" and found.deployments:
        return "runs" if _LISTED.search(rest) else "why_failed"
    if chosen.name == "runs" and not named and re.search(r"\b(?:failed|failing|crashed|broken)\b", rest):
        return "failures"
    if chosen.name in ("story", "why_failed", "why_waits") and not named:
        return {"why_waits": "what_waits", "why_failed": "why_failed", "story": "status"}[chosen.name]
    return {"how_waits": "why_waits" if named else "what_waits"}.get(chosen.name, chosen.name)


_LISTED = re.compile(r"\b(?:which|list|show|runs|any|how many)\b|^what \w+$")
_SIDES = re.compile(r"\b(?:with|and|to|versus|vs\.?|than|from|against)\b")


def _compared(found: Mentions, text: str, store: Store) -> list[Named]:
    """Two deployments that stand on the two sides of a comparison, where the whole names several or one."""
    if not re.search(r"\b(?:compar\w*|between|versus|vs|differ\w*)\b", text) or len(found.runs) == 2:
        return []
    sides = [mentions_in(side.strip(), store).deployments for side in _SIDES.split(text, maxsplit=1)]
    if len(sides) == 2 and len(sides[0]) == 1 and len(sides[1]) != 1:
        sides[1] = _like(sides[0][0], _SIDES.split(text, maxsplit=1)[1], store)
    if len(sides) == 2 and all(len(side) == 1 for side in sides) and sides[0] != sides[1]:
        return [sides[0][0], sides[1][0]]
    return []


def _like(first: Named, side: str, store: Store) -> list[Named]:
    """The deployments of the same flow whose name the other side of a comparison says."""
    flow = first.name.partition("/")[0]
    return [each for each in mentions_in(f"{flow.lower()} {side}", store).deployments if each != first]
