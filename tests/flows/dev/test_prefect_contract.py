"""One contract, two servers: the fake Prefect that is shipped answers as the real one does.

Each scenario is a function of a `Side` and holds on both. On the fake the clock is moved where one waits on the real.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.conftest import PrefectServer

from pilotage.flows.dev.fake_prefect import API_URL, ROUTES, FakePrefect, FrozenClock

NOBODY = "00000000-0000-4000-8000-000000000000"
HOUR, NOW = timedelta(hours=1), timedelta(0)


@dataclass(slots=True, kw_only=True)
class Side:
    """A server that is asked over HTTP."""

    http: httpx.Client
    fake: FakePrefect | None = None

    def ask(self, method: str, path: str, body: Any = None, *, status: int | tuple[int, ...] = ()) -> Any:
        """Return what the server answered, as JSON; fails when the status is another than was expected."""
        for _ in range(50):
            answer = self.http.request(method, path, json=body)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(0.2)  # SQLite beside others who write; the fake is never busy
        expected = (status,) if isinstance(status, int) else status or (200, 201, 204)
        assert answer.status_code in expected, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def now(self) -> datetime:
        """The time at the server."""
        return self.fake.clock.now() if self.fake else datetime.now(UTC)

    def eventually(self, look: Callable[[], Any], *, within: float = 60.0) -> Any:
        """Return the first true answer; time passes between two looks."""
        deadline = time.monotonic() + within
        for _ in range(1000):
            if found := look():
                return found
            if self.fake:
                self.fake.advance(timedelta(seconds=1))
            else:
                assert time.monotonic() < deadline, "it did not happen"
                time.sleep(0.2)
        raise AssertionError("it did not happen")

    # -- setting a scene

    def pool(self, *queues: str, **more: Any) -> str:
        """A new pool with these queues besides `default`."""
        name = f"contract-{uuid4().hex[:8]}"
        self.ask("POST", "/work_pools/", {"name": name, "type": "process", **more})
        for queue in queues:
            self.ask("POST", f"/work_pools/{name}/queues", {"name": queue})
        return name

    def deployment(self, pool: str = "", **more: Any) -> dict[str, Any]:
        """A new deployment."""
        flow = self.ask("POST", "/flows/", {"name": f"flow-{uuid4().hex[:8]}"})
        body = {"name": "d", "flow_id": flow["id"], "work_pool_name": pool or self.pool(), **more}
        return dict(self.ask("POST", "/deployments/", body))

    def run(self, deployment: Mapping[str, Any], *path: str, due: timedelta = NOW, **more: Any) -> str:
        """A new run that went through these types of state."""
        at = (self.now() + due).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}
        route = f"/deployments/{deployment['id']}/create_flow_run"
        run_id = str(self.ask("POST", route, {"state": state, **more})["id"])
        for type_ in path:
            moved = self.propose(run_id, type_)
            assert moved["status"] == "ACCEPT", moved
        return run_id

    def propose(self, run_id: str, type_: str, *, force: bool = False, **state: Any) -> dict[str, Any]:
        """What was said to a proposed state."""
        body = {"state": {"type": type_, **state}, "force": force}
        return dict(self.ask("POST", f"/flow_runs/{run_id}/set_state", body))

    def read(self, run_id: str) -> dict[str, Any]:
        """A run."""
        return dict(self.ask("GET", f"/flow_runs/{run_id}"))

    def names(self, run_id: str) -> list[str]:
        """The names of the states that a run was in, oldest first."""
        states = self.ask("GET", f"/flow_run_states/?flow_run_id={run_id}")
        return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]


def reason(answer: Mapping[str, Any]) -> str:
    return str(answer["details"].get("reason") or "")


def moment(text: str | None) -> datetime:
    assert text is not None
    return datetime.fromisoformat(text)


# -- states ---------------------------------------------------------------------------------------------------

PATHS: Mapping[str, tuple[str, ...]] = {
    "SCHEDULED": (),
    "PENDING": ("PENDING",),
    "RUNNING": ("PENDING", "RUNNING"),
    "PAUSED": ("PENDING", "RUNNING", "PAUSED"),
    "CANCELLING": ("PENDING", "RUNNING", "CANCELLING"),
    "COMPLETED": ("PENDING", "RUNNING", "COMPLETED"),
    "FAILED": ("PENDING", "RUNNING", "FAILED"),
    "CRASHED": ("PENDING", "RUNNING", "CRASHED"),
    "CANCELLED": ("PENDING", "RUNNING", "CANCELLED"),
}
"""How a run comes into each type of state."""

RULINGS = """
from        SCHEDULED PENDING RUNNING PAUSED CANCELLING COMPLETED FAILED CRASHED CANCELLED
SCHEDULED   ACCEPT    ACCEPT  ACCEPT  REJECT REJECT     ACCEPT    ACCEPT ACCEPT  ACCEPT
PENDING     ACCEPT    ABORT   ACCEPT  REJECT ACCEPT     ACCEPT    ACCEPT ACCEPT  ACCEPT
RUNNING     ACCEPT    ABORT   ACCEPT  ACCEPT ACCEPT     ACCEPT    ACCEPT ACCEPT  ACCEPT
PAUSED      ACCEPT    REJECT  ACCEPT  REJECT ACCEPT     ACCEPT    ACCEPT ACCEPT  ACCEPT
CANCELLING  REJECT    REJECT  REJECT  REJECT REJECT     REJECT    REJECT REJECT  ACCEPT
COMPLETED   ACCEPT    ACCEPT  ACCEPT  ABORT  ABORT      ACCEPT    ACCEPT ABORT   ACCEPT
FAILED      ACCEPT    ACCEPT  ACCEPT  ABORT  ABORT      ACCEPT    ACCEPT ABORT   ACCEPT
CRASHED     ACCEPT    ACCEPT  ACCEPT  ABORT  ABORT      ACCEPT    ACCEPT ABORT   ACCEPT
CANCELLED   ACCEPT    ABORT   ACCEPT  ABORT  ABORT      ACCEPT    ACCEPT ABORT   ACCEPT
"""
"""What Prefect says to each type of state that is proposed to a run in each, without force."""


def grid() -> Iterator[tuple[str, str, str]]:
    """Yield (from, to, ruling)."""
    head, *rows = [line.split() for line in RULINGS.strip().splitlines()]
    for row in rows:
        for to, ruling in zip(head[1:], row[1:], strict=True):
            yield row[0], to, ruling


def every_transition_is_ruled_as_the_grid_says(side: Side) -> None:
    deployment = side.deployment()
    wrong = []
    for start, to, ruling in grid():
        run_id = side.run(deployment, *PATHS[start])
        before = side.read(run_id)["state_id"]
        answer = side.propose(run_id, to)
        after = side.read(run_id)
        if answer["status"] != ruling:
            wrong.append((start, to, answer["status"], reason(answer)))
        if ruling == "ACCEPT":
            assert after["state_type"] == to
        elif (start, to) == ("SCHEDULED", "CANCELLING"):
            assert after["state_type"] == "CANCELLED"
        else:
            assert after["state_id"] == before
    assert not wrong


def a_refusal_says_why_in_prefects_words(side: Side) -> None:
    deployment = side.deployment()
    said = {
        ("COMPLETED", "CRASHED"): "Run is already in terminal state COMPLETED.",
        ("RUNNING", "PENDING"): "This run is in a RUNNING state and cannot transition to a PENDING state.",
        ("SCHEDULED", "PAUSED"): "Cannot pause flows that are not currently running.",
        ("SCHEDULED", "CANCELLING"): "Scheduled flow run has no infrastructure to terminate.",
        (
            "CANCELLING",
            "FAILED",
        ): "Cannot transition flows that are cancelling to a state other than Cancelled.",
    }
    for (start, to), words in said.items():
        assert reason(side.propose(side.run(deployment, *PATHS[start]), to)) == words


def force_takes_what_is_otherwise_refused(side: Side) -> None:
    deployment = side.deployment()
    for start, to in (("RUNNING", "PENDING"), ("COMPLETED", "CRASHED"), ("COMPLETED", "PAUSED")):
        assert side.propose(side.run(deployment, *PATHS[start]), to, force=True)["status"] == "ACCEPT"
    scheduled = side.run(deployment)
    assert side.propose(scheduled, "CANCELLING", force=True)["status"] == "REJECT"
    assert side.read(scheduled)["state_type"] == "CANCELLED"


def nothing_runs_before_it_is_due(side: Side) -> None:
    run_id = side.run(side.deployment(), "PENDING", due=HOUR)
    answer = side.propose(run_id, "RUNNING")
    assert answer["status"] == "WAIT"
    assert 3500 < answer["details"]["delay_seconds"] <= 3600
    assert side.read(run_id)["state_type"] == "PENDING"


def a_scheduled_run_is_moved_by_scheduling_it_again(side: Side) -> None:
    run_id = side.run(side.deployment(), due=HOUR)
    at = (side.now() + 3 * HOUR).replace(microsecond=0)
    moved = side.propose(run_id, "SCHEDULED", state_details={"scheduled_time": at.isoformat()})
    assert moved["status"] == "ACCEPT"
    run = side.read(run_id)
    assert moment(run["next_scheduled_start_time"]) == at
    assert moment(run["expected_start_time"]) < at
    assert side.names(run_id) == ["Scheduled", "Scheduled"]


def a_transition_id_is_kept_and_taken_once(side: Side) -> None:
    run_id, idempotency_key = side.run(side.deployment()), str(uuid4())
    details = {"transition_id": idempotency_key, "scheduled_time": (side.now() + HOUR).isoformat()}
    assert side.propose(run_id, "SCHEDULED", state_details=details)["status"] == "ACCEPT"
    again = side.propose(run_id, "SCHEDULED", state_details=details)
    assert again["status"] == "REJECT"
    assert reason(again) == "This run has already made this state transition."
    assert again["state"]["state_details"]["transition_id"] == idempotency_key
    assert len(side.names(run_id)) == 2


def what_a_run_counts_follows_its_states(side: Side) -> None:
    run_id = side.run(side.deployment(), "PENDING", "RUNNING", "FAILED")
    failed = side.read(run_id)
    assert failed["run_count"] == 1
    assert failed["end_time"] == failed["state"]["timestamp"]
    assert failed["next_scheduled_start_time"] is None
    side.propose(run_id, "SCHEDULED", name="AwaitingRetry")
    waiting = side.read(run_id)
    assert waiting["end_time"] is None
    assert waiting["start_time"] == failed["start_time"]
    assert waiting["next_scheduled_start_time"] is not None
    assert waiting["empirical_policy"]["retry_type"] == "reschedule"
    for type_ in ("PENDING", "RUNNING", "COMPLETED"):
        side.propose(run_id, type_)
    done = side.read(run_id)
    assert done["run_count"] == 2
    assert side.names(run_id) == [
        *("Scheduled", "Pending", "Running", "Failed", "AwaitingRetry", "Pending", "Running", "Completed")
    ]


def a_failure_is_retried_in_its_process_while_retries_are_left(side: Side) -> None:
    run_id = side.run(
        side.deployment(), "PENDING", "RUNNING", empirical_policy={"retries": 1, "retry_delay": 30}
    )
    answer = side.propose(run_id, "FAILED", message="boom")
    assert (answer["status"], reason(answer)) == ("REJECT", "Retrying")
    run = side.read(run_id)
    assert (run["state_name"], run["state"]["message"]) == ("AwaitingRetry", "boom")
    assert run["empirical_policy"]["retry_type"] == "in_process"
    assert side.propose(run_id, "RUNNING")["status"] == "WAIT"
    assert side.propose(run_id, "RUNNING", force=True)["status"] == "ACCEPT"
    assert side.propose(run_id, "FAILED")["status"] == "ACCEPT"
    assert side.read(run_id)["empirical_policy"]["retry_type"] is None


def a_pause_and_a_suspension(side: Side) -> None:
    deployment = side.deployment()
    paused = side.run(deployment, *PATHS["RUNNING"])
    side.propose(paused, "PAUSED", state_details={"pause_timeout": (side.now() + HOUR).isoformat()})
    assert side.ask("POST", f"/flow_runs/{paused}/resume", {})["state"]["type"] == "RUNNING"
    # it counts as another attempt, though it is the same process
    assert side.read(paused)["run_count"] == 2
    assert side.ask("POST", f"/flow_runs/{paused}/resume", {})["status"] == "ABORT"
    suspended = side.run(deployment, *PATHS["RUNNING"])
    details = {"pause_timeout": (side.now() + HOUR).isoformat(), "pause_reschedule": True}
    side.propose(suspended, "PAUSED", name="Suspended", state_details=details)
    assert side.ask("POST", f"/flow_runs/{suspended}/resume", {})["state"]["name"] == "Resuming"
    for type_ in ("PENDING", "RUNNING"):
        side.propose(suspended, type_)
    assert side.read(suspended)["run_count"] == 1
    again = side.run(deployment, *PATHS["RUNNING"])
    side.propose(again, "PAUSED", name="Suspended", state_details=details)
    assert side.propose(again, "CANCELLING")["status"] == "REJECT"
    assert side.read(again)["state_type"] == "CANCELLED"


def a_pause_that_nobody_ends_fails(side: Side) -> None:
    run_id = side.run(side.deployment(), *PATHS["RUNNING"])
    soon = {"pause_timeout": (side.now() + timedelta(seconds=1)).isoformat()}
    side.propose(run_id, "PAUSED", state_details=soon)
    side.eventually(lambda: side.read(run_id)["state_type"] == "FAILED")
    assert side.read(run_id)["state"]["message"] == "The flow was paused and never resumed."


def a_run_that_nobody_takes_becomes_late(side: Side) -> None:
    run_id = side.run(side.deployment(), due=-HOUR)
    before = side.read(run_id)
    side.eventually(lambda: side.read(run_id)["state_name"] == "Late")
    late = side.read(run_id)
    assert late["next_scheduled_start_time"] == before["next_scheduled_start_time"]
    assert late["state_type"] == "SCHEDULED"
    assert reason(side.propose(run_id, "SCHEDULED", name="Late")) == "This flow run is already marked late."


def states_are_set_in_bulk_where_the_guard_holds(side: Side) -> None:
    deployment, idempotency_key = side.deployment(), str(uuid4())
    waiting, running = side.run(deployment, due=HOUR), side.run(deployment, *PATHS["RUNNING"])

    def bulk(type_: str, **where: Any) -> list[dict[str, Any]]:
        ids = {"id": {"any_": [waiting, running]}}
        state = {"type": type_, "state_details": {"transition_id": idempotency_key}}
        body = {"flow_runs": {**ids, **where}, "state": state, "limit": 50}
        return list(side.ask("POST", "/flow_runs/bulk_set_state", body)["results"])

    only = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    later = (side.now() + 2 * HOUR).isoformat()
    assert bulk("CANCELLED", **only, next_scheduled_start_time={"after_": later}) == []
    (result,) = bulk("CANCELLED", **only)
    assert (result["flow_run_id"], result["status"]) == (waiting, "ACCEPT")
    assert result["state"]["state_details"]["transition_id"] == idempotency_key
    assert side.read(running)["state_type"] == "RUNNING"
    assert bulk("CANCELLED", **only) == []


def a_bulk_is_at_most_fifty_and_knows_its_fields(side: Side) -> None:
    state = {"type": "CANCELLED"}
    bad: list[dict[str, Any]] = [{"limit": 51}, {"limit": 0}, {"flow_runs": {"none_such": {"any_": []}}}]
    for body in bad:
        side.ask("POST", "/flow_runs/bulk_set_state", {"state": state, **body}, status=422)


def a_child_is_found_by_its_parent_and_cancelled_with_it(side: Side) -> None:
    deployment = side.deployment()
    parent = side.run(deployment, *PATHS["RUNNING"])
    link = {"flow_run_id": parent, "task_key": "t", "dynamic_key": "0", "state": {"type": "RUNNING"}}
    task = side.ask("POST", "/task_runs/", link)
    child = side.run(deployment, due=HOUR, parent_task_run_id=task["id"])
    found = side.ask("POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [parent]}}})
    assert [run["id"] for run in found] == [child]
    side.propose(parent, "CANCELLED")
    side.eventually(lambda: side.read(child)["state_type"] == "CANCELLED")


# -- runs -----------------------------------------------------------------------------------------------------


def one_idempotency_key_is_one_run(side: Side) -> None:
    deployment, key = side.deployment(parameters={"a": 1, "b": 1}, tags=["x"]), str(uuid4())
    route = f"/deployments/{deployment['id']}/create_flow_run"
    body = {"idempotency_key": key, "parameters": {"b": 2}, "tags": ["y"]}
    first = side.ask("POST", route, body, status=201)
    assert side.ask("POST", route, {"idempotency_key": key}, status=200)["id"] == first["id"]
    assert first["parameters"] == {"a": 1, "b": 2}
    assert sorted(first["tags"]) == ["x", "y"]
    assert first["state_type"] == "SCHEDULED"
    found = side.ask("POST", "/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": [key]}}})
    assert [run["id"] for run in found] == [first["id"]]
    own = side.ask("POST", "/flow_runs/", {"flow_id": deployment["flow_id"], "idempotency_key": key})
    assert own["id"] == first["id"]


def a_run_without_a_deployment_is_never_scheduled_again(side: Side) -> None:
    flow_id = side.deployment()["flow_id"]
    run = side.ask("POST", "/flow_runs/", {"flow_id": flow_id}, status=201)
    assert run["state_type"] == "PENDING"
    for type_ in ("RUNNING", "FAILED"):
        side.propose(run["id"], type_)
    answer = side.propose(run["id"], "SCHEDULED")
    assert (answer["status"], reason(answer)) == (
        "ABORT",
        "Cannot reschedule a run without an associated deployment.",
    )


def a_run_is_changed_field_by_field(side: Side) -> None:
    run_id = side.run(side.deployment(), due=HOUR)
    route = f"/flow_runs/{run_id}"
    side.ask("PATCH", route, {"parameters": {"size": 7}}, status=204)
    side.ask("PATCH", route, {"empirical_policy": {"retries": 3}}, status=204)
    side.ask("PATCH", route, {"name": "renamed", "tags": ["t"]}, status=204)
    side.ask("PATCH", route, {"job_variables": {"memory_mb": 64, "x": 1}}, status=204)
    side.ask("PATCH", route, {"job_variables": {"memory_mb": 128}}, status=204)
    side.ask("PATCH", f"{route}/labels", {"a": "1"}, status=204)
    side.ask("PATCH", f"{route}/labels", {"b": 2}, status=204)
    run = side.read(run_id)
    assert run["parameters"] == {"size": 7}
    assert run["empirical_policy"]["retries"] == 3
    assert (run["name"], run["tags"]) == ("renamed", ["t"])
    assert run["job_variables"] == {"memory_mb": 128}
    assert {"a": "1", "b": 2}.items() <= run["labels"].items()
    side.ask("PATCH", route, {"none_such": 1}, status=422)


def job_variables_change_only_while_a_run_is_scheduled(side: Side) -> None:
    deployment = side.deployment()
    for path in (PATHS["PENDING"], PATHS["RUNNING"], PATHS["FAILED"]):
        run_id = side.run(deployment, *path)
        answer = side.ask("PATCH", f"/flow_runs/{run_id}", {"job_variables": {"a": 1}}, status=400)
        assert answer["detail"] == f"Job variables for a flow run in state {path[-1]} cannot be updated"


def runs_are_listed_by_page_and_order(side: Side) -> None:
    deployment = side.deployment()
    runs = [side.run(deployment, due=timedelta(hours=hours)) for hours in (3, 1, 2)]
    where = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}

    def listed(**more: Any) -> list[str]:
        return [run["id"] for run in side.ask("POST", "/flow_runs/filter", {**where, **more})]

    assert listed(sort="NEXT_SCHEDULED_START_TIME_ASC") == [runs[1], runs[2], runs[0]]
    assert listed(sort="EXPECTED_START_TIME_DESC") == [runs[0], runs[2], runs[1]]
    pages = listed(sort="ID_DESC", limit=2), listed(sort="ID_DESC", limit=2, offset=2)
    assert [len(page) for page in pages] == [2, 1]
    assert sorted(pages[0] + pages[1]) == sorted(runs)
    assert side.ask("POST", "/flow_runs/count", where) == 3
    pool = {"work_pools": {"name": {"any_": [deployment["work_pool_name"]]}}}
    queue = {"work_pool_queues": {"name": {"any_": ["default"]}}}
    assert sorted(run["id"] for run in side.ask("POST", "/flow_runs/filter", {**pool, **queue})) == sorted(
        runs
    )
    assert (
        side.ask("POST", "/flow_runs/filter", {**pool, "work_pool_queues": {"name": {"any_": ["b"]}}}) == []
    )


def a_run_with_half_a_surrogate_is_stored_and_never_sent(side: Side) -> None:
    flow = side.ask("POST", "/flows/", {"name": f"flow-{uuid4().hex[:8]}"})["id"]
    where: dict[str, Any] = {"flows": {"id": {"any_": [flow]}}, "sort": "ID_DESC"}
    good = side.ask("POST", "/flow_runs/", {"flow_id": flow})["id"]
    sent = json.dumps({"flow_id": flow, "parameters": {"x": "\ud800"}})

    def fresh(method: str, path: str, **more: Any) -> httpx.Response:
        # a server that failed closes the connection, and each failure is one of another connection
        headers = {**side.http.headers, "content-type": "application/json", "connection": "close"}
        for _ in range(50):
            answer = side.http.request(method, path, headers=headers, **more)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(0.2)  # as in `ask`
        return answer

    assert fresh("POST", "/flow_runs/", content=sent).status_code == 500
    assert fresh("POST", "/flow_runs/filter", json=where).status_code == 500
    assert fresh("POST", "/flow_runs/filter", json={**where, "limit": 0}).json() == []
    named = fresh("POST", "/ui/flow_runs/history", json=where).json()
    (bad,) = {row["id"] for row in named} - {good}
    assert fresh("GET", f"/flow_runs/{bad}").status_code == 500
    without = {**where, "flow_runs": {"id": {"not_any_": [bad]}}}
    assert [row["id"] for row in fresh("POST", "/flow_runs/filter", json=without).json()] == [good]
    assert fresh("DELETE", f"/flow_runs/{bad}").status_code == 204


def runs_are_found_by_what_they_are(side: Side) -> None:
    deployment = side.deployment()
    waiting, failed = side.run(deployment, due=HOUR, tags=["t"]), side.run(deployment, *PATHS["FAILED"])
    late = (side.now() + timedelta(minutes=1)).isoformat()
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"state": {"type": {"any_": ["FAILED"]}}}, [failed]),
        ({"state": {"name": {"any_": ["Scheduled"]}}}, [waiting]),
        ({"next_scheduled_start_time": {"before_": late}}, []),
        ({"next_scheduled_start_time": {"after_": late}}, [waiting]),
        ({"end_time": {"before_": late}}, [failed]),
        ({"start_time": {"is_null_": True}}, [waiting]),
        ({"tags": {"all_": ["t"]}}, [waiting]),
        ({"id": {"any_": [waiting, NOBODY]}}, [waiting]),
        ({"id": {"not_any_": [waiting]}}, [failed]),
        ({"state": {"type": {"any_": []}}}, []),
    ]
    for where, expected in cases:
        body = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, **where}}
        assert [run["id"] for run in side.ask("POST", "/flow_runs/filter", body)] == expected, where


def what_no_filter_knows_is_refused(side: Side) -> None:
    bad: list[dict[str, Any]] = [
        {"limit": 201},
        {"limit": -1},
        {"sort": "NONE_SUCH"},
        {"flow_runs": {"none_such": {"any_": []}}},
        {"flow_runs": {"id": {"none_such": []}}},
        {"flow_runs": {"state": {"none_such": {"any_": []}}}},
    ]
    for body in bad:
        side.ask("POST", "/flow_runs/filter", body, status=422)


def what_is_no_state_is_refused(side: Side) -> None:
    run_id = side.run(side.deployment())
    for state in ({"type": "NONE_SUCH"}, {}, {"type": "RUNNING", "none_such": 1}):
        side.ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state}, status=422)


def what_is_not_there_is_not_found(side: Side) -> None:
    for method, path, body in (
        ("GET", f"/flow_runs/{NOBODY}", None),
        ("PATCH", f"/flow_runs/{NOBODY}", {"name": "x"}),
        ("DELETE", f"/flow_runs/{NOBODY}", None),
        ("GET", f"/task_runs/{NOBODY}", None),
        ("GET", f"/flows/{NOBODY}", None),
        ("GET", f"/deployments/{NOBODY}", None),
        ("DELETE", f"/deployments/{NOBODY}", None),
        ("GET", "/deployments/name/none/such", None),
        ("POST", f"/deployments/{NOBODY}/pause_deployment", None),
        ("POST", f"/deployments/{NOBODY}/create_flow_run", {}),
        ("GET", "/work_pools/none-such", None),
        ("PATCH", "/work_pools/none-such/queues/x", {"is_paused": True}),
        ("GET", "/v2/concurrency_limits/none-such", None),
        ("PATCH", "/v2/concurrency_limits/none-such", {"limit": 1}),
        ("GET", "/variables/name/none_such", None),
        ("PATCH", "/variables/name/none_such", {"value": 1}),
        ("DELETE", "/variables/name/none_such", None),
        ("GET", "/concurrency_limits/tag/none-such", None),
    ):
        side.ask(method, path, body, status=404)
    assert side.ask("GET", f"/flow_run_states/?flow_run_id={NOBODY}") == []


def a_run_is_deleted_once(side: Side) -> None:
    run_id = side.run(side.deployment())
    side.ask("DELETE", f"/flow_runs/{run_id}", status=204)
    side.ask("GET", f"/flow_runs/{run_id}", status=404)


def inputs_are_put_down_once_and_read_by_prefix(side: Side) -> None:
    run_id = side.run(side.deployment(), *PATHS["RUNNING"])
    route = f"/flow_runs/{run_id}/input"
    for number in range(2):
        side.ask("POST", route, {"key": f"p-{number}", "value": f'"{number}"', "sender": "s"}, status=201)
    side.ask("POST", route, {"key": "p-0", "value": "1"}, status=409)
    assert side.http.get(f"{route}/p-0").text == '"0"'
    side.ask("GET", f"{route}/none", status=404)
    assert len(side.ask("POST", f"{route}/filter", {"prefix": "p-"})) == 1
    both = side.ask("POST", f"{route}/filter", {"prefix": "p-", "limit": 200})
    assert sorted((each["key"], each["value"], each["sender"]) for each in both) == [
        ("p-0", '"0"', "s"),
        ("p-1", '"1"', "s"),
    ]
    side.ask("DELETE", f"{route}/p-0", status=204)
    side.ask("DELETE", f"{route}/p-0", status=404)


def a_task_run_is_one_by_its_keys(side: Side) -> None:
    run_id = side.run(side.deployment(), *PATHS["RUNNING"])
    body = {"flow_run_id": run_id, "task_key": "t", "dynamic_key": "0", "state": {"type": "RUNNING"}}
    waits = side.ask("POST", "/task_runs/", {**body, "dynamic_key": "1", "state": {"type": "PENDING"}})
    not_begun = {
        "task_runs": {"state": {"type": {"any_": ["PENDING", "SCHEDULED"]}}},
        "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "id": {"any_": [run_id]}},
    }
    (row,) = side.ask("POST", "/task_runs/filter", not_begun)
    assert (row["id"], row["start_time"]) == (waits["id"], None)
    side.ask("POST", f"/task_runs/{waits['id']}/set_state", {"state": {"type": "COMPLETED"}})
    task = side.ask("POST", "/task_runs/", body)
    assert side.ask("POST", "/task_runs/", body)["id"] == task["id"]
    assert side.ask("GET", f"/task_runs/{task['id']}")["flow_run_id"] == run_id
    done = {"state": {"type": "COMPLETED", "message": "by hand"}}
    assert side.ask("POST", f"/task_runs/{task['id']}/set_state", done)["status"] == "ACCEPT"
    for where in (
        {"task_runs": {"flow_run_id": {"any_": [run_id]}}, "sort": "END_TIME_DESC"},
        {"flow_runs": {"id": {"any_": [run_id]}}},
    ):
        found = side.ask("POST", "/task_runs/filter", where)
        assert {(each["id"], each["state_type"]) for each in found} == {
            (each["id"], "COMPLETED") for each in (task, waits)
        }


# -- pools, queues, workers -----------------------------------------------------------------------------------


def ranks(side: Side, pool: str) -> dict[str, int]:
    """The rank of each queue."""
    queues = side.ask("POST", f"/work_pools/{pool}/queues/filter", {})
    return {queue["name"]: queue["priority"] for queue in queues}


def ranks_are_unique_and_give_way_downwards(side: Side) -> None:
    pool = side.pool("a", "b", "c")
    assert ranks(side, pool) == {"default": 1, "a": 2, "b": 3, "c": 4}
    side.ask("PATCH", f"/work_pools/{pool}/queues/c", {"priority": 1}, status=204)
    assert ranks(side, pool) == {"c": 1, "default": 2, "a": 3, "b": 4}
    side.ask("PATCH", f"/work_pools/{pool}/queues/default", {"priority": 9}, status=204)
    assert ranks(side, pool) == {"c": 1, "a": 3, "b": 4, "default": 9}
    side.ask("PATCH", f"/work_pools/{pool}/queues/b", {"priority": 3}, status=204)
    assert ranks(side, pool) == {"c": 1, "b": 3, "a": 4, "default": 9}
    side.ask("POST", f"/work_pools/{pool}/queues", {"name": "d"}, status=201)
    assert ranks(side, pool)["d"] == 2
    side.ask("DELETE", f"/work_pools/{pool}/queues/d", status=204)
    assert "d" not in ranks(side, pool)


def pools_and_queues_are_limited_and_paused(side: Side) -> None:
    pool = side.pool("a", concurrency_limit=5)
    side.ask("PATCH", f"/work_pools/{pool}", {"concurrency_limit": 3}, status=204)
    side.ask("PATCH", f"/work_pools/{pool}", {"is_paused": True}, status=204)
    side.ask("PATCH", f"/work_pools/{pool}/queues/a", {"concurrency_limit": 2}, status=204)
    side.ask("PATCH", f"/work_pools/{pool}/queues/a", {"is_paused": True}, status=204)
    found = side.ask("GET", f"/work_pools/{pool}")
    assert (found["concurrency_limit"], found["is_paused"]) == (3, True)
    queue = side.ask("GET", f"/work_pools/{pool}/queues/a")
    assert (queue["concurrency_limit"], queue["is_paused"]) == (2, True)
    side.ask("PATCH", f"/work_pools/{pool}", {"concurrency_limit": None}, status=204)
    assert side.ask("GET", f"/work_pools/{pool}")["concurrency_limit"] is None
    side.ask("PATCH", f"/work_pools/{pool}", {"concurrency_limit": -1}, status=422)
    side.ask("PATCH", f"/work_pools/{pool}/queues/a", {"priority": 0}, status=422)
    side.ask("PATCH", f"/work_pools/{pool}/queues/a", {"none_such": 1}, status=422)
    side.ask("POST", "/work_pools/", {"name": pool, "type": "process"}, status=409)
    side.ask("POST", f"/work_pools/{pool}/queues", {"name": "a"}, status=409)
    assert pool in {
        each["name"]
        for each in side.ask("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [pool]}}})
    }


def a_worker_is_handed_what_is_due_in_order(side: Side) -> None:
    pool = side.pool("low")
    first = side.deployment(pool)
    second = side.deployment(pool, work_queue_name="low")
    late, later = side.run(first, due=-2 * HOUR), side.run(first, due=-HOUR)
    low, future = side.run(second, due=-3 * HOUR), side.run(first, due=2 * HOUR)

    def handed(**more: Any) -> list[str]:
        body = {"scheduled_before": (side.now() + timedelta(seconds=5)).isoformat(), **more}
        found = side.ask("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", body)
        return [each["flow_run"]["id"] for each in found]

    assert handed() == [late, later, low]
    assert handed(work_queue_names=["low"]) == [low]
    assert handed(limit=1) == [late]
    side.ask("PATCH", f"/work_pools/{pool}/queues/default", {"concurrency_limit": 1})
    assert handed() == [late, low]
    side.propose(late, "PENDING")
    assert handed() == [low]
    side.ask("PATCH", f"/work_pools/{pool}", {"concurrency_limit": 1})
    assert handed() == []
    side.ask("PATCH", f"/work_pools/{pool}", {"concurrency_limit": None})
    side.ask("PATCH", f"/work_pools/{pool}/queues/low", {"is_paused": True})
    assert handed() == []
    side.ask("PATCH", f"/work_pools/{pool}/queues/default", {"concurrency_limit": None})
    assert handed() == [later]
    side.ask("PATCH", f"/work_pools/{pool}", {"is_paused": True})
    assert handed() == []
    assert side.read(future)["state_type"] == "SCHEDULED"


def a_worker_that_is_heard_is_online(side: Side) -> None:
    pool = side.pool()
    beat = {"name": "w", "heartbeat_interval_seconds": 30}
    side.ask("POST", f"/work_pools/{pool}/workers/heartbeat", beat, status=204)
    (worker,) = side.ask("POST", f"/work_pools/{pool}/workers/filter", {"limit": 200})
    assert (worker["name"], worker["status"], worker["heartbeat_interval_seconds"]) == ("w", "ONLINE", 30)
    side.ask("DELETE", f"/work_pools/{pool}/workers/w", status=204)
    assert side.ask("POST", f"/work_pools/{pool}/workers/filter", {}) == []


def a_pool_is_deleted_with_its_queues_and_workers(side: Side) -> None:
    pool = side.pool("a")
    deployment = side.deployment(pool, work_queue_name="a")
    run = side.run(deployment, due=HOUR)
    side.ask("POST", f"/work_pools/{pool}/workers/heartbeat", {"name": "w", "heartbeat_interval_seconds": 30})
    side.ask("DELETE", f"/work_pools/{pool}", status=204)
    for route in (f"/work_pools/{pool}", f"/work_pools/{pool}/queues/a"):
        side.ask("GET", route, status=404)
    side.ask("DELETE", f"/work_pools/{pool}", status=404)
    # what used it stays, and is served by nobody
    left = side.ask("GET", f"/deployments/{deployment['id']}")
    assert (left["work_pool_name"], left["work_queue_name"]) == (None, "a")
    still = side.read(run)
    assert (still["state_type"], still["work_pool_name"]) == ("SCHEDULED", None)


def what_is_polled_is_ready(side: Side) -> None:
    pool = side.pool("low")
    deployment = side.deployment(pool)
    beat = {"name": "w", "heartbeat_interval_seconds": 30}
    side.ask("POST", f"/work_pools/{pool}/workers/heartbeat", beat, status=204)

    def queues() -> dict[str, Any]:
        found = side.ask("POST", "/work_queues/filter", {"limit": 200})
        return {each["name"]: each for each in found if each["work_pool_name"] == pool}

    assert {each["last_polled"] for each in queues().values()} == {None}
    ask = {"work_queue_names": ["default"]}
    side.ask("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", ask)
    side.eventually(lambda: queues()["default"]["last_polled"] is not None)
    # Prefect notes it once more at the next poll, and only then that the queue is ready
    side.ask("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", ask)
    side.eventually(lambda: queues()["default"]["status"] == "READY")
    assert (queues()["low"]["last_polled"], queues()["low"]["status"]) == (None, "NOT_READY")
    side.eventually(lambda: side.ask("GET", f"/deployments/{deployment['id']}")["status"] == "READY")
    assert side.ask("GET", f"/deployments/{deployment['id']}")["last_polled"] is not None
    assert side.ask("GET", f"/work_pools/{pool}")["status"] == "READY"


# -- deployments and schedules --------------------------------------------------------------------------------


def a_deployment_is_one_by_flow_and_name(side: Side) -> None:
    pool = side.pool()
    deployment = side.deployment(pool, tags=["env:dev"], parameters={"a": 1}, job_variables={"memory_mb": 64})
    again = {"name": "d", "flow_id": deployment["flow_id"], "work_pool_name": pool}
    assert side.ask("POST", "/deployments/", again)["id"] == deployment["id"]
    read = side.ask("GET", f"/deployments/{deployment['id']}")
    flow = side.ask("GET", f"/flows/{deployment['flow_id']}")
    assert side.ask("GET", f"/deployments/name/{flow['name']}/d")["id"] == deployment["id"]
    assert (read["work_pool_name"], read["work_queue_name"], read["paused"]) == (pool, "default", False)
    assert (read["tags"], read["job_variables"]) == (["env:dev"], {"memory_mb": 64})
    where = {"work_pools": {"name": {"any_": [pool]}}, "limit": 200}
    assert [each["id"] for each in side.ask("POST", "/deployments/filter", where)] == [deployment["id"]]
    by_queue = {**where, "work_pool_queues": {"name": {"any_": ["none"]}}}
    assert side.ask("POST", "/deployments/filter", by_queue) == []
    names = side.ask("POST", "/flows/filter", {"flows": {"id": {"any_": [deployment["flow_id"]]}}})
    assert [each["name"] for each in names] == [flow["name"]]
    side.ask("DELETE", f"/deployments/{deployment['id']}", status=204)
    side.ask("GET", f"/deployments/{deployment['id']}", status=404)


def schedules_make_runs_ahead_and_pausing_takes_them_away(side: Side) -> None:
    anchor = (side.now() + 6 * HOUR).replace(microsecond=0)
    daily = {"schedule": {"interval": 86400, "anchor_date": anchor.isoformat()}, "parameters": {"b": 2}}
    deployment = side.deployment(schedules=[daily], parameters={"a": 1}, tags=["t"])
    route = f"/deployments/{deployment['id']}"

    def ahead() -> list[dict[str, Any]]:
        where = {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
        body = {"flow_runs": where, "sort": "EXPECTED_START_TIME_ASC"}
        return list(side.ask("POST", "/flow_runs/filter", body))

    side.ask("POST", f"{route}/schedule", {}, status=200)
    runs = ahead()
    days = [(moment(run["expected_start_time"]) - anchor) / timedelta(days=1) for run in runs]
    assert days == [0, 1, 2]
    assert {run["auto_scheduled"] for run in runs} == {True}
    assert runs[0]["parameters"] == {"a": 1, "b": 2}
    assert sorted(runs[0]["tags"]) == ["auto-scheduled", "t"]
    side.ask("POST", f"{route}/schedule", {})
    assert len(ahead()) == 3
    by_hand = side.run(deployment, due=HOUR)

    def paused() -> bool:
        side.ask("POST", f"{route}/pause_deployment", status=200)
        return [run["id"] for run in ahead()] == [by_hand]

    side.eventually(paused)  # a server's scheduler that was in the middle of it may make some more
    assert side.ask("GET", route)["paused"]
    side.ask("POST", f"{route}/resume_deployment", status=200)
    assert not side.ask("GET", route)["paused"]
    side.ask("POST", f"{route}/schedule", {"min_runs": 5})
    assert len(ahead()) == 6
    schedule = side.ask("GET", route)["schedules"][0]
    side.ask("PATCH", f"{route}/schedules/{schedule['id']}", {"active": False}, status=204)
    assert not side.ask("GET", route)["schedules"][0]["active"]


def the_scheduler_makes_runs_by_itself(side: Side) -> None:
    """With an SQLAlchemy that Prefect's metadata admits, none ever came."""
    daily = {"schedule": {"interval": 86400}}
    deployment = side.deployment(schedules=[daily])
    body = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}
    side.eventually(lambda: len(side.ask("POST", "/flow_runs/filter", body)) >= 3, within=150)


