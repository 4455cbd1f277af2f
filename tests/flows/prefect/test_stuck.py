"""What proves that a run will not go on, asked of the fake Prefect while worlds of the bench play; what is done then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from pilotage.flows.bench.round import WORLDS, Round, incidents_of, sources_in
from pilotage.flows.bench.simulated_stage import SimulatedStage
from pilotage.flows.bench.world import Scene
from pilotage.flows.dev.fake_prefect import API_URL
from pilotage.flows.execution.receipts import Effect, Judgement
from pilotage.flows.levers.mark_crashed import MarkCrashedLever
from pilotage.flows.levers.start_run import StartLever
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.stuck import stuck_of
from pilotage.planner.actions.types import MarkCrashed, StartRun
from pilotage.planner.parameters import PlaybookParameters

T = TypeVar("T")
PARAMETERS = PlaybookParameters(
    pending_after=timedelta(seconds=60), overlong_floor=timedelta(seconds=60), overlong_runs=5
)


class Played:
    """One world of the bench that nobody sees to, on its own fake server."""

    def __init__(self, name: str) -> None:
        chosen = tuple(incidents_of(sources_in(WORLDS), [1], [name]))
        self.stage = SimulatedStage(Round(incidents=chosen), arm="nothing")
        self.stage.set_up()
        self.stage.fake.advance(timedelta(seconds=5))
        self.stage.drive()

    @property
    def scene(self) -> Scene:
        return self.stage.scenes[0][1]

    def after(self, seconds: float) -> None:
        self.stage.fake.advance(timedelta(seconds=seconds))

    def ask(self, work: Callable[[PrefectApi], Awaitable[T]]) -> T:
        async def inside() -> T:
            api = PrefectApi(
                API_URL, transport=self.stage.fake.transport, clock=self.stage.clock.now, guard=None
            )
            async with api.opened() as opened:
                return await work(opened)

        return asyncio.run(inside())

    def stuck(self, run_id: str) -> str:
        async def look(api: PrefectApi) -> str:
            return await stuck_of(api, await api.run(run_id), PARAMETERS, self.stage.now())

        return self.ask(look)


def test_a_run_for_which_nothing_was_started_is_told_from_one_that_has_not_waited_long() -> None:
    played = Played("stuck-pending")
    run_id = played.scene.started["run"]
    played.after(20)
    assert played.scene.run(run_id)["state_type"] == "PENDING"
    assert played.stuck(run_id) == ""
    played.after(90)
    assert played.stuck(run_id) == "never-started"
    # a worker that says so late has started something after all
    name = "prefect.worker.submitted-flow-run"
    resource = {"prefect.resource.id": f"prefect.flow-run.{run_id}"}
    played.ask(lambda api: api.emit([_event(played, name, resource)]))
    assert played.stuck(run_id) == ""


def test_a_run_that_does_nothing_but_beat_hangs_and_one_that_writes_does_not() -> None:
    played = Played("hanging")
    run_id = played.scene.started["run"]
    played.after(50)
    assert played.scene.run(run_id)["state_type"] == "RUNNING"
    assert played.stuck(run_id) == ""
    played.after(120)
    assert played.stuck(run_id) == "hung"
    played.stage.write(run_id, "at row 70000", 20)
    assert played.stuck(run_id) == ""


def test_a_run_that_goes_on_as_before_is_not_stuck() -> None:
    played = Played("transient-network")
    played.after(3)
    (run,) = played.scene.runs()
    assert played.stuck(run["id"]) == ""


def test_a_dead_run_that_somebody_cancelled_is_marked_cancelled() -> None:
    played = Played("stuck-cancelling")
    run_id = played.scene.started["stuck"]
    deadline = 60
    while played.scene.run(run_id)["state_type"] != "CANCELLING":
        played.after(10)
        deadline -= 1
        assert deadline
    played.after(200)
    mark, action = str(uuid4()), MarkCrashed(run_id=run_id)

    def lever(api: PrefectApi) -> MarkCrashedLever:
        return MarkCrashedLever(api, probe=lambda run, pid: "gone")

    expected = str(played.scene.run(run_id)["state_id"])
    delivery = played.ask(
        lambda api: lever(api).execute(
            action, idempotency_key=mark, expected_state_id=expected, message="ours"
        )
    )
    assert delivery.effect is Effect.DONE, delivery
    run = played.scene.run(run_id)
    assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Cancelled")
    again = played.ask(
        lambda api: lever(api).execute(
            action, idempotency_key=mark, expected_state_id=expected, message="ours"
        )
    )
    assert again.effect is Effect.ALREADY
    played.after(30)
    check = played.ask(lambda api: lever(api).verify(action, delivery, idempotency_key=mark))
    assert (check.judgement, check.final_state) == (Judgement.VERIFIED, "Cancelled")


def test_a_start_that_a_schedule_missed_is_made_once_and_verified_when_it_completed() -> None:
    played = Played("missed-schedule")
    played.after(150)
    began = [run for run in played.scene.runs() if run["start_time"]]
    missed = played.stage.now() - timedelta(seconds=30)
    action = StartRun(run_id=began[0]["id"], missed=missed)
    mark = str(uuid4())

    def deliver(key: str) -> Any:
        return played.ask(
            lambda api: StartLever(api).execute(
                action, idempotency_key=key, expected_state_id="", message="ours"
            )
        )

    delivery = deliver(mark)
    assert delivery.effect is Effect.DONE, delivery
    made = played.scene.run(delivery.after["run_id"])
    assert "missed-start" in made["tags"]
    assert deliver(mark).after["run_id"] == made["id"]
    # somebody else's proposal finds that a run was made for that start
    assert "was made for that start" in deliver(str(uuid4())).reason
    played.after(60)
    check = played.ask(lambda api: StartLever(api).verify(action, delivery, idempotency_key=mark))
    assert check.judgement is Judgement.VERIFIED
    assert played.scene.count("made up") == 1


def _event(played: Played, name: str, resource: dict[str, str]) -> dict[str, Any]:
    return {
        "event": name,
        "id": str(uuid4()),
        "occurred": played.stage.now().isoformat(),
        "resource": resource,
        "related": [],
        "payload": {},
    }
