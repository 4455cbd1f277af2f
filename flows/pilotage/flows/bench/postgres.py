"""A PostgreSQL cluster of our own, from the binaries of a Debian package, for as long as the bench runs."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pilotage.telemetry.errors import OrchestratorError

UNPRIVILEGED = "postgres"
"""Who runs it where we are root, which PostgreSQL refuses."""
START_WITHIN = 60.0
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")
"""Nothing of it outlives the bench."""


def binaries() -> Path | None:
    """Return the directory with `initdb` and `postgres`, or None where there is no PostgreSQL."""
    found = [Path(path).resolve().parent for name in ("initdb",) if (path := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in found if (path / "initdb").exists() and (path / "postgres").exists()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running PostgreSQL."""

    port: int
    password: str
    version: str
    bin: Path

    def database(self, name: str) -> str:
        """Make a database and return its URL for Prefect."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return f"postgresql+asyncpg://postgres:{self.password}@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = self.bin / program
        ran = subprocess.run(
            [str(command), *arguments],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise OrchestratorError(f"Running {program}: {ran.stderr.strip()[:300]}")


@contextmanager
def _leaving_on_sigterm() -> Iterator[None]:
    """Leave all contexts when this process is asked to end, as on Ctrl-C: else PostgreSQL would go on without it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def cluster() -> Iterator[Cluster | None]:
    """Run PostgreSQL until the context is left, also by SIGTERM. Yields None where there is none."""
    with _leaving_on_sigterm(), _cluster() as running:
        yield running


@contextmanager
def _cluster() -> Iterator[Cluster | None]:
    directory = binaries()
    if directory is None:
        yield None
        return
    user = UNPRIVILEGED if os.geteuid() == 0 else None
    if user is not None and not any(entry.pw_name == user for entry in pwd.getpwall()):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pilotage-pg-") as root:
        home = Path(root)
        password = secrets.token_urlsafe(24)
        secret = home / "password"
        secret.touch(mode=0o600)
        secret.write_text(password + "\n")
        if user is not None:
            for path in (home, secret):
                shutil.chown(path, user)
        data = home / "data"
        made = subprocess.run(
            [
                str(directory / "initdb"),
                *("-D", str(data), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(secret), "-N"),
            ],
            user=user,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise OrchestratorError(f"Making a PostgreSQL cluster: {made.stderr.strip()[-300:]}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    str(directory / "postgres"),
                    *("-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(home), *options),
                ],
                user=user,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _await(server, port, home / "log")
            version = subprocess.run(
                [str(directory / "postgres"), "--version"], capture_output=True, text=True, check=True
            ).stdout.split()[2]
            yield Cluster(port=port, password=password, version=version, bin=directory)
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _await(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None or time.monotonic() > deadline:
            raise OrchestratorError(f"Starting PostgreSQL: {log.read_text(errors='replace')[-300:]}")
        time.sleep(0.1)