def a_cron_schedule_keeps_its_zone(side: Side) -> None:
    cron = {"schedule": {"cron": "30 6 * * *", "timezone": "America/New_York"}}
    deployment = side.deployment(schedules=[cron])
    side.ask("POST", f"/deployments/{deployment['id']}/schedule", {})
    body = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}
    starts = [moment(run["expected_start_time"]) for run in side.ask("POST", "/flow_runs/filter", body)]
    assert len(starts) == 3
    from zoneinfo import ZoneInfo

    assert {(at.astimezone(ZoneInfo("America/New_York")).strftime("%H:%M")) for at in starts} == {"06:30"}


# -- limits ---------------------------------------------------------------------------------------------------


def a_deployment_has_as_many_runs_as_its_limit(side: Side) -> None:
    deployment = side.deployment(concurrency_limit=1)
    name = f"deployment:{deployment['id']}"

    def slots() -> int:
        return int(side.ask("GET", f"/v2/concurrency_limits/{name}")["active_slots"])

    first, second = side.run(deployment), side.run(deployment)
    side.propose(first, "PENDING")
    assert slots() == 1
    lease = side.read(first)["state"]["state_details"]["deployment_concurrency_lease_id"]
    assert lease
    answer = side.propose(second, "PENDING")
    assert (answer["status"], reason(answer)) == ("REJECT", "Deployment concurrency limit reached.")
    assert side.read(second)["state_name"] == "AwaitingConcurrencySlot"
    side.propose(first, "RUNNING")
    assert side.read(first)["state"]["state_details"]["deployment_concurrency_lease_id"] == lease
    side.propose(first, "COMPLETED")
    assert slots() == 0
    assert side.propose(second, "PENDING")["status"] == "ACCEPT"
    side.propose(second, "CANCELLED")
    assert slots() == 0
    side.ask("PATCH", f"/v2/concurrency_limits/{name}", {"limit": 0}, status=204)
    assert side.propose(side.run(deployment), "PENDING")["status"] == "ABORT"
    assert side.ask("GET", f"/deployments/{deployment['id']}")["global_concurrency_limit"]["limit"] == 0


