"""Queues and crowds of the past: what the playbooks would have proposed about them, from telemetry alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.samples import a_queue, a_run

from pilotage.flows.config.paths import StatePaths
from pilotage.flows.replay.backtest import backtest
from pilotage.flows.replay.backtest_queues import queue_detections
from pilotage.planner.detect.ongoing import fingerprint_of
from pilotage.planner.findings import FailureClass
from pilotage.planner.parameters import PlaybookParameters
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, GUARDRAILS_FILE, Bundle
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.publishing import files_to_publish
from pilotage.telemetry.facts import DecisionFact, DeploymentFact, QueueFact, RunFact, StateType
from pilotage.telemetry.queries.history import failures_then
from pilotage.telemetry.store.duckdb import DuckDBStore

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
BEGUN = NOW - timedelta(days=20)
DEV, PROD = (f"{number}2222222-2222-4222-8222-222222222222" for number in (1, 2))
FEW = PlaybookParameters(blocked_runs=10)
FAULT = "Flow run infrastructure could not be started: no space left on device"


def minute(number: float) -> datetime:
    return NOW - timedelta(hours=10) + timedelta(minutes=number)


def run_id(number: int) -> str:
    return f"{number:08x}-1111-4111-8111-111111111111"


def run(number: int, deployment_id: str, state: StateType, due: float, **times: Any) -> RunFact:
    """A run that was due at a minute; `started` and `ended` are minutes too."""
    moments = {name: minute(value) for name, value in times.items() if name in ("started", "ended")}
    given: dict[str, Any] = {
        "started": None,
        "ended": None,
        "job_variables": {},
        "tags": (),
        **times,
        **moments,
    }
    return a_run(
        run_id(number),
        state,
        deployment_id=deployment_id,
        created=minute(-600),
        expected_start=minute(due),
        updated=NOW,
        auto_scheduled=True,
        **given,
    )


def queue(name: str, at: float, **changes: Any) -> QueueFact:
    return a_queue(at=minute(at), queue=name, pool_limit=2, **changes)


def starving(store: DuckDBStore) -> None:
    """For nine minutes the two slots belong to `high`, and a run in `low` waits."""
    for at in range(1, 10):
        store.add_queues(
            [
                queue("high", at, priority=1, running=2, waiting=3, oldest_due=minute(at)),
                queue("low", at, priority=2, waiting=1, oldest_due=minute(0)),
            ]
        )


def outage(store: DuckDBStore) -> None:
    """Six runs are due one after another, nothing starts for half an hour, then one does and the others wait on."""
    waited = [run(n, DEV, StateType.COMPLETED, n, started=60 + n, ended=70 + n) for n in range(1, 7)]
    again = run(50, PROD, StateType.COMPLETED, 29, started=30, ended=31)
    before = run(51, PROD, StateType.COMPLETED, -1, started=-1, ended=0)
    store.merge_runs([*waited, again, before])


def backlog(store: DuckDBStore) -> None:
    """Eleven runs wait together from minute 11 on, one more than the planner puts up with."""
    others = [run(90 + n, PROD, StateType.COMPLETED, n, started=n, ended=n + 1) for n in range(0, 40, 5)]
    many = [run(n, DEV, StateType.COMPLETED, n, started=30 + n, ended=40 + n) for n in range(1, 12)]
    store.merge_runs([*many, *others])


def sick(store: DuckDBStore) -> None:
    """Five runs of two deployments end in one fault of the platform, all within an hour."""
    store.merge_runs(
        [
            run(
                n,
                (DEV, PROD)[n % 2],
                StateType.CRASHED,
                n,
                ended=5 * n,
                state_message=FAULT,
                state_name="Crashed",
            )
            for n in range(1, 6)
        ]
    )
    store.add_queues([queue("default", 24.9)])


Fill = Callable[[DuckDBStore], object]
DETECTIONS: dict[str, tuple[Fill, str, float]] = {
    "starved": (starving, "queue:p/low", 6),
    "overdue": (outage, f"deployment:{DEV}", 30),
    "blocked": (backlog, f"deployment:{DEV}", 11),
    "unhealthy": (sick, "queue:p/default", 25),
}


@pytest.fixture
def place(tmp_path: Path) -> StatePaths:
    where = StatePaths(root=tmp_path)
    SqlLedger(f"sqlite:///{where.ledger}").close()
    store = DuckDBStore(where.telemetry)
    store.merge_deployments(
        [
            DeploymentFact(
                deployment_id=one,
                name=name,
                flow_name="etl",
                tags=tags,
                pool="p",
                queue=used,
                updated=minute(-600),
            )
            for one, name, tags, used in (
                (DEV, "dev", ("env:dev",), "high"),
                (PROD, "prod", ("env:prod",), "default"),
            )
        ]
    )
    store.close()
    return where


def filled(place: StatePaths, *fills: Fill) -> StatePaths:
    store = DuckDBStore(place.telemetry)
    for fill in fills:
        fill(store)
    store.close()
    return place


@cache
def under(numbers: str = "") -> Bundle:
    """The shipped policies with these guardrails."""
    return Bundle.of({**files_to_publish(DEFAULT_BUNDLE, None), GUARDRAILS_FILE: numbers}, Path("candidate"))


def report(place: StatePaths, numbers: str = "") -> dict[str, Any]:
    store, ledger = DuckDBStore(place.telemetry), SqlLedger(f"sqlite:///{place.ledger}")
    try:
        return backtest(store, ledger, current=under(), candidate=under(numbers), since=BEGUN, parameters=FEW)
    finally:
        store.close()
        ledger.close()


@pytest.mark.parametrize("name", DETECTIONS)
def test_each_trouble_is_found_once_and_at_the_minute_in_which_it_began(place: StatePaths, name: str) -> None:
    fill, subject, at = DETECTIONS[name]
    filled(place, fill)
    store = DuckDBStore(place.telemetry)
    try:
        (one,) = queue_detections(store, failures_then(store, BEGUN), {}, BEGUN, FEW)
    finally:
        store.close()
    assert (one.finding.failure_class.value, one.finding.subject) == (name, subject)
    assert one.now == minute(at)


def test_what_the_playbooks_would_have_proposed_is_judged(place: StatePaths) -> None:
    told = report(filled(place, starving, outage))
    assert told["standing"] == {"starved": 1, "unhealthy": 0, "overdue": 1, "blocked": 0}
    assert (told["failures"], told["proposals"], told["before"]["allowed"]) == (0, 2, 2)
    assert told["before"]["facts_missing"] == 0
    # another bundle would have stopped both, and the report says by which policy
    strict = report(place, "allowed_actions: [retry_run]\n")
    assert strict["moves"] == {"allow -> deny": 2}
    assert [one["kind"] for one in strict["changed"]] == ["reserve_slot", "spread_runs"]
    assert {tuple(one["policies_after"]) for one in strict["changed"]} == {("action-allowlist",)}
    assumed = " ".join(told["assumed"])
    assert "queues are as their snapshots tell" in assumed
    assert "not looked for in the past" in assumed


def test_a_sick_production_queue_would_have_asked_an_approver_and_told_the_owner(place: StatePaths) -> None:
    told = report(filled(place, sick))
    assert told["standing"]["unhealthy"] == 1
    assert told["failures"] == 5
    assert told["before"]["facts_missing"] == 0
    other = report(place, "allowed_actions: [retry_run]\n")
    held = next(one for one in other["changed"] if one["kind"] == "hold_queue")
    assert (held["target"], held["before"], held["after"]) == ("queue:p/default", "needs_approval", "deny")
    told_of = [one for one in other["changed"] if one["kind"] == "notify_owner"]
    assert {one["before"] for one in told_of} == {"allow"}


def test_what_completed_in_between_or_came_too_late_is_no_sick_queue(place: StatePaths) -> None:
    filled(place, sick)
    well = run(9, DEV, StateType.COMPLETED, 0, started=20, ended=22)
    filled(place, lambda store: store.merge_runs([well]))
    assert report(place)["standing"]["unhealthy"] == 0


def test_a_queue_that_was_held_or_not_seen_then_is_not_judged(place: StatePaths) -> None:
    filled(place, sick, lambda store: store.add_queues([queue("default", 24.95, paused=True)]))
    assert report(place)["standing"]["unhealthy"] == 0


def test_what_was_proposed_about_a_crowd_then_is_not_supposed_again(place: StatePaths) -> None:
    asked = DecisionFact(
        decision_id="a-1",
        at=minute(12),
        proposal_id="p-1",
        incident_id="i-1",
        run_id=None,
        step="proposed",
        action="spread_runs",
        outcome="",
        detail={"fingerprint": fingerprint_of(f"deployment:{DEV}", FailureClass.BLOCKED)},
    )
    told = report(filled(place, backlog, lambda store: store.add_decisions([asked])))
    assert (told["standing"]["blocked"], told["proposed_then"], told["proposals"]) == (1, 1, 0)
