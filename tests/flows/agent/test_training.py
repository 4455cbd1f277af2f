"""The forecast is trained in a process of its own, when there is something new to learn, one training at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.telemetry.forecast.test_live import busy

from pilotage.flows.agent.training import FEWEST, TrainingSchedule, train_and_register, train_apart
from pilotage.flows.config.paths import paths
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.forecast.live import LiveForecaster
from pilotage.telemetry.forecast.registry import ModelRegistry
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.socket import StoreServer

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def test_a_training_beside_the_owner_of_the_store_makes_a_model_that_the_live_loop_takes_up(
    tmp_path: Path,
) -> None:
    where = paths(tmp_path)
    store = DuckDBStore(where.telemetry)
    busy(store, 400)
    server = StoreServer(store, where.store_socket)
    registry = ModelRegistry(where.forecast_models)
    forecaster = LiveForecaster(store, registry, clock=lambda: NOW)
    try:
        asyncio.run(train_apart(where))
        forecaster.follow(NOW)
        [model] = registry.models()
        assert model.serving
        assert forecaster.model_id == model.model_id
        assert {"rate", "ewma", "logistic", "boosting"} == set(model.card["candidates"])
    finally:
        server.close()
        store.close()


def test_a_training_that_fails_says_where_its_lines_are(tmp_path: Path) -> None:
    where = paths(tmp_path / "nowhere")
    with pytest.raises(PilotageError, match="The model before serves on"):
        asyncio.run(train_apart(where))


class Trainings:
    """Counts trainings, each of which goes on until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.let_go = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        await self.let_go.wait()


def test_one_training_goes_on_at_a_time_and_only_for_something_new(tmp_path: Path) -> None:
    asyncio.run(_one_at_a_time(tmp_path))


async def _one_at_a_time(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    busy(store, 300)
    registry, moment, trainings = ModelRegistry(tmp_path / "models"), [NOW], Trainings()
    schedule = TrainingSchedule(registry, trainings, interval=timedelta(minutes=10), clock=lambda: moment[0])

    async def look(ended: int, after: timedelta) -> int:
        moment[0] += after
        schedule.keep(ended)
        await asyncio.sleep(0)
        return trainings.begun

    minutes = timedelta(minutes=11)
    assert await look(FEWEST - 1, minutes) == 0
    assert await look(300, timedelta(seconds=1)) == 0, "it was looked a moment ago"
    assert await look(300, minutes) == 1
    assert await look(900, minutes) == 1, "the first goes on"
    trainings.let_go.set()
    await asyncio.sleep(0)
    train_and_register(store, registry, moment[0])
    assert await look(310, minutes) == 1, "3 % more than the model has seen"
    assert await look(345, minutes) == 2
    assert await look(310, timedelta(days=2)) == 3, "the model is old, and something has ended since"
    await schedule.stop()
    store.close()
