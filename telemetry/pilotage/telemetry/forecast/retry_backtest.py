"""Would "retry" or "do not" have been right? Decisions walked through in the order of time.

A decision knows outcomes that were known strictly before it. Models are fitted, and the mix and the threshold
are chosen, on such outcomes alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.retry import (
    CANDIDATES,
    HISTORY_ONLY,
    NEWEST,
    FittedRetry,
    best_threshold,
    fit_retry,
    mix_of,
    mixed,
    text_columns,
)
from pilotage.telemetry.forecast.retry_file import RetryDecisions
from pilotage.telemetry.forecast.retry_history import SURE, RetryHistory
from pilotage.telemetry.forecast.run_history import Flags, Floats, Matrix
from pilotage.telemetry.forecast.scores import reliability, scores

TRAIN_UNTIL = "60%"
WARM_SHARES = (0.3, 0.5, 0.75)
"""Where in the training part models are fitted whose forecasts the first mix is chosen on."""
REFIT_GROWTH = 0.15
FEWEST_A_BLOCK = 10
SERVED = {"served": CANDIDATES, "without_logs": HISTORY_ONLY}
"""What is served, and the candidates that it is mixed from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryWalk:
    """Forecasts of the decisions from a place on; an element each."""

    test: int
    """The place of the first in the order of time."""
    made: Mapping[str, Floats]
    """By candidate, `served` and `without_logs`: the chance that the attempt succeeds."""
    thresholds: Mapping[str, Floats]
    """Above which of these a retry would have been made."""
    fits: int


