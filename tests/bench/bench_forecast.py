"""The forecaster's models on the shipped slice of Google's trace, beside the baselines anyone would try first.

The first three quarters by start train, the rest tests; a training label counts only if it had ended before
the test begins, a feature only if it had ended before the run started.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, in_turn, publish

from pilotage.telemetry.forecast.features import EWMA_COLUMN, NAMES, FeatureMatrix, History, Vector, replay
from pilotage.telemetry.forecast.logistic import SLICE_RATE, LogisticModel, slice_attempts
from pilotage.telemetry.forecast.selection import SCORED, chosen, clipped, log_loss

RUNS = 5
SCORES: dict[str, Callable[[Vector, Vector], float]] = {
    "ROC-AUC": lambda failed, chances: float(roc_auc_score(failed, chances)),
    "PR-AUC": lambda failed, chances: float(average_precision_score(failed, chances)),
    "Brier": lambda failed, chances: float(brier_score_loss(failed, chances)),
    "log loss": lambda failed, chances: log_loss(chances, failed),
}


def split(frame: FeatureMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Which rows train and which test."""
    first = int(len(frame.failed) * 0.75)
    begins = frame.starts[first]
    train = (np.arange(len(frame.failed)) < first) & (frame.ended < begins)
    return np.flatnonzero(train), np.arange(first, len(frame.failed))


def main() -> None:
    """Measures and publishes."""
    frame = replay(slice_attempts(), History(prior=SLICE_RATE))
    train, test = split(frame)
    model = LogisticModel(frame.rows[train], frame.failed[train], np.ones(len(train)))
    ewma = frame.rows[:, EWMA_COLUMN]
    streak = frame.rows[:, NAMES.index("failures_in_a_row")]
    learned = clipped(model.chances(frame.rows))

    # who would have been served, block by block, from what had ended when each block began
    columns = {"ewma": ewma, "logistic": learned}
    served = np.empty(len(test))
    champions = []
    for block in np.array_split(np.arange(len(test)), 10):
        asked = test[block]
        known = test[frame.ended[test] < frame.starts[asked[0]]][-SCORED:]
        losses = (
            {name: log_loss(column[known], frame.failed[known]) for name, column in columns.items()}
            if len(known)
            else {}
        )
        champion, _ = chosen(losses, len(known))
        champions.append(champion)
        served[block] = clipped(columns[champion][asked])

    failed = frame.failed[test]
    rows: list[Row] = []
    for measure, scored in SCORES.items():
        ours = scored(failed, served)
        for peer, column in (
            ("logistic alone", learned[test]),
            ("ewma of the workflow", clipped(ewma[test])),
            ("last outcome of the workflow", clipped((streak[test] > 0).astype(float))),
        ):
            rows.append(beside(measure, "", 1, ours=ours, peer=peer, theirs=scored(failed, column)))
    rows.append(beside("blocks served by the learned model", "of 10", 1, ours=champions.count("logistic")))
    rows.append(beside("base rate of the test", "", 1, ours=float(failed.mean())))

    def scoring() -> float:
        began = time.perf_counter()
        for index in test[:1000]:
            model.chances(frame.rows[index : index + 1])
        return (time.perf_counter() - began) * 1000

    def replaying() -> float:
        attempts = list(frame.attempts)
        began = time.perf_counter()
        replay(attempts, History(prior=SLICE_RATE))
        return (time.perf_counter() - began) * 1e6 / len(attempts)

    timed = in_turn({"one": scoring, "row": replaying}, RUNS)
    rows.append(beside("one forecast, one row", "us", RUNS, ours=timed["one"]))
    rows.append(beside("features and history of one attempt", "us", RUNS, ours=timed["row"]))
    publish("forecast", rows)


if __name__ == "__main__":
    main()
