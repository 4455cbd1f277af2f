"""Dead runs and the slots they hold, on the real server: what proves a death, what Prefect does, what levers do.

The clock of a lever is set ahead instead of waiting: what was heard is really in Prefect, and old by then.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed, Pending
from tests.flows.conftest import PrefectProbe
from tests.flows.dead_run_targets import AS_PREFECT, EVERY, heard_from_others, told
from tests.flows.execution.dying_injector import AHEAD
from tests.flows.lever_bench import LeverBench, holds_on, worker_has_released
from tests.flows.running_controller import eventually

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import ChangeRecords
from pilotage.flows.levers.mark_crashed import MarkCrashedLever
from pilotage.flows.levers.release_slot import ReleaseSlotLever
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.liveness import THIS_HOST, LivenessEvidence, Process, judge_liveness, process_here
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.planner.actions.types import LimitScope, MarkCrashed, ReleaseSlot, RetryRun
from pilotage.telemetry.errors import OrchestratorError

pytestmark = pytest.mark.prefect


# -- what proves a death ---------------------------------------------------------------------------------------

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
BEAT = timedelta(seconds=180)


def signs(**other: Any) -> LivenessEvidence:
    seen = {
        "heard": NOW - timedelta(hours=1),
        "every": BEAT,
        "worker": "gone",
        "process": "gone",
        "here": False,
    }
    return LivenessEvidence(**{**seen, **other})


@pytest.mark.parametrize(
    ("seen", "by"),
    [
        (signs(), "worker"),
        (signs(here=True), "process"),
        (signs(here=True, worker="online"), "process"),
        (signs(worker="online"), ""),
        (signs(worker="unknown"), ""),
        (signs(process="unknown", here=True), "worker"),
        (signs(process="unknown", here=True, worker="online"), ""),
        (signs(process="alive"), ""),
        (signs(process="alive", here=True), ""),
        (signs(heard=None), ""),
        (signs(heard=None, here=True), ""),
        (signs(heard=NOW - 3 * BEAT), ""),
        (signs(heard=NOW - 3 * BEAT - timedelta(seconds=31)), "worker"),
        (signs(heard=NOW - timedelta(hours=1), every=timedelta(minutes=20)), ""),
    ],
)
def test_death_takes_two_signs_and_any_sign_of_life_outweighs_them(seen: LivenessEvidence, by: str) -> None:
    proof = judge_liveness(seen, NOW)
    assert proof.by == by
    assert proof.why


def test_a_living_process_is_found_by_the_run_in_its_environment() -> None:
    run_id = str(uuid4())
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PREFECT__FLOW_RUN_ID": run_id},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process_here(run_id, str(process.pid)) == "alive"
        assert process_here(run_id, "") == "alive"
        # another run's process has the number now
        assert process_here(str(uuid4()), str(process.pid)) == "gone"
        process.kill()
    assert process_here(run_id, str(process.pid)) == "gone"
    assert process_here(run_id, "pod-7") == "unknown"


def test_a_host_that_cannot_be_looked_at_says_nothing(tmp_path: Path) -> None:
    assert process_here(str(uuid4()), "1", proc=tmp_path) == "unknown"


# -- dead and living runs --------------------------------------------------------------------------------


GONE = "gone-for-good"
"""A worker that was heard once."""


class DeadRuns(LeverBench):
    """Runs that are Running by their states, with or without the signs of a process."""

    def ask(self, method: str, route: str, **sent: Any) -> Any:
        server = self.prefect_probe.server
        user, _, password = server.auth_string.partition(":")
        with httpx.Client(
            base_url=server.api_url, auth=(user, password), timeout=60, headers=AS_PREFECT
        ) as client:
            answer = client.request(method, route, **sent)
            while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # SQLite is busy
                time.sleep(0.2)
                answer = client.request(method, route, **sent)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, *tags: str, limit: int | None = None, pool: str | None = None) -> str:
        flow = self.ask("POST", "/flows/", json={"name": f"dies-{uuid4().hex[:6]}"})
        body = {
            "name": "demo",
            "flow_id": flow["id"],
            "tags": list(tags),
            "entrypoint": "none.py:none",
            # without a pool no worker takes its runs
            "work_pool_name": pool,
            **({"concurrency_limit": limit} if limit else {}),
        }
        return str(self.ask("POST", "/deployments/", json=body)["id"])

    def running(self, deployment_id: str) -> str:
        """A run that went its way unforced, so that it holds a slot where there is a limit."""
        due = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
        route = f"/deployments/{deployment_id}/create_flow_run"
        run_id = str(self.ask("POST", route, json={"state": due})["id"])
        assert [self.go(run_id, "PENDING"), self.go(run_id, "RUNNING")] == ["ACCEPT", "ACCEPT"]
        return run_id

    def held_back(self) -> str:
        """A running run of the pool that the session's worker serves, which has never been due."""
        route = f"/deployments/{self.deployment(pool='pilotage')}/create_flow_run"
        run_id = str(self.ask("POST", route, json={"state": {"type": "PENDING"}})["id"])
        assert self.go(run_id, "RUNNING") == "ACCEPT"
        return run_id

    def go(self, run_id: str, type_: str, name: str = "") -> str:
        state = {"type": type_, **({"name": name} if name else {})}
        reply = self.ask("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": False})
        return str(reply["status"])

    def beats(self, run_id: str) -> None:
        """Two heartbeats of the run, the last one now; read back, for Prefect writes them seconds later."""
        now = datetime.now(UTC)
        self.tell(*[(run_id, "prefect.flow-run.heartbeat", now - back) for back in (EVERY, timedelta(0))])
        eventually(
            lambda: (
                len(
                    self.with_api(
                        lambda api: api.events_about(
                            run_id, now - 2 * EVERY, names=["prefect.flow-run.heartbeat"]
                        )
                    )
                )
                == 2
            ),
            what="two heartbeats",
        )

    def tell(self, *events: tuple[str, str, datetime]) -> None:
        self.ask("POST", "/events", json=told(*events))

    def worker_beats(self, name: str, *, every: int) -> None:
        body = {"name": name, "heartbeat_interval_seconds": every}
        self.ask("POST", "/work_pools/pilotage/workers/heartbeat", json=body)

    def mark_lever(self, api: PrefectApi, process: Process) -> MarkCrashedLever:
        return MarkCrashedLever(
            api, probe=lambda run_id, pid: process, clock=lambda: datetime.now(UTC) + AHEAD
        )

    def marked(
        self, run_id: str, idempotency_key: str, *, process: Process = "gone", expected: str = ""
    ) -> Delivery:
        return self.with_api(
            lambda api: self.mark_lever(api, process).execute(
                MarkCrashed(run_id=run_id),
                idempotency_key=idempotency_key,
                expected_state_id=expected,
                message="pilotage p-1",
            )
        )

    def checked(
        self, run_id: str, delivery: Delivery, idempotency_key: str, process: Process = "gone"
    ) -> Check:
        return self.with_api(
            lambda api: self.mark_lever(api, process).verify(
                MarkCrashed(run_id=run_id), delivery, idempotency_key=idempotency_key
            )
        )

    def slots(self, limit: str) -> int:
        return int(self.ask("GET", f"/v2/concurrency_limits/{limit}")["active_slots"])

    def lease(self, run_id: str) -> str:
        return str(
            self.ask("GET", f"/flow_runs/{run_id}")["state"]["state_details"][
                "deployment_concurrency_lease_id"
            ]
        )