def a_deployment_may_cancel_what_finds_no_slot(side: Side) -> None:
    options = {"collision_strategy": "CANCEL_NEW"}
    deployment = side.deployment(concurrency_limit=1, concurrency_options=options)
    side.run(deployment, "PENDING")
    second = side.run(deployment)
    assert side.propose(second, "PENDING")["status"] == "REJECT"
    assert side.read(second)["state_type"] == "CANCELLED"


def slots_are_taken_under_leases(side: Side) -> None:
    name = f"limit-{uuid4().hex[:8]}"
    limit = side.ask("POST", "/v2/concurrency_limits/", {"name": name, "limit": 2}, status=201)
    side.ask("POST", "/v2/concurrency_limits/", {"name": name, "limit": 2}, status=409)

    def slots() -> int:
        return int(side.ask("GET", f"/v2/concurrency_limits/{name}")["active_slots"])

    body = {"names": [name], "slots": 1, "lease_duration": 60}
    lease = side.ask("POST", "/v2/concurrency_limits/increment-with-lease", body)["lease_id"]
    side.ask("POST", "/v2/concurrency_limits/increment", {"names": [name], "slots": 1})
    assert slots() == 2
    side.ask("POST", "/v2/concurrency_limits/increment", {"names": [name], "slots": 1}, status=423)
    side.ask("POST", "/v2/concurrency_limits/increment", {"names": [name], "slots": 3}, status=422)
    renew = "/v2/concurrency_limits/leases/{}/renew"
    side.ask("POST", renew.format(lease), {"lease_duration": 60}, status=204)
    side.ask("POST", renew.format(lease), {"lease_duration": 59}, status=422)
    side.ask("POST", renew.format(NOBODY), {"lease_duration": 60}, status=410)
    side.ask("POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": lease}, status=204)
    side.ask("POST", renew.format(lease), {"lease_duration": 60}, status=410)
    assert slots() == 1
    side.ask("POST", "/v2/concurrency_limits/decrement", {"names": [name], "slots": 5})
    assert slots() == 0
    side.ask("PATCH", f"/v2/concurrency_limits/{limit['id']}", {"limit": 9}, status=204)
    assert side.ask("GET", f"/v2/concurrency_limits/{limit['id']}")["limit"] == 9
    assert name in {each["name"] for each in side.ask("POST", "/v2/concurrency_limits/filter", {})}
    side.ask("DELETE", f"/v2/concurrency_limits/{name}", status=204)


