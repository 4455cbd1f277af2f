"""A quarantine stops a schedule and undo brings it back; on the fake server, whose scheduler the contract holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule
from tests.flows.conftest import PrefectProbe
from tests.flows.running_controller import eventually

from pilotage.flows.execution.receipts import Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import ChangeRecords, step_key
from pilotage.flows.levers.pause_deployment import PauseLever
from pilotage.flows.levers.scheduled_edits import EditedRuns
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView
from pilotage.planner.actions.types import PauseDeployment
from pilotage.telemetry.facts import StateType


@pytest.fixture(scope="module")
def prefect_probe(fake_probe: PrefectProbe) -> PrefectProbe:
    """The fake: what is looked at is protocol and decision, no process."""
    return fake_probe


T = TypeVar("T")


POOL = "paused"
"""No worker serves it."""


@pytest.fixture(params=[timedelta(days=1)], ids=["daily"])
def scheduled(prefect_probe: PrefectProbe, request: pytest.FixtureRequest) -> Iterator[str]:
    """A deployment with a schedule, of one run a day where nothing else is said."""
    every: timedelta = request.param
    prefect_probe.server.embedded.create_pool(POOL, queues=("default",))

    async def create(client: PrefectClient) -> str:
        flow_id = await client.create_flow_from_name("scheduled-for-a-test")
        made = await client.create_deployment(
            flow_id=flow_id,
            name=f"scheduled-{uuid4().hex[:6]}",
            schedules=[DeploymentScheduleCreate(schedule=IntervalSchedule(interval=every), active=True)],
            parameters={"size": 1},
            work_pool_name=POOL,
            entrypoint="none.py:none",
        )
        return str(made)

    deployment_id = prefect_probe.do(create)
    yield deployment_id
    prefect_probe.do(lambda client: client.delete_deployment(UUID(deployment_id)))


def ask_for_runs(prefect_probe: PrefectProbe, deployment_id: str) -> None:
    """Let Prefect make the next runs of the schedule, without waiting for its scheduler."""
    prefect_probe.do(lambda client: client.request("POST", f"/deployments/{deployment_id}/schedule", json={}))  # type: ignore[arg-type]


def waiting(deployment_id: str) -> list[RunView]:
    """The deployment's scheduled runs, soonest first."""
    where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    return list(asked(lambda api: api.runs(where)))


