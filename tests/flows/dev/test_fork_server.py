"""What runs in a fork of the preloaded process behaves as a process that was started by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pilotage.flows.dev import fork_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")

MODULE = """
import json, os, signal, sys, threading, time
from prefect.settings import get_current_settings
what = sys.argv[1]
print(json.dumps([sys.argv[1:], os.getcwd(), str(get_current_settings().api.url)]), flush=True)
if what == "sleep":
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(9))
    print("sleeping", os.getpid(), flush=True)
    time.sleep(600)
elif what == "thread":
    threading.Thread(target=lambda: (time.sleep(0.2), print("from the thread"))).start()
elif what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "exit":
    sys.exit(7)
elif what == "loaded":
    print("wsgiref.validate" in sys.modules)
elif what == "raise":
    raise ValueError("no such thing")
"""


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("f") / "fork.sock"
    (path.parent / "preloaded_probe.py").write_text(MODULE)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "pilotage.flows.dev.fork_server"),
            str(os.getpid()),
            str(path),
            "wsgiref.validate",
        ],
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not path.exists():
        assert server.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it does not listen"
        time.sleep(0.05)
    yield path
    server.kill()
    server.wait()


def started(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        fork_server.command(path, "preloaded_probe", *arguments),
        cwd=path.parent,
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("what", "code"), [("nothing", 0), ("exit", 7), ("raise", 1), ("killed", -signal.SIGKILL), ("thread", 0)]
)
def test_the_client_ends_as_the_fork_does(socket_path: Path, what: str, code: int) -> None:
    client = started(socket_path, what, "more")
    output, errors = client.communicate(timeout=60)
    assert client.returncode == code
    assert output.splitlines()[0] == (
        f'[["{what}", "more"], "{socket_path.parent}", "http://127.0.0.1:9/api"]'
    ), "arguments, directory and Prefect's settings are the client's"
    assert ("ValueError: no such thing" in errors) == (what == "raise")
    assert ("from the thread" in output) == (what == "thread")


def test_what_else_was_to_be_imported_is_there(socket_path: Path) -> None:
    with started(socket_path, "loaded") as client:
        assert client.communicate(timeout=60)[0].splitlines()[1] == "True"


def sleeping(client: subprocess.Popen[str]) -> psutil.Process:
    assert client.stdout is not None
    client.stdout.readline()
    return psutil.Process(int(client.stdout.readline().split()[1]))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGUSR1, 9)], ids=["SIGTERM", "SIGUSR1"]
)
def test_a_signal_reaches_the_fork(socket_path: Path, number: signal.Signals, code: int) -> None:
    with started(socket_path, "sleep") as client:
        fork = sleeping(client)
        client.send_signal(number)
        assert client.wait(30) == code
        assert not fork.is_running()


def test_a_killed_client_takes_its_fork_with_it(socket_path: Path) -> None:
    with started(socket_path, "sleep") as client:
        fork = sleeping(client)
        client.kill()
        client.wait()
        fork.wait(30)


def test_a_fork_does_not_outlive_the_server(tmp_path: Path) -> None:
    (tmp_path / "preloaded_probe.py").write_text(MODULE)
    path = tmp_path / "fork.sock"
    server = subprocess.Popen(
        [sys.executable, "-m", "pilotage.flows.dev.fork_server", str(os.getpid()), str(path)],
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, "it does not listen"
        time.sleep(0.05)
    with started(path, "sleep") as client:
        fork = sleeping(client)
        server.kill()
        server.wait()
        assert client.wait(30) == 1
        fork.wait(30)


def test_without_a_server_the_module_runs_by_itself(tmp_path: Path) -> None:
    (tmp_path / "preloaded_probe.py").write_text("import sys; print(sys.argv[1:]); sys.exit(3)")
    client = started(tmp_path / "nobody.sock", "alone")
    output, _ = client.communicate(timeout=60)
    assert (client.returncode, output) == (3, "['alone']\n")
