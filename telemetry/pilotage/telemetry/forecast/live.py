"""The forecast that is served: it follows the store run by run, and mixes what the candidates say as outcomes come in.

What a backtest serves and what is served here come from the same functions: `assemble` makes the numbers, a
`FittedModels` the candidates' chances, `fit_mix` the mix. Every attempt is forecast when it is seen to begin,
asked for or not, so that the mix always rests on forecasts that were made before their outcome was known.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from scipy.special import betaincinv

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.forecast.attempts import NUMBERS, RUN_ATTEMPTS, Attempt, AttemptSource
from pilotage.telemetry.forecast.bundle import Bundle
from pilotage.telemetry.forecast.candidates import CANDIDATES, FittedModels, untrained
from pilotage.telemetry.forecast.counters import stats_from
from pilotage.telemetry.forecast.mixing import Mix, fit_mix
from pilotage.telemetry.forecast.plain_evidence import plain_evidence
from pilotage.telemetry.forecast.point_in_time import LEAN, LEVELS, Features, assemble, feature_names
from pilotage.telemetry.forecast.reasons import reasons, with_age
from pilotage.telemetry.forecast.registry import ModelRegistry
from pilotage.telemetry.forecast.run_history import Floats
from pilotage.telemetry.forecast.site_state import (
    OVERLAP,
    Following,
    Recount,
    SiteState,
    counted,
    taken_over,
)
from pilotage.telemetry.forecast.stacking import Evidence, no_evidence
from pilotage.telemetry.forecast.watch import ForecastWatch, newest_scored
from pilotage.telemetry.forecasts import DurationForecast, Forecast
from pilotage.telemetry.store.protocol import Store

log = logging.getLogger("pilotage.forecast")

NAMES = feature_names(LEVELS, NUMBERS, True)
FRESH = timedelta(seconds=1)
"""How old what is known of ends may be when a forecast is made."""
RELOAD = timedelta(hours=6)
"""After this everything is counted anew beside what is served, which mends what arrived later than OVERLAP."""
MOST_EVIDENCE = 30_000
"""Ended forecasts that the mix is fitted on, the newest."""
REFIT_AFTER, REFIT_SHARE = 25, 0.05
"""The mix is fitted again after so many new outcomes, or so large a share of new ones on a small site."""
SURE_OF = 200.0
"""Runs beyond which more history makes no interval narrower: sites drift."""
LOW, HIGH = 0.1, 0.9
"""The quantiles of the interval."""


class LiveForecaster:
    """A `Forecaster` over the telemetry store, of failures or of whatever else its source tells. Threads may share it."""

    def __init__(
        self,
        store: Store,
        models: ModelRegistry | None = None,
        *,
        source: AttemptSource = RUN_ATTEMPTS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._registry, self._source, self._clock = store, models, source, clock
        self._lock = threading.RLock()
        self._site: SiteState | None = None
        self._counting: Recount | None = None
        self._bundle: Bundle | None = None
        self._refused = ""
        self._models: FittedModels = untrained(len(NAMES))
        self._base: Evidence = no_evidence()
        self._outcomes: list[tuple[tuple[float, ...], bool, float]] = []
        """Forecasts that were made here: what each candidate said, whether it failed, when it ended."""
        self._watch = ForecastWatch()
        self._said: dict[str, Forecast] = {}
        """What was forecast since the store was looked at last: several detectors ask about the same runs."""
        self._mixed = 0
        self._served_by: Mix = fit_mix(self._base)

    @property
    def ended(self) -> int:
        """Ended attempts that are known."""
        with self._lock:
            return self._site.ended if self._site else 0

    @property
    def model_id(self) -> str:
        """The id of the model that serves; empty while none has been trained."""
        with self._lock:
            return self._bundle.model_id if self._bundle else ""

    def evidence(self) -> Evidence:
        """Return the ended forecasts that the mix rests on, the newest last."""
        with self._lock:
            made = np.array([each[0] for each in self._outcomes], dtype=np.float64).reshape(
                -1, len(CANDIDATES)
            )
            base = self._base
            return Evidence(
                made={
                    name: np.concatenate([base.made[name], made[:, place]])
                    for place, name in enumerate(CANDIDATES)
                },
                failed=np.concatenate(
                    [base.failed, np.array([each[1] for each in self._outcomes], dtype=bool)]
                ),
                ended=np.concatenate([base.ended, np.array([each[2] for each in self._outcomes])]),
            ).part(slice(-MOST_EVIDENCE, None))

    def follow(self, now: datetime) -> None:
        """Take in what began and ended since the last time, and a newly trained model. Raises StoreError."""
        with self._lock:
            self._said = {}
            if self._site is None or now < self._site.seen_until:
                self._load(now)
            else:
                self._advance(self._site, now)
                if now - self._site.loaded_at > RELOAD:
                    self._recount(now)
            self._adopt()
            new = len(self._outcomes) - self._mixed
            if new >= max(1, min(REFIT_AFTER, int(REFIT_SHARE * (len(self._base) + len(self._outcomes))))):
                self._mix()

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        """Return one forecast for the next attempt of each run that the store knows, in the order asked.

        Raises StoreError.
        """
        if not run_ids:
            return ()
        now = self._clock()
        with self._lock:
            if self._site is None or abs(now - self._site.seen_until) > FRESH:
                self.follow(now)
            wanted = list(dict.fromkeys(run_ids))
            if new := [run_id for run_id in wanted if run_id not in self._said]:
                attempts = self._source.following(self._store, new, now) | self._running_attempts()
                made = self.forecasts([attempts[run_id] for run_id in new if run_id in attempts], now)
                self._said |= {each.run_id: each for each in made}
            return tuple(self._said[run_id] for run_id in wanted if run_id in self._said)

    def forecasts(self, attempts: Sequence[Attempt], now: datetime) -> tuple[Forecast, ...]:
        """Return a forecast for each attempt from what has been taken in."""
        if not attempts or self._site is None:
            return ()
        with self._lock:
            counters = self._site.counters
            found = self._numbers(attempts, [counters.values(a.keys, now.timestamp()) for a in attempts])
            served = self._served_by.chances(self._models.chances(found))
            aged = self._aged(attempts, served, now)
            trained_on = self._site.ended if self._bundle is None else self._models.trained_on
            why = reasons(attempts, counters, found, served, self._models, self._served_by)
            low, high = self._intervals(attempts, aged)
            return tuple(
                Forecast(
                    run_id=attempt.run_id,
                    made_at=now,
                    p_fail=float(chance),
                    model="rate" if self._bundle is None else "mix",
                    model_id=self.model_id,
                    trained_on=trained_on,
                    reasons=with_age(because, attempt, float(chance), float(before), now),
                    low=float(least),
                    high=float(most),
                    muted=self._watch.reason,
                )
                for attempt, chance, before, because, least, most in zip(
                    attempts, aged, served, why, low, high, strict=True
                )
            )

    def durations(self, run_ids: Sequence[str]) -> tuple[DurationForecast, ...]:
        """Return how long the running or else the next attempt of each run takes, in the order asked.

        Raises StoreError.
        """
        if not run_ids:
            return ()
        now = self._clock()
        with self._lock:
            if self._site is None or abs(now - self._site.seen_until) > FRESH:
                self.follow(now)
            assert self._site is not None  # noqa: S101 - followed above
            usual, running = self._site.usual, self._running_attempts()
            wanted = list(dict.fromkeys(run_ids))
            waiting = [run_id for run_id in wanted if run_id not in running]
            attempts = running | (self._source.following(self._store, waiting, now) if waiting else {})
            return tuple(
                usual.forecast(attempts[each].keys, each, now) for each in wanted if each in attempts
            )

    def _running_attempts(self) -> dict[str, Attempt]:
        """Return the attempt of each run that runs: what is forecast of it is how this one ends, not the next."""
        running = self._site.running.values() if self._site else ()
        return {each.attempt.run_id: each.attempt for each in running}

    def _aged(self, attempts: Sequence[Attempt], served: Floats, now: datetime) -> Floats:
        """Return the chances of those that run by how long they have run; of the others as they are."""
        assert self._site is not None  # noqa: S101 - narrowed by the only caller
        site, moment = self._site, now.timestamp()
        return np.array(
            [
                site.durations.chance(float(chance), each.keys, moment - each.started)
                if each.id in site.running
                else chance
                for each, chance in zip(attempts, served, strict=True)
            ],
            dtype=np.float64,
        )

    def _intervals(self, attempts: Sequence[Attempt], served: Floats) -> tuple[Floats, Floats]:
        """Return how low and high the chance may be: as sure as that many runs of the deployment make it."""
        assert self._site is not None  # noqa: S101 - narrowed by the only caller
        ended = [self._site.counters.of("deployment", a.deployment).ended for a in attempts]
        runs = LEAN + np.minimum(np.array(ended, dtype=np.float64), SURE_OF)
        return (
            np.minimum(betaincinv(served * runs, (1 - served) * runs, LOW), served),
            np.maximum(betaincinv(served * runs, (1 - served) * runs, HIGH), served),
        )

    def _numbers(
        self, attempts: Sequence[Attempt], values: Sequence[tuple[tuple[float, ...], ...]]
    ) -> Features:
        numbers = np.array([attempt.numbers for attempt in attempts], dtype=np.float64)
        return assemble(
            stats_from(values),
            np.array([attempt.started for attempt in attempts], dtype=np.float64),
            {name: numbers[:, place] for place, name in enumerate(NUMBERS)},
            clock=True,
        )

    def _load(self, now: datetime) -> None:
        """Count everything that is in the store, while nobody may ask."""
        first = self._site is None and self._source is RUN_ATTEMPTS
        site, history = counted(self._store, self._source, now)
        self._site = taken_over(site, self._site)
        if self._bundle is None and not self._outcomes:
            self._base = plain_evidence(history)
            self._mix()
        if first:
            for chance, failed, ended in newest_scored(self._store, now):
                self._watch.add(chance, failed, ended)

    def _recount(self, now: datetime) -> None:
        """Count everything anew beside what is served: a million attempts take half a minute."""
        if self._counting is None or self._counting.failed:
            self._counting = Recount(self._store, self._source, now)
        if (fresh := self._counting.result()) is None:
            return
        self._counting = None
        before, fresh.loaded_at = self._site, now
        self._site = taken_over(fresh, before)
        # what ended since it was begun has been learned from already
        self._advance(self._site, now, told=frozenset(before.done) if before else frozenset())

    def _advance(self, site: SiteState, now: datetime, told: frozenset[str] = frozenset()) -> None:
        """Take in the attempts that began or ended since the last time, in the order in which they did.

        Nothing more is learned from the outcomes of `told`.
        """
        ended = [
            attempt
            for attempt in self._source.ended(self._store, site.seen_until - OVERLAP, now)
            if attempt.id not in site.done
        ]
        over = {attempt.id for attempt in ended}
        running = {a.id: a for a in self._source.running(self._store, now)}
        began = [
            attempt
            for attempt in (
                *ended,
                *(a for key, a in running.items() if key not in over and key not in site.done),
            )
            if attempt.id not in site.running
        ]
        events = [(a.started, 0, a.id, a) for a in began] + [
            (max(a.ended, a.started), 1, a.id, a) for a in ended
        ]
        events.sort(key=lambda event: event[:3])
        knew: list[tuple[tuple[float, ...], ...]] = []
        starting: list[Attempt] = []
        expected = {key: followed.expected for key, followed in site.running.items()}
        for at, is_end, _, attempt in events:
            if is_end:
                site.counters.ended(
                    attempt.keys,
                    at,
                    failed=attempt.failed,
                    completed=attempt.outcome == "COMPLETED",
                    log_duration=attempt.log_duration,
                )
                site.durations.add(attempt.keys, failed=attempt.failed, log_duration=attempt.log_duration)
                if attempt.outcome == "COMPLETED":
                    site.usual.add(attempt.keys, attempt.log_duration, expected.get(attempt.id))
            else:
                starting.append(attempt)
                knew.append(site.counters.values(attempt.keys, at))
                site.counters.submitted(attempt.keys, at)
                expected[attempt.id] = site.usual.expected(attempt.keys)
        if starting:
            made = self._models.chances(self._numbers(starting, knew))
            served = self._served_by.chances(made)
            for place, attempt in enumerate(starting):
                said = tuple(float(made[name][place]) for name in CANDIDATES)
                site.running[attempt.id] = Following(
                    attempt, said, float(served[place]), expected[attempt.id]
                )
        for attempt in ended:
            followed = site.running.pop(attempt.id)
            if followed.made is not None and attempt.id not in told:
                self._outcomes.append((followed.made, attempt.failed, attempt.ended))
                self._watch.add(followed.served, attempt.failed, attempt.ended)
            site.done[attempt.id] = attempt.ended
        site.ended += len(ended)
        self._forget_vanished(site, running, now)
        forgotten = (now - 3 * OVERLAP).timestamp()
        site.done = {key: end for key, end in site.done.items() if end > forgotten}
        site.seen_until = now

    def _forget_vanished(self, site: SiteState, running: dict[str, Attempt], now: datetime) -> None:
        for key, followed in list(site.running.items()):
            if key in running:
                followed.missing_since = None
            elif followed.missing_since is None:
                followed.missing_since = now
            elif now - followed.missing_since > OVERLAP:
                site.counters.vanished(followed.attempt.keys)
                del site.running[key]

    def _adopt(self) -> None:
        """Serve the registry's model, if it is another than before."""
        serving = self._registry.serving_id() if self._registry else None
        if serving is None or serving in (self.model_id, self._refused):
            return
        assert self._registry is not None  # noqa: S101 - it named a model
        try:
            bundle = self._registry.serving()
        except StoreError as error:
            log.warning("%s", error)
            bundle = None
        if bundle is None or bundle.names != NAMES:
            # nothing is served from numbers that a model does not know
            log.warning(
                "the forecast model %s is of another version; the one before goes on serving", serving
            )
            self._refused = serving
            return
        self._bundle, self._models, self._base = bundle, bundle.models, bundle.evidence
        self._outcomes = [each for each in self._outcomes if each[2] > bundle.trained_until]
        self._mix()
        log.info("the forecast model %s serves, trained on %d attempts", serving, bundle.models.trained_on)

    def _mix(self) -> None:
        self._served_by = fit_mix(self.evidence())
        self._mixed = len(self._outcomes)
        if len(self._outcomes) > 2 * MOST_EVIDENCE:
            del self._outcomes[:-MOST_EVIDENCE]
            self._mixed = len(self._outcomes)
