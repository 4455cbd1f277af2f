"""Whether another attempt of a failed run succeeds, as served: follows what becomes of retries, and a trained model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.forecast.retry_history import RetryHistory
from pilotage.telemetry.forecast.stored_retries import LONG_AGO, Classify, RetryOutcome, retry_outcomes
from pilotage.telemetry.forecasts import RetryForecast
from pilotage.telemetry.store.protocol import Store

if TYPE_CHECKING:
    from pilotage.telemetry.forecast.retry_model import RetryModel

log = logging.getLogger("pilotage.forecast")

FRESH = timedelta(seconds=10)
"""How old what is known of outcomes may be when a forecast is made."""
OVERLAP = timedelta(minutes=10)
"""How far back outcomes are asked for again: events arrive late."""
LEARNED_SHARE = 10
"""A trained model counts as one known outcome of the deployment for so many that it learned from."""


class LiveRetries:
    """A `RetryForecaster` over the telemetry store and the models' directory. Threads may share it."""

    def __init__(
        self,
        store: Store,
        models: Path,
        classify: Classify,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._models, self._classify, self._clock = store, models, classify, clock
        self._lock = threading.Lock()
        self._history: RetryHistory | None = None
        self._model: RetryModel | None = None
        self._stamp: float | None = None
        self._known: set[tuple[str, int]] = set()
        self._codes: dict[str, int] = {}
        self._seen_until = LONG_AGO

    def retry(
        self, run_id: str, workflow: str, attempt: int, failure_class: str, log_tail: str
    ) -> RetryForecast | None:
        """Return the chance that attempt number `attempt` succeeds, or None where no retry is known at all.

        `attempt` counts the attempts before it. Raises StoreError.
        """
        now = self._clock()
        with self._lock:
            history = self._follow(now)
            if not history.known:
                return None
            code = self._code(workflow)
            p, known = history.leaning(code, attempt, failure_class)
            if self._model is None:
                return RetryForecast(run_id=run_id, made_at=now, p_success=p, known=known, model="rate")
            rate, ewma, features = history.ask(run_id, code, attempt, failure_class, now.timestamp())
            return RetryForecast(
                run_id=run_id,
                made_at=now,
                p_success=self._model.success(rate, ewma, features, log_tail),
                known=max(known, len(self._model.outcomes) // LEARNED_SHARE),
                model="mix",
            )

    def _code(self, workflow: str) -> int:
        return self._codes.setdefault(workflow, len(self._codes))

    def _follow(self, now: datetime) -> RetryHistory:
        """Take in a newly trained model, and what became known since the last time."""
        if self._history is None or self._stamp != self._trained_at():
            self._begin(RetryHistory())
        assert self._history is not None  # noqa: S101 - begun above
        if abs(now - self._seen_until) > FRESH:
            since = LONG_AGO if self._seen_until == LONG_AGO else self._seen_until - OVERLAP
            for outcome in retry_outcomes(self._store, since, now, self._classify):
                self._take(self._history, outcome)
            self._seen_until = now
        return self._history

    def _begin(self, history: RetryHistory) -> None:
        from pilotage.telemetry.forecast.retry_model import read_retry_model

        self._history, self._stamp = history, self._trained_at()
        self._known, self._codes, self._seen_until = set(), {}, LONG_AGO
        try:
            self._model = read_retry_model(self._models)
        except StoreError as error:
            log.warning("%s", error)
            self._model = None
        if self._model is not None and self._model.outcomes:
            for outcome in self._model.outcomes:
                self._take(history, outcome)
            self._seen_until = datetime.fromtimestamp(self._model.outcomes[-1].known_at, UTC)

    def _take(self, history: RetryHistory, outcome: RetryOutcome) -> None:
        name = (outcome.run_id, outcome.attempt)
        if name in self._known:
            return
        self._known.add(name)
        history.add(
            self._code(outcome.workflow),
            outcome.attempt,
            outcome.failure_class,
            outcome.succeeded,
            outcome.known_at,
        )

    def _trained_at(self) -> float | None:
        from pilotage.telemetry.forecast.retry_model import FILE

        try:
            return (self._models / FILE).stat().st_mtime
        except OSError:
            return None