@pytest.fixture(scope="module")
def dead_runs(prefect_probe: PrefectProbe) -> DeadRuns:
    """Runs among which others are heard all the while, by the lever's clock."""
    dead_runs, now = DeadRuns(prefect_probe), datetime.now(UTC)
    # Prefect takes its time to call a worker offline
    dead_runs.worker_beats(GONE, every=1)
    others = heard_from_others(now, timedelta(minutes=30))
    dead_runs.tell(*others)
    last = others[-1][2]
    eventually(
        lambda: dead_runs.with_api(lambda api: api.events_between(last - EVERY / 8, last + EVERY / 8)),
        what="what others said",
    )
    return dead_runs


# -- marking ---------------------------------------------------------------------------------------------------


def test_a_dead_run_is_marked_once_its_slot_is_free_and_it_is_tried_again(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    deployment = dead_runs.deployment(THIS_HOST, limit=2)
    dead, living = dead_runs.running(deployment), dead_runs.running(deployment)
    limit = f"deployment:{deployment}"
    assert dead_runs.slots(limit) == 2
    dead_runs.beats(dead)
    delivery = dead_runs.marked(dead, idempotency_key, expected=dead_runs.state_id(dead))
    assert delivery.effect is Effect.DONE, delivery
    assert delivery.before["signs"] == "process"
    assert dead_runs.state_name(dead) == "Crashed"
    assert dead_runs.slots(limit) == 1
    assert dead_runs.marked(dead, idempotency_key).effect is Effect.ALREADY
    assert dead_runs.slots(limit) == 1
    assert dead_runs.checked(dead, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert dead_runs.undo(MarkCrashed(run_id=dead), delivery, idempotency_key).effect is Effect.REFUSED
    # no worker reports the end of a process that died with it; the lever for retries waits and goes on
    again = dead_runs.execute(RetryRun(run_id=dead, delay=timedelta(hours=6)), str(uuid4()))
    assert again.effect is Effect.DONE, again
    # the mark is found by a delivery that comes late, and the run is not marked a second time
    assert dead_runs.marked(dead, idempotency_key).effect is Effect.ALREADY
    assert dead_runs.state_name(dead) == "AwaitingRetry"
    assert dead_runs.marked(living, str(uuid4())).effect is Effect.REFUSED
    dead_runs.prefect_probe.move(dead, Completed())
    dead_runs.prefect_probe.move(living, Completed())


def test_a_run_and_its_worker_that_are_both_silent_are_told_apart_from_a_slow_run(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    run_id, fresh = dead_runs.held_back(), f"w-{uuid4().hex[:6]}"
    dead_runs.worker_beats(fresh, every=3600)
    dead_runs.beats(run_id)
    assert "nothing is known" in dead_runs.marked(run_id, idempotency_key).reason
    dead_runs.ask("PATCH", f"/flow_runs/{run_id}/labels", json={"prefect.worker.name": fresh})
    # its worker is heard: the run may be slow
    assert "its worker is heard" in dead_runs.marked(run_id, idempotency_key).reason
    dead_runs.ask("PATCH", f"/flow_runs/{run_id}/labels", json={"prefect.worker.name": GONE})

    def offline() -> bool:
        workers = dead_runs.with_api(lambda api: api.workers("pilotage"))
        return not next(each for each in workers if each.name == GONE).online

    eventually(offline, what="a worker that Prefect calls offline")
    delivery = dead_runs.marked(run_id, idempotency_key, process="unknown")
    assert (delivery.effect, delivery.before["signs"]) == (Effect.DONE, "worker"), delivery
    # a run that speaks after it was marked was not dead, and people are told
    dead_runs.tell((run_id, "prefect.flow-run.heartbeat", datetime.now(UTC) + timedelta(seconds=1)))
    check = eventually(
        lambda: (
            found
            if (found := dead_runs.checked(run_id, delivery, idempotency_key)).judgement is Judgement.FAILED
            else None
        ),
        what="a heartbeat after death",
    )
    assert "alive" in check.detail


def test_nothing_living_or_ended_is_marked(dead_runs: DeadRuns, idempotency_key: str) -> None:
    deployment = dead_runs.deployment(THIS_HOST)
    run_id = dead_runs.running(deployment)
    assert "never heard" in dead_runs.marked(run_id, idempotency_key).reason
    dead_runs.beats(run_id)
    assert "alive" in dead_runs.marked(run_id, idempotency_key, process="alive").reason
    assert "moved on" in dead_runs.marked(run_id, idempotency_key, expected=str(uuid4())).reason
    # by today's clock it was heard a moment ago
    now = dead_runs.with_api(
        lambda api: MarkCrashedLever(api, probe=lambda run, pid: "gone").execute(
            MarkCrashed(run_id=run_id), idempotency_key=idempotency_key, expected_state_id="", message="m"
        )
    )
    assert "it was heard" in now.reason
    assert dead_runs.state_name(run_id) == "Running"
    states: tuple[State, ...] = (Pending(), Failed(), Completed())
    for state in states:
        dead_runs.prefect_probe.move(run_id, state)
        assert dead_runs.marked(run_id, idempotency_key).effect is Effect.REFUSED
        assert dead_runs.state_name(run_id) == state.name


def test_silence_counts_only_while_the_server_was_there_to_hear(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    run_id = dead_runs.running(dead_runs.deployment(THIS_HOST))
    dead_runs.beats(run_id)
    # nobody at all is heard at that time, which the clock of this lever has far ahead
    far = timedelta(days=2)

    async def execute(api: PrefectApi) -> Delivery:
        lever = MarkCrashedLever(api, probe=lambda run, pid: "gone", clock=lambda: datetime.now(UTC) + far)
        return await lever.execute(
            MarkCrashed(run_id=run_id), idempotency_key=idempotency_key, expected_state_id="", message="m"
        )

    with pytest.raises(OrchestratorError, match="may have been away") as caught:
        dead_runs.with_api(execute)
    assert caught.value.transient
    assert dead_runs.state_name(run_id) == "Running"
    dead_runs.prefect_probe.move(run_id, Completed())


def test_the_facts_of_a_run_say_whether_it_is_proven_dead(dead_runs: DeadRuns) -> None:
    run_id = dead_runs.running(dead_runs.deployment(THIS_HOST))

    def death() -> str:
        return dead_runs.with_api(lambda api: PrefectFacts(api).target(MarkCrashed(run_id=run_id))).death

    dead_runs.beats(run_id)
    assert death() == ""
    # by the measured interval it should have been heard since
    assert dead_runs.with_api(lambda api: PrefectFacts(api).target(RetryRun(run_id=run_id))).death == ""
    dead_runs.prefect_probe.move(run_id, Completed())
    assert death() == ""


# -- what Prefect does, so that the lever has to be careful --------------------------------------------------------


def test_prefect_takes_crashed_for_a_living_run_and_frees_its_slot(dead_runs: DeadRuns) -> None:
    deployment = dead_runs.deployment(limit=1)
    run_id = dead_runs.running(deployment)
    assert dead_runs.go(run_id, "CRASHED") == "ACCEPT"
    assert dead_runs.slots(f"deployment:{deployment}") == 0
    # but never for one that has ended
    assert dead_runs.go(run_id, "CRASHED") == "ABORT"


def test_a_run_whose_lease_has_lapsed_takes_another_runs_slot_with_it_so_the_lever_waits(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    deployment = dead_runs.deployment(THIS_HOST, limit=2)
    first, second = dead_runs.running(deployment), dead_runs.running(deployment)
    limit = f"deployment:{deployment}"
    # what Prefect does by itself five minutes after a process died
    dead_runs.ask(
        "POST", "/v2/concurrency_limits/decrement-with-lease", json={"lease_id": dead_runs.lease(first)}
    )
    assert dead_runs.slots(limit) == 1
    dead_runs.beats(first)
    delivery = dead_runs.marked(first, idempotency_key)
    assert delivery.effect is Effect.REFUSED
    assert "given back already" in delivery.reason
    assert dead_runs.slots(limit) == 1
    # so it is: the slot that is lost here is the living run's
    assert dead_runs.go(first, "CRASHED") == "ACCEPT"
    assert dead_runs.slots(limit) == 0
    assert dead_runs.state_name(second) == "Running"
    dead_runs.prefect_probe.move(second, Completed())


# -- slots -----------------------------------------------------------------------------------------------------


def test_the_slot_of_a_tag_is_given_back_in_the_name_of_the_dead_and_no_other(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    tag = f"db-{uuid4().hex[:6]}"
    limit = dead_runs.ask("POST", "/v2/concurrency_limits/", json={"name": f"tag:{tag}", "limit": 5})
    dead, living = dead_runs.running(dead_runs.deployment()), dead_runs.running(dead_runs.deployment())
    tasks = {}
    for run_id in (dead, living):
        body = {"flow_run_id": run_id, "task_key": "t", "dynamic_key": "0", "tags": [tag]}
        tasks[run_id] = dead_runs.ask("POST", "/task_runs/", json=body)["id"]
        dead_runs.ask(
            "POST",
            "/v2/concurrency_limits/increment-with-lease",
            json={"slots": 1, "names": [f"tag:{tag}"], "holder": {"type": "task_run", "id": tasks[run_id]}},
        )
    action = ReleaseSlot(scope=LimitScope.TAG, name=tag)
    # neither has ended
    assert "mark it crashed first" in dead_runs.execute(action, idempotency_key).reason
    assert dead_runs.go(dead, "CRASHED") == "ACCEPT"

    def unreported(api: PrefectApi) -> Any:
        lever = ReleaseSlotLever(api, worker_has_released=holds_on, probe=lambda run, pid: "gone")
        return lever.execute(action, idempotency_key=idempotency_key, expected_state_id="", message="m")

    # it has ended, but its process may be there still
    assert "nobody has reported" in dead_runs.with_api(unreported).reason
    assert dead_runs.slots(limit["id"]) == 2
    delivery = dead_runs.execute(action, idempotency_key)
    assert delivery.effect is Effect.DONE, delivery
    assert delivery.after["given_back"] == [tasks[dead]]
    assert dead_runs.with_api(lambda api: api.holders_of_tag(tag)) == (tasks[living],)
    assert dead_runs.slots(limit["id"]) == 1
    assert dead_runs.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert dead_runs.execute(action, idempotency_key).effect is Effect.ALREADY
    assert dead_runs.execute(action, str(uuid4())).effect is Effect.REFUSED
    assert dead_runs.slots(limit["id"]) == 1
    assert dead_runs.undo(action, delivery, idempotency_key).effect is Effect.REFUSED
    dead_runs.prefect_probe.move(living, Completed())


def test_slots_of_a_deployment_that_stand_for_no_run_are_given_back(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    deployment = dead_runs.deployment(limit=5)
    limit, living = f"deployment:{deployment}", dead_runs.running(deployment)
    action = ReleaseSlot(scope=LimitScope.DEPLOYMENT, name=deployment)
    assert "none of its 1 slots" in dead_runs.execute(action, idempotency_key).reason
    # as a restart leaves them: counted, without a lease and without a run
    dead_runs.ask("POST", "/v2/concurrency_limits/increment", json={"slots": 2, "names": [limit]})
    assert "seem lost" in dead_runs.execute(action, idempotency_key).reason
    assert dead_runs.slots(limit) == 3

    def later(api: PrefectApi) -> Any:
        lever = ReleaseSlotLever(api, worker_has_released=worker_has_released, lapse=timedelta(0))
        return lever.execute(action, idempotency_key=idempotency_key, expected_state_id="", message="m")

    delivery = dead_runs.with_api(later)
    assert delivery.effect is Effect.DONE, delivery
    assert dead_runs.slots(limit) == 1
    assert dead_runs.verify(action, delivery, idempotency_key).judgement is Judgement.VERIFIED
    assert dead_runs.with_api(later).effect is Effect.ALREADY
    assert dead_runs.slots(limit) == 1
    dead_runs.prefect_probe.move(living, Completed())


def test_a_delivery_that_died_after_it_gave_slots_back_gives_nothing_back_twice(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    deployment = dead_runs.deployment(limit=5)
    limit, living = f"deployment:{deployment}", dead_runs.running(deployment)
    dead_runs.ask("POST", "/v2/concurrency_limits/increment", json={"slots": 2, "names": [limit]})
    action = ReleaseSlot(scope=LimitScope.DEPLOYMENT, name=deployment)

    class Dies(PrefectApi):
        async def give_back(self, *given: Any) -> None:
            await super().give_back(*given)
            raise KeyboardInterrupt

    def later(api: PrefectApi) -> Any:
        lever = ReleaseSlotLever(api, worker_has_released=worker_has_released, lapse=timedelta(0))
        return lever.execute(action, idempotency_key=idempotency_key, expected_state_id="", message="m")

    async def dying() -> None:
        async with Dies.from_prefect_settings(guard=None).opened() as api:
            await later(api)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dying())
    assert dead_runs.slots(limit) == 1
    # what is not lost any more was its own doing, and it says so
    delivery = dead_runs.with_api(later)
    assert (delivery.effect, delivery.after["slots"]) == (Effect.DONE, 2)
    assert dead_runs.with_api(later).effect is Effect.ALREADY
    assert dead_runs.slots(limit) == 1
    dead_runs.prefect_probe.move(living, Completed())


def test_slots_that_are_lost_still_when_a_delivery_is_repeated_are_not_taken_for_given_back(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    deployment = dead_runs.deployment(limit=5)
    limit = f"deployment:{deployment}"
    dead_runs.ask("POST", "/v2/concurrency_limits/increment", json={"slots": 2, "names": [limit]})
    action = ReleaseSlot(scope=LimitScope.DEPLOYMENT, name=deployment)
    # a delivery that died between its note and the decrement, and since then Prefect touched the limit
    note = {"at": datetime.now(UTC).isoformat(), "given_back": ["000", "001"], "slots": 2}
    dead_runs.with_api(lambda api: ChangeRecords(api).write("slots", idempotency_key, note))
    assert "seem lost" in dead_runs.execute(action, idempotency_key).reason
    assert dead_runs.slots(limit) == 2


def test_the_slots_of_a_global_limit_are_nameless_so_a_person_is_told_what_to_do(
    dead_runs: DeadRuns, idempotency_key: str
) -> None:
    name = f"db-{uuid4().hex[:6]}"
    limit = dead_runs.ask("POST", "/v2/concurrency_limits/", json={"name": name, "limit": 5})
    holders = [str(uuid4()), str(uuid4())]
    for holder in holders:
        dead_runs.ask(
            "POST",
            "/v2/concurrency_limits/increment-with-lease",
            json={"slots": 1, "names": [name], "holder": {"type": "flow_run", "id": holder}},
        )
    # who holds them was said, and no route says it again
    told = str(dead_runs.ask("GET", f"/v2/concurrency_limits/{name}"))
    assert not any(holder in told for holder in holders)
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        dead_runs.ask("GET", f"/concurrency_limits/{limit['id']}")
    # and the bare decrement takes one, nobody can say whose
    dead_runs.ask("POST", "/v2/concurrency_limits/decrement", json={"names": [name], "slots": 1})
    assert dead_runs.slots(name) == 1
    delivery = dead_runs.execute(ReleaseSlot(scope=LimitScope.GLOBAL, name=name), idempotency_key)
    assert delivery.effect is Effect.REFUSED
    assert f"prefect gcl update {name} --active-slots" in delivery.reason
    assert dead_runs.slots(name) == 1


def test_the_reset_of_a_tag_ends_the_leases_and_leaves_the_slots_counted(dead_runs: DeadRuns) -> None:
    tag = f"db-{uuid4().hex[:6]}"
    limit = dead_runs.ask("POST", "/v2/concurrency_limits/", json={"name": f"tag:{tag}", "limit": 5})
    holder = {"type": "task_run", "id": str(uuid4())}
    body = {"slots": 1, "names": [f"tag:{tag}"], "holder": holder}
    lease = dead_runs.ask("POST", "/v2/concurrency_limits/increment-with-lease", json=body)["lease_id"]
    assert dead_runs.with_api(lambda api: api.lease_stands(lease))
    dead_runs.ask("POST", f"/concurrency_limits/tag/{tag}/reset", json={})
    assert not dead_runs.with_api(lambda api: api.lease_stands(lease))
    assert dead_runs.with_api(lambda api: api.holders_of_tag(tag)) == ()
    assert dead_runs.slots(limit["id"]) == 1


def test_a_run_of_no_known_deployment_is_not_counted(dead_runs: DeadRuns, idempotency_key: str) -> None:
    nobody = ReleaseSlot(scope=LimitScope.DEPLOYMENT, name=str(uuid4()))
    assert dead_runs.execute(nobody, idempotency_key).effect is Effect.REFUSED
    assert (
        "no limit"
        in dead_runs.execute(ReleaseSlot(scope=LimitScope.TAG, name="none-such"), idempotency_key).reason
    )
