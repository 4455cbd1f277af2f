"""Ctrl-C ends `pilotage up` whatever Prefect does: before it was reached, and after it fell silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import PrefectServer
from tests.flows.controller.unwell_server import Manner, unwell_server
from tests.flows.running_controller import running_controller

WITHIN = 8
"""Seconds: two on an idle machine, and well below the 120 that Prefect's client goes on asking."""


@pytest.mark.parametrize("manner", ["answer 503", "never answer"])
def test_ctrl_c_ends_a_start_whose_server_is_unwell(manner: Manner, tmp_path: Path) -> None:
    with unwell_server(manner) as server, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pilotage.console", "up", "--state-dir", str(tmp_path / "state")],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PREFECT_API_URL": server.api_url},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert server.asked.wait(90), (tmp_path / "log").read_text()
            process.send_signal(signal.SIGINT)
            assert process.wait(WITHIN) == 0
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.prefect
@pytest.mark.parametrize("manner", ["answer 503", "never answer"])
def test_ctrl_c_ends_a_loop_whose_server_fell_ill(
    manner: Manner, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    with unwell_server("pass on", prefect_server.api_url) as server:
        env = {**prefect_server.env, "PREFECT_API_URL": server.api_url}
        with running_controller(tmp_path / "state", env, mode="auto") as ship:
            agent = ship.agent_pid()
            server.turn(manner)
            assert server.asked.wait(60)
            ship.process.send_signal(signal.SIGINT)
            assert ship.process.wait(WITHIN) == 0
            assert not Path(f"/proc/{agent}").exists() or _ended(agent)
            assert "Traceback" not in ship.log.read_text()


def _ended(pid: int) -> bool:
    """Whether nothing but an entry of the process table is left, which its new parent has yet to remove."""
    import psutil

    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
