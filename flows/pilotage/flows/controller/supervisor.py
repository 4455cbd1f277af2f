"""Starts the agent process, which holds no credential, beside the controller and keeps it alive.

Its environment is scrubbed of whatever opens Prefect, and its token lives as long as the controller does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import IO

from pilotage.flows.config.credentials import without_credentials
from pilotage.flows.config.paths import StatePaths


async def keep_agent(
    paths: StatePaths, token: str, watch_from: datetime, stop: asyncio.Event, say: Callable[[str], None]
) -> None:
    """Keeps the key-less agent process alive, with a growing pause after each death."""
    pause = 1.0
    while not stop.is_set():
        started = datetime.now(UTC)
        process, output = await _start_agent(paths, token, watch_from)
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await _end(process)
        output.close()
        if stop.is_set():
            return
        pause = 1.0 if datetime.now(UTC) - started > timedelta(minutes=1) else min(pause * 2, 60.0)
        say(f"the agent process ended ({process.returncode}); see {paths.log}; again in {pause:.0f} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)


async def _start_agent(
    paths: StatePaths, token: str, watch_from: datetime
) -> tuple[asyncio.subprocess.Process, IO[bytes]]:
    paths.log.parent.mkdir(parents=True, exist_ok=True)
    output = paths.log.open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pilotage.flows.dev.supervised_child",
        str(os.getpid()),
        "pilotage.flows.agent.process",
        env={
            **without_credentials(os.environ),
            "PILOTAGE_STATE_DIR": str(paths.root),
            "PILOTAGE_AGENT_TOKEN": token,
            "PILOTAGE_WATCH_FROM": watch_from.isoformat(),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    return process, output


async def _end(process: asyncio.subprocess.Process, *, grace: float = 0.7) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
