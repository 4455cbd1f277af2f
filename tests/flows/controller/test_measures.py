"""What the controller tells of itself: its turns, its processes, and no more names than a scraper can bear."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from pilotage.flows.api.measures import MOST_NAMES, OTHERS, Readings, StepCounts, samples_of
from pilotage.flows.controller.loop_times import LoopTimes
from pilotage.flows.controller.processes import usage_by_process

NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


def readings(**different: object) -> Readings:
    """An installation in which nothing has happened yet."""
    values: dict[str, object] = dict.fromkeys(
        ("forecast_at", "model_at", "brier", "calibration_error", "last_event", "watermark", "outbox_oldest")
    )
    values |= dict.fromkeys(
        (
            "broken_glass",
            "incidents_open",
            "outbox_waiting",
            "set_aside",
            "defects",
            "turns",
            "last_turn_seconds",
            "scored",
        ),
        0,
    )
    values |= dict.fromkeys(("llm_calls", "llm_prompt", "llm_completion", "llm_cost"), 0)
    values |= {
        name: {}
        for name in (
            "unresolved",
            "proposals",
            "requests",
            "step_seconds",
            "step_failures",
            "unfinished",
            "files",
        )
    }
    values |= {
        "processes": {},
        "queues": [],
        "steps": StepCounts(seq=0),
        "now": NOW,
        "mode": "auto",
        "bundle": "b",
    }
    return Readings(**(values | {"stopped": False, "connected": True} | different))  # type: ignore[arg-type]


def test_what_nothing_is_known_of_has_no_value() -> None:
    named = {sample.name for sample in samples_of(readings())}
    assert "pilotage_stopped" in named
    assert named.isdisjoint({"pilotage_forecast_brier", "pilotage_collector_watermark_age_seconds"})
    aged = {s.name: s.value for s in samples_of(readings(watermark=NOW - timedelta(minutes=2)))}
    assert aged["pilotage_collector_watermark_age_seconds"] == 120


def test_a_thousand_deployments_are_not_a_thousand_lines() -> None:
    failing = {f"etl/{number}": number for number in range(1, 1001)}
    told = {
        sample.labels["deployment"]: sample.value
        for sample in samples_of(readings(unresolved=failing))
        if sample.name == "pilotage_unresolved_failures"
    }
    assert len(told) == MOST_NAMES + 1
    assert told["etl/1000"] == 1000
    assert sum(told.values()) == sum(failing.values())
    assert told[OTHERS] == sum(range(1, 1001 - MOST_NAMES))


def test_steps_that_make_no_sense_to_us_are_counted_as_entries_alone() -> None:
    counts = StepCounts(seq=3)
    counts.add(
        [{"seq": 4, "step": "of a later version", "detail": {}}, {"seq": 5, "step": "undone", "detail": {}}]
    )
    assert (counts.seq, counts.entries, dict(counts.by)) == (5, 2, {("pilotage_undone_total", ()): 1})


def test_a_step_that_fails_is_timed_and_counted() -> None:
    times = LoopTimes()
    for _ in range(2):
        times.step("verifying", 0.25, failed=True)
        times.step("delivering", 0.5, failed=False)
        times.turn(0.75)
    assert (times.turns, times.last_turn_seconds) == (2, 0.75)
    assert dict(times.seconds) == {"verifying": 0.5, "delivering": 1.0}
    assert dict(times.failures) == {"verifying": 2, "delivering": 0}


def test_the_processes_that_are_kept_are_counted_with_their_own_children() -> None:
    script = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0); "
        "print('up', flush=True); child.wait()"
    )
    keeping = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert keeping.stdin is not None
    assert keeping.stdout is not None
    try:
        assert keeping.stdout.readline().strip() == "up"
        used = usage_by_process(keeping.pid)
        assert used.keys() == {"controller", "other"}
        assert used["controller"].resident_bytes > 1_000_000
    finally:
        keeping.stdin.close()
        keeping.wait(30)
        keeping.stdout.close()
    assert usage_by_process(keeping.pid) == {}
    assert usage_by_process()["controller"].cpu_seconds > 0
    assert os.getpid() != keeping.pid
