"""Results of the bench as files: read, put together from rounds that were played apart, and compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pilotage.flows.bench.arms import ARMS
from pilotage.flows.bench.run import Result
from pilotage.flows.bench.score import Score
from pilotage.telemetry.errors import ConfigError

Which = tuple[str, str, int, bool]
"""Arm, class, seed, and whether tagged: which incident a score is of."""
_FIELDS = tuple(each.name for each in fields(Score))
_TUPLES = ("wrong", "violations")


def read_result(path: Path) -> Result:
    """Return the result that a file has, as `Result.write` wrote it. Raises ConfigError for another file."""
    try:
        found = json.loads(path.read_text())
        return Result(
            simulated=found["simulated"],
            scores=[_score(row) for row in found["scores"]],
            requests={row["arm"]: row["requests"] for row in found["arms"]},
            seconds=found["seconds"],
            about=found["about"],
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(
            f"Reading a result of the bench in {path}: {type(exc).__name__}: {exc}. "
            "Give a file that `pilotage bench faults --out` wrote."
        ) from exc


def _score(row: dict[str, Any]) -> Score:
    given = {name: row[name] for name in _FIELDS}
    return Score(**{**given, **{name: tuple(given[name]) for name in _TUPLES}})


def merged(results: Sequence[Result]) -> Result:
    """Return one result of rounds that were played apart; an incident that several have counts as the last has it.

    Raises ConfigError when some are simulated and some are not.
    """
    if len({each.simulated for each in results}) != 1:
        raise ConfigError(
            "Putting results of the bench together: some are simulated and some are real. "
            "Compare those with `pilotage bench agreement`."
        )
    whole = Result(simulated=results[0].simulated)
    scores: dict[Which, Score] = {}
    for each in results:
        scores |= {_which(score): score for score in each.scores}
        for arm, seconds in each.seconds.items():
            whole.seconds[arm] = round(whole.seconds.get(arm, 0.0) + seconds, 1)
        for arm, requests in each.requests.items():
            before = whole.requests.get(arm, 0)
            whole.requests[arm] = None if requests is None or before is None else before + requests
        whole.about |= each.about
    whole.scores = sorted(scores.values(), key=lambda score: (ARMS.index(score.arm), *_which(score)[1:]))
    return whole


def _which(score: Score) -> Which:
    return score.arm, score.name, score.seed, score.tagged


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often two results say the same of one incident."""

    incidents: int
    """That both have."""
    agree: int
    """Those of which both say the same of recovered, wrong and duplicate."""
    differ: tuple[str, ...]
    """The others, in words."""

    @property
    def share(self) -> float | None:
        """The share that agrees, or None where nothing is in both."""
        return round(self.agree / self.incidents, 4) if self.incidents else None


def agreement(first: Result, second: Result) -> Agreement:
    """Return how often two results agree on the incidents that both have, under the same arm."""
    known = {_which(score): score for score in second.scores}
    pairs = [(score, known[_which(score)]) for score in first.scores if _which(score) in known]
    differ = tuple(_difference(one, other) for one, other in pairs if _said(one) != _said(other))
    return Agreement(incidents=len(pairs), agree=len(pairs) - len(differ), differ=differ)


def _said(score: Score) -> tuple[bool, bool, bool]:
    return score.recovered, bool(score.wrong), bool(score.duplicates)


def _difference(one: Score, other: Score) -> str:
    names = ("recovered", "wrong", "duplicate")
    said = ", ".join(
        f"{name} {str(mine).lower()} and {str(its).lower()}"
        for name, mine, its in zip(names, _said(one), _said(other), strict=True)
        if mine != its
    )
    return f"{one.arm}, {one.name}, seed {one.seed}: {said}"
