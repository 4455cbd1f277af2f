"""What the model expects of a run: a forecast and the interface that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The chance that one run fails, as known at one moment."""

    run_id: str
    made_at: datetime
    p_fail: float
    """Probability in [0, 1] that the run's next attempt ends FAILED or CRASHED."""
    model: str
    """Which champion served it, such as `logistic` or `ewma`."""
    trained_on: int
    """How many ended runs of this site the serving model has seen."""
    reasons: tuple[str, ...] = ()
    """The strongest contributions first, in words: `5 failures in a row for this deployment`."""


class Forecaster(Protocol):
    """Anything that can say how likely runs are to fail."""

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        """One forecast for each run that is known to the store; unknown runs are left out."""
        ...
