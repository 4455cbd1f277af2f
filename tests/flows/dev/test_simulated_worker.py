"""Workers on the fake server: they take what is due, drive scripted processes over the clock, and report their ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilotage.flows.dev.fake_prefect import FakePrefect, FrozenClock
from pilotage.flows.dev.fake_prefect.records import Run
from pilotage.flows.dev.fake_prefect.workers import Script, SimulatedWorker, Step, completes, dies, fails

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def fake() -> FakePrefect:
    fake = FakePrefect(FrozenClock(datetime(2027, 3, 1, 12, tzinfo=UTC)))
    fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})
    return fake


def deployment(fake: FakePrefect, **more: Any) -> dict[str, Any]:
    flow = fake.ask("POST", "/flows/", {"name": "flow"})
    body = {"name": "d", "flow_id": flow["id"], "work_pool_name": "pool", **more}
    return dict(fake.ask("POST", "/deployments/", body))


def started(fake: FakePrefect, of: dict[str, Any], **more: Any) -> Run:
    made = fake.ask("POST", f"/deployments/{of['id']}/create_flow_run", more)
    return fake.tables.runs[made["id"]]


def names(run: Run) -> list[str]:
    return [state.name for state in run.states]


def events(fake: FakePrefect, prefix: str) -> list[str]:
    return [event["event"] for event in fake.tables.events.values() if event["event"].startswith(prefix)]


def always(*steps: Step) -> Script:
    return lambda run: steps


def test_a_run_is_taken_driven_and_reported(fake: FakePrefect) -> None:
    SimulatedWorker(server=fake, pool="pool", script=always(*completes(MINUTE)))
    run = started(fake, deployment(fake))
    fake.advance(5 * MINUTE)
    assert names(run) == ["Scheduled", "Pending", "Running", "Completed"]
    assert run.total_run_time == MINUTE
    assert events(fake, "prefect.worker.") == [
        "prefect.worker.submitted-flow-run",
        "prefect.worker.executed-flow-run",
    ]


def test_a_killed_process_is_called_crashed_by_its_worker_and_tried_again_in_place(fake: FakePrefect) -> None:
    def script(run: Run) -> Sequence[Step]:
        return dies(MINUTE) if run.run_count == 1 else completes(MINUTE)

    SimulatedWorker(server=fake, pool="pool", script=script)
    run = started(fake, deployment(fake))
    fake.advance(3 * MINUTE)
    assert run.state.message == "Flow run process exited with non-zero status code -9."
    again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
    fake.ask("POST", f"/flow_runs/{run.id}/set_state", again)
    fake.advance(3 * MINUTE)
    assert names(run)[-4:] == ["AwaitingRetry", "Pending", "Running", "Completed"]
    assert run.run_count == 2


def test_a_worker_that_died_with_its_process_reports_nothing(fake: FakePrefect) -> None:
    worker = SimulatedWorker(server=fake, pool="pool", script=always(*completes(MINUTE)))
    run = started(fake, deployment(fake))
    fake.advance(20 * SECOND)
    worker.kill()
    fake.advance(10 * MINUTE)
    assert run.state.type == "RUNNING"
    (seen,) = fake.ask("POST", "/work_pools/pool/workers/filter", {})
    assert seen["status"] == "OFFLINE"


def test_a_flow_that_retries_itself_keeps_its_process(fake: FakePrefect) -> None:
    def script(run: Run) -> Sequence[Step]:
        return fails(MINUTE, "ValueError: no") if run.run_count == 1 else completes(MINUTE)

    worker = SimulatedWorker(server=fake, pool="pool", script=script)
    run = started(fake, deployment(fake), empirical_policy={"retries": 1, "retry_delay": 60})
    fake.advance(90 * SECOND)
    assert run.state.name == "AwaitingRetry"
    assert run.id in worker.processes
    fake.advance(5 * MINUTE)
    assert names(run) == ["Scheduled", "Pending", "Running", "AwaitingRetry", "Running", "Completed"]
    assert fake.tables.logs[run.id][0]["message"].endswith("ValueError: no")


def test_a_run_is_cancelled_by_its_worker(fake: FakePrefect) -> None:
    SimulatedWorker(server=fake, pool="pool", script=always(*completes(60 * MINUTE)))
    run = started(fake, deployment(fake))
    fake.advance(MINUTE)
    fake.ask("POST", f"/flow_runs/{run.id}/set_state", {"state": {"type": "CANCELLING"}})
    fake.advance(MINUTE)
    assert names(run)[-2:] == ["Cancelling", "Cancelled"]
    assert events(fake, "prefect.worker.executed") == ["prefect.worker.executed-flow-run"]


def test_without_a_worker_prefect_ends_the_cancelling_itself(fake: FakePrefect) -> None:
    run = started(fake, deployment(fake))
    for type_ in ("PENDING", "RUNNING", "CANCELLING"):
        fake.ask("POST", f"/flow_runs/{run.id}/set_state", {"state": {"type": type_}})
    fake.advance(299 * SECOND)
    assert run.state.type == "CANCELLING"
    fake.advance(2 * SECOND)
    assert run.state.type == "CANCELLED"


def test_a_suspended_process_ends_at_its_next_task(fake: FakePrefect) -> None:
    script = always(Step(after=MINUTE), Step(after=MINUTE), *completes(MINUTE))
    worker = SimulatedWorker(server=fake, pool="pool", script=script)
    run = started(fake, deployment(fake))
    fake.advance(MINUTE)
    details = {"pause_reschedule": True, "pause_timeout": "2027-03-01T18:00:00Z"}
    paused = {"type": "PAUSED", "name": "Suspended", "state_details": details}
    fake.ask("POST", f"/flow_runs/{run.id}/set_state", {"state": paused})
    fake.advance(5 * MINUTE)
    assert not worker.processes
    fake.ask("POST", f"/flow_runs/{run.id}/resume", {})
    fake.advance(10 * MINUTE)
    assert run.state.type == "COMPLETED"
    assert run.run_count == 1


def test_a_queue_is_starved_by_the_one_before_it(fake: FakePrefect) -> None:
    fake.ask("POST", "/work_pools/pool/queues", {"name": "low"})
    fake.ask("PATCH", "/work_pools/pool", {"concurrency_limit": 1})
    high = deployment(fake)
    low = deployment(fake, name="e", work_queue_name="low")
    starved = started(fake, low)
    for _ in range(3):
        started(fake, high)
    SimulatedWorker(server=fake, pool="pool", script=always(*completes(MINUTE)))
    fake.advance(3 * MINUTE)
    assert starved.state.name == "Late"
    fake.advance(3 * MINUTE)
    assert starved.state.type == "COMPLETED"


def test_a_lease_that_lapsed_while_a_run_started_is_taken_again(fake: FakePrefect) -> None:
    SimulatedWorker(
        server=fake, pool="pool", script=always(*completes(MINUTE)), start_up=timedelta(seconds=400)
    )
    of = deployment(fake, concurrency_limit=1)
    run = started(fake, of)
    limit = fake.tables.limit_of_deployment(of["id"])
    assert limit is not None
    fake.advance(350 * SECOND)
    assert limit["active_slots"] == 0, "Prefect's service has taken the slot back"
    fake.advance(100 * SECOND)
    assert run.state.type == "RUNNING"
    assert limit["active_slots"] == 1
    fake.advance(MINUTE)
    assert (run.state.type, limit["active_slots"]) == ("COMPLETED", 0)


def test_a_schedule_runs_for_a_week(fake: FakePrefect) -> None:
    hourly = {"schedule": {"interval": 3600, "anchor_date": "2027-03-01T00:30:00Z"}}
    of = deployment(fake, schedules=[hourly])
    SimulatedWorker(server=fake, pool="pool", script=always(*completes(MINUTE)))
    fake.advance(timedelta(days=7))
    done = [run for run in fake.tables.by_deployment[of["id"]].values() if run.state.type == "COMPLETED"]
    assert len(done) == 7 * 24
    assert all("Late" not in names(run) for run in done)


def test_thousands_of_runs_end_each_once(fake: FakePrefect) -> None:
    def script(run: Run) -> Sequence[Step]:
        fault = run.parameters["number"] % 2
        return fails(MINUTE, "ConnectError: refused") if fault else completes(MINUTE)

    of = deployment(fake)
    SimulatedWorker(server=fake, pool="pool", script=script)
    runs = [started(fake, of, parameters={"number": number}) for number in range(2000)]
    fake.advance(20 * MINUTE)
    assert [run.state.type for run in runs] == ["COMPLETED", "FAILED"] * 1000
    assert all(names(run).count("Running") == 1 for run in runs)
