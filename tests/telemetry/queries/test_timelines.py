"""What pictures are drawn from: runs over a stretch of time, and the states and tasks of one run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.telemetry.samples import a_run, a_task_run, an_event, at

from pilotage.telemetry.facts import EventFact, StateType
from pilotage.telemetry.queries.timelines import runs_between, states_of, tasks_of
from pilotage.telemetry.store.duckdb import DuckDBStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    found = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield found
    found.close()


def entered(number: int, type_: str, name: str, **changes: str) -> EventFact:
    state = {"validated_state": {"type": type_, "name": name}}
    return an_event(number, name=f"prefect.flow-run.{name}", payload=state, **changes)


def test_the_states_of_a_run_are_told_with_their_types_and_nothing_else_is(store: DuckDBStore) -> None:
    store.add_events(
        [
            entered(3, "SCHEDULED", "AwaitingRetry"),
            entered(1, "RUNNING", "Running"),
            entered(2, "FAILED", "TimedOut"),
            an_event(4, name="prefect.flow-run.heartbeat", payload={}),
            an_event(
                5, name="pilotage.verified", payload={"validated_state": {"type": "RUNNING", "name": "no"}}
            ),
            entered(6, "RUNNING", "Running", run_id="r-2"),
        ]
    )
    found = [(each.at, each.type, each.name) for each in states_of(store, "r-1")]
    assert found == [
        (at(1), "RUNNING", "Running"),
        (at(2), "FAILED", "TimedOut"),
        (at(3), "SCHEDULED", "AwaitingRetry"),
    ]


def test_runs_that_ended_before_or_are_due_much_later_are_left_out(store: DuckDBStore) -> None:
    waiting = {"started": None, "ended": None}
    store.merge_runs(
        [
            a_run("long-over", started=at(-9000), ended=at(-8000)),
            a_run("ended-inside", started=at(-9000), ended=at(10)),
            a_run("still-running", StateType.RUNNING, started=at(20)),
            a_run("crashed-before-it-started", StateType.CRASHED, started=None, ended=at(30)),
            a_run("due-soon", StateType.SCHEDULED, next_start=at(200), **waiting),
            a_run("due-tomorrow", StateType.SCHEDULED, next_start=at(86400), **waiting),
        ]
    )
    found = [run.run_id for run in runs_between(store, at(0), at(100))]
    assert found == ["ended-inside", "still-running", "crashed-before-it-started", "due-soon"]


def test_the_tasks_that_started_come_in_that_order(store: DuckDBStore) -> None:
    store.merge_task_runs(
        [a_task_run(1, started=at(5)), a_task_run(2, started=at(2)), a_task_run(3, started=None)]
    )
    assert [task.task_run_id for task in tasks_of(store, "r-1")] == ["t-2", "t-1"]
