"""What is served, scored walk-forward on real logs beside the plain rate, and what it costs at a million runs.

The logs are looked for in the directory that `PILOTAGE_DATA` names, else in `../shared/data`; without them the
synthetic sites alone are scored. `PILOTAGE_BENCH_RUNS` makes the history of the measures of speed smaller.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, publish
from tests.telemetry.forecast.synthetic import SITES

from pilotage.telemetry.forecast.attempts import NUMBERS, Attempt, history_of
from pilotage.telemetry.forecast.backtest import backtest, walk_forward
from pilotage.telemetry.forecast.calibration_plot import calibration_svg
from pilotage.telemetry.forecast.candidates import TRIVIAL
from pilotage.telemetry.forecast.counters import counters_of, stats_from
from pilotage.telemetry.forecast.fitting import fit
from pilotage.telemetry.forecast.history_file import read_history
from pilotage.telemetry.forecast.mixing import fit_mix
from pilotage.telemetry.forecast.point_in_time import assemble, features
from pilotage.telemetry.forecast.run_history import RunHistory
from pilotage.telemetry.forecast.scores import scores
from pilotage.telemetry.forecast.stacking import no_evidence

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PILOTAGE_DATA", ROOT.parent / "shared" / "data"))
RUNS = int(os.environ.get("PILOTAGE_BENCH_RUNS", "1000000"))
LOGS = (
    ("Google days 0-20, FAIL", "google2011_jobs_d00-d20.parquet", "FAIL"),
    ("KTH SP2, failed", "KTH-SP2-1996-2.1-cln.swf.gz", "FAILED"),
)
SMALL_SAMPLES, SMALL_WORKFLOWS, SMALL_RUNS = 20, 30, 1_100
SCORED = ("roc_auc", "pr_auc", "ece", "brier")


def scored_logs() -> list[Row]:
    """Score what is served on the logs, and on small samples of them."""
    rows = []
    for name, file, label in LOGS:
        if not (DATA / file).is_file():
            print(f"{name}: there is no {DATA / file}; left out")
            continue
        history = read_history(DATA / file)
        report: dict[str, Any] = backtest(history, [label], "75%")
        best = max(TRIVIAL, key=lambda each: report["candidates"][each]["pr_auc"])
        for score in SCORED:
            rows.append(
                beside(
                    f"{name}: {score}",
                    "",
                    1,
                    ours=report["served"][score],
                    peer=best,
                    theirs=report["candidates"][best][score],
                )
            )
        rows.append(beside(f"{name}: batch", "rows/s", 1, ours=report["batch_rows_per_s"]))
        (ROOT / ".bench").mkdir(exist_ok=True)
        (ROOT / ".bench" / f"forecast-{file.split('.')[0]}.svg").write_text(
            calibration_svg(report["reliability"], name)
        )
        rows += small_sites(name, history, label)
    return rows


def small_sites(name: str, history: RunHistory, label: str) -> list[Row]:
    """Score samples of thirty workflows each."""
    draw = np.random.default_rng(0)
    failed = history.failed([label])
    ece: list[float] = []
    served: list[float] = []
    plain: list[float] = []
    busy = np.flatnonzero(np.bincount(history.deployment) >= 5)
    while len(ece) < SMALL_SAMPLES:
        chosen = draw.choice(busy, SMALL_WORKFLOWS, replace=False)
        rows = np.flatnonzero(np.isin(history.deployment, chosen))[:SMALL_RUNS]
        if not len(rows) >= 500 or failed[rows].sum() < 5:
            continue
        site, labels = history.rows(rows), failed[rows]
        walk = walk_forward(site, labels, float(site.submitted[len(site) // 2]))
        known = site.has_ended()[walk.rows]
        found = scores(labels[walk.rows][known], walk.made["served"][known])
        rate = scores(labels[walk.rows][known], walk.made["rate"][known])
        if found["pr_auc"] is None or rate["pr_auc"] is None:
            continue
        ece.append(found["ece"] or 0.0)
        served.append(found["pr_auc"])
        plain.append(rate["pr_auc"])
    rate_auc = float(np.median(plain))
    return [
        beside(f"{name}: small sites, median ECE", "", SMALL_SAMPLES, ours=float(np.median(ece))),
        beside(
            f"{name}: small sites, median PR-AUC", "", SMALL_SAMPLES,
            ours=float(np.median(served)), peer="rate", theirs=rate_auc,
        ),
        beside(
            f"{name}: small sites, mean PR-AUC", "", SMALL_SAMPLES,
            ours=float(np.mean(served)), peer="rate", theirs=float(np.mean(plain)),
        ),
    ]  # fmt: skip


def scored_sites() -> list[Row]:
    """Score each quarter of the synthetic sites beside the best candidate in hindsight."""
    rows = []
    for name, make in SITES.items():
        history, failed = make()
        walk = walk_forward(history, failed, float(history.submitted[len(history) // 4]))
        known = history.has_ended()[walk.rows]
        for quarter, part in enumerate(np.array_split(np.flatnonzero(known), 4), start=1):
            outcomes = failed[walk.rows][part]
            each = {
                candidate: scores(outcomes, chances[part])["pr_auc"] or 0.0
                for candidate, chances in walk.made.items()
            }
            served = each.pop("served")
            best = max(each, key=lambda candidate: each[candidate])
            rows.append(
                beside(f"{name}, quarter {quarter}: PR-AUC", "", 1, ours=served, peer=best, theirs=each[best])
            )
    return rows


def a_site(runs: int) -> list[Attempt]:
    """Return a long history of two thousand deployments."""
    draw = np.random.default_rng(1)
    deployment = draw.zipf(1.3, runs) % 2000
    started = np.sort(draw.uniform(1.7e9, 1.73e9, runs))
    ended = started + draw.lognormal(4, 1.5, runs)
    failing = draw.random(runs) < np.where(deployment % 7 == 0, 0.4, 0.02)
    return [
        Attempt(
            run_id=str(number), number=0, deployment=f"d{deployment[number]}", owner=f"o{deployment[number] % 50}",
            queue=f"q{deployment[number] % 5}", memory_mb=512.0, started=float(started[number]),
            ended=float(ended[number]), outcome="FAILED" if failing[number] else "COMPLETED",
        )
        for number in range(runs)
    ]  # fmt: skip


def speed() -> list[Row]:
    """Measure batch, live and incremental costs on one long history."""
    clock = time.perf_counter
    attempts = a_site(RUNS)
    history = history_of(attempts)
    codes = {level: each.codes for level, each in history.levels.items()}
    began = clock()
    found = features(history.runs, history.failed, codes)
    features_s = clock() - began
    rows = [
        beside(
            f"features of {RUNS:,} runs", "s", 1, ours=features_s, peer="pandas",
            theirs=pandas_features(history.runs, history.failed),
        )
    ]  # fmt: skip
    known = np.flatnonzero(history.runs.has_ended())
    models = fit(found, history.failed, known)
    batch = np.arange(min(100_000, RUNS))
    models.chances(found, batch[:1000])
    began, used = clock(), time.process_time()
    models.chances(found, batch)
    rows.append(beside("batch of forecasts, wall", "rows/s", 1, ours=len(batch) / (clock() - began)))
    rows.append(
        beside("batch of forecasts, processor", "rows/s", 1, ours=len(batch) / (time.process_time() - used))
    )
    began = clock()
    counters = counters_of(history.runs, history.failed, history.levels, 1.74e9)
    rows.append(beside("counters of the whole history", "s", 1, ours=clock() - began))
    mix, singles = fit_mix(no_evidence()), []
    for attempt in attempts[:2000]:
        began = clock()
        at = assemble(
            stats_from([counters.values(attempt.keys, 1.74e9)]),
            np.array([1.74e9]),
            {name: np.array([value]) for name, value in zip(NUMBERS, attempt.numbers, strict=True)},
            clock=True,
        )
        mix.chances(models.chances(at))
        singles.append(clock() - began)
    rows.append(beside("one live forecast, p50", "ms", len(singles), ours=float(np.median(singles)) * 1e3))
    rows.append(
        beside("one live forecast, p99", "ms", len(singles), ours=float(np.quantile(singles, 0.99)) * 1e3)
    )
    updates = attempts[:20_000]
    keys = [attempt.keys for attempt in updates]
    began = clock()
    for number, each in enumerate(keys):
        counters.submitted(each, 1.74e9 + number)
        counters.ended(each, 1.74e9 + number, failed=False, completed=True, log_duration=1.0)
    rows.append(
        beside("incremental update", "us/event", 2 * len(keys), ours=(clock() - began) / len(keys) / 2 * 1e6)
    )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(beside("memory, the most at any time", "MiB", 1, ours=most))
    return rows


def pandas_features(runs: RunHistory, failed: Any) -> float | None:
    """Return the seconds that pandas takes for the rate and two averages of three levels alone, or None without pandas."""
    try:
        pd: Any = importlib.import_module("pandas")
    except ImportError:
        print("pandas is not installed; its column is left out")
        return None
    began = time.perf_counter()
    count = len(runs)
    for codes in (runs.deployment, runs.owner, runs.queue):
        events = pd.DataFrame(
            {
                "key": np.concatenate([codes, codes]),
                "at": np.concatenate([runs.submitted, runs.ended]),
                "is_end": np.repeat([False, True], count),
                "failed": np.concatenate([np.zeros(count), failed.astype(float)]),
            }
        ).sort_values(["key", "at", "is_end"], kind="stable")
        ends = events[events.is_end]
        by_key = ends.groupby("key", sort=False)["failed"]
        ends = ends.assign(
            ended=by_key.cumcount() + 1,
            failures=by_key.cumsum(),
            fast=by_key.ewm(alpha=0.3, adjust=False).mean().to_numpy(),
            slow=by_key.ewm(alpha=0.05, adjust=False).mean().to_numpy(),
        )
        pd.merge_asof(
            events[~events.is_end].sort_values("at"), ends.sort_values("at"), on="at", by="key",
            allow_exact_matches=False,
        )  # fmt: skip
    return time.perf_counter() - began


def main() -> None:
    """Measure and publish."""
    began = datetime.now(UTC)
    rows = [*scored_logs(), *scored_sites(), *speed()]
    print(f"took {(datetime.now(UTC) - began).total_seconds():.0f} s")
    publish("forecast", rows)


if __name__ == "__main__":
    main()
