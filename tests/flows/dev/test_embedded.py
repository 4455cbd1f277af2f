"""The embedded server answers, keeps strangers out and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from prefect import get_client
from tests.conftest import PrefectServer, PrefectWorker

from pilotage.telemetry.errors import OrchestratorError


@pytest.mark.prefect
def test_clients_in_this_process_and_its_threads_talk_to_the_session_server(
    prefect_server: PrefectServer,
) -> None:
    async def hello() -> str:
        async with get_client() as client:
            assert (await client.hello()).is_success
            return str(client.api_url)

    seen = [asyncio.run(hello())]
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(hello())))
    thread.start()
    thread.join(30)
    assert [url.rstrip("/") for url in seen] == [prefect_server.api_url] * 2


@pytest.mark.prefect
def test_the_server_refuses_a_caller_without_the_credential(prefect_server: PrefectServer) -> None:
    answer = httpx.post(f"{prefect_server.api_url}/flow_runs/filter", json={}, timeout=30)
    assert answer.status_code == 401


@pytest.mark.prefect
def test_the_pool_serves_high_before_default_before_low(
    prefect_server: PrefectServer, prefect_worker: PrefectWorker
) -> None:
    user, _, password = prefect_server.auth_string.partition(":")
    answer = httpx.post(
        f"{prefect_server.api_url}/work_pools/{prefect_worker.pool}/queues/filter",
        json={},
        auth=(user, password),
        timeout=30,
    )
    ranks = {queue["name"]: queue["priority"] for queue in answer.json()}
    assert ranks == {"high": 1, "default": 2, "low": 3}


def test_a_tethered_process_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys, time\n"
            "p = subprocess.Popen([sys.executable, '-m', 'pilotage.flows.dev.supervised_child', str(os.getpid()),"
            " 'sleeper'],"
            " start_new_session=True)\n"
            "print(p.pid, flush=True)\n"
            "time.sleep(600)",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    tethered = psutil.Process(int(starter.stdout.readline()))
    deadline = time.monotonic() + 20
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    try:
        while tethered.is_running() and tethered.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "it is still running"
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        pass


def test_a_module_that_does_not_end_in_time_is_ended_and_named(prefect_server: PrefectServer) -> None:
    with pytest.raises(OrchestratorError, match="has not ended within 1 s"):
        prefect_server.embedded.run_module(
            "http.server", "0", "--bind", "127.0.0.1", within=timedelta(seconds=1)
        )
