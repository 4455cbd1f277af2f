"""A replayed queue keeps to its slots, and its order knows nothing that has not happened."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.history_file import read_history
from pilotage.telemetry.forecast.queueing.orders import ORDERS, FirstComeFirstServed
from pilotage.telemetry.forecast.queueing.replay import jobs_of, queue_replay, starts_in
from pilotage.telemetry.forecast.queueing.simulator import Jobs, Watcher, replay
from pilotage.telemetry.forecast.run_history import RunHistory

SLOTS = 8


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    """Return 700 runs that come faster than eight slots can take them, then more slowly."""
    path = tmp_path_factory.mktemp("history") / "site.parquet"
    draw = random.Random(9)
    rows, now = [], 0.0
    for number in range(700):
        now += draw.expovariate(1 / 40) * (1 if number % 100 < 60 else 4)
        deployment, procs = draw.randrange(15), draw.choice((1, 1, 2, 4))
        lasts = 15 * (1 + deployment) * draw.lognormvariate(0, 0.4)
        rows.append({
            "run_id": f"r{number}", "deployment": f"d{deployment}", "submitted_at": now, "started_at": now,
            "ended_at": now + lasts, "outcome": "COMPLETED" if draw.random() < 0.9 else "FAILED",
            "procs": procs, "requested_s": 600.0,
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)
    return read_history(path)


def jobs(submitted: list[float], seconds: list[float], slots: list[float]) -> Jobs:
    count = len(submitted)
    return Jobs(
        submitted=np.array(submitted),
        seconds=np.array(seconds),
        slots=np.array(slots),
        requested_s=np.array(seconds),
        deadline=np.full(count, np.inf),
        priority=np.zeros(count),
    )


@pytest.mark.parametrize(("backfill", "starts"), [(False, [0, 10, 20]), (True, [0, 10, 2])])
def test_backfilling_lets_a_short_run_pass_where_it_delays_nobody(
    backfill: bool, starts: list[float]
) -> None:
    # two of three slots are taken until 10; the second wants three; the third wants one for eight seconds
    three = jobs([0, 1, 2], [10, 10, 8], [2, 3, 1])
    found = replay(
        three, 3, FirstComeFirstServed(), backfill=backfill, asked_s=lambda runs: three.seconds[runs],
        watcher=Watcher(),
    )  # fmt: skip
    assert list(found) == starts


def test_a_run_that_would_delay_the_promised_one_is_not_backfilled() -> None:
    three = jobs([0, 1, 2], [10, 10, 9], [2, 3, 1])
    found = replay(
        three, 3, FirstComeFirstServed(), backfill=True, asked_s=lambda runs: three.seconds[runs],
        watcher=Watcher(),
    )  # fmt: skip
    assert list(found) == [0, 10, 20]


@pytest.mark.parametrize("backfill", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_no_order_uses_more_slots_than_there_are_or_starts_before_submission(
    history: RunHistory, order: str, backfill: bool
) -> None:
    runs, queued = jobs_of(history, SLOTS)
    starts = starts_in(runs, queued, SLOTS, order, backfill=backfill)
    assert np.isfinite(starts).all()
    assert (starts >= queued.submitted).all()
    moments = np.concatenate([starts, starts + queued.seconds])
    change = np.concatenate([queued.slots, -queued.slots])
    # ends before starts within an instant
    by_time = np.lexsort((change, moments))
    assert np.cumsum(change[by_time]).max() <= SLOTS


@pytest.mark.parametrize("backfill", [True, False])
def test_how_long_a_run_really_takes_moves_no_start_before_its_end(
    history: RunHistory, backfill: bool
) -> None:
    runs, queued = jobs_of(history, SLOTS)
    starts = starts_in(runs, queued, SLOTS, "pilotage", backfill=backfill)
    moment = float(np.quantile(starts, 0.6))
    later = starts + queued.seconds > moment
    shuffled = queued.seconds.copy()
    # what ends after the moment lasts longer: it still ends after it
    shuffled[later] += np.random.default_rng(4).uniform(1.0, 5_000.0, int(later.sum()))
    changed = Jobs(
        submitted=queued.submitted,
        seconds=shuffled,
        slots=queued.slots,
        requested_s=queued.requested_s,
        deadline=queued.deadline,
        priority=queued.priority,
    )
    other = starts_in(runs, changed, SLOTS, "pilotage", backfill=backfill)
    before = starts <= moment
    assert np.array_equal(starts[before], other[before])
    # the test can fail: later starts do depend on it
    assert not np.array_equal(starts[~before], other[~before])


def test_the_order_beats_submission_and_nobody_starves(history: RunHistory, tmp_path: Path) -> None:
    found = {order: queue_replay(history, SLOTS, order) for order in ("fifo", "pilotage")}
    for way in ("easy", "no_backfilling"):
        fifo, ours = found["fifo"][way], found["pilotage"][way]
        assert isinstance(fifo, dict)
        assert isinstance(ours, dict)
        assert ours["mean_wait_s"] <= fifo["mean_wait_s"]
        assert ours["bounded_slowdown"] < fifo["bounded_slowdown"]
        assert ours["worst_wait_s"] <= 1.5 * fifo["worst_wait_s"]
    assert found["pilotage"]["mean_wait_s"] == found["pilotage"]["easy"]["mean_wait_s"]  # type: ignore[index]


def test_an_order_that_does_not_exist_is_refused_with_those_that_do(history: RunHistory) -> None:
    with pytest.raises(ConfigError, match="fifo, sjf, f1, pilotage"):
        queue_replay(history, SLOTS, "lifo")


def test_a_history_without_requests_is_replayed_too(tmp_path: Path) -> None:
    rows = ["run_id,deployment,submitted_at,ended_at,outcome"]
    rows += [f"r{n},d{n % 3},{n * 10},{n * 10 + 30 * (1 + n % 3)},COMPLETED" for n in range(60)]
    (tmp_path / "h.csv").write_text("\n".join(rows) + "\n")
    history = read_history(tmp_path / "h.csv")
    for order in ORDERS:
        report = queue_replay(history, 3, order, "easy")
        assert report["runs"] == 60
        assert report["backfilling"] == "easy"