def the_slots_of_a_tag_have_holders(side: Side) -> None:
    tag, task = f"tag-{uuid4().hex[:8]}", str(uuid4())
    made = side.ask("POST", "/concurrency_limits/", {"tag": tag, "concurrency_limit": 9}, status=201)
    again = side.ask("POST", "/concurrency_limits/", {"tag": tag, "concurrency_limit": 2}, status=200)
    assert (made["active_slots"], again["id"], again["concurrency_limit"]) == ([], made["id"], 2)
    side.ask("POST", "/concurrency_limits/increment", {"names": [tag], "task_run_id": task})
    held = {"names": [f"tag:{tag}"], "slots": 1, "holder": {"type": "task_run", "id": str(uuid4())}}
    side.ask("POST", "/v2/concurrency_limits/increment-with-lease", held)

    def holders() -> set[str]:
        return set(side.ask("GET", f"/concurrency_limits/tag/{tag}")["active_slots"])

    def slots() -> int:
        return int(side.ask("GET", f"/v2/concurrency_limits/tag:{tag}")["active_slots"])

    assert holders() == {task, held["holder"]["id"]}  # type: ignore[index]
    listed = {each["tag"]: each for each in side.ask("POST", "/concurrency_limits/filter", {"limit": 200})}
    assert (listed[tag]["id"], set(listed[tag]["active_slots"])) == (made["id"], holders())
    side.ask("POST", "/concurrency_limits/decrement", {"names": [tag], "task_run_id": task})
    assert holders() == {held["holder"]["id"]}  # type: ignore[index]
    assert slots() == 1
    side.ask("POST", f"/concurrency_limits/tag/{tag}/reset", {})
    assert holders() == set()
    assert slots() == 1


