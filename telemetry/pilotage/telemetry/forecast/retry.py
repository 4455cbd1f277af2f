"""Will another attempt succeed? From the attempt, the workflow's history of retries, and the failure's class and log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pilotage.telemetry.forecast.retry_history import SURE
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, Matrix

TRIVIAL = ("rate", "ewma")
HISTORY_ONLY = (*TRIVIAL, "history")
"""The candidates that read no log."""
CANDIDATES = (*HISTORY_ONLY, "log")
FEWEST_ROWS, FEWEST_OF_A_KIND = 40, 5
"""Known outcomes, and successes and failures among them, below which nothing is learned."""
MOST_ROWS = 30_000
READ_CHARS = 3_000
"""Characters at the end of a log that are looked at."""
PULL = 2.0
"""How hard the mix of the candidates is held to its start."""
NEWEST = 3_000
"""Known forecasts that the mix is fitted on."""
_VARIABLE = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]|[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\b[0-9a-f]{12,}\b|\d{4,}|https?://\S+",
    re.IGNORECASE,
)


def masked_tail(text: str) -> str:
    """Return the end of a log without colours, ids and long numbers, which only tell where it came from."""
    return _VARIABLE.sub(" x ", text[-READ_CHARS:])


def text_columns(texts: Sequence[str]) -> Any:
    """Return hashed counts of words, word pairs and character runs: a row for each text."""
    words = HashingVectorizer(n_features=2**14, ngram_range=(1, 2), alternate_sign=False, norm=None)
    runs = HashingVectorizer(
        n_features=2**14, analyzer="char_wb", ngram_range=(3, 5), alternate_sign=False, norm=None
    )
    tails = [masked_tail(text) for text in texts]
    return hstack([words.transform(tails), runs.transform(tails)], format="csr")


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRetry:
    """The learned models as fitted at one moment."""

    scaler: StandardScaler
    history: LogisticRegression
    tfidf: TfidfTransformer | None
    log: LogisticRegression | None
    """None where no log was there to learn from."""

    def chances(self, rows: Matrix, texts: Any, has_text: Flags) -> tuple[Floats, Floats]:
        """Return the chances of success without and with the logs."""
        scaled = np.clip(self.scaler.transform(rows), -4, 4)
        without: Floats = self.history.predict_proba(scaled)[:, 1]
        if self.log is None or self.tfidf is None or not has_text.any():
            return without, without
        with_log = without.copy()
        read = np.flatnonzero(has_text)
        columns = hstack(
            [self.tfidf.transform(texts[read]), csr_matrix(HISTORY_SCALE * scaled[read])], format="csr"
        )
        with_log[read] = self.log.predict_proba(columns)[:, 1]
        return without, with_log


HISTORY_SCALE = 0.1
"""What a standard deviation of a feature weighs beside the words of a log, whose row has the length 1."""


def fit_retry(rows: Matrix, texts: Any, has_text: Flags, succeeded: Flags, known: Ints) -> FittedRetry | None:
    """Return models learned from the decisions `known`; None where they are too few."""
    known = known[-MOST_ROWS:]
    if not _enough(succeeded[known]):
        return None
    scaler = StandardScaler().fit(rows[known])
    scaled = np.clip(scaler.transform(rows[known]), -4, 4)
    with threadpool_limits(1):
        history = LogisticRegression(C=0.05 if len(known) < 1_000 else 0.5, max_iter=300).fit(
            scaled, succeeded[known]
        )
        read = has_text[known]
        if not _enough(succeeded[known[read]]):
            return FittedRetry(scaler=scaler, history=history, tfidf=None, log=None)
        tfidf = TfidfTransformer(sublinear_tf=True).fit(texts[known[read]])
        columns = hstack(
            [tfidf.transform(texts[known[read]]), csr_matrix(HISTORY_SCALE * scaled[read])], format="csr"
        )
        log = LogisticRegression(C=10.0, max_iter=300).fit(columns, succeeded[known[read]])
    return FittedRetry(scaler=scaler, history=history, tfidf=tfidf, log=log)


def _enough(succeeded: Flags) -> bool:
    good = int(succeeded.sum())
    return len(succeeded) >= FEWEST_ROWS and min(good, len(succeeded) - good) >= FEWEST_OF_A_KIND


def mix_of(odds: Matrix, succeeded: Flags) -> Floats:
    """Return an intercept and a weight for each candidate's log-odds, from known forecasts; the last leads at first.

    A squared penalty holds the weights to their start: the last candidate alone.
    """
    start = np.zeros(1 + odds.shape[1])
    start[-1] = 1.0
    if not len(odds):
        return start
    columns = np.column_stack([np.ones(len(odds)), odds])
    target = succeeded.astype(np.float64)

    def cost(weights: Floats) -> tuple[float, Floats]:
        score = columns @ weights
        gap = 1 / (1 + np.exp(-np.clip(score, -30, 30))) - target
        moved = weights - start
        loss = float(np.sum(np.logaddexp(0, score) - target * score) + PULL / 2 * moved @ moved)
        return loss, columns.T @ gap + PULL * moved

    found: Floats = minimize(cost, start, jac=True, method="L-BFGS-B").x
    return found


def mixed(weights: Floats, odds: Matrix) -> Floats:
    """Return the chances that the mix gives."""
    score = weights[0] + odds @ weights[1:]
    chances: Floats = np.clip(1 / (1 + np.exp(-np.clip(score, -30, 30))), SURE, 1 - SURE)
    return chances


def best_threshold(chances: Floats) -> float:
    """Return the chance above which to retry for the highest expected F1, by forecasts that are believed.

    With the chances in falling order the expected F1 of retrying the first k is 2 sum(p[:k]) / (k + sum(p)).
    """
    if not len(chances):
        return 0.5
    falling = np.sort(chances)[::-1]
    gained = 2 * np.cumsum(falling) / (np.arange(1, len(falling) + 1) + falling.sum())
    return float(gained.max() / 2)
