"""Which forecast is served: the one that has been right on this site lately.

Sites differ and drift, so no model is best for good. All are scored on forecasts made before the outcome
was known, over the newest ended attempts, and the one with the least log loss serves. The exponentially
weighted average holds the place until another is clearly better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from pilotage.telemetry.forecast.features import (
    EWMA_COLUMN,
    NAMES,
    Attempt,
    DeploymentStats,
    FeatureMatrix,
    History,
    Vector,
    ended_attempts,
    next_attempts,
    replay,
)
from pilotage.telemetry.forecast.logistic import SLICE_RATE, LogisticModel, fitted
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.protocol import Store

ModelName = Literal["ewma", "logistic"]

SCORED = 500
"""The newest ended attempts on which the models are compared."""
FEWEST = 12
"""Scored attempts below which the models are not compared."""
BELIEVED = 30
"""Scored attempts below which no challenger serves, however well it did: a dozen outcomes prove nothing."""
BLOCKS = 5
"""How many times the learned model is fitted again on the way through the scored attempts."""
CLEARLY = 0.05
"""The part of the average's log loss by which a challenger must be better; less is noise."""
SURE = 0.001
"""No forecast is nearer to 0 or 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a training found."""

    champion: ModelName
    trained_on: int
    """Ended attempts of this site."""
    scored: int
    """Attempts on which the models were compared."""
    losses: Mapping[str, float]
    """Mean log loss of each model on them; empty when there were too few."""
    reason: str
    """Why this one serves, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    champion: ModelName
    logistic: LogisticModel | None
    trained_on: int


def clipped(chances: Vector) -> Vector:
    """The chances, none of them nearer to certainty than a thousandth."""
    found: Vector = np.clip(np.nan_to_num(chances, nan=0.5), SURE, 1 - SURE)
    return found


def log_loss(chances: Vector, failed: Vector) -> float:
    """The mean log loss of forecasts whose outcomes are known."""
    sure = clipped(chances)
    return float(-np.mean(failed * np.log(sure) + (1 - failed) * np.log(1 - sure)))


class ChampionForecaster:
    """A `Forecaster` over the telemetry store. Thread-safe: a training swaps the serving model in one step."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._clock = clock
        self._trained: _Trained | None = None

    def train(self, now: datetime | None = None) -> TrainingReport:
        """Learns from what ended before `now` and chooses who serves. Raises StoreError."""
        self._trained, report = self._learned(now or self._clock())
        return report

    def _learned(self, moment: datetime) -> tuple[_Trained, TrainingReport]:
        frame = replay(ended_attempts(self._store, moment), History(prior=SLICE_RATE))
        losses, scored = _prequential(frame)
        champion, reason = chosen(losses, scored)
        trained = _Trained(
            champion=champion,
            logistic=fitted(frame.rows, frame.failed) if champion == "logistic" else None,
            trained_on=len(frame.failed),
        )
        report = TrainingReport(
            champion=champion, trained_on=len(frame.failed), scored=scored, losses=losses, reason=reason
        )
        return trained, report

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        """One forecast for the next attempt of each run that the store knows, in the order asked."""
        if not run_ids:
            return ()
        now = self._clock()
        if self._trained is None:
            self._trained, _ = self._learned(now)
        serving = self._trained
        attempts = next_attempts(self._store, run_ids, now)
        known = [run_id for run_id in dict.fromkeys(run_ids) if run_id in attempts]
        if not known:
            return ()
        history = History(prior=SLICE_RATE)
        replay(ended_attempts(self._store, now), history)
        rows = np.array([history.row(attempts[run_id]) for run_id in known], dtype=np.float64)
        chances = rows[:, EWMA_COLUMN] if serving.logistic is None else serving.logistic.chances(rows)
        return tuple(
            Forecast(
                run_id=run_id,
                made_at=now,
                p_fail=float(chance),
                model=serving.champion,
                trained_on=serving.trained_on,
                reasons=_reasons(attempts[run_id], history, row, serving.logistic),
            )
            for run_id, chance, row in zip(known, clipped(chances), rows, strict=True)
        )


