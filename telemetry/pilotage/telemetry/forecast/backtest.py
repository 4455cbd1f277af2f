"""Would the forecasts have been right? The whole life of a site walked through in the order of time.

Nothing that ended later than a forecast was made is in it: features know ends strictly before a run's
submission; models are fitted on runs that had ended before their block of forecasts begins; the served mix is
fitted on forecasts, made in that way, whose runs had ended since.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.candidates import CANDIDATES, FittedModels
from pilotage.telemetry.forecast.fitting import fit
from pilotage.telemetry.forecast.mixing import Mix, fit_mix
from pilotage.telemetry.forecast.point_in_time import Features, features
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, RunHistory
from pilotage.telemetry.forecast.scores import reliability, scores, threshold_costs
from pilotage.telemetry.forecast.stacking import Evidence

WARM_SHARES = (0.5, 0.75)
"""Where in the training part models are fitted to make forecasts that the first served mix can learn from."""
REFIT_GROWTH = 0.15
"""By how much the ended runs must have grown for the models to be fitted again."""
STACK_BLOCKS = 200
"""In how many steps the served mix follows the outcomes of the test part, at most."""
FEWEST_A_BLOCK = 25
"""Runs in a step, at least."""
SINGLES = 50
"""Single forecasts that are timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Forecasts of the runs that were submitted from a moment on."""

    history: RunHistory
    rows: Ints
    """Which runs, in the order of submission."""
    made: Mapping[str, Floats]
    """By candidate, and `served`; an element for each of `rows`."""
    models: FittedModels
    mix: Mix
    found: Features
    evidence: Evidence
    """Every forecast that was made before its outcome was known, the newest end last."""
    fits: int
    timings: Mapping[str, float]


def walk_forward(
    history: RunHistory, failed: Flags, until: float, codes: Mapping[str, Ints] | None = None
) -> Walk:
    """Return what would have been forecast of each run submitted from `until` on.

    `failed` is by run, and looked at once a run's end has passed. `codes` tell the keys of each level apart where
    the history's own columns do not.
    """
    clock = time.perf_counter
    began = clock()
    found = features(history, failed, codes)
    feature_s = clock() - began
    ended = history.has_ended()
    fit_s, score_s, fits = 0.0, 0.0, 0
    submitted, count = history.submitted, len(history)
    test = int(np.searchsorted(submitted, until, side="left"))
    everyone = np.arange(count)

    def known_at(moment: float, since: int = 0) -> Ints:
        return np.flatnonzero(ended[since:] & (history.ended[since:] < moment)) + since

    starts = sorted({*(int(test * share) for share in WARM_SHARES), test})
    made = {name: np.full(count, np.nan) for name in CANDIDATES}
    models: FittedModels | None = None
    place, first = starts[0], starts[0]
    while place < count:
        moment = float(submitted[place]) if place != test else until
        began = clock()
        models = fit(found, failed, known_at(moment))
        fit_s, fits = fit_s + clock() - began, fits + 1
        after = [start for start in starts if start > place]
        # the next fit: the next of the starts, or when the site has grown
        step = max(FEWEST_A_BLOCK, int(REFIT_GROWTH * max(place, 1)))
        until_place = min([count, place + step if place >= test else count, *after])
        block = everyone[place:until_place]
        began = clock()
        for name, chances in models.chances(found, block).items():
            made[name][block] = chances
        score_s += clock() - began
        place = until_place
    assert models is not None  # noqa: S101 - the test part has a run at least
    by_end = first + np.flatnonzero(ended[first:])
    by_end = by_end[np.argsort(history.ended[by_end], kind="stable")]
    evidence = Evidence(
        made={name: made[name][by_end] for name in CANDIDATES},
        failed=failed[by_end],
        ended=history.ended[by_end],
    )
    served, mix, mix_s = _served(history.submitted, evidence, made, test, until)
    rows = everyone[test:]
    singles = []
    for row in rows[:: max(1, len(rows) // SINGLES)][:SINGLES]:
        began = clock()
        mix.chances(models.chances(found, rows[row - test : row - test + 1]))
        singles.append(clock() - began)
    return Walk(
        history=history,
        rows=rows,
        made={**{name: made[name][test:] for name in CANDIDATES}, "served": served},
        models=models,
        mix=mix,
        found=found,
        evidence=evidence,
        fits=fits,
        timings={
            "features_s": feature_s,
            "features_rows_per_s": count / max(feature_s, 1e-9),
            "fit_s": fit_s + mix_s,
            "batch_rows_per_s": (count - first) / max(score_s, 1e-9),
            "single_p50_ms": float(np.median(singles)) * 1000,
        },
    )


def _served(
    submitted: Floats, evidence: Evidence, made: Mapping[str, Floats], test: int, until: float
) -> tuple[Floats, Mix, float]:
    """Return the served forecasts of the test part, the last mix, and the seconds spent on fitting mixes."""
    count = len(submitted)
    served = np.empty(count - test)
    step = max(FEWEST_A_BLOCK, -(-(count - test) // STACK_BLOCKS))
    began = time.perf_counter()
    mix = fit_mix(evidence.until(-np.inf))
    for place in range(test, count, step):
        moment = until if place == test else float(submitted[place])
        mix = fit_mix(evidence.until(moment))
        block = slice(place, min(place + step, count))
        served[block.start - test : block.stop - test] = mix.chances(
            {name: made[name][block] for name in CANDIDATES}
        )
    return served, mix, time.perf_counter() - began


def backtest(
    history: RunHistory, labels: Sequence[str], train_until: str, out: Path | None = None
) -> dict[str, object]:
    """Return the scores of every candidate and of what is served. Raises ConfigError."""
    failed = history.failed(labels)
    report = scored_walk(history, failed, train_until, out)
    return {"label": sorted(label.strip().upper() for label in labels), **report}


def scored_walk(
    history: RunHistory, failed: Flags, train_until: str, out: Path | None = None
) -> dict[str, object]:
    """Return the scores of a walk through a history; `failed` is what is forecast. Raises ConfigError."""
    until = history.moment(train_until)
    walk = walk_forward(history, failed, until)
    ended = history.has_ended()
    scored = ended[walk.rows]
    outcomes = failed[walk.rows][scored]
    if not scored.any():
        raise ConfigError(f"Scoring the forecasts after {train_until}: no run submitted since has ended.")
    if out is not None:
        write_forecasts(walk, out)
    train = int(((history.submitted < until) & ended & (history.ended < until)).sum())
    candidates = {
        name: scores(outcomes, chances[scored]) for name, chances in walk.made.items() if name != "served"
    }
    served = walk.made["served"][scored]
    return {
        "train_until": history.said(until),
        "base_rate": float(outcomes.mean()),
        "counts": {
            "runs": len(history),
            "train": train,
            "test": len(walk.rows),
            "test_scored": int(scored.sum()),
            "test_failures": int(outcomes.sum()),
            "deployments": int(history.deployment.max()) + 1,
        },
        "candidates": candidates,
        "served": scores(outcomes, served),
        "stack": {
            "intercept": walk.mix.stack.intercept,
            **walk.mix.stack.by_name(),
            "leans_on": walk.mix.stack.leans_on,
        },
        "weights": walk.mix.by_name(),
        "reliability": reliability(outcomes, served),
        "thresholds": threshold_costs(outcomes, served),
        "fits": walk.fits,
        **walk.timings,
    }


def write_forecasts(walk: Walk, out: Path) -> None:
    """Write the forecasts as Parquet: a row for each run of the test part. Raises ConfigError."""
    at = walk.history.submitted[walk.rows]
    moments = (
        pa.array((at * 1e6).round().astype(np.int64), pa.timestamp("us", tz="UTC"))
        if walk.history.clock
        else at
    )
    columns = {
        "run_id": [walk.history.run_id[row] for row in walk.rows],
        **{f"p_{name}": chances for name, chances in walk.made.items()},
        "forecast_at": moments,
    }
    try:
        pq.write_table(pa.table(columns), out)
    except OSError as error:
        raise ConfigError(
            f"Writing the forecasts to {out}: {error}. Name a file in a folder that exists."
        ) from error
