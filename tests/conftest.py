"""One real Prefect server and worker for the whole session, and a guard that nothing outlives it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.compat.recording import RECORD, Recorder, recording, unsupported, write, written

from pilotage.flows.dev.embedded import POOL, EmbeddedPrefect

os.environ["TZ"] = "UTC"  # words with times in them are the same on every machine
time.tzset()


PRELOADED_FOR_TESTS = ("pilotage.console.cli.main", "pilotage.flows.controller.run")
"""What `pilotage up` imports, beside Prefect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectServer:
    """The server of the session."""

    api_url: str
    ui_url: str
    auth_string: str
    env: dict[str, str]
    """A whole environment for a subprocess that talks to the server; it holds the credential."""
    embedded: EmbeddedPrefect


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectWorker:
    """The process worker of the session, and the pool it serves."""

    pool: str
    queues: tuple[str, ...]
    """First served first."""
    log: Path


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A real server, whose worker forks flow runs. Prefect clients in this process and in its threads use it too."""
    with (
        EmbeddedPrefect(
            tmp_path_factory.mktemp("prefect"), preload=True, preloaded=PRELOADED_FOR_TESTS
        ) as embedded,
        pytest.MonkeyPatch.context() as patch,
    ):
        for key in [key for key in os.environ if key.startswith("PREFECT_")]:
            patch.delenv(key)
        for key, value in embedded.client_env.items():
            patch.setenv(key, value)
        # there is no TLS on loopback, and to prepare for it costs each client 30 ms
        patch.setenv("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "true")
        _reread_prefect_settings()
        yield PrefectServer(
            api_url=embedded.api_url,
            ui_url=embedded.ui_url,
            auth_string=embedded.auth_string,
            env=embedded.env,
            embedded=embedded,
        )
    _reread_prefect_settings()


@pytest.fixture(scope="session")
def prefect_worker(prefect_server: PrefectServer) -> PrefectWorker:
    """A worker for the process pool `pilotage`, with the queues high, default and low."""
    prefect_server.embedded.create_pool()
    log = prefect_server.embedded.start_worker()
    return PrefectWorker(pool=POOL, queues=("high", "default", "low"), log=log)


@pytest.fixture(scope="session")
def _recorder() -> Iterator[Recorder]:
    """Sees what our clients send to Prefect; adds it to the table when it was asked to."""
    recorder = Recorder()
    with recording(recorder):
        yield recorder
    if os.environ.get(RECORD):
        table = written()
        for route, uses in recorder.seen.items():
            for kind, paths in uses.items():
                table.setdefault(route, {}).setdefault(kind, set()).update(paths)
        write(table)


@pytest.fixture(autouse=True)
def _requests_fit_every_server(_recorder: Recorder) -> Iterator[None]:
    """Fails a test in which we send Prefect, or read of its replies, what a supported version does not have."""
    before = sum(len(paths) for uses in _recorder.seen.values() for paths in uses.values())
    yield
    after = sum(len(paths) for uses in _recorder.seen.values() for paths in uses.values())
    if after != before and (lacking := unsupported(_recorder.seen, written())):
        _recorder.seen.clear()
        pytest.fail(f"this Prefect lacks what we use of it: {'; '.join(lacking)}")


@pytest.fixture(scope="session", autouse=True)
def _no_process_outlives_the_session() -> Iterator[None]:
    """Fails the session when a child of a test is still there after every fixture has been torn down."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    children = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, alive = psutil.wait_procs(children, timeout=5)
    # multiprocessing's own book-keeper lives as long as the interpreter
    left = [" ".join(each.cmdline()) for each in alive if "resource_tracker" not in " ".join(each.cmdline())]
    for each in alive:
        each.kill()
    assert not left, f"tests left processes behind: {left}"


def _reread_prefect_settings() -> None:
    # Prefect reads its settings once, when first imported, which may be before the server is up
    import prefect.context

    prefect.context.refresh_global_settings_context()
