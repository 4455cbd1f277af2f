"""Why it waits: in each of the states in which a run stands still, the first thing in its way is named."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.planner.detect.waiting_worlds import STATES, Subject, World
from tests.planner.detect.waiting_worlds_apart import APART

from pilotage.planner.detect.blockage import Blockage, Cause
from pilotage.planner.detect.waiting import prefect_slow, why_missing, why_waiting
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.facts import AskedFact

PARAMETERS = PlaybookParameters(cancelling_after=timedelta(minutes=6))
LOOKED_AT = range(20)
"""Worlds by seed that were looked at while this was built."""
NOT_LOOKED_AT = range(20, 40)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def named(world: World, subject: Subject) -> Blockage | None:
    site = world.look(*([subject.run_id] if subject.run_id else []))
    if subject.deployment_id:
        return why_missing(subject.deployment_id, site, PARAMETERS)
    run = site.run(subject.run_id)
    assert run is not None
    return why_waiting(run, site, PARAMETERS)


@pytest.mark.parametrize("state", STATES)
def test_the_cause_is_named_in_each_state(world: World, state: str) -> None:
    subject = STATES[state](world)
    found = named(world, subject)
    assert found is not None
    assert (found.cause, found.entity) == (subject.cause, subject.entity), found.told()
    assert found.doubts == ()
    assert found.words.endswith(".")
    assert found.disproof
    assert subject.by in found.by


def in_a_world(path: Path, seed: int) -> tuple[str, bool, str]:
    """Return which state a world is in, whether its cause is named, and what was said."""
    rng = random.Random(seed)
    state = sorted(STATES)[seed % len(STATES)]
    world = World(path, rng)
    try:
        world.crowd(rng.randrange(2, 7))
        world.passes(rng.uniform(5, 200))
        subject = STATES[state](world)
        found = named(world, subject)
        right = found is not None and (found.cause, found.entity) == (subject.cause, subject.entity)
        return state, right, found.told() if found else "nothing"
    finally:
        world.close()


@pytest.mark.parametrize("seeds", [LOOKED_AT, NOT_LOOKED_AT], ids=["looked at", "not looked at"])
def test_in_worlds_with_a_healthy_rest_the_cause_is_right(tmp_path: Path, seeds: range) -> None:
    told = [in_a_world(tmp_path, seed) for seed in seeds]
    right = sum(good for _, good, _ in told)
    wrong = Counter(state for state, good, _ in told if not good)
    assert right >= 0.95 * len(told), (wrong, [each for each in told if not each[1]])


@pytest.mark.parametrize("state", APART)
def test_in_worlds_that_were_written_apart_the_cause_is_right(world: World, state: str) -> None:
    world.crowd(3)
    subject = APART[state](world)
    found = named(world, subject)
    assert found is not None
    assert found.cause is subject.cause, found.told()
    if not subject.entity.startswith("run:"):
        assert found.entity == subject.entity, found.told()


def test_of_two_causes_the_first_of_the_chain_is_named_and_then_the_other(world: World) -> None:
    pool = world.pool("held")
    deployment = world.deployment(pool, "held")
    world.ask("PATCH", f"/work_pools/{pool}", {"is_paused": True})
    world.ask("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": True})
    run = world.run(deployment)
    world.passes(10)
    subject = Subject(cause=Cause.POOL_PAUSED, entity=f"pool:{pool}", run_id=run)
    for cause, entity, mend in (
        (Cause.POOL_PAUSED, f"pool:{pool}", ("PATCH", f"/work_pools/{pool}", {"is_paused": False})),
        (Cause.NO_WORKER, f"pool:{pool}", None),
        (
            Cause.QUEUE_PAUSED,
            f"queue:{pool}/held",
            ("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": False}),
        ),
    ):
        found = named(world, subject)
        assert found is not None
        assert (found.cause, found.entity) == (cause, entity)
        if mend is not None:
            world.ask(*mend)
        else:
            world.worker(pool)
        world.passes(1)
    world.passes(3)
    assert world.fake.tables.runs[run].state.type == "COMPLETED"


def test_facts_that_are_too_old_are_named_and_nothing_is_blamed_on_them(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    deployment = world.deployment(pool)
    world.ask("PATCH", f"/work_pools/{pool}", {"is_paused": True})
    run_id = world.run(deployment)
    world.passes(5)
    site = world.look(run_id)
    old = replace(site, now=site.now + timedelta(minutes=20))
    run = old.run(run_id)
    assert run is not None
    found = why_waiting(run, old, PARAMETERS)
    assert found is not None
    assert found.cause is Cause.FACTS_OLD
    assert any("work pools were last read 20 min ago" in doubt for doubt in found.doubts)
    never = replace(site, asked={})
    found = why_waiting(run, never, PARAMETERS)
    assert found is not None
    assert any("work pools were never read" in doubt for doubt in found.doubts)


def why(world: World, run_id: str) -> Blockage:
    found = named(world, Subject(cause=Cause.GOES_ON, entity="", run_id=run_id))
    assert found is not None
    return found


def test_a_dead_child_is_what_its_parent_waits_for_and_a_living_one_is_not(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    deployment = world.deployment(pool, takes=None)
    parents = [world.run(deployment) for _ in range(2)]
    world.passes(1)
    children = [
        world.run(deployment, parent_task_run_id=world.task(parent, [], "RUNNING")) for parent in parents
    ]
    world.passes(1)
    world.beats(*parents, *children, minutes=4)
    world.beats(*parents, children[0], minutes=6)  # the other child's process is gone
    lives, waits = (why(world, parent) for parent in parents)
    assert (lives.cause, lives.trouble) == (Cause.GOES_ON, False)
    assert (waits.cause, waits.entity) == (Cause.SILENT, f"run:{children[1]}")
    assert waits.words.startswith("It waits for its child ")
    assert "silent for 6 min" in waits.words


def test_a_running_run_without_heartbeats_is_told_to_send_none(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    deployment = world.deployment(pool, takes=None)
    mute, beats = world.run(deployment), world.run(deployment)
    world.passes(1)
    world.beats(beats, minutes=12)
    assert "sends no heartbeats" in why(world, mute).words
    assert "sends no heartbeats" not in why(world, beats).words


def test_a_retry_that_outlasts_the_lease_of_its_slot_is_told(world: World) -> None:
    pool = world.pool()
    deployment = world.deployment(pool, concurrency_limit=1)
    for minutes, told in ((20, True), (2, False)):
        run = world.run(deployment, timedelta(hours=9))
        later = (world.now + timedelta(minutes=minutes)).isoformat()
        retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": later}}
        for state in ({"type": "PENDING"}, {"type": "RUNNING"}, retry):
            world.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
        found = why(world, run)
        assert found.cause is Cause.RETRY_PENDING
        assert ("loses the slot" in found.words) is told


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        ("QueuePool limit of size 5 overflow 10 reached", "no connection left"),
        ("(sqlite3.OperationalError) database is locked", "use PostgreSQL"),
        ("could not write: No space left on device", "disk is full"),
        ("HTTP 503", "Look at its database"),
    ],
)
def test_what_prefect_is_short_of_is_told_where_its_answers_say_it(
    world: World, error: str, todo: str
) -> None:
    pool = world.pool()
    world.worker(pool)
    site = world.look()
    slow = AskedFact(kind="api", at=world.now, ms=200, requests=100, failures=40, error=error)
    found = prefect_slow(replace(site, asked={**site.asked, "api": slow}), PARAMETERS)
    assert found is not None
    assert todo in found.todo
    well = replace(slow, failures=1)
    assert prefect_slow(replace(site, asked={**site.asked, "api": well}), PARAMETERS) is None


def test_what_is_as_it_should_be_is_no_trouble(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    long = world.deployment(pool, takes=None)
    running, soon = world.run(long), world.run(long, due=timedelta(hours=1))
    world.passes(3)
    site = world.look(running, soon)
    for run_id, cause in ((running, Cause.GOES_ON), (soon, Cause.NOT_DUE)):
        run = site.run(run_id)
        assert run is not None
        found = why_waiting(run, site, PARAMETERS)
        assert found is not None
        assert (found.cause, found.trouble) == (cause, False)


def test_a_pool_that_is_slow_to_start_is_given_three_times_what_it_usually_takes(world: World) -> None:
    pool = world.pool()
    worker = world.worker(pool)
    worker.start_up = timedelta(minutes=12)
    deployment = world.deployment(pool)
    for _ in range(12):
        world.run(deployment)
        world.passes(3)
    world.passes(30)
    world.collect()
    worker.start_up = timedelta(days=9)
    run = world.run(deployment)
    world.passes(25)
    slow = why(world, run)
    assert slow.cause is Cause.JUST_DUE
    assert "nineteen of twenty runs of its pool need up to 12 min" in slow.words
    world.passes(25)
    stuck = why(world, run)
    assert stuck.cause is Cause.NEVER_STARTED
    assert "nineteen of twenty" in stuck.words
    assert stuck.entity == f"pool:{pool}"


def test_a_pool_that_is_slow_to_cancel_is_given_three_times_what_it_usually_takes(world: World) -> None:
    subject = STATES["cancelling_for_ever"](world)
    assert why(world, subject.run_id).cause is Cause.CANCELLING_TOO_LONG
    pool = subject.entity.removeprefix("pool:")
    world.worker(pool)
    done = [world.run(world.deployment(pool)) for _ in range(10)]
    world.passes(5)
    for run in done:
        about = {"prefect.resource.id": f"prefect.flow-run.{run}"}
        for name, ago in (("Cancelling", timedelta(hours=3)), ("Cancelled", timedelta(hours=1))):
            event = {"event": f"prefect.flow-run.{name}", "resource": about}
            world.fake.engine.emit(event, world.now - ago)
    known = why(world, subject.run_id)
    assert known.cause is Cause.GOES_ON
    assert "up to 120 min" in known.words


def test_a_queue_that_is_held_for_some_seconds_is_not_called_paused(world: World) -> None:
    pool = world.pool("held")
    world.worker(pool, slots=0)
    run = world.run(world.deployment(pool, "held"))
    world.passes(20)
    world.collect()
    world.ask("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": True})
    world.passes(0.1)
    held = why(world, run)
    assert (held.cause, held.trouble) == (Cause.JUST_DUE, False)
    assert "hold a queue for some seconds" in held.words
    world.passes(0.5)
    assert why(world, run).cause is Cause.QUEUE_PAUSED
