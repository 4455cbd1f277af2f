"""A trained forecast of retries as plain arrays in one file: no pickle, and no text of any log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.forecast.retry_history import SURE
from pilotage.telemetry.forecast.run_history import Floats
from pilotage.telemetry.forecast.stored_retries import (
    LONG_AGO,
    Classify,
    RetryOutcome,
    decisions_of,
    retry_outcomes,
)
from pilotage.telemetry.store.protocol import Store

FILE = "retries.npz"
SCORED_SHARE = 0.5
"""The decisions from here on are forecast by models that had not seen them; the mix is fitted on these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryModel:
    """Logistic regression on the history, the same with the log's words, and how both are mixed with the plain rates."""

    mean: Floats
    scale: Floats
    history: Floats
    """Weights of the features, the intercept last."""
    words: Floats
    """Weights of the hashed words and then of the features, the intercept last; empty where no log was learned from."""
    idf: Floats
    mix: Floats
    """An intercept, and a weight for the log-odds of each of `CANDIDATES`."""
    outcomes: Sequence[RetryOutcome]
    """What was learned from, without the logs, in the order in which it became known."""

    def success(self, rate: float, ewma: float, features: Sequence[float], log_tail: str) -> float:
        """Return the chance that the attempt succeeds."""
        from pilotage.telemetry.forecast.retry import (
            HISTORY_SCALE,
            mixed,
            text_columns,
        )  # start-up time

        scaled = np.clip((np.array(features) - self.mean) / self.scale, -4, 4)
        without = _chance(float(scaled @ self.history[:-1] + self.history[-1]))
        with_log = without
        if log_tail and len(self.words):
            row = text_columns([log_tail])
            counts = (1 + np.log(row.data)) * self.idf[row.indices]
            counts /= np.linalg.norm(counts) or 1.0
            score = counts @ self.words[row.indices] + self.words[-1]
            with_log = _chance(float(score + HISTORY_SCALE * scaled @ self.words[len(self.idf) : -1]))
        chances = np.clip(np.array([[rate, ewma, without, with_log]]), SURE, 1 - SURE)
        return float(mixed(self.mix, np.log(chances / (1 - chances)))[0])

    def write(self, root: Path) -> None:
        """Write the file under `root`. Raises StoreError."""
        arrays: dict[str, Any] = {
            name: getattr(self, name) for name in ("mean", "scale", "history", "words", "idf", "mix")
        }
        told = json.dumps([asdict(replace(each, log_tail="")) for each in self.outcomes])
        fresh = root / f".{FILE}"
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                np.savez_compressed(file, outcomes=np.frombuffer(told.encode(), np.uint8), **arrays)
            fresh.replace(root / FILE)
        except OSError as exc:
            raise StoreError(
                f"Writing the forecast of retries under {root}: {exc}. Make room there."
            ) from exc


def read_retry_model(root: Path) -> RetryModel | None:
    """Return the model under a directory, or None where there is none. Raises StoreError when it is damaged."""
    try:
        with np.load(root / FILE, allow_pickle=False) as file:
            told = json.loads(file["outcomes"].tobytes())
            return RetryModel(
                outcomes=[RetryOutcome(**each) for each in told],
                **{name: file[name] for name in ("mean", "scale", "history", "words", "idf", "mix")},
            )
    except FileNotFoundError:
        return None
    # a torn file may be anything
    except Exception as exc:
        raise StoreError(
            f"Reading the forecast of retries {root / FILE}: {exc}. Remove it: the next training writes another."
        ) from exc


def train_retries(store: Store, now: datetime, classify: Classify) -> RetryModel | None:
    """Return a model of what became of retries before `now`, or None while too few are known. Raises StoreError."""
    from pilotage.telemetry.forecast.retry import CANDIDATES, fit_retry, mix_of, text_columns
    from pilotage.telemetry.forecast.retry_backtest import known_when_asked, odds_of, walk_retries

    outcomes = retry_outcomes(store, LONG_AGO, now, classify)
    decisions = decisions_of(outcomes)
    test = int(len(decisions) * SCORED_SHARE)
    if not test:
        return None
    rows, _ = known_when_asked(decisions, decisions.succeeded)
    has_text = np.array([bool(text) for text in decisions.log_tail])
    texts = text_columns(decisions.log_tail) if has_text.any() else None
    known = np.argsort(decisions.known, kind="stable")
    fitted = fit_retry(rows, texts, has_text, decisions.succeeded, known)
    if fitted is None:
        return None
    walk = walk_retries(decisions, decisions.succeeded, test, float(decisions.decided[test]))
    mix = mix_of(odds_of(walk.made, CANDIDATES), decisions.succeeded[test:])
    words = idf = np.empty(0)
    if fitted.log is not None and fitted.tfidf is not None:
        words, idf = np.append(fitted.log.coef_[0], fitted.log.intercept_), fitted.tfidf.idf_
    return RetryModel(
        mean=fitted.scaler.mean_,
        scale=fitted.scaler.scale_,
        history=np.append(fitted.history.coef_[0], fitted.history.intercept_),
        words=words,
        idf=idf,
        mix=mix,
        outcomes=outcomes,
    )


def _chance(score: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(score, -30, 30))))
