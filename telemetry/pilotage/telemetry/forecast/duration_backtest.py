"""Would the forecasts of durations have been right? Walked through in the order of time, like the failures.

The interval is conformal: quantiles that a model gives are moved, each end by itself, by as much as those of
the newest ended runs missed their durations (Romano, Patterson, Candès, "Conformalized quantile regression",
NeurIPS 2019). The median and the p90 that are served are that mix of the model's and the deployment's own
which has lost least lately.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.duration_models import FittedDurations, fit_durations, one_thread
from pilotage.telemetry.forecast.durations import (
    SHORTEST_S,
    DurationHistory,
    durations_of,
    known_before,
    log_seconds,
)
from pilotage.telemetry.forecast.live_backtest import live_durations, overlong_costs
from pilotage.telemetry.forecast.run_history import Floats, Ints, Matrix, RunHistory

SERVED = (0.5, 0.9)
"""The quantiles that are served and scored."""
ENDS = (0.05, 0.95)
"""The quantiles that the interval is made of."""
LEVEL = ENDS[1] - ENDS[0]
WARM_SHARES = (0.6,)
"""Where in the training part models are fitted whose forecasts calibrate the first interval."""
REFIT_GROWTH = 0.3
NEWEST = 2_000
"""Ended forecasts that the interval and the mix are taken from."""
FEWEST_FORECASTS = 50
"""Below, the deployment's own quantiles are served, and the interval is the model's."""
SHRINK = 200
"""Ended forecasts at which a quantile is moved half as far as they say."""
BLOCKS = 200
"""In how many steps the interval follows the durations of the test part, at most."""
FEWEST_A_BLOCK = 25
MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the model in what is served; the rest is the deployment's own quantile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationWalk:
    """Forecasts of the runs submitted from a moment on. Seconds; an element for each of `rows`."""

    rows: Ints
    own: Mapping[float, Floats]
    """The deployment's own quantiles."""
    model: Mapping[float, Floats]
    served: Mapping[float, Floats]
    low: Floats
    high: Floats
    fits: int
    timings: Mapping[str, float]


