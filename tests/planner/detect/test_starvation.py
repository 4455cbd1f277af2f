"""Trouble that is no failure: starved queues, runs at risk, near deadlines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pilotage.planner.detect.starvation import at_risk_runs, late_runs, starved_queues
from pilotage.planner.parameters import PlaybookParameters

P = PlaybookParameters()
OTHER = "99999999-1111-4111-8111-111111111111"


def _floor(make: Any, busy: dict[str, Any] | None = None, starved: dict[str, Any] | None = None) -> list[Any]:
    long_ago = make.now - P.starved_after - timedelta(seconds=1)
    return [
        make.queue("fast", 1, **({"running": 2, "waiting": 3} | (busy or {}))),
        make.queue("slow", 5, **({"waiting": 1, "oldest_due": long_ago} | (starved or {}))),
    ]


def test_a_due_run_behind_a_queue_that_holds_every_slot_is_starved(make: Any) -> None:
    [finding] = starved_queues(_floor(make), make.now, P)
    assert finding.subject == "queue:pool/slow"
    assert finding.failure_class == "starved"
    assert [finding.incident_id] == [f.incident_id for f in starved_queues(_floor(make), make.now, P)]


@pytest.mark.parametrize(
    ("busy", "starved"),
    [
        ({"running": 1}, {}),
        ({"waiting": 0}, {}),
        ({"priority": 9}, {}),
        ({"pool": "elsewhere"}, {}),
        ({}, {"waiting": 0}),
        ({}, {"paused": True}),
        ({}, {"pool_limit": None}),
    ],
    ids=[
        "a slot is free",
        "nobody else waits",
        "lower priority",
        "other pool",
        "empty",
        "paused",
        "no limit",
    ],
)
def test_a_queue_that_waits_for_another_reason_is_not_starved(
    make: Any, busy: dict[str, Any], starved: dict[str, Any]
) -> None:
    assert starved_queues(_floor(make, busy, starved), make.now, P) == []


def test_a_queue_that_has_not_waited_long_is_not_starved(make: Any) -> None:
    assert starved_queues(_floor(make, None, {"oldest_due": make.now}), make.now, P) == []


def test_a_run_with_a_bad_forecast_is_at_risk_and_the_inverted_forecast_is_not(make: Any) -> None:
    run = make.upcoming(600)
    [finding] = at_risk_runs([run], {run.run_id: make.forecast(0.9)}, make.now, P)
    assert finding.by == "forecast"
    assert at_risk_runs([run], {run.run_id: make.forecast(0.1)}, make.now, P) == []


@pytest.mark.parametrize("seconds", [-30, 5, 100_000])
def test_a_run_out_of_reach_is_not_at_risk(make: Any, seconds: int) -> None:
    run = make.upcoming(seconds)
    assert at_risk_runs([run], {run.run_id: make.forecast(0.9)}, make.now, P) == []


def test_a_retry_that_waits_is_not_held_back_as_at_risk(make: Any) -> None:
    run = make.upcoming(600, run_count=1, state_name="AwaitingRetry")
    assert at_risk_runs([run], {run.run_id: make.forecast(0.9)}, make.now, P) == []


def test_a_run_is_held_back_once_however_often_it_is_moved(make: Any) -> None:
    before, after = make.upcoming(600), make.upcoming(1200, state_id="another")
    forecasts = {before.run_id: make.forecast(0.9)}
    [one], [two] = (at_risk_runs([run], forecasts, make.now, P) for run in (before, after))
    assert one.incident_id == two.incident_id


def _late(make: Any, minutes: float) -> Any:
    deadline = make.now + timedelta(minutes=minutes)
    return make.upcoming(-10, tags=(f"deadline:{deadline.isoformat()}",))


def test_a_waiting_run_with_a_near_deadline_and_others_ahead_is_late(make: Any) -> None:
    run, ahead = _late(make, 20), make.upcoming(-60, run_id=OTHER)
    [finding] = late_runs([run, ahead], {}, make.now, P)
    assert finding.subject == f"run:{run.run_id}"


def test_a_run_is_not_late_when_it_is_first_or_far_or_past_its_deadline(make: Any) -> None:
    ahead, behind = make.upcoming(-60, run_id=OTHER), make.upcoming(-5, run_id=OTHER)
    assert late_runs([_late(make, 20), behind], {}, make.now, P) == []
    assert late_runs([_late(make, 600), ahead], {}, make.now, P) == []
    assert late_runs([_late(make, -1), ahead], {}, make.now, P) == []
    elsewhere = make.upcoming(-60, run_id=OTHER, queue="other")
    assert late_runs([_late(make, 20), elsewhere], {}, make.now, P) == []
