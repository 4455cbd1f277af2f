"""A real `pilotage up` beside the session's Prefect server, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from pilotage.flows.api.client import ApiClient
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.dev.embedded import EmbeddedPrefect
from pilotage.policies.identity.users import IdentityBook
from pilotage.telemetry.errors import ApiError

T = TypeVar("T")
SCRIPTED_MODEL = """
[loop]
tick = "PT0.3S"
[planner]
retry_delay = "PT0S"
[llm]
base_url = "{url}"
api_key = "scripted"
model = "scripted"
"""
"""Settings of a quick loop whose language model is the scripted one at `{url}`."""


def eventually(look: Callable[[], T | None], *, within: float = 60.0, what: str = "it") -> T:
    """The first true answer. Fails when the deadline passes without one."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {within} s"
        time.sleep(0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningController:
    """A running `pilotage up` and the tokens of its people."""

    paths: StatePaths
    process: subprocess.Popen[bytes]
    tokens: Mapping[str, str]
    log: Path

    def control_api(self, name: str = "pat") -> ApiClient:
        """The API, asked by this person."""
        return ApiClient(self.paths.api_socket, self.tokens[name])

    def proposals_on(self, run_id: str) -> list[dict[str, Any]]:
        """Proposals about a run."""
        return [row for row in self.control_api().call("proposals", limit=500) if row["run_id"] == run_id]

    @property
    def pid(self) -> int:
        """The process that runs the loop, which is not `process` where that was forked."""
        return int(self.paths.lock.read_text())

    def agent_pid(self) -> int:
        """The key-less agent process."""

        def look() -> int | None:
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.Error):  # it may be ending just now
                    if "pilotage.flows.agent.process" in child.cmdline():
                        return child.pid
            return None

        return eventually(look, what="an agent process")


@contextmanager
def running_controller(
    root: Path,
    env: Mapping[str, str],
    *,
    mode: str | None,
    settings: str = "",
    forked: EmbeddedPrefect | None = None,
    **more: str,
) -> Iterator[RunningController]:
    """`pilotage up` in its own state directory, with people pat (operator, admin), ann (approver) and vic (viewer).

    Without a `mode` it is a plain `pilotage up`. Where its own process is not what is tested, it is `forked` by the
    server's fork server, which is quicker.
    """
    paths = StatePaths(root=root)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    book = IdentityBook(paths.users)
    known = {identity.name for identity in book.everyone()}
    people = {"pat": ("operator", "admin"), "ann": ("approver",), "vic": ("viewer",)}
    tokens = {}
    for name, roles in people.items():
        path = root / f"{name}.token"
        if name not in known:
            path.touch(mode=0o600)
            path.write_text(book.add(name, roles=roles))
        tokens[name] = path.read_text()
    (root / "pilotage.toml").write_text(
        settings or '[loop]\ntick = "PT0.3S"\n[planner]\nretry_delay = "PT0S"\n'
    )
    log = root / "up.log"
    up = ("pilotage.console", "up", *(("--mode", mode) if mode else ()))
    tethered = (sys.executable, "-m", "pilotage.flows.dev.supervised_child", str(os.getpid()), *up)
    with log.open("ab") as sink:
        process = subprocess.Popen(
            forked.command(*up) if forked else tethered,
            env={**env, "PILOTAGE_STATE_DIR": str(root), **more},
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    ship = RunningController(paths=paths, process=process, tokens=tokens, log=log)
    try:

        def connected() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return bool(ship.control_api().call("status")["collector"]["connected"])
            except ApiError:
                return False

        eventually(connected, within=90, what="pilotage up")
        yield ship
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
