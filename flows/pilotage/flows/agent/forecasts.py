"""Forecasts for a conversation: those that the planner wrote down, and its own for what the planner did not look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

if TYPE_CHECKING:
    from pilotage.telemetry.forecast.selection import ChampionForecaster

TRAINED_FOR = timedelta(minutes=10)
"""How long a model of this process serves before it learns again."""
STANDING = """
    SELECT f.* FROM forecasts f JOIN runs r USING (run_id)
    WHERE f.run_id IN (SELECT unnest(?::VARCHAR[])) AND f.made_at >= r.updated
    QUALIFY row_number() OVER (PARTITION BY f.run_id ORDER BY f.made_at DESC) = 1
"""
"""The newest forecast of each run that has not changed since it was made."""


class ChatForecaster:
    """A `Forecaster` that learns only when it is asked about a run that nobody has forecast yet."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store, self._clock = store, clock
        self._champion: ChampionForecaster | None = None
        self._learned = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        """One forecast for each run that the store knows, in the order asked. Raises StoreError."""
        known = {f.run_id: f for f in facts_from_rows(Forecast, self._store.rows(STANDING, [list(run_ids)]))}
        if missing := [run_id for run_id in run_ids if run_id not in known]:
            known |= {f.run_id: f for f in self._own().forecast(missing)}
        return tuple(known[run_id] for run_id in dict.fromkeys(run_ids) if run_id in known)

    def _own(self) -> ChampionForecaster:
        from pilotage.telemetry.forecast.selection import ChampionForecaster  # start-up time: scikit-learn

        with self._lock:
            now = self._clock()
            champion = self._champion or ChampionForecaster(self._store, clock=self._clock)
            if self._champion is None or now - self._learned > TRAINED_FOR:
                champion.train(now)
                self._champion, self._learned = champion, now
            return champion