def walk_durations(history: RunHistory, seconds: Floats, until: float) -> DurationWalk:
    """Return what would have been forecast of each run submitted from `until` on.

    `seconds` is by run, and looked at once the run's end has passed.
    """
    clock = time.perf_counter
    began = clock()
    rows, own = _known_at_submission(history, seconds)
    feature_s = clock() - began
    began = clock()
    ended, logs = history.has_ended(), log_seconds(seconds)
    test = int(np.searchsorted(history.submitted, until, side="left"))
    model, first, fits = _model_quantiles(history, rows, own[0.5], logs, test, until)
    by_end = known_before(history, ended, np.inf)
    by_end = by_end[by_end >= first]
    ends = history.ended[by_end]
    count = len(history)
    served = {share: np.empty(count - test) for share in SERVED}
    low, high = np.empty(count - test), np.empty(count - test)
    step = max(FEWEST_A_BLOCK, -(-(count - test) // BLOCKS))
    for place in range(test, count, step):
        moment = until if place == test else float(history.submitted[place])
        seen = by_end[: int(np.searchsorted(ends, moment, side="left"))][-NEWEST:]
        block = slice(place, min(place + step, count))
        out = slice(block.start - test, block.stop - test)
        for share in SERVED:
            mix = _best_mix(model[share][seen], own[share][seen], logs[seen], share)
            made = mix * model[share] + (1 - mix) * own[share]
            served[share][out] = made[block] + _shift(logs[seen] - made[seen], share)
        down, up = _corrections(model, logs, seen)
        low[out], high[out] = model[ENDS[0]][block] - down, model[ENDS[1]][block] + up
    part = slice(test, count)
    p50 = np.minimum(served[0.5], served[0.9])
    return DurationWalk(
        rows=np.arange(test, count),
        own={share: np.exp(own[share][part]) for share in SERVED},
        model={share: np.exp(model[share][part]) for share in SERVED},
        served={0.5: np.exp(p50), 0.9: np.exp(served[0.9])},
        low=np.where(low <= np.log(SHORTEST_S), 0.0, np.exp(low)),
        high=np.exp(np.maximum(low, high)),
        fits=fits,
        timings={
            "features_s": feature_s,
            "features_rows_per_s": count / max(feature_s, 1e-9),
            "fit_and_forecast_s": clock() - began,
        },
    )


def _known_at_submission(history: RunHistory, seconds: Floats) -> tuple[Matrix, dict[float, Floats]]:
    """Return the features of each run and the deployment's own quantiles, from ends strictly before its submission."""
    past = DurationHistory(history)
    shares = (*SERVED, *ENDS)
    by_end = known_before(history, history.has_ended(), np.inf)
    ends = history.ended[by_end].tolist()
    rows, own, place = [], [], 0
    for run, moment in enumerate(history.submitted.tolist()):
        while place < len(ends) and ends[place] < moment:
            past.add(int(by_end[place]), float(seconds[by_end[place]]))
            place += 1
        rows.append(np.array(past.row(run, moment), dtype=np.float32))
        own.append(past.own(run, shares))
    columns = np.array(own)
    return np.array(rows), {share: columns[:, at] for at, share in enumerate(shares)}


def _model_quantiles(
    history: RunHistory, rows: Matrix, typical: Floats, logs: Floats, test: int, until: float
) -> tuple[dict[float, Floats], int, int]:
    """Return the models' quantiles, the first run that has some made before its end, and how often was fitted."""
    count, ended = len(history), history.has_ended()
    shares = sorted({*SERVED, *ENDS})
    quantiles = {share: np.full(count, np.nan) for share in shares}
    starts = sorted({*(int(test * share) for share in WARM_SHARES), test})
    place, fits, models = starts[0], 0, None
    while place < count:
        moment = until if place == test else float(history.submitted[place])
        known = known_before(history, ended, moment)
        models = fit_durations(rows, logs, known, shares) or models
        fits += 1
        after = [start for start in starts if start > place]
        step = max(FEWEST_A_BLOCK, int(REFIT_GROWTH * max(place, 1)))
        until_place = min([count, place + step if place >= test else count, *after])
        block = np.arange(place, until_place)
        for share, values in _made(models, rows, typical, block, shares).items():
            quantiles[share][block] = values
        place = until_place
    return quantiles, starts[0], fits


def _made(
    models: FittedDurations | None, rows: Matrix, typical: Floats, block: Ints, shares: list[float]
) -> Mapping[float, Floats]:
    """Return the models' quantiles of a block; without models about what is typical, to be widened by what it missed."""
    if models is None:
        return dict.fromkeys(shares, typical[block])
    with one_thread():
        return models.quantiles(rows[block])


def _best_mix(model: Floats, own: Floats, logs: Floats, share: float) -> float:
    if len(logs) < FEWEST_FORECASTS:
        return 0.5
    seconds = np.exp(logs)
    losses = [pinball(seconds, np.exp(mix * model + (1 - mix) * own), share) for mix in MIXES]
    return MIXES[int(np.argmin(losses))]


def _shift(missed: Floats, share: float) -> float:
    """Return what makes a quantile right on the newest ended runs, in log seconds; little where they are few."""
    if not len(missed):
        return 0.0
    return float(np.quantile(missed, share)) * len(missed) / (len(missed) + SHRINK)


def _corrections(model: Mapping[float, Floats], logs: Floats, seen: Ints) -> tuple[float, float]:
    """Return by how much to lower the lower end and to raise the upper one, in log seconds."""
    if not len(seen):
        return 0.0, 0.0
    # the conformal quantile: (n + 1) (1 - a), rounded up
    share = min(1.0, np.ceil((len(seen) + 1) * ENDS[1]) / len(seen))
    below = np.quantile(model[ENDS[0]][seen] - logs[seen], share, method="higher")
    above = np.quantile(logs[seen] - model[ENDS[1]][seen], share, method="higher")
    return float(below), float(above)


def pinball(seconds: Floats, forecast: Floats, share: float) -> float:
    """Return the mean pinball loss of a quantile, in seconds."""
    missed = seconds - forecast
    return float(np.mean(np.maximum(share * missed, (share - 1) * missed)))


def duration_backtest(history: RunHistory, train_until: str, out: Path | None = None) -> dict[str, object]:
    """Return coverage and width of the interval, and pinball losses. Raises ConfigError."""
    until = history.moment(train_until)
    seconds = durations_of(history)
    walk = walk_durations(history, seconds, until)
    scored = np.isfinite(seconds[walk.rows])
    if not scored.any():
        raise ConfigError(f"Scoring the durations after {train_until}: no run submitted since has ended.")
    if out is not None:
        write_durations(history, walk, out)
    took = seconds[walk.rows][scored]
    low, high = walk.low[scored], walk.high[scored]
    losses = {
        name: {f"p{share * 100:.0f}": pinball(took, made[share][scored], share) for share in SERVED}
        for name, made in (("served", walk.served), ("own", walk.own), ("boosting", walk.model))
    }
    live = live_durations(history, seconds, walk.rows)
    known = np.isfinite(live.latest)
    losses["live"] = {
        f"p{share * 100:.0f}": pinball(seconds[walk.rows][known], live.quantiles[share][known], share)
        for share in SERVED
    }
    for loss in losses.values():
        loss["mean"] = sum(loss[f"p{share * 100:.0f}"] for share in SERVED) / len(SERVED)
    return {
        "train_until": history.said(until),
        "overlong": overlong_costs(live, seconds[walk.rows]),
        "counts": {
            "runs": len(history),
            "train": len(known_before(history, history.has_ended(), until)),
            "test": len(walk.rows),
            "test_scored": int(scored.sum()),
            "deployments": int(history.deployment.max()) + 1,
        },
        "interval_level": LEVEL,
        "coverage": float(np.mean((low <= took) & (took <= high))),
        "shorter_than_interval": float(np.mean(took < low)),
        "longer_than_interval": float(np.mean(took > high)),
        "mean_width_s": float(np.mean(high - low)),
        "median_width_s": float(np.median(high - low)),
        "pinball": losses,
        "pinball_gain": {
            name: 1 - losses["served"][name] / losses["own"][name] if losses["own"][name] else 0.0
            for name in losses["own"]
        },
        "said_and_was": {
            f"p{share * 100:.0f}": float(np.mean(took <= walk.served[share][scored])) for share in SERVED
        },
        "fits": walk.fits,
        **walk.timings,
    }


def write_durations(history: RunHistory, walk: DurationWalk, out: Path) -> None:
    """Write the forecasts as Parquet: a row for each run of the test part, seconds. Raises ConfigError."""
    columns: dict[str, object] = {"run_id": [history.run_id[row] for row in walk.rows]}
    for name, made in (("", walk.served), ("own_", walk.own)):
        columns |= {f"{name}p{share * 100:.0f}_s": made[share] for share in SERVED}
    columns |= {"low_s": walk.low, "high_s": walk.high, "forecast_at": history.submitted[walk.rows]}
    try:
        pq.write_table(pa.table(columns), out)
    except OSError as error:
        raise ConfigError(
            f"Writing the forecasts to {out}: {error}. Name a file in a folder that exists."
        ) from error
