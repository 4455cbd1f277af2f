"""Everything is counted anew beside what is served: nobody waits for it, and nothing is learned twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.telemetry.forecast.test_live import busy, scheduled
from tests.telemetry.samples import NOON, a_run, at

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.forecast.attempts import stored_history
from pilotage.telemetry.forecast.live import RELOAD, LiveForecaster
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.duckdb import DuckDBStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


class HeldStore:
    """A store whose answers to other threads than the first are held until they are let go, or refused."""

    def __init__(self, store: DuckDBStore) -> None:
        self._store, self._asker = store, threading.current_thread()
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.refuses = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _hold(self) -> None:
        if threading.current_thread() is not self._asker:
            self.asked.set()
            assert self.go_on.wait(60)
            if self.refuses:
                raise StoreError("Reading: found nobody. Start it.")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        self._hold()
        return self._store.query(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        self._hold()
        return self._store.rows(sql, parameters)


def until(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 60
        time.sleep(0.01)


def test_nobody_waits_while_everything_is_counted_anew_and_what_came_late_is_mended(
    store: DuckDBStore,
) -> None:
    busy(store)
    held = HeldStore(store)
    moment = [at(20_000)]
    forecaster = LiveForecaster(held, clock=lambda: moment[0])
    forecaster.follow(moment[0])
    # an end that arrives hours late is not seen by following
    store.merge_runs([a_run("late", StateType.FAILED, deployment_id="d3", flow_name="f0", ended=at(15_000))])
    began = a_run(
        "goes-on", StateType.RUNNING, deployment_id="d3", flow_name="f0", started=at(20_100), ended=None
    )
    store.merge_runs([began])
    moment[0] += RELOAD + timedelta(seconds=1)
    forecaster.follow(moment[0])
    assert held.asked.wait(60)
    assert forecaster.ended == 240
    assert forecaster.forecast(["d3-next"]) != ()
    ended = moment[0] + timedelta(seconds=5)
    store.merge_runs(
        [
            a_run(
                "goes-on",
                StateType.FAILED,
                deployment_id="d3",
                flow_name="f0",
                started=at(20_100),
                ended=ended,
                updated=ended,
            )
        ]
    )
    moment[0] += timedelta(seconds=10)
    forecaster.follow(moment[0])
    learned = len(forecaster._outcomes)
    assert (forecaster.ended, learned) == (241, 1)
    held.go_on.set()

    def taken() -> bool:
        moment[0] += timedelta(milliseconds=100)
        forecaster.follow(moment[0])
        return forecaster.ended == 242

    until(taken)
    assert len(forecaster._outcomes) == learned, "an outcome was learned from twice"
    fresh = LiveForecaster(store, clock=lambda: moment[0])
    fresh.follow(moment[0])
    assert forecaster._site is not None
    assert fresh._site is not None
    for keys in {attempt.keys for attempt in stored_history(store, moment[0]).attempts}:
        now = moment[0].timestamp()
        for left, right in zip(
            forecaster._site.counters.values(keys, now), fresh._site.counters.values(keys, now), strict=True
        ):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-6)


def test_a_count_that_fails_is_begun_again_and_what_was_known_serves(store: DuckDBStore) -> None:
    busy(store)
    held = HeldStore(store)
    held.refuses = True
    held.go_on.set()
    moment = [at(20_000)]
    forecaster = LiveForecaster(held, clock=lambda: moment[0])
    forecaster.follow(moment[0])
    moment[0] += RELOAD + timedelta(seconds=1)
    forecaster.follow(moment[0])
    until(lambda: forecaster._counting is not None and forecaster._counting.failed)
    assert forecaster.forecast(["d3-next"]) != ()
    held.refuses = False
    loaded = forecaster._site.loaded_at if forecaster._site else NOON

    def taken() -> bool:
        moment[0] += timedelta(milliseconds=100)
        forecaster.follow(moment[0])
        return forecaster._site is not None and forecaster._site.loaded_at > loaded

    until(taken)


@pytest.mark.parametrize(("failing", "muted"), [(25, True), (1, False)], ids=["storm", "calm"])
def test_a_storm_is_known_after_a_restart(store: DuckDBStore, failing: int, muted: bool) -> None:
    runs = [
        a_run(
            f"r{n}",
            StateType.FAILED if n < failing else StateType.COMPLETED,
            started=at(n),
            ended=at(n + 30),
            updated=at(n + 30),
        )
        for n in range(25)
    ]
    store.merge_runs([*runs, scheduled("d-1")])
    store.add_forecasts(
        [Forecast(run_id=run.run_id, made_at=at(0), p_fail=0.05, model="rate", trained_on=9) for run in runs]
    )
    assert store.score_forecasts(at(100)) == 25
    [made] = LiveForecaster(store, clock=lambda: at(120)).forecast(["d-1-next"])
    assert made.muted.startswith("a storm since ") is muted
    # what ended long ago says nothing of now
    [later] = LiveForecaster(store, clock=lambda: at(120) + timedelta(days=2)).forecast(["d-1-next"])
    assert later.muted == ""
