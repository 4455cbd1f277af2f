"""Trains the forecast in a process of its own, `python -m pilotage.flows.agent.training`, which the agent starts.

It holds no key: it reads telemetry through the store's socket and writes a model into the state directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from pilotage.flows.config.paths import StatePaths, paths
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.forecast.registry import ModelRegistry
from pilotage.telemetry.harmless import harmless_lines, log_to_stderr
from pilotage.telemetry.store.protocol import Store

log = logging.getLogger("pilotage.agent")

FEWEST = 60
"""Ended attempts below which there is nothing to train."""
GROWTH = 1.15
"""By how much the ended attempts must have grown for another training: a backtest fits its models as often."""
AT_LEAST_EVERY = timedelta(days=1)
"""A training as old as this is done again if anything has ended since."""


def late_models(registry: ModelRegistry) -> ModelRegistry:
    """Return the models of late starts, which are kept beside those of failures."""
    return ModelRegistry(registry.root / "late")


def train_and_register(
    store: Store, registry: ModelRegistry, now: datetime, *, serve: bool = False
) -> str | None:
    """Train on what ended before `now` and register the model. Return its id, or None while too little has ended.

    What became of retries, and which starts are late, is learned beside it, once enough of them are known.
    `serve`: let it serve although a person chose another. Raises StoreError.
    """
    from pilotage.planner.detect.failures import class_of_log
    from pilotage.telemetry.forecast.lateness import starts
    from pilotage.telemetry.forecast.retry_model import train_retries
    from pilotage.telemetry.forecast.training import train  # start-up time: scikit-learn

    bundle = train(store, now)
    retries = train_retries(store, now, class_of_log)
    if retries is not None:
        retries.write(registry.root)
    waits = train(store, now, starts())
    if waits is not None:
        late_models(registry).register(waits, serve=serve)
    return None if bundle is None else registry.register(bundle, serve=serve)


class TrainingSchedule:
    """Decides when the forecast is trained again, and keeps at most one training going."""

    def __init__(
        self,
        registry: ModelRegistry,
        start: Callable[[], Awaitable[None]],
        *,
        interval: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._registry, self._start, self._interval, self._clock = registry, start, interval, clock
        self._tried = datetime.min.replace(tzinfo=UTC)
        self._training: asyncio.Task[None] | None = None

    def keep(self, ended: int) -> None:
        """Start a training when one is due; `ended` attempts are known. It goes on by itself."""
        if self._training is not None:
            if not self._training.done():
                return
            if error := self._training.exception():
                log.warning("training the forecast: %s", error)
            self._training = None
        now = self._clock()
        if now - self._tried >= self._interval:
            self._tried = now
            if self._is_due(ended, now):
                self._training = asyncio.ensure_future(self._start())

    def _is_due(self, ended: int, now: datetime) -> bool:
        if ended < FEWEST:
            return False
        models = self._registry.models()
        if not models:
            return True
        newest = models[0].card
        trained_on = int(newest.get("trained_on") or 0)
        age = now - datetime.fromisoformat(str(newest["made_at"]))
        return ended >= trained_on * GROWTH or (ended > trained_on and age > AT_LEAST_EVERY)

    async def stop(self) -> None:
        """End a training that is going on."""
        if self._training is not None:
            self._training.cancel()
            await asyncio.gather(self._training, return_exceptions=True)


async def train_apart(where: StatePaths) -> None:
    """Train in a process of its own, which ends with this one. Raises PilotageError when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pilotage.flows.dev.supervised_child",
        str(os.getpid()),
        "pilotage.flows.agent.training",
        env={**os.environ, "PILOTAGE_STATE_DIR": str(where.root)},
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # else it would outlive an agent that is killed
    )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if code:
        raise PilotageError(
            f"its process ended with {code}; its lines are in {where.log}. The model before serves on."
        )


def main() -> int:
    """Exit code 0 after a training or when there was too little to train on, 1 when it failed."""
    from pilotage.telemetry import connect

    log_to_stderr(logging.INFO)
    os.nice(10)  # whatever runs beside it goes first
    where = paths()
    try:
        store = connect(where.root)
        try:
            entry = train_and_register(store, ModelRegistry(where.forecast_models), datetime.now(UTC))
        finally:
            store.close()
    except PilotageError as exc:
        print(harmless_lines(exc), file=sys.stderr)
        return 1
    log.info("trained the forecast: %s", entry or "too little has ended yet")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