def _prequential(frame: FeatureMatrix) -> tuple[dict[str, float], int]:
    """The mean log loss of each model over the newest attempts, each forecast from what had ended before."""
    scored = min(SCORED, len(frame.failed) - FEWEST // 2)
    if scored < FEWEST:
        return {}, 0
    newest = np.arange(len(frame.failed) - scored, len(frame.failed))
    logistic = np.empty(scored)
    for block in np.array_split(np.arange(scored), min(BLOCKS, scored)):
        asked = newest[block]
        before = frame.ended < frame.starts[asked[0]]
        logistic[block] = fitted(frame.rows[before], frame.failed[before]).chances(frame.rows[asked])
    outcomes = frame.failed[newest]
    losses = {
        "ewma": log_loss(frame.rows[newest, EWMA_COLUMN], outcomes),
        "logistic": log_loss(logistic, outcomes),
    }
    return losses, scored


def chosen(losses: Mapping[str, float], scored: int) -> tuple[ModelName, str]:
    if not losses:
        return "ewma", f"fewer than {FEWEST} attempts to compare on: the average of each deployment serves"
    words = (
        f"log loss {losses['ewma']:.3f} (ewma) and {losses['logistic']:.3f} (logistic) over {scored} attempts"
    )
    if scored >= BELIEVED and losses["logistic"] < losses["ewma"] * (1 - CLEARLY):
        return "logistic", words
    return "ewma", words


def _reasons(
    attempt: Attempt, history: History, row: Vector, logistic: LogisticModel | None
) -> tuple[str, ...]:
    """The strongest contributions first, in words."""
    past = history.stats.get(attempt.key)
    if past is None:
        return (f"no ended run of this deployment yet; {history.site_rate:.0%} of all runs here fail",)
    words = _words(attempt, past, history)
    if logistic is None:
        order: Sequence[str] = ("failures_in_a_row", "successes_in_a_row", "rate", "site_rate")
        if past.ended >= 5:
            order = order[:-1]
    else:
        weights = logistic.contributions(row)
        order = [NAMES[index] for index in np.argsort(-np.abs(weights)) if abs(weights[index]) > 0.05]
    parts = [words[name] for name in order if words.get(name)]
    return tuple(dict.fromkeys(parts))[:3]


def _words(attempt: Attempt, past: DeploymentStats, history: History) -> dict[str, str]:
    rate = f"{past.failures} of the last {past.ended} runs of this deployment failed"
    in_a_row = _counted(past.failures_in_a_row, "failure")
    good = _counted(past.successes_in_a_row, "success")
    waited = None if past.last_success is None else max(0.0, attempt.start - past.last_success)
    return {
        "failures_in_a_row": in_a_row,
        "successes_in_a_row": good,
        "ewma": in_a_row or good,
        "ewma_odds": in_a_row or good,
        "rate": rate,
        "count": rate,
        "since_success": "" if waited is None else f"last success {_ago(waited)} ago",
        "since_failure": ""
        if past.last_failure is None
        else f"last failure {_ago(attempt.start - past.last_failure)} ago",
        "never_succeeded": "" if past.last_success is not None else "this deployment has never succeeded",
        "site_rate": f"{history.site_rate:.0%} of all runs here fail",
        "attempt": "" if not attempt.earlier else f"{attempt.earlier} earlier attempts of this run",
        "memory": "" if not attempt.memory_mb else f"{attempt.memory_mb:.0f} MiB of memory",
        "queue_depth": "" if not attempt.queue_depth else f"{attempt.queue_depth:.0f} runs wait in its queue",
        "hour_sin": "the time of day",
        "hour_cos": "the time of day",
        "weekend": "the day of the week",
    }


def _counted(number: int, what: str) -> str:
    if not number:
        return ""
    if number == 1:
        return f"the last run of this deployment was a {what}"
    return f"{number} {what}{'es' if what.endswith('s') else 's'} in a row for this deployment"


def _ago(seconds: float) -> str:
    for span, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= span:
            return f"{math.floor(seconds / span)} {name}"
    return f"{max(0, math.floor(seconds))} s"