# -- what is written down -------------------------------------------------------------------------------------


def automations_are_told_with_their_actions(side: Side) -> None:
    deployment = side.deployment()
    trigger = {"type": "event", "expect": ["x"], "posture": "Reactive", "threshold": 1, "within": 0}
    pause = {"type": "pause-deployment", "source": "selected", "deployment_id": deployment["id"]}
    name = f"automation-{uuid4().hex[:8]}"
    body = {"name": name, "trigger": trigger, "actions": [pause]}
    side.ask("POST", "/automations/", body, status=201)
    found = [each for each in side.ask("POST", "/automations/filter", {}) if each["name"] == name]
    assert [each["enabled"] for each in found] == [True]
    assert [(each["type"], each["deployment_id"]) for each in found[0]["actions"]] == [
        ("pause-deployment", deployment["id"])
    ]


def variables_are_kept_by_name(side: Side) -> None:
    name = f"contract_{uuid4().hex[:8]}"
    side.ask("POST", "/variables/", {"name": name, "value": {"a": 1}, "tags": ["t"]}, status=201)
    side.ask("POST", "/variables/", {"name": name, "value": 1}, status=409)
    side.ask("PATCH", f"/variables/name/{name}", {"value": [1, None]}, status=204)
    assert side.ask("GET", f"/variables/name/{name}")["value"] == [1, None]
    side.ask("PATCH", f"/variables/name/{name}", {"value": "x" * 6000}, status=422)
    body = {"variables": {"name": {"like_": f"%{name[3:]}%"}}, "limit": 200, "sort": "NAME_ASC"}
    assert [each["name"] for each in side.ask("POST", "/variables/filter", body)] == [name]
    side.ask("POST", "/variables/filter", {"limit": 201}, status=422)
    side.ask("DELETE", f"/variables/name/{name}", status=204)