def asked(work: Callable[[PrefectApi], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
            return await work(api)

    return asyncio.run(inside())


def test_a_quarantined_deployment_has_no_runs_ahead_and_gets_them_back(
    prefect_probe: PrefectProbe, scheduled: str
) -> None:
    ask_for_runs(prefect_probe, scheduled)
    ahead = len(waiting(scheduled))
    assert ahead > 0
    idempotency_key = str(uuid4())
    action = PauseDeployment(deployment_id=scheduled, hold=timedelta(hours=1))

    def execute() -> Effect:
        return asked(
            lambda api: PauseLever(api).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )
        ).effect

    delivery = asked(
        lambda api: PauseLever(api).execute(
            action, idempotency_key=idempotency_key, expected_state_id="", message="m"
        )
    )
    assert delivery.effect is Effect.DONE
    assert delivery.before["future_runs"] == ahead
    assert waiting(scheduled) == []
    assert (
        asked(lambda api: PauseLever(api).verify(action, delivery, idempotency_key=idempotency_key)).judgement
        is Judgement.VERIFIED
    )
    assert execute() is Effect.ALREADY
    # another quarantine of the same deployment is refused: its undo would end this one
    other = asked(
        lambda api: PauseLever(api).execute(
            action, idempotency_key=str(uuid4()), expected_state_id="", message="m"
        )
    )
    assert other.effect is Effect.REFUSED
    back = asked(lambda api: PauseLever(api).undo(action, delivery, idempotency_key=idempotency_key))
    assert (back.effect, back.reason) == (Effect.DONE, "")
    assert dict(back.after) == {"paused": False, "restored": ahead, "missing": 0}
    assert len(waiting(scheduled)) == ahead
    assert (
        asked(lambda api: PauseLever(api).undo(action, delivery, idempotency_key=idempotency_key)).effect
        is Effect.ALREADY
    )
    assert execute() is Effect.ALREADY
    assert not asked(lambda api: api.deployment(scheduled)).paused


def pause(deployment_id: str, idempotency_key: str) -> Delivery:
    action = PauseDeployment(deployment_id=deployment_id, hold=timedelta(hours=1))
    return asked(
        lambda api: PauseLever(api).execute(
            action, idempotency_key=idempotency_key, expected_state_id="", message="m"
        )
    )


def resume(deployment_id: str, delivery: Delivery, idempotency_key: str) -> Delivery:
    action = PauseDeployment(deployment_id=deployment_id, hold=timedelta(hours=1))
    return asked(lambda api: PauseLever(api).undo(action, delivery, idempotency_key=idempotency_key))


def test_what_people_changed_in_scheduled_runs_comes_back_with_them(
    prefect_probe: PrefectProbe, scheduled: str
) -> None:
    ask_for_runs(prefect_probe, scheduled)
    early, special, sized = (run for run in waiting(scheduled)[-3:])
    starts = sorted(str(run.next_start) for run in waiting(scheduled))
    assert special.next_start is not None
    later = special.next_start + timedelta(hours=1)

    async def edit(api: PrefectApi) -> None:
        changed = {
            "name": "special",
            "parameters": {"size": 7, "word": "sesame"},
            "tags": [*special.tags, "by-hand"],
        }
        await api.patch_run(special.id, changed)
        await api.patch_run(sized.id, {"job_variables": {"memory_mb": 192}})
        for run, when in ((special, later), (early, datetime.now(UTC) - timedelta(minutes=1))):
            scheduled = StateType.SCHEDULED
            moved = await api.set_state(
                run.id, scheduled, "Scheduled", message="", idempotency_key=str(uuid4()), scheduled_for=when
            )
            assert moved.ruling == "ACCEPT"

    asked(edit)
    idempotency_key = str(uuid4())
    delivery = pause(scheduled, idempotency_key)
    assert (delivery.effect, delivery.before["edited"]) == (Effect.DONE, 3), delivery
    assert waiting(scheduled) == []
    back = resume(scheduled, delivery, idempotency_key)
    told = {one["name"]: one for one in back.after["edits"]}
    assert set(told) == {early.name, "special", sized.name}
    runs = {run.id: run for run in waiting(scheduled)}
    assert len(runs) == len(starts), "one for each time, none twice"
    again = runs[told["special"]["run_id"]]
    assert again.id != special.id
    assert (again.name, again.parameters, again.next_start) == (
        "special",
        {"size": 7, "word": "sesame"},
        later,
    )
    assert set(again.tags) == {*special.tags, "by-hand"}
    assert again.expected == special.expected
    assert runs[told[sized.name]["run_id"]].job_variables == {"memory_mb": 192}
    # where it was put has passed; it has the time of its schedule again, and the receipt says so
    assert runs[told[early.name]["run_id"]].next_start == early.expected
    assert f"run {early.name}: its start at" in back.reason
    assert [name for name, one in told.items() if "lost" in one] == [early.name]
    # a value may be a secret: none is told, and none is kept in a note
    kept = asked(lambda api: ChangeRecords(api).of("edit"))
    assert [set(kept[step_key(idempotency_key, f"edit:{number}")]) for number in range(3)] == [
        {"at", "undone", "told"}
    ] * 3
    assert "sesame" not in str((delivery, back))
    assert resume(scheduled, delivery, idempotency_key).effect is Effect.ALREADY


def test_runs_whose_times_have_passed_are_made_only_where_somebody_had_put_them_later(
    prefect_probe: PrefectProbe, scheduled: str
) -> None:
    now, idempotency_key = datetime.now(UTC), str(uuid4())
    note = {"at": now.isoformat(), "schedule": "s", "expected": (now - timedelta(hours=1)).isoformat()}
    due = (now + timedelta(hours=2)).replace(microsecond=0)
    notes = (
        {"name": "put off", "changed": {"due": due.isoformat(), "parameters": {"size": 7}}},
        {"name": "passed", "changed": {"parameters": {"size": 7}}},
        {"name": "long", "changed": {"too_long": ["parameters"]}},
        {"name": "no more", "changed": {"parameters": {"size": 7}}, "expected": due.isoformat()},
    )

    async def put_down(api: PrefectApi) -> None:
        for number, one in enumerate(notes):
            await ChangeRecords(api).write(
                "edit", step_key(idempotency_key, f"edit:{number}"), {**note, **one}
            )

    asked(put_down)
    first, again = (
        asked(lambda api: EditedRuns(api).restore(scheduled, len(notes), idempotency_key)) for _ in range(2)
    )
    assert first == again
    assert [set(one) for one in first] == [{"name", "run_id"}, *[{"name", "lost"}] * 3]
    (made,) = [run for run in waiting(scheduled) if not run.auto_scheduled]
    assert (made.id, made.next_start, made.parameters) == (first[0]["run_id"], due, {"size": 7})


@pytest.mark.parametrize("scheduled", [timedelta(seconds=2)], indirect=True, ids=["every two seconds"])
def test_runs_that_were_due_when_their_deployment_was_paused_are_told_of(
    prefect_probe: PrefectProbe, scheduled: str
) -> None:
    ask_for_runs(prefect_probe, scheduled)
    eventually(
        lambda: waiting(scheduled)[0].next_start < datetime.now(UTC),  # type: ignore[operator]
        what="a run that is due",
    )
    idempotency_key = str(uuid4())
    delivery = pause(scheduled, idempotency_key)
    overdue = delivery.before["overdue"]
    assert overdue["runs"] >= 1
    back = resume(scheduled, delivery, idempotency_key)
    assert (
        f"deleted {overdue['runs']} that were due when it was paused, such as {overdue['first']}"
        in back.reason
    )


def test_changes_of_runs_are_lost_where_somebody_else_resumed_and_the_refusal_names_them(
    prefect_probe: PrefectProbe, scheduled: str
) -> None:
    ask_for_runs(prefect_probe, scheduled)
    special, idempotency_key = waiting(scheduled)[-1], str(uuid4())
    asked(lambda api: api.patch_run(special.id, {"parameters": {"size": 7}}))
    delivery = pause(scheduled, idempotency_key)
    asked(lambda api: api.resume_deployment(scheduled))
    for _ in range(2):
        # asked again, as after a death before it was recorded, it says the same
        back = resume(scheduled, delivery, idempotency_key)
        assert back.effect is Effect.REFUSED
        assert special.name in back.reason
