"""The values of an investigation: where a fault comes from, what speaks for and against, what is found, what is planned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pilotage.planner.findings import FailureClass


class Origin(StrEnum):
    """Where a fault comes from. Closed: rules and models pick from it and never add to it."""

    CHILD = "child"
    """A run that it started failed first."""
    OUTAGE = "outage"
    """Something that several deployments use is down: others fail of the same at the same time."""
    PLATFORM = "platform"
    """The worker, the pool or the machines: others of the same pool die too."""
    CHANGE = "change"
    """It began with a change of its parameters, image, job variables or queue."""
    VALUE = "value"
    """One value of a parameter fails, and the others go well."""
    SIZE = "size"
    """It needs more memory than it has."""
    PASSING = "passing"
    """It passes by itself: its like completed soon after, or the fault is one that does."""
    OWN = "own"
    """Its own code, data or credentials, and nobody else's."""
    WAITS = "waits"
    """Nothing has failed: it waits, and `cause` says for what."""
    DEAD_HOLDER = "dead_holder"
    """It waits for what a run holds that is not alive."""
    NONE = "none"
    """Nothing is wrong."""
    UNKNOWN = "unknown"
    """Nothing that was looked at tells."""


MEANING: dict[Origin, str] = {
    Origin.CHILD: "a run that it started failed first",
    Origin.OUTAGE: "something that several deployments use is down",
    Origin.PLATFORM: "the worker, the pool or the machines",
    Origin.CHANGE: "it began with a change of parameters, image, job variables or queue",
    Origin.VALUE: "one value of a parameter fails, and the others go well",
    Origin.SIZE: "it needs more memory than it has",
    Origin.PASSING: "it passes by itself",
    Origin.OWN: "its own code, data or credentials, and nobody else's",
    Origin.WAITS: "nothing has failed: it waits",
    Origin.DEAD_HOLDER: "it waits for what a run holds that is not alive",
    Origin.NONE: "nothing is wrong",
    Origin.UNKNOWN: "nothing that was looked at tells",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """One thing that was seen: where it can be looked up, and what it says in words of ours."""

    ref: str
    """`run:<id>`, `log:<id>`, `deployment:<id>`, `limit:<name>`, `pool:<name>` and the like."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """One origin with what speaks for and against it."""

    origin: Origin
    supports: tuple[Clue, ...] = ()
    against: tuple[Clue, ...] = ()
    root: str = ""
    """What is at its root, as a reference; empty where it is the subject itself."""

    @property
    def weight(self) -> int:
        """What speaks for it less what speaks against it, which counts twice."""
        return len(self.supports) - 2 * len(self.against)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What an investigation found."""

    subject: str
    """`run:<id>` or `deployment:<id>`."""
    origin: Origin
    failure_class: FailureClass
    cause: str = ""
    """What a wait is for: a value of `pilotage.planner.detect.blockage.Cause`; empty for a failure."""
    root: str = ""
    words: str = ""
    """The cause in words; with a model its own, untrusted."""
    citations: tuple[str, ...] = ()
    """References to what it rests on."""
    unchecked: tuple[str, ...] = ()
    """What could not be checked, in words."""
    hypotheses: tuple[Hypothesis, ...] = ()
    by: str = "rules"
    """`rules`, or `model:` and a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action of a plan, with what would show that it worked."""

    action: dict[str, Any]
    """As `action_as_json` gives it."""
    shows: str


def as_json(conclusion: Conclusion) -> dict[str, Any]:
    """Return the conclusion as plain JSON, for look-ups and checkpoints."""

    def clues(given: tuple[Clue, ...]) -> list[dict[str, str]]:
        return [{"ref": clue.ref, "words": clue.words} for clue in given]

    return {
        "subject": conclusion.subject,
        "origin": conclusion.origin.value,
        "meaning": MEANING[conclusion.origin],
        "failure_class": conclusion.failure_class.value,
        "cause": conclusion.cause,
        "root": conclusion.root,
        "words": conclusion.words,
        "citations": list(conclusion.citations),
        "unchecked": list(conclusion.unchecked),
        "hypotheses": [
            {
                "origin": each.origin.value,
                "for": clues(each.supports),
                "against": clues(each.against),
                "root": each.root,
            }
            for each in conclusion.hypotheses
        ],
        "by": conclusion.by,
    }