def an_event_is_one_by_its_id_and_found_by_its_resource(side: Side) -> None:
    run_id, event_id = str(uuid4()), str(uuid4())
    since = (side.now() - timedelta(minutes=1)).isoformat()
    event = {
        "id": event_id,
        "occurred": side.now().isoformat(),
        "event": "pilotage.contract",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        "related": [{"prefect.resource.id": f"contract.{run_id}", "prefect.resource.role": "x"}],
        "payload": {"a": 1},
    }
    for _ in range(2):
        side.ask("POST", "/events", [event], status=204)

    def found(**where: Any) -> list[str]:
        body = {"filter": {"occurred": {"since": since}, **where}, "limit": 50}
        return [each["id"] for each in side.ask("POST", "/events/filter", body)["events"]]

    own = {"id": [f"prefect.flow-run.{run_id}"]}
    side.eventually(lambda: found(id={"id": [event_id]}))
    for where in (
        {"any_resource": own},
        {"resource": own},
        {"related": {"id": [f"contract.{run_id}"]}},
        {"any_resource": own, "event": {"prefix": ["pilotage."]}},
        {"any_resource": own, "event": {"name": ["pilotage.contract"]}},
    ):
        assert found(**where) == [event_id], where
    assert found(any_resource=own, event={"name": ["other"]}) == []
    side.ask("POST", "/events/filter", {"filter": {"none_such": {}}}, status=422)
    side.ask("POST", "/events/filter", {"limit": 51}, status=422)


