"""What became of retries so far: by workflow, number of attempts and kind of failure, told outcome by outcome."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

PRIOR_RATE, PRIOR_RUNS = 0.5, 2.0
"""The chance of success that is expected where nothing is known, and how many outcomes that counts for."""
LEAN = 3.0
"""How many outcomes the parent's rate counts for."""
FAST = 0.3
BURST_S = 900.0
"""The window in which other workflows' decisions count as one burst: what hits many at once is often the site."""
SURE = 0.002
"""No chance is nearer to 0 or 1."""


@dataclass(slots=True)
class _Tally:
    """The outcomes of one workflow, of one number of attempts, or of the site."""

    known: int = 0
    good: int = 0
    fast: float = math.nan
    last_at: float = math.nan
    last: float = 0.5
    row: int = 0
    """Equal outcomes in a row; negative for failures."""

    def add(self, succeeded: bool, at: float) -> None:
        self.known += 1
        self.good += succeeded
        self.fast = succeeded if math.isnan(self.fast) else self.fast + FAST * (succeeded - self.fast)
        self.last_at, self.last = at, float(succeeded)
        self.row = (max(self.row, 0) + 1) if succeeded else (min(self.row, 0) - 1)

    def rate(self, parent: float, lean: float) -> float:
        return (self.good + lean * parent) / (self.known + lean)


@dataclass(slots=True)
class RetryHistory:
    """The outcomes of retries that have been told so far, and the features of a decision at this moment."""

    _site: _Tally = field(default_factory=_Tally)
    _workflows: dict[int, _Tally] = field(default_factory=dict)
    _attempts: dict[int, _Tally] = field(default_factory=dict)
    _classes: dict[str, _Tally] = field(default_factory=dict)
    _asked: deque[tuple[float, int]] = field(default_factory=deque)
    _chains: dict[str, float] = field(default_factory=dict)

    def add(self, workflow: int, attempt: float, failure_class: str, succeeded: bool, at: float) -> None:
        """Take an outcome that has become known."""
        self._workflows.setdefault(workflow, _Tally()).add(succeeded, at)
        self._attempts.setdefault(_bucket(attempt), _Tally()).add(succeeded, at)
        self._classes.setdefault(failure_class, _Tally()).add(succeeded, at)
        self._site.add(succeeded, at)

    def ask(
        self, chain: str, workflow: int, attempt: float, failure_class: str, now: float
    ) -> tuple[float, float, list[float]]:
        """Return the smoothed rate, the weighted rate and the features of a decision, and remember that it came up."""
        site = self._site.rate(PRIOR_RATE, PRIOR_RUNS)
        mine = self._workflows.get(workflow) or _Tally()
        nth = self._attempts.get(_bucket(attempt)) or _Tally()
        same = self._classes.get(failure_class) or _Tally()
        rate = mine.rate(site, LEAN)
        left = (1 - FAST) ** mine.known
        ewma = rate if math.isnan(mine.fast) else (1 - left) * mine.fast + left * site
        while self._asked and self._asked[0][0] < now - BURST_S:
            self._asked.popleft()
        others = len({other for _, other in self._asked if other != workflow})
        before = self._chains.get(chain, math.nan)
        features = [
            math.log1p(attempt),
            *(float(_bucket(attempt) == n) for n in (1, 2, 3)),
            log_odds(site),
            log_odds(rate),
            log_odds(ewma),
            log_odds(nth.rate(site, LEAN)),
            log_odds(same.rate(site, LEAN)) if failure_class else 0.0,
            math.log1p(mine.known),
            mine.last,
            float(min(max(mine.row, -5), 5)),
            _age(now - mine.last_at),
            math.log1p(others),
            math.log1p(len(self._asked)),
            _age(now - before),
        ]
        self._asked.append((now, workflow))
        self._chains[chain] = now
        return rate, ewma, features

    def leaning(self, workflow: int, attempt: float, failure_class: str) -> tuple[float, int]:
        """Return the smoothed rate of a workflow's retries, leaning on the kind of failure and the attempt, and its weight.

        The weight is the number of outcomes behind it: the workflow's, or a third of those of the same class elsewhere.
        """
        site = self._site.rate(PRIOR_RATE, PRIOR_RUNS)
        nth = (self._attempts.get(_bucket(attempt)) or _Tally()).rate(site, LEAN)
        same = self._classes.get(failure_class) if failure_class else None
        parent = same.rate(nth, LEAN) if same else nth
        mine = self._workflows.get(workflow) or _Tally()
        return mine.rate(parent, LEAN), max(mine.known, same.known // 3 if same else 0)

    @property
    def known(self) -> int:
        """Outcomes that have been told."""
        return self._site.known


def _bucket(attempt: float) -> int:
    return int(min(max(attempt, 0), 4))


def log_odds(chance: float) -> float:
    sure = min(max(chance, SURE), 1 - SURE)
    return math.log(sure / (1 - sure))


def _age(seconds: float) -> float:
    return 15.0 if math.isnan(seconds) else math.log1p(max(seconds, 0.0))
