"""Runs a Prefect server and workers of our own, for the demo and for the tests.

Everything lives under one home directory and on one free loopback port, with SQLite, a shared credential
that is made for this server alone, and analytics off. Whatever is started here ends here: each process is
the leader of its own group, the group is killed on `stop`, and a process whose starter dies ends by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from pilotage.flows.dev import fork_server
from pilotage.telemetry.errors import OrchestratorError

EXAMPLES = Path(__file__).parents[1] / "examples"
"""The Prefect project that comes with pilotage."""
POOL = "pilotage"
QUEUES = ("high", "default", "low")
"""In order of priority: the first is served first."""

_START_WITHIN = timedelta(seconds=240)
"""A server starts in about 8 s on two idle cores; a busy machine has been seen to need a minute."""
_STOP_WITHIN = 8.0
"""Seconds that a process group gets between SIGTERM and SIGKILL."""
_TAIL_LINES = 25
_TRIES = 8
"""Askings of a server that is busy: 0.2 s to 13 s apart."""


@dataclass(slots=True, kw_only=True)
class Child:
    """A process that was started here, with its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_TAIL_LINES:])


class EmbeddedPrefect:
    """A Prefect server of our own, as a context manager.

    `home` is the directory for its logs, profiles and its SQLite database, unless `database` is the URL of another.
    `ui` serves Prefect's UI as well, and `settings` are more `PREFECT_*` variables for the server and everything that
    talks to it. With `preload` flow runs of the pools and modules that are run here are forked from a process that has
    imported Prefect, and the modules `preloaded` as well.
    """

    def __init__(
        self,
        home: Path,
        *,
        ui: bool = False,
        settings: Mapping[str, str] | None = None,
        preload: bool = False,
        preloaded: Sequence[str] = (),
        database: str = "",
    ) -> None:
        self.home = home
        self.log_directory = home / "logs"
        self._ui = ui
        self._fork_socket = home / "fork.sock"
        self._preload = preload and fork_server.available(self._fork_socket)
        self._preloaded = tuple(preloaded)
        self._settings = dict(settings or {})
        self._database = database or f"sqlite+aiosqlite:///{home / 'prefect.db'}"
        self._auth = f"pilotage:{secrets.token_urlsafe(24)}"
        self._children: list[Child] = []
        self._port = 0

    @property
    def ui_url(self) -> str:
        """Where people look, without a trailing slash."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def api_url(self) -> str:
        """The API's address, ending in `/api`."""
        return f"{self.ui_url}/api"

    @property
    def auth_string(self) -> str:
        """The one credential of this server, as `user:password`."""
        return self._auth

    @property
    def client_env(self) -> dict[str, str]:
        """The `PREFECT_*` variables with which a process talks to this server. Holds the credential."""
        return {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self._auth,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_CLI_COLORS": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            **self._settings,
        }

    @property
    def env(self) -> dict[str, str]:
        """A whole environment for a subprocess: ours without its own Prefect settings, plus `client_env`."""
        foreign = ("PREFECT_", "PILOTAGE_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        return {**kept, "PYTHONUNBUFFERED": "1", **self.client_env}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return once it answers. Raises OrchestratorError with the end of its log."""
        self.log_directory.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        server = self._spawn(
            "server",
            (
                *("pilotage.flows.dev.threaded_gc", "prefect"),
                *("server", "start", "--host", "127.0.0.1", "--port", str(self._port)),
            ),
            {
                "PREFECT_SERVER_API_AUTH_STRING": self._auth,
                "PREFECT_SERVER_UI_ENABLED": "true" if self._ui else "false",
                "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
                # the server must not take itself for a client of somebody else's
                "PREFECT_API_DATABASE_CONNECTION_URL": self._database,
            },
        )
        if self._preload:
            # no thread may run where forks are made: it looks after its starter itself
            watched = ("pilotage.flows.dev.fork_server", str(os.getpid()), str(self._fork_socket))
            self._spawn("fork-server", (*watched, *self._preloaded), {}, tethered=False)
        deadline = time.monotonic() + _START_WITHIN.total_seconds()
        while not self._answers():
            if server.process.poll() is not None:
                raise OrchestratorError(
                    f"Starting a Prefect server on port {self._port}: it ended with code "
                    f"{server.process.returncode}. The end of its log ({server.log}):\n{server.tail()}"
                )
            if time.monotonic() > deadline:
                raise OrchestratorError(
                    f"Starting a Prefect server on port {self._port}: no answer from /api/health within "
                    f"{_START_WITHIN.total_seconds():.0f} s. Is the machine very busy? "
                    f"The end of its log ({server.log}):\n{server.tail()}",
                    transient=True,
                )
            time.sleep(0.2)

    def create_pool(
        self, name: str = POOL, *, queues: Sequence[str] = QUEUES, concurrency_limit: int | None = None
    ) -> None:
        """Create the process pool with our job template and these queues, the first served first."""
        template: dict[str, Any] = json.loads((EXAMPLES / "pool.json").read_text())
        if self._preload:
            command = fork_server.shell_command(self._fork_socket, "prefect.engine")
            template["variables"]["properties"]["command"]["default"] = command
        body: dict[str, Any] = {"name": name, "type": "process", "base_job_template": template}
        if concurrency_limit is not None:
            body["concurrency_limit"] = concurrency_limit
        self._ask("POST", "/work_pools/", body)
        for rank, queue in enumerate(queues, start=1):
            if queue != "default":  # which comes with the pool
                self._ask("POST", f"/work_pools/{name}/queues", {"name": queue, "priority": rank})
        for rank, queue in enumerate(queues, start=1):
            self._ask("PATCH", f"/work_pools/{name}/queues/{queue}", {"priority": rank})

    def start_worker(self, pool: str = POOL, *, name: str = "pilot-worker") -> Path:
        """The worker's log; the pool shows it online. It polls every second and cancels pending runs."""
        worker = self.launch_worker(pool, name=name)
        self.await_worker(worker, pool)
        return worker.log

    def launch_worker(
        self, pool: str = POOL, *, name: str = "pilot-worker", settings: Mapping[str, str] | None = None
    ) -> Child:
        """Return a worker's process, which starts by itself meanwhile; see `await_worker`.

        `settings` are more `PREFECT_*` variables for the worker and for the runs that it starts.
        """
        return self._spawn(
            name,
            ("prefect", "worker", "start", "--type", "process", "--pool", pool, "--name", name),
            {
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "PREFECT_WORKER_PREFETCH_SECONDS": "2",
                # without it a cancelled pending run hangs in Cancelling for 300 s
                "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
                "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "2",
                **(settings or {}),
            },
        )

    def await_worker(self, worker: Child, pool: str = POOL) -> None:
        """Return when the pool shows the worker online. Raises OrchestratorError with the end of its log."""
        deadline = time.monotonic() + _START_WITHIN.total_seconds()
        with httpx.Client(base_url=self.api_url, auth=self._basic(), timeout=60) as client:
            while True:
                answer = client.post(f"/work_pools/{pool}/workers/filter", json={})
                if answer.is_success and any(each["name"] == worker.name for each in answer.json()):
                    return
                if worker.process.poll() is not None or time.monotonic() > deadline:
                    raise OrchestratorError(
                        f"Starting a worker for pool {pool!r}: it did not come online. "
                        f"The end of its log ({worker.log}):\n{worker.tail()}"
                    )
                time.sleep(0.2)

    def run_cli(
        self, *arguments: str, cwd: Path | None = None, within: timedelta = timedelta(seconds=180)
    ) -> str:
        """What `prefect ARGUMENTS…` printed. Raises OrchestratorError with that text when it fails."""
        return self.run_module("prefect", *arguments, cwd=cwd, within=within)

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command that runs a module: in a fork of what has Prefect imported, where there is such."""
        if self._preload:
            return fork_server.command(self._fork_socket, module, *arguments)
        return [sys.executable, "-m", module, *arguments]

    def run_module(
        self,
        module: str,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        within: timedelta = timedelta(seconds=180),
    ) -> str:
        """Return what `python -m MODULE ARGUMENTS…` printed. Raises OrchestratorError with that text when it fails.

        `env` holds variables beside those with which every process here talks to the server.
        """
        try:
            ran = subprocess.run(
                self.command(module, *arguments),
                cwd=cwd or self.home,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=within.total_seconds(),
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise OrchestratorError(
                f"Running `{module} {' '.join(arguments)}`: it has not ended within {within.total_seconds():.0f} s. "
                f"Is the machine very busy? It has printed:\n{_last_lines(exc.output)}",
                transient=True,
            ) from exc
        if ran.returncode != 0:
            raise OrchestratorError(
                f"Running `{module} {' '.join(arguments)}`: it ended with code {ran.returncode}:\n"
                + _last_lines(ran.stdout)
            )
        return ran.stdout

    def deploy_examples(self, *, within: timedelta = timedelta(seconds=180)) -> None:
        """Create every deployment of the examples on this server."""
        self.run_cli("deploy", "--all", cwd=EXAMPLES, within=within)

    def stop(self) -> None:
        """Stop every process that was started here, workers first. Calling it twice is harmless."""
        while self._children:
            _end(self._children.pop().process)

    def alive(self) -> tuple[str, ...]:
        """Names of the processes that are running."""
        return tuple(child.name for child in self._children if child.process.poll() is None)

    def processes(self) -> dict[str, int]:
        """Return the process ids of what was started here, by name."""
        return {child.name: child.process.pid for child in self._children}

    def _spawn(
        self, name: str, command: Sequence[str], more: Mapping[str, str], *, tethered: bool = True
    ) -> Child:
        tether = ("-m", "pilotage.flows.dev.supervised_child", str(os.getpid())) if tethered else ("-m",)
        self.log_directory.mkdir(parents=True, exist_ok=True)
        log = self.log_directory / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, *tether, *command],
                cwd=self.home,
                env={**self.env, **more},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name=name, process=process, log=log)
        self._children.append(child)
        return child

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def _basic(self) -> tuple[str, str]:
        user, _, password = self._auth.partition(":")
        return user, password

    def _ask(self, method: str, route: str, body: Mapping[str, Any]) -> None:
        """Send a request that may already have been done. A busy SQLite answers 503: it is sent again."""
        for attempt in range(_TRIES):
            with httpx.Client(base_url=self.api_url, auth=self._basic(), timeout=60) as client:
                answer = client.request(method, route, json=dict(body))
            # 409: it exists already, which is what was wanted
            if answer.is_success or answer.status_code == httpx.codes.CONFLICT:
                return
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(0.2 * 2**attempt)
        raise OrchestratorError(
            f"{method} {route} on our own Prefect server: it answered {answer.status_code}: "
            f"{answer.text[:300]}. See its log in {self.log_directory}."
        )


def _last_lines(printed: str | bytes | None) -> str:
    text = printed.decode(errors="replace") if isinstance(printed, bytes) else printed or ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process group: SIGTERM first, then SIGKILL, members that outlived their leader included."""
    if process.poll() is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_WITHIN)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