def a_state_is_an_event_with_its_id(side: Side) -> None:
    deployment = side.deployment(tags=["t"])
    run_id = side.run(deployment, *PATHS["FAILED"])
    state_id = side.read(run_id)["state_id"]
    body: dict[str, Any] = {"filter": {"resource": {"id": [f"prefect.flow-run.{run_id}"]}, "order": "ASC"}}
    names = ["prefect.flow-run.Scheduled", "prefect.flow-run.Pending", "prefect.flow-run.Running"]

    def events() -> list[dict[str, Any]]:
        found = list(side.ask("POST", "/events/filter", body)["events"])
        return found if len(found) == 4 else []

    found = side.eventually(events)
    assert [each["event"] for each in found] == [*names, "prefect.flow-run.Failed"]
    assert found[-1]["id"] == state_id
    assert found[-1]["resource"]["prefect.state-type"] == "FAILED"
    roles = {each["prefect.resource.role"] for each in found[-1]["related"]}
    assert {"flow", "deployment", "work-queue", "work-pool", "tag"} <= roles


def events_come_in_pages(side: Side) -> None:
    idempotency_key = uuid4().hex
    resource = {"prefect.resource.id": f"contract.{idempotency_key}"}
    at = side.now()
    side.ask(
        "POST",
        "/events",
        [
            {"id": str(uuid4()), "occurred": at.isoformat(), "event": "pilotage.page", "resource": resource}
            for _ in range(3)
        ],
    )
    where = {"resource": {"id": [f"contract.{idempotency_key}"]}, "order": "ASC"}

    def first() -> Any:
        page = side.ask("POST", "/events/filter", {"filter": where, "limit": 2})
        return page if page["total"] == 3 else None

    page = side.eventually(first)
    token = httpx.URL(page["next_page"]).params["page-token"]
    rest = side.http.get("/events/filter/next", params={"page-token": token}).json()
    ids = [each["id"] for each in [*page["events"], *rest["events"]]]
    assert len(set(ids)) == 3
    assert rest["next_page"] is None