def walk_retries(decisions: RetryDecisions, succeeded: Flags, test: int, until: float) -> RetryWalk:
    """Return what would have been forecast of each decision from `test` on, the first of which is at `until`.

    `succeeded` is by decision, and looked at once its outcome was known.
    """
    count = len(decisions)
    by_known = np.argsort(decisions.known, kind="stable")
    by_known = by_known[decisions.has_outcome()[by_known]]
    known_at = decisions.known[by_known]
    rows, made = known_when_asked(decisions, succeeded)
    has_text = np.array([bool(text) for text in decisions.log_tail])
    texts = text_columns(decisions.log_tail) if has_text.any() else None
    made |= {name: np.full(count, np.nan) for name in ("history", "log")}
    starts = sorted({*(int(test * share) for share in WARM_SHARES), test})
    models: FittedRetry | None = None
    first, place, fits = starts[0], starts[0], 0
    while place < count:
        moment = until if place == test else float(decisions.decided[place])
        known = by_known[: int(np.searchsorted(known_at, moment, side="left"))]
        models = fit_retry(rows, texts, has_text, succeeded, known)
        fits += 1
        after = [start for start in starts if start > place]
        step = max(FEWEST_A_BLOCK, int(REFIT_GROWTH * max(place, 1)))
        until_place = min([count, place + step if place >= test else count, *after])
        block = slice(place, until_place)
        if models is None:
            made["history"][block] = made["log"][block] = made["rate"][block]
        else:
            made["history"][block], made["log"][block] = models.chances(
                rows[block], None if texts is None else texts[block], has_text[block]
            )
        place = until_place
    served = {name: np.empty(count - test) for name in SERVED}
    thresholds = {name: np.empty(count - test) for name in SERVED}
    step = max(FEWEST_A_BLOCK, (count - test) // 200)
    for place in range(test, count, step):
        moment = until if place == test else float(decisions.decided[place])
        known = by_known[: int(np.searchsorted(known_at, moment, side="left"))]
        known = known[known >= first][-NEWEST:]
        block = slice(place, min(place + step, count))
        out = slice(block.start - test, block.stop - test)
        for name, candidates in SERVED.items():
            odds = odds_of(made, candidates)
            weights = mix_of(odds[known], succeeded[known])
            served[name][out] = mixed(weights, odds[block])
            thresholds[name][out] = best_threshold(mixed(weights, odds[known]))
    return RetryWalk(
        test=test,
        made={**{name: made[name][test:] for name in CANDIDATES}, **served},
        thresholds=thresholds,
        fits=fits,
    )


def odds_of(made: Mapping[str, Floats], names: tuple[str, ...]) -> Matrix:
    chances = np.clip(np.column_stack([made[name] for name in names]), SURE, 1 - SURE)
    odds: Matrix = np.log(chances / (1 - chances))
    return odds


def known_when_asked(decisions: RetryDecisions, succeeded: Flags) -> tuple[Matrix, dict[str, Floats]]:
    """Return the features and the trivial forecasts of each decision, from outcomes known strictly before it."""
    past = RetryHistory()
    by_known = np.argsort(decisions.known, kind="stable")
    by_known = by_known[decisions.has_outcome()[by_known]].tolist()
    rows, rate, ewma, place = [], [], [], 0
    for at in range(len(decisions)):
        now = float(decisions.decided[at])
        while place < len(by_known) and decisions.known[by_known[place]] < now:
            one = by_known[place]
            past.add(
                int(decisions.workflow[one]),
                float(decisions.attempt[one]),
                decisions.failure_class[one],
                bool(succeeded[one]),
                float(decisions.known[one]),
            )
            place += 1
        plain, weighted, features = past.ask(
            decisions.chain[at],
            int(decisions.workflow[at]),
            float(decisions.attempt[at]),
            decisions.failure_class[at],
            now,
        )
        rate.append(plain)
        ewma.append(weighted)
        rows.append(features)
    return np.array(rows), {"rate": np.array(rate), "ewma": np.array(ewma)}


def retry_backtest(
    decisions: RetryDecisions, train_until: str = TRAIN_UNTIL, out: Path | None = None
) -> dict[str, object]:
    """Return how right "retry" and "do not" would have been. Raises ConfigError."""
    test, until = _place(decisions, train_until)
    began = time.perf_counter()
    walk = walk_retries(decisions, decisions.succeeded, test, until)
    took = time.perf_counter() - began
    scored = decisions.has_outcome()[test:]
    if not scored.any():
        raise ConfigError(f"Scoring the retries after {train_until}: no outcome since is known.")
    outcomes = decisions.succeeded[test:][scored]
    if out is not None:
        write_retries(decisions, walk, out)

    def judged(name: str) -> dict[str, Any]:
        chances = walk.made[name][scored]
        threshold = walk.thresholds[name][scored] if name in walk.thresholds else np.full(len(chances), 0.5)
        return {**scores(outcomes, chances), **_choices(outcomes, chances >= threshold)}

    attempts = decisions.attempt[test:][scored]
    served = judged("served")
    return {
        "train_until": until if not decisions.stamped else datetime.fromtimestamp(until, UTC).isoformat(),
        "base_rate": float(outcomes.mean()),
        "counts": {
            "decisions": len(decisions),
            "train": int((decisions.known < until).sum()),
            "test": len(decisions) - test,
            "test_scored": int(scored.sum()),
            "test_succeeded": int(outcomes.sum()),
            "with_log": sum(1 for text in decisions.log_tail if text),
            "workflows": int(decisions.workflow.max()) + 1,
        },
        "f1": served["f1"],
        "candidates": {
            "always": _choices(outcomes, np.ones(len(outcomes), bool)),
            **{name: judged(name) for name in CANDIDATES},
        },
        "served": served,
        "without_logs": judged("without_logs"),
        "threshold": float(walk.thresholds["served"][-1]),
        "reliability": reliability(outcomes, walk.made["served"][scored]),
        "thresholds": [
            {"retry_above": above, **_choices(outcomes, walk.made["served"][scored] >= above)}
            for above in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
        ],
        "by_attempt": [
            {
                "attempt": int(number),
                "decisions": int((attempts == number).sum()),
                "succeeded": float(outcomes[attempts == number].mean()),
                "said": float(walk.made["served"][scored][attempts == number].mean()),
            }
            for number in np.unique(attempts)[:10]
        ],
        "fits": walk.fits,
        "seconds": took,
    }


def _choices(succeeded: Flags, retried: Flags) -> dict[str, float]:
    right = int((succeeded & retried).sum())
    wrong, missed = int((~succeeded & retried).sum()), int((succeeded & ~retried).sum())
    return {
        "f1": 2 * right / (2 * right + wrong + missed) if right else 0.0,
        "precision": right / (right + wrong) if right + wrong else 0.0,
        "recall": right / (right + missed) if right + missed else 0.0,
        "useless_retries": wrong,
        "missed_recoveries": missed,
    }


def _place(decisions: RetryDecisions, text: str) -> tuple[int, float]:
    """Return the first decision that is tested, and its moment: a share of the rows, ISO 8601 or seconds."""
    words, count = text.strip(), len(decisions)
    try:
        if words.endswith("%"):
            test = int(count * float(words[:-1]) / 100)
            return _between(test, count, text), float(decisions.decided[min(test, count - 1)])
        try:
            moment = float(words)
        except ValueError:
            at = datetime.fromisoformat(words)
            moment = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except ValueError as error:
        raise ConfigError(
            f"Reading the time {text!r}: {error}. Give ISO 8601, seconds as in the file, or a share such as 60%."
        ) from error
    test = int(np.searchsorted(decisions.decided, moment, side="left"))
    return _between(test, count, text), moment


def _between(test: int, count: int, text: str) -> int:
    if not 0 < test < count:
        raise ConfigError(
            f"Training until {text}: of {count} decisions none would be left on one side of it."
        )
    return test


def write_retries(decisions: RetryDecisions, walk: RetryWalk, out: Path) -> None:
    """Write the forecasts as Parquet: a row for each decision of the test part. Raises ConfigError."""
    columns: dict[str, object] = {
        "chain": list(decisions.chain[walk.test :]),
        "attempt": decisions.attempt[walk.test :],
        **{f"p_{name}": chances for name, chances in walk.made.items()},
        **{
            "retry" if name == "served" else f"retry_{name}": walk.made[name] >= threshold
            for name, threshold in walk.thresholds.items()
        },
        "forecast_at": decisions.decided[walk.test :],
    }
    try:
        pq.write_table(pa.table(columns), out)
    except OSError as error:
        raise ConfigError(
            f"Writing the forecasts to {out}: {error}. Name a file in a folder that exists."
        ) from error
