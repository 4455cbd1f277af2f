"""The questions about runs have right answers, through the file and through the socket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.samples import a_log, a_queue, a_run, an_event, at

from pilotage.telemetry.facts import DecisionFact, DeploymentFact, RunFact, StateType
from pilotage.telemetry.queries import fleet
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.site import site_facts
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.remembered import RememberedStore
from pilotage.telemetry.store.socket import SocketStore, StoreServer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


@pytest.fixture(params=["file", "socket"])
def reader(request: pytest.FixtureRequest, store: DuckDBStore, tmp_path: Path) -> Iterator[Store]:
    if request.param == "file":
        yield store
        return
    server = StoreServer(store, tmp_path / "s.sock")
    client = SocketStore(tmp_path / "s.sock")
    yield client
    client.close()
    server.close()


def test_failures_come_in_the_order_of_their_ends(store: DuckDBStore, reader: Store) -> None:
    crashed = a_run("crashed", StateType.CRASHED, ended=at(10))
    failed = a_run("failed", StateType.FAILED, ended=at(20))
    store.merge_runs(
        [
            failed,
            crashed,
            a_run("good", StateType.COMPLETED),
            a_run("retrying", StateType.SCHEDULED, ended=at(30)),
        ]
    )
    assert run_queries.failures_since(reader, at(0)) == [crashed, failed]
    assert run_queries.failures_since(reader, at(10)) == [failed]
    assert run_queries.run(reader, "failed") == failed
    assert run_queries.run(reader, "unheard-of") is None


def test_scheduled_runs_are_waiting_when_due_and_upcoming_before(store: DuckDBStore, reader: Store) -> None:
    scheduled = StateType.SCHEDULED
    store.merge_runs(
        [
            a_run("longest", scheduled, next_start=at(-60)),
            a_run("due", scheduled, next_start=at(-1)),
            a_run("soon", scheduled, next_start=at(30)),
            a_run("far", scheduled, next_start=at(300)),
            a_run("running", StateType.RUNNING),
        ]
    )
    assert [run.run_id for run in run_queries.waiting_runs(reader, at(0))] == ["longest", "due"]
    assert [run.run_id for run in run_queries.upcoming_runs(reader, at(0), timedelta(seconds=60))] == ["soon"]


def test_the_queue_snapshot_is_the_newest_snapshot_of_each_queue(store: DuckDBStore, reader: Store) -> None:
    store.add_queues(
        [a_queue(0, queue="gone"), a_queue(200), a_queue(200, queue="high", priority=0, waiting=1)]
    )
    store.add_queues([a_queue(205, waiting=3, oldest_due=at(100))])
    found = run_queries.queue_snapshots(reader)
    assert [(one.queue, one.waiting) for one in found] == [("high", 1), ("default", 3)]
    assert found[1] == a_queue(205, waiting=3, oldest_due=at(100))


def test_an_empty_store_has_no_queue_snapshot(reader: Store) -> None:
    assert run_queries.queue_snapshots(reader) == []


def test_the_last_lines_of_a_run_come_oldest_first(store: DuckDBStore, reader: Store) -> None:
    store.add_logs([a_log(number) for number in range(10)] + [a_log(99, run_id="other")])
    assert [line.message for line in run_queries.logs_of(reader, "r-1", 3)] == ["line 7", "line 8", "line 9"]


def test_a_worker_has_let_go_only_after_its_event(store: DuckDBStore, reader: Store) -> None:
    store.add_events([an_event(1, name="prefect.flow-run.Failed")])
    assert not run_queries.worker_released(reader, "r-1", at(0))
    store.add_events([an_event(5, name="prefect.worker.executed-flow-run")])
    assert run_queries.worker_released(reader, "r-1", at(1))
    assert not run_queries.worker_released(reader, "r-1", at(5))
    assert not run_queries.worker_released(reader, "other", at(0))


def test_a_run_leads_to_its_deployment(store: DuckDBStore, reader: Store) -> None:
    deployment = DeploymentFact(deployment_id="d-1", name="nightly", flow_name="etl", updated=at(0))
    store.merge_deployments([deployment])
    store.merge_runs([a_run(), a_run("alone", deployment_id=None)])
    assert run_queries.deployment_of(reader, "r-1") == deployment
    assert run_queries.deployment_of(reader, "alone") is None


def a_step(
    number: int, step: str, outcome: str, proposal: str = "p-1", run: str | None = "r-1"
) -> DecisionFact:
    return DecisionFact(
        decision_id=f"x-{number}",
        at=at(number),
        proposal_id=proposal,
        incident_id="i",
        run_id=run,
        step=step,
        action="retry_run",
        outcome=outcome,
    )


def test_recovery_is_counted_from_the_failure_to_the_completion(store: DuckDBStore, reader: Store) -> None:
    store.merge_runs([a_run("r-1", StateType.COMPLETED, ended=at(90)), a_run("r-2", StateType.FAILED)])
    store.add_events(
        [an_event(60, name="prefect.flow-run.Failed"), an_event(90, name="prefect.flow-run.Completed")]
    )
    steps = [
        a_step(61, "proposed", "proposed"),
        a_step(62, "judged", "allow"),
        a_step(63, "injected", "done"),
        a_step(91, "verified", "verified"),
        a_step(64, "proposed", "proposed", "p-2", "r-2"),
        a_step(65, "judged", "deny", "p-2", "r-2"),
    ]
    store.add_decisions(steps)
    found = run_queries.kpis(reader)
    assert found == run_queries.Kpis(
        ended=2,
        success_rate=0.5,
        proposed=2,
        injected=1,
        verified=1,
        recovered=1,
        recovery_p50=timedelta(seconds=30),
        recovery_p95=timedelta(seconds=30),
    )
    assert [step.step for step in run_queries.decisions_about(reader, "r-1")] == [
        "proposed",
        "judged",
        "injected",
        "verified",
    ]


def test_nothing_counted_is_none_and_not_a_number(reader: Store) -> None:
    found = run_queries.kpis(reader, at(0))
    assert (found.ended, found.success_rate, found.recovery_p50) == (0, None, None)


def test_a_deployment_is_seen_to_while_something_is_done_about_its_failures(
    store: DuckDBStore, reader: Store
) -> None:
    def of(deployment: str, state: StateType = StateType.FAILED, **changes: Any) -> RunFact:
        return a_run(f"r-{deployment}", state, deployment_id=deployment, **changes)

    store.merge_runs(
        [
            of("told", ended=at(60)),
            of("nobody's", ended=at(60)),
            of("just now", ended=at(95)),
            of("long ago", ended=at(5)),
            of("again", StateType.SCHEDULED, run_count=1, updated=at(80)),
            of("first time", StateType.SCHEDULED, run_count=0, updated=at(80)),
            of("good", StateType.COMPLETED, ended=at(99)),
        ]
    )
    store.add_decisions(
        [
            DecisionFact(
                decision_id=f"a-{number}",
                at=at(70),
                proposal_id=f"p-{number}",
                incident_id="i-1",
                run_id=run_id,
                step="proposed",
                action="retry_run",
                outcome="",
            )
            for number, run_id in enumerate(("r-told", "r-long ago", None))
        ]
    )
    assert fleet.seen_to_now(reader, since=at(10), fresh=at(90)) == {"told", "just now", "again"}


def test_of_which_deployments_a_run_has_failed(store: DuckDBStore, reader: Store) -> None:
    store.merge_runs(
        [
            a_run("r-1", StateType.COMPLETED, deployment_id="good"),
            a_run("r-2", StateType.RUNNING, deployment_id="running"),
            a_run("r-3", StateType.CRASHED, deployment_id="not asked about"),
            a_run("r-4", StateType.FAILED, deployment_id="bad"),
        ]
    )
    assert fleet.with_failed_runs(reader, {"good", "bad", "running", "unknown"}) == {"bad"}


def test_the_newest_ended_runs_of_several_deployments_are_one_statement(
    store: DuckDBStore, reader: Store
) -> None:
    for name in ("a", "b"):
        for number in range(3):
            store.merge_runs(
                [
                    a_run(
                        run_id=f"{name}{number}",
                        deployment_id=name,
                        state=StateType.FAILED,
                        ended=at(number),
                        updated=at(number),
                    )
                ]
            )
    found = fleet.last_ended_of(reader, ["a", "b", "none"], 2)
    assert {name: [run.run_id for run in runs] for name, runs in found.items()} == {
        name: [run.run_id for run in fleet.last_ended(reader, name, 2)] for name in ("a", "b")
    }
    assert [run.run_id for run in found["a"]] == ["a2", "a1"]
    assert fleet.last_ended_of(reader, [], 2) == {}


def test_who_speaks_for_a_deployment_is_its_newest_run_that_began(store: DuckDBStore, reader: Store) -> None:
    store.merge_runs(
        [
            a_run(run_id="before", deployment_id="a", created=at(0), started=at(1)),
            a_run(run_id="began", deployment_id="a", created=at(2), started=at(3)),
            # it may be deleted before anybody looks at it
            a_run(
                run_id="to come", state=StateType.SCHEDULED, deployment_id="a", created=at(9), started=None
            ),
        ]
    )
    assert site_facts(reader, at(10)).last_run == {"a": "began"}


def test_a_look_reads_each_statement_once_and_nobody_changes_what_another_reads(store: DuckDBStore) -> None:
    look = RememberedStore(store)
    sql = "SELECT run_id FROM runs WHERE deployment_id = ?"
    store.merge_runs([a_run(run_id="one", deployment_id="a")])
    look.rows(sql, ["a"])[0]["run_id"] = "changed"
    store.merge_runs([a_run(run_id="two", deployment_id="a")])
    assert look.rows(sql, ["a"]) == [{"run_id": "one"}]
    assert look.rows(sql, ["b"]) == []
    assert look.query(sql, ["a"]).num_rows == RememberedStore(store).query(sql, ["a"]).num_rows == 2
