"""The main job, as a person runs it: its own server, its own worker, eight incidents on real runs.

The language model is configured and dead, which must change nothing: rules do the whole loop.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

CASES = {1, 2, 3, 4, 5, 6, 7, 8}
ROW = {"case", "run_id", "failure_class", "forecast", "action", "verdict", "policy_ids", "outcome"} | {
    "seconds_to_recovery",
    "ended_after",
    "waits_for",
    "ok",
}
DEAD_MODEL = {"PILOTAGE_LLM__BASE_URL": "http://127.0.0.1:9/v1", "PILOTAGE_LLM__MODEL": "nobody"}


def environment(tmp: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "PILOTAGE_"))}
    return {**kept, "TMPDIR": str(tmp), **more}


def processes_under(tmp: Path) -> list[str]:
    """Processes of the demo that is set up under this directory, wherever they hang in the process tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(tmp) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    tmp = tmp_path_factory.mktemp("demo")
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.console", "demo", "--json"],
        env=environment(tmp, **DEAD_MODEL),
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return json.loads(ran.stdout), ran.stderr, tmp


@pytest.mark.timeout(1600)  # however busy the machine is: the demo knows itself when to give up
def test_all_eight_incidents_end_as_they_should(played: tuple[dict[str, Any], str, Path]) -> None:
    result, progress, _ = played
    assert result["ok"] is True
    assert {row["case"] for row in result["incidents"]} == CASES
    assert all(set(row) >= ROW for row in result["incidents"])
    assert [row for row in result["incidents"] if not row["ok"]] == []
    assert "pilotage is running" in progress


def test_it_says_where_the_time_went(played: tuple[dict[str, Any], str, Path]) -> None:
    spent = played[0]["time"]
    assert sum(spent["phases"].values()) == pytest.approx(spent["seconds"], rel=0.2)
    assert spent["slowness"] >= 1
    assert {"server", "fork-server", "pilot-worker"} <= set(spent["cpu_seconds"])
    last = max(row["ended_after"] for row in played[0]["incidents"])
    assert 0 < last <= spent["phases"]["tell the stories"]


def test_each_incident_shows_what_it_is_there_to_show(played: tuple[dict[str, Any], str, Path]) -> None:
    rows = {(row["case"], row["action"]): row for row in played[0]["incidents"]}
    assert rows[3, "notify_owner"]["failure_class"] == "auth"
    assert "192 MiB" in rows[4, "resize_run"]["injected"]
    assert "got a slot; then done" in rows[5, "reserve_slot"]["outcome"]
    assert rows[6, "retry_run"]["verdict"] == "needs_approval"
    assert rows[6, "retry_run"]["approved_by"] == ["ann"]
    assert rows[7, "pause_deployment"]["policy_ids"] == ["tier0-never-paused"]
    assert rows[7, "pause_deployment"]["reasons"]
    assert rows[8, "reschedule_run"]["forecast"] >= 0.6


def test_the_demo_leaves_no_process_and_no_file(played: tuple[dict[str, Any], str, Path]) -> None:
    tmp = played[2]
    assert processes_under(tmp) == []
    assert list(tmp.glob("pilotage-*")) == []


def test_interrupted_it_stops_everything_that_it_started(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "pilotage.console", "demo"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    for line in demo.stderr:
        if "Prefect answers" in line:
            break
    assert len(processes_under(tmp_path)) > 1
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    deadline = time.monotonic() + 20
    while processes_under(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_under(tmp_path) == []
    assert list(tmp_path.glob("pilotage-*")) == []


@pytest.mark.soak
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("arguments", [(), ("--llm", "scripted")], ids=["no model", "scripted model"])
def test_with_and_without_a_model_the_outcomes_are_the_same(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pilotage.console", "demo", "--json", *arguments],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
