"""Forecasts for a conversation: those that the planner wrote down, and its own for what the planner did not look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

if TYPE_CHECKING:
    from pilotage.telemetry.forecast.live import LiveForecaster
    from pilotage.telemetry.forecast.registry import ModelRegistry

STANDING = """
    SELECT f.* FROM forecasts f JOIN runs r USING (run_id)
    WHERE f.run_id IN (SELECT unnest(?::VARCHAR[])) AND f.made_at >= r.updated
    QUALIFY row_number() OVER (PARTITION BY f.run_id ORDER BY f.made_at DESC) = 1
"""
"""The newest forecast of each run that has not changed since it was made."""


class ChatForecaster:
    """A `Forecaster` that reads the history only when it is asked about a run that nobody has forecast yet."""

    def __init__(
        self,
        store: Store,
        models: ModelRegistry | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._models, self._clock = store, models, clock
        self._own: LiveForecaster | None = None
        self._lock = threading.Lock()

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        """One forecast for each run that the store knows, in the order asked. Raises StoreError."""
        known = {f.run_id: f for f in facts_from_rows(Forecast, self._store.rows(STANDING, [list(run_ids)]))}
        if missing := [run_id for run_id in run_ids if run_id not in known]:
            known |= {f.run_id: f for f in self._live().forecast(missing)}
        return tuple(known[run_id] for run_id in dict.fromkeys(run_ids) if run_id in known)

    def _live(self) -> LiveForecaster:
        from pilotage.telemetry.forecast.live import LiveForecaster  # start-up time: scikit-learn

        with self._lock:
            if self._own is None:
                self._own = LiveForecaster(self._store, self._models, clock=self._clock)
            return self._own
