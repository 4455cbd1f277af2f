"""The demo waits longer on a slower machine, and says what it waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilotage.flows.demo import patience
from pilotage.flows.demo.patience import Patience
from pilotage.flows.demo.scenarios import ACTS, Observation, row_of, waits_for
from pilotage.flows.demo.spending import cpu_seconds

RUNNING = {"id": "r", "state_name": "Running", "state_type": "RUNNING"}
RETRY = next(act for act in ACTS if act.run_key == "transient")
RESERVE = next(act for act in ACTS if act.action == "reserve_slot")


def observation(status: str, verdict: str = "allow") -> Observation:
    at = datetime.now(UTC).isoformat()
    judged = {"step": "judged", "at": at, "actor": "", "detail": {"verdict": {"outcome": verdict}}}
    detail: dict[str, Any] = {"status": status, "action": {"kind": RETRY.action}}
    return Observation(detail=detail, story=[judged])


def test_waits_grow_with_the_slowest_thing_that_was_measured() -> None:
    patient = Patience()
    assert patient.scaled(timedelta(seconds=10)) == timedelta(seconds=10)
    patient.learn(4, idle=8)  # faster than expected: nothing is shortened
    assert patient.slowness == 1
    patient.learn(24, idle=8)
    patient.learn(8, idle=8)
    assert patient.scaled(timedelta(seconds=10)) == timedelta(seconds=30)


def test_it_gives_up_when_nothing_changes_and_not_while_something_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    patient = Patience(slowness=2)
    patient.begin()
    still = patience.UNCHANGED.total_seconds() * 2

    def later(seconds: float) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: now + seconds)

    assert not patient.has_run_out("a")
    later(still * 0.9)
    assert not patient.has_run_out("b")
    later(still * 1.8)
    assert not patient.has_run_out("b")
    later(still * 2.1)
    assert patient.has_run_out("b")
    later(patience.AT_MOST.total_seconds() * 2 + 10)
    assert patient.has_run_out("c"), "not even for what changes for ever"


@pytest.mark.parametrize(
    ("seen", "run", "told"),
    [
        (None, {}, "the first attempts of the other runs"),
        (None, RUNNING, "a proposal of retry_run; its run is Running"),
        (
            observation("needs_approval", "needs_approval"),
            RUNNING,
            "the verdict on retry_run was needs_approval, not allow",
        ),
        (observation("admitted"), RUNNING, "retry_run to be delivered to Prefect"),
        (observation("delivered"), RUNNING, "retry_run to be verified; its run is Running"),
        (observation("verified"), RUNNING, "its run to end COMPLETED; its run is Running"),
        (observation("refused"), RUNNING, "retry_run ended refused"),
    ],
    ids=["not started", "not proposed", "verdict", "admitted", "delivered", "run", "refused"],
)
def test_a_story_that_has_not_ended_says_what_it_waits_for(
    seen: Observation | None, run: dict[str, Any], told: str
) -> None:
    assert told in waits_for(RETRY, seen, run=run)


def test_a_reserved_slot_waits_to_be_taken_back() -> None:
    assert "to be taken back" in waits_for(RESERVE, observation("verified"), run=RUNNING)


def test_the_row_of_a_story_that_has_not_begun_says_so() -> None:
    row = row_of(RETRY, None, run=RUNNING, ui_url="", injected=frozenset())
    assert (row["ok"], row["outcome"]) == (False, "never proposed")
    assert row["waits_for"].startswith("a proposal of retry_run")


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_cpu_seconds_count_descendants_that_live_and_that_were_waited_for() -> None:
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn!r} + 'print(1, flush=True)\\ntime.sleep(600)'])\n"
        "print('started', flush=True)\nchild.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()  # both have burnt their share
        assert cpu_seconds({"it": process.pid})["it"] >= 0.5
        os.killpg(process.pid, 9)
    assert cpu_seconds({"gone": process.pid}) == {"gone": 0.0}
