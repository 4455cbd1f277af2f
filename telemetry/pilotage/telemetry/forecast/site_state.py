"""What a live forecaster knows of a store so far, and how it is counted from the beginning, also beside what is served."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.forecast.attempts import Attempt, AttemptSource, StoredHistory, stored_history
from pilotage.telemetry.forecast.counters import Counters, counters_of
from pilotage.telemetry.forecast.running import DurationsByOutcome
from pilotage.telemetry.forecast.usual_durations import Expected, UsualDurations
from pilotage.telemetry.store.protocol import Store

log = logging.getLogger("pilotage.forecast")

OVERLAP = timedelta(minutes=2)
"""How far back ends are asked for again: events arrive late and out of order."""


@dataclass(slots=True)
class Following:
    """An attempt that is running, and what the candidates said of it when it began."""

    attempt: Attempt
    made: tuple[float, ...] | None = None
    served: float = 0.0
    expected: Expected | None = None
    """What was expected of its duration then."""
    missing_since: datetime | None = None


@dataclass(slots=True)
class SiteState:
    """What is known of the store so far."""

    counters: Counters
    loaded_at: datetime
    seen_until: datetime
    ended: int
    """Attempts that have ended."""
    durations: DurationsByOutcome
    usual: UsualDurations
    running: dict[str, Following] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    """Attempts that ended lately, with their ends: they are asked for more than once."""


def counted(store: Store, source: AttemptSource, now: datetime) -> tuple[SiteState, StoredHistory]:
    """Return what is known at `now`, counted from the beginning, and the history that it was counted from.

    Raises StoreError.
    """
    history = stored_history(store, now, source)
    runs = history.runs
    ended = runs.has_ended()
    newest = max(
        now.timestamp(),
        float(runs.submitted.max(initial=0.0)),
        float(runs.ended[ended].max(initial=0.0)),
    )
    counters = counters_of(runs, history.failed, history.levels, float(np.nextafter(newest, np.inf)))
    recent = (now - 2 * OVERLAP).timestamp()
    durations, usual = DurationsByOutcome(), UsualDurations()
    took = np.array([attempt.log_duration for attempt in history.attempts], dtype=np.float64)
    durations.add_all(history.levels, history.failed, ended, took)
    usual.add_all(history.levels, runs.ended, took, np.flatnonzero(ended & runs.completed()))
    site = SiteState(
        counters=counters,
        loaded_at=now,
        seen_until=now,
        ended=int(ended.sum()),
        durations=durations,
        usual=usual,
        running={a.id: Following(a) for a, over in zip(history.attempts, ended, strict=True) if not over},
        done={
            a.id: a.ended
            for a, over in zip(history.attempts, ended, strict=True)
            if over and a.ended > recent
        },
    )
    return site, history


def taken_over(site: SiteState, before: SiteState | None) -> SiteState:
    """Return a state that knows what was forecast of the attempts that run, from the state before it."""
    if before is None:
        return site
    kept = {key: before.running.get(key, each) for key, each in site.running.items()}
    return replace(site, running=kept)


class Recount:
    """Counts everything that is in a store in a thread of its own; a failure is told in the log and leaves no result."""

    def __init__(self, store: Store, source: AttemptSource, now: datetime) -> None:
        self._site: SiteState | None = None
        self._thread = threading.Thread(
            target=self._count, args=(store, source, now), name="forecast-recount", daemon=True
        )
        self._thread.start()

    def _count(self, store: Store, source: AttemptSource, now: datetime) -> None:
        try:
            self._site = counted(store, source, now)[0]
        except StoreError as error:
            log.warning("Counting the history anew: %s", error)

    def result(self) -> SiteState | None:
        """Return what was counted, or None while it is being counted."""
        return None if self._thread.is_alive() else self._site

    @property
    def failed(self) -> bool:
        """Whether it ended without a result."""
        return not self._thread.is_alive() and self._site is None
