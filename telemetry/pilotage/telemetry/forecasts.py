"""What the model expects of a run: a forecast and the interface that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The chance that one run fails, as known at one moment."""

    run_id: str
    made_at: datetime
    p_fail: float
    """Probability in [0, 1] that the run's next attempt ends FAILED or CRASHED."""
    model: str
    """What served it: `mix` of all candidates, or the plain `rate` while no model has been trained."""
    trained_on: int
    """How many ended attempts of this site the serving model has seen."""
    reasons: tuple[str, ...] = ()
    """The strongest first, in words: `raises it by 31 points: 5 failures in a row for this deployment`."""
    model_id: str = ""
    """The registered model; empty while none has been trained."""
    low: float | None = None
    """The 10 % quantile of the chance, as sure as the deployment's history makes it."""
    high: float | None = None
    """The 90 % quantile."""
    muted: str = ""
    """Why nothing may act on it, such as a storm or lost calibration; empty when it may."""
    failed: bool | None = None
    """How the attempt went; None until it has ended."""
    ended: datetime | None = None
    """When the attempt that it was about ended."""

    def expects_failure(self, above: float) -> bool:
        """Return whether something may act because the chance is `above` or higher: not on a muted forecast."""
        return not self.muted and self.p_fail >= above


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationForecast:
    """How long the attempt of one run takes from its start to its end if it completes, as known at one moment."""

    run_id: str
    made_at: datetime
    median: timedelta
    p90: timedelta
    """Nine of ten such attempts end sooner."""
    latest: timedelta
    """995 of a thousand end sooner."""
    runs: int
    """Completed attempts of its deployment that this rests on."""
    scored: int
    """Ended attempts of the site that the bounds were held against; below 199 `latest` is a guess."""


@runtime_checkable
class DurationForecaster(Protocol):
    """Anything that can say how long runs take."""

    def durations(self, run_ids: Sequence[str]) -> tuple[DurationForecast, ...]:
        """One forecast for each run that is known to the store; unknown runs are left out. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryForecast:
    """The chance that another attempt of a failed run succeeds, as known at one moment."""

    run_id: str
    made_at: datetime
    p_success: float
    known: int
    """Outcomes of retries that it rests on: those of the deployment, or of the kind of failure where these say more."""
    model: str
    """`rate`: smoothed rates; `mix`: those, the history's pattern and the log's words, mixed by what was right here."""


class RetryForecaster(Protocol):
    """Anything that can say whether another attempt helps."""

    def retry(
        self, run_id: str, workflow: str, attempt: int, failure_class: str, log_tail: str
    ) -> RetryForecast | None:
        """Return the chance that attempt number `attempt` succeeds, or None where nothing is known of any retry.

        `workflow` is the deployment's id, or the flow's name. Raises StoreError.
        """
        ...


class Forecaster(Protocol):
    """Anything that can say how likely runs are to fail."""

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        """One forecast for each run that is known to the store; unknown runs are left out."""
        ...