def logs_are_read_by_run_and_level(side: Side) -> None:
    run_id = side.run(side.deployment())
    lines = [
        {
            "name": "prefect.flow_runs",
            "level": level,
            "message": f"level {level}",
            "timestamp": (side.now() + timedelta(seconds=level)).isoformat(),
            "flow_run_id": run_id,
        }
        for level in (20, 30, 40)
    ]
    side.ask("POST", "/logs/", lines, status=201)

    def read(**more: Any) -> list[int]:
        where = {"logs": {"flow_run_id": {"any_": [run_id]}, **more}, "sort": "TIMESTAMP_DESC"}
        return [line["level"] for line in side.ask("POST", "/logs/filter", where)]

    side.eventually(lambda: len(read()) == 3)
    assert read() == [40, 30, 20]
    assert read(level={"ge_": 30}) == [40, 30]


def an_artifact_is_taken(side: Side) -> None:
    run_id = side.run(side.deployment())
    body = {"key": "pilotage-x", "type": "markdown", "data": "# x", "flow_run_id": run_id}
    side.ask("POST", "/artifacts/", body, status=201)
    (found,) = side.ask("POST", "/artifacts/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    assert (found["key"], found["data"]) == ("pilotage-x", "# x")


def the_server_is_well_and_has_no_csrf_token(side: Side) -> None:
    assert side.ask("GET", "/health") is True
    assert side.ask("GET", "/admin/version")[0] == "3"
    side.ask("GET", f"/csrf-token?client={uuid4()}", status=422)


CONTRACT: Mapping[str, Callable[[Side], None]] = {
    each.__name__: each
    for each in (
        every_transition_is_ruled_as_the_grid_says,
        a_refusal_says_why_in_prefects_words,
        force_takes_what_is_otherwise_refused,
        nothing_runs_before_it_is_due,
        a_scheduled_run_is_moved_by_scheduling_it_again,
        a_transition_id_is_kept_and_taken_once,
        what_a_run_counts_follows_its_states,
        a_failure_is_retried_in_its_process_while_retries_are_left,
        a_pause_and_a_suspension,
        a_pause_that_nobody_ends_fails,
        a_run_that_nobody_takes_becomes_late,
        states_are_set_in_bulk_where_the_guard_holds,
        a_bulk_is_at_most_fifty_and_knows_its_fields,
        a_child_is_found_by_its_parent_and_cancelled_with_it,
        one_idempotency_key_is_one_run,
        a_run_without_a_deployment_is_never_scheduled_again,
        a_run_is_changed_field_by_field,
        job_variables_change_only_while_a_run_is_scheduled,
        runs_are_listed_by_page_and_order,
        a_run_with_half_a_surrogate_is_stored_and_never_sent,
        runs_are_found_by_what_they_are,
        what_no_filter_knows_is_refused,
        what_is_no_state_is_refused,
        what_is_not_there_is_not_found,
        a_run_is_deleted_once,
        inputs_are_put_down_once_and_read_by_prefix,
        a_task_run_is_one_by_its_keys,
        ranks_are_unique_and_give_way_downwards,
        pools_and_queues_are_limited_and_paused,
        a_worker_is_handed_what_is_due_in_order,
        a_worker_that_is_heard_is_online,
        a_pool_is_deleted_with_its_queues_and_workers,
        what_is_polled_is_ready,
        a_deployment_is_one_by_flow_and_name,
        schedules_make_runs_ahead_and_pausing_takes_them_away,
        the_scheduler_makes_runs_by_itself,
        a_cron_schedule_keeps_its_zone,
        a_deployment_has_as_many_runs_as_its_limit,
        a_deployment_may_cancel_what_finds_no_slot,
        slots_are_taken_under_leases,
        the_slots_of_a_tag_have_holders,
        automations_are_told_with_their_actions,
        variables_are_kept_by_name,
        an_event_is_one_by_its_id_and_found_by_its_resource,
        a_state_is_an_event_with_its_id,
        events_come_in_pages,
        logs_are_read_by_run_and_level,
        an_artifact_is_taken,
        the_server_is_well_and_has_no_csrf_token,
    )
}
"""What both servers are held to."""


def a_fake() -> FakePrefect:
    return FakePrefect(FrozenClock(datetime(2027, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)))


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.prefect)])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """Each of the two servers."""
    if request.param == "fake":
        fake = a_fake()
        with httpx.Client(transport=fake.transport, base_url=API_URL) as http:
            yield Side(http=http, fake=fake)
        return
    server: PrefectServer = request.getfixturevalue("prefect_server")
    user, _, password = server.auth_string.partition(":")
    options: dict[str, Any] = {"base_url": server.api_url, "auth": (user, password), "timeout": 60}
    with httpx.Client(**options, follow_redirects=True) as http:
        yield Side(http=http)


@pytest.mark.parametrize("scenario", CONTRACT)
def test_the_contract(side: Side, scenario: str) -> None:
    CONTRACT[scenario](side)


def test_no_route_of_the_fake_is_without_a_contract() -> None:
    fake = a_fake()
    with httpx.Client(transport=fake.transport, base_url=API_URL) as http:
        for scenario in CONTRACT.values():
            scenario(Side(http=http, fake=fake))
    assert sorted(set(ROUTES.templates) - set(fake.asked)) == []
