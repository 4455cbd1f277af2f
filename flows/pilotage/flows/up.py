"""Runs the keyed process until a signal or Ctrl-C ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from pilotage.flows.keyed import KeyedProcess
from pilotage.flows.settings import Settings, load_settings


def run_up(
    *, config: Path | None, state_dir: Path | None, mode: str | None, say: Callable[[str], None]
) -> None:
    """Returns when it was told to stop.

    Raises ConfigError for settings, policies or users that a person must edit, OrchestratorError when the
    Prefect server cannot be used at all, StoreError or LedgerError when a file is damaged.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for loud in ("pilotage", "pilotage.telemetry"):
        logging.getLogger(loud).setLevel(logging.INFO)
    settings = load_settings(config=config, state_dir=state_dir, mode=mode)
    asyncio.run(_until_signal(settings, say))


async def _until_signal(settings: Settings, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    await KeyedProcess(settings, say=say).run(stop)
