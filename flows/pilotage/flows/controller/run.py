"""Runs the controller until a signal or Ctrl-C ends it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from pilotage.flows.config.settings import load_settings
from pilotage.flows.controller.controller import Controller
from pilotage.flows.controller.shutdown import run_until_signal
from pilotage.telemetry.harmless import log_to_stderr


def run_up(
    *, config: Path | None, state_dir: Path | None, mode: str | None, say: Callable[[str], None]
) -> None:
    """Returns when it was told to stop.

    Raises ConfigError for settings, policies or users that a person must edit, OrchestratorError when the
    Prefect server cannot be used at all, StoreError or LedgerError when a file is damaged.
    """
    log_to_stderr(logging.WARNING)
    for loud in ("pilotage", "pilotage.telemetry"):
        logging.getLogger(loud).setLevel(logging.INFO)
    settings = load_settings(config=config, state_dir=state_dir, mode=mode)
    os.umask(0o077)  # journals of the databases, logs and sockets too are this user's alone
    asyncio.run(run_until_signal(Controller(settings, say=say).run))
