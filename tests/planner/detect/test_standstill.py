"""What stands still is one finding a cause, and each detector is silent where a world only looks alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.planner.detect.waiting_worlds import STATES, World

from pilotage.planner.detect.blockage import Cause
from pilotage.planner.detect.registry import (
    DETECTORS,
    DetectorSnapshot,
    backlogs,
    stale_resources,
    standing,
    unlike_before,
)
from pilotage.planner.findings import FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.queries.unusual import twins as living_twins

PARAMETERS = PlaybookParameters()
FOUND_WITHOUT_LEVER = sorted(set(STATES) - {"slots_of_nobody"})
"""Lost slots of a deployment have a lever, and are found with it elsewhere."""


class NoForecast:
    def forecast(self, run_ids: Sequence[str]) -> tuple[Any, ...]:
        return ()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def snapshot(world: World) -> DetectorSnapshot:
    world.collect()
    return DetectorSnapshot(store=world.store, forecaster=NoForecast(), parameters=PARAMETERS, now=world.now)


def found(world: World) -> list[Finding]:
    at = snapshot(world)
    return [*standing(at), *unlike_before(at)]


@pytest.mark.parametrize("state", FOUND_WITHOUT_LEVER)
def test_each_state_is_one_finding_with_its_cause_key(world: World, state: str) -> None:
    subject = STATES[state](world)
    (finding,) = found(world)
    assert finding.failure_class is FailureClass.STANDSTILL
    assert (finding.rule_id, finding.subject) == (subject.cause.value, subject.entity)
    assert finding.cause == f"ongoing:{subject.cause}:{subject.entity}"
    assert subject.by in finding.evidence[0].note
    if subject.run_id:
        assert finding.witness
    (again,) = found(world)
    assert again.incident_id == finding.incident_id


def test_many_runs_without_a_worker_are_one_finding_and_nothing_is_spread(world: World) -> None:
    pool = world.pool()
    deployment = world.deployment(pool)
    for _ in range(205):
        world.run(deployment)
    world.passes(60)
    (finding,) = found(world)
    assert (finding.rule_id, finding.subject) == ("no_worker", f"pool:{pool}")
    assert "205 runs stand still" in finding.evidence[1].note
    assert backlogs(snapshot(world)) == []


def test_two_causes_at_once_are_two_findings(world: World) -> None:
    first, second = STATES["no_worker"](world), STATES["queue_paused"](world)
    assert {finding.subject for finding in found(world)} == {first.entity, second.entity}


def test_a_pool_that_is_meant_to_be_off_and_a_short_wait_are_silent(world: World) -> None:
    off = world.pool()
    world.deployment(off)
    world.ask("PATCH", f"/work_pools/{off}", {"is_paused": True})
    old = world.deployment(off, schedules=[{"schedule": {"interval": 600}}], paused=True)
    short = world.pool(concurrency_limit=1)
    world.worker(short)
    long = world.deployment(short, takes=timedelta(minutes=20))
    for _ in range(2):
        world.run(long)
    world.passes(15)
    assert old in world.look().deployments
    assert found(world) == []


def test_a_pause_that_the_owner_declared_is_silent(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    tags = ["pilotage:meant-to-be-off"]
    deployment = world.deployment(pool, schedules=[{"schedule": {"interval": 600}}], tags=tags)
    world.passes(20)
    world.collect()
    world.ask("POST", f"/deployments/{deployment}/pause_deployment")
    world.passes(60)
    assert found(world) == []


def test_a_dead_child_and_its_waiting_parent_are_one_finding(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    deployment = world.deployment(pool, takes=timedelta(minutes=2))
    for _ in range(9):  # it is known how long its runs take
        world.run(deployment)
        world.passes(4)
    world.plans[deployment] = None
    parent = world.run(deployment)
    world.passes(1)
    child = world.run(deployment, parent_task_run_id=world.task(parent, [], "RUNNING"))
    world.passes(1)
    world.beats(parent, child, minutes=3)
    world.beats(parent, minutes=20)
    assert found(world) == []
    (finding,) = stale_resources(snapshot(world))
    assert (finding.failure_class, finding.subject) == (FailureClass.SILENT, f"run:{child}")


def test_slots_that_prefect_does_not_count_are_found_and_counted_ones_are_not(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    lost, kept = (world.deployment(pool, takes=None, concurrency_limit=1) for _ in range(2))
    for each in (lost, kept):
        world.run(each)
    world.passes(1)
    kept_runs = {run.id for run in world.fake.tables.runs.values() if run.deployment_id == kept}
    for run in world.fake.tables.runs.values():
        if run.id in kept_runs and run.state.lease_id:
            world.fake.tables.leases[run.state.lease_id].expires += timedelta(days=1)
    world.passes(20)
    (finding,) = found(world)
    assert (finding.rule_id, finding.subject) == ("not_counted", f"limit:deployment:{lost}")
    assert finding.witness
    assert "Prefect counts 0" in finding.evidence[0].note


def test_a_long_run_waits_since_it_last_did_anything_and_not_since_it_began(world: World) -> None:
    pool, narrow = world.pool(), world.pool(concurrency_limit=1)
    world.worker(pool)
    world.worker(narrow)
    long = world.deployment(pool, takes=None)
    limit = world.limit("warehouse", 1)
    waits, parent = world.run(long), world.run(long)
    world.passes(180)
    world.slots(limit, waits)
    world.slots(limit, waits, "released")
    holder = world.run(long)
    busy = world.deployment(narrow, takes=timedelta(minutes=20))
    world.run(busy)
    world.passes(1)
    world.slots(limit, holder)
    world.run(busy, parent_task_run_id=world.task(parent, [], "RUNNING"))  # behind the other for a while
    world.passes(6)
    assert found(world) == []
    world.passes(40)
    (finding,) = found(world)
    assert (finding.rule_id, finding.subject) == ("global_limit", "limit:warehouse")
    assert "the longest for 4" in finding.evidence[1].note


def test_a_run_that_waits_for_a_person_is_found_only_after_a_day(world: World) -> None:
    run = world.run(world.deployment(world.pool()), timedelta(hours=1))
    for state in ("PENDING", "RUNNING", "PAUSED"):
        world.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
    world.passes(23 * 60)
    assert found(world) == []
    world.passes(90)
    (finding,) = found(world)
    assert (finding.rule_id, finding.subject) == ("waits_for_person", f"run:{run}")


def test_a_twin_is_found_and_runs_with_other_parameters_or_starts_are_none(world: World) -> None:
    deployment = world.deployment(world.pool())
    due = timedelta(hours=1)
    first = world.run(deployment, due, parameters={"day": 1})
    later = world.run(deployment, due, parameters={"day": 1})
    world.run(deployment, due, parameters={"day": 2})
    world.run(deployment, 2 * due, parameters={"day": 1})
    (finding,) = found(world)
    assert finding.failure_class is FailureClass.DUPLICATE
    assert finding.subject == f"run:{max(first, later)}"


def test_runs_that_were_asked_for_and_wait_for_one_limit_are_no_twins(world: World, make: Any) -> None:
    waiting = {"state_type": StateType.SCHEDULED, "state_name": "AwaitingConcurrencySlot", "run_count": 0}
    for number in range(3):
        for by, scheduled in (("asked", False), ("scheduled", True)):
            world.store.merge_runs(
                [
                    make.run(
                        run_id=f"{by}-{number}",
                        deployment_id=by,
                        expected_start=world.now,
                        auto_scheduled=scheduled,
                        **waiting,
                    )
                ]
            )
    assert {pair.later.run_id for pair in living_twins(world.store, world.now)} == {
        "scheduled-1",
        "scheduled-2",
    }


def test_work_that_is_shared_out_is_no_twin(world: World, make: Any) -> None:
    ahead, at_once = world.now - timedelta(minutes=5), world.now
    waiting = {"state_type": StateType.SCHEDULED, "state_name": "Scheduled", "run_count": 0}
    asked = [("at once", at_once, 2), ("for then", ahead, 2), ("many for then", ahead, 3)]
    for name, created, count in asked:
        for number in range(count):
            run = make.run(
                run_id=f"{name}-{number}",
                deployment_id=name,
                created=created,
                expected_start=world.now,
                auto_scheduled=False,
                **waiting,
            )
            world.store.merge_runs([run])
    assert {pair.later.run_id for pair in living_twins(world.store, world.now)} == {"for then-1"}


def test_a_run_that_a_schedule_makes_anew_is_no_twin_of_the_one_that_was_deleted(
    world: World, make: Any
) -> None:
    waiting = {"state_type": StateType.SCHEDULED, "state_name": "Scheduled", "run_count": 0}
    due = world.now + timedelta(minutes=5)

    def runs(name: str, *created: timedelta) -> None:
        for number, ago in enumerate(created):
            run = make.run(
                run_id=f"{name}-{number}",
                deployment_id=name,
                created=world.now - ago,
                expected_start=due,
                next_start=due,
                auto_scheduled=True,
                **waiting,
            )
            world.store.merge_runs([run])

    # the older one may be gone already, which is known with the next look at what waits
    runs("resumed", timedelta(hours=1), timedelta(seconds=5))
    runs("listed since", timedelta(hours=1), timedelta(minutes=2))
    runs("made at once", timedelta(seconds=5), timedelta(seconds=5))
    found = {pair.later.run_id for pair in living_twins(world.store, world.now)}
    assert found == {"listed since-1", "made at once-1"}


def test_a_run_that_takes_far_longer_is_found_and_a_long_but_usual_one_is_not(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    usual, odd = (world.deployment(pool, takes=timedelta(minutes=minutes)) for minutes in (55, 5))
    for _ in range(10):
        world.run(usual)
        world.run(odd)
        world.passes(70)
    world.plans[odd] = None
    hanging = world.run(odd)
    world.run(usual)
    world.passes(50)
    (finding,) = found(world)
    assert (finding.failure_class, finding.subject) == (FailureClass.OVERLONG, f"run:{hanging}")
    assert "Running for 49 min" in finding.evidence[0].note


def test_failures_inside_good_runs_are_found_where_they_are_new(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    fresh, usual = (
        world.deployment(pool, takes=timedelta(minutes=2)),
        world.deployment(pool, takes=timedelta(minutes=2)),
    )
    for number in range(8):
        runs = {each: world.run(each) for each in (fresh, usual)}
        world.passes(1)
        world.task(runs[fresh], [], "FAILED" if number >= 4 else "COMPLETED")
        world.task(runs[usual], [], "FAILED")
        world.passes(9)
    (finding,) = found(world)
    assert (finding.failure_class, finding.subject) == (FailureClass.HIDDEN_FAILURES, f"deployment:{fresh}")


def test_one_value_that_always_fails_is_found_and_a_flaky_deployment_is_not(world: World, make: Any) -> None:
    ended = []
    for number in range(16):
        for deployment, fails in (("bad", number % 4 == 0), ("flaky", number % 3 == 0)):
            moment = world.now - timedelta(minutes=10 * number + 1)
            kind = StateType.FAILED if fails else StateType.COMPLETED
            ended.append(
                make.run(
                    run_id=f"{deployment}-{number}",
                    deployment_id=deployment,
                    state_type=kind,
                    parameters={"region": ("eu", "us", "ap", "sa")[number % 4]},
                    ended=moment,
                    updated=moment,
                )
            )
    world.store.merge_runs(ended)
    at = DetectorSnapshot(store=world.store, forecaster=NoForecast(), parameters=PARAMETERS, now=world.now)
    (finding,) = unlike_before(at)
    assert (finding.failure_class, finding.subject) == (FailureClass.BAD_VALUE, "deployment:bad")
    assert "eu" in finding.evidence[0].note


def test_durations_that_creep_towards_the_next_start_are_found(world: World, make: Any) -> None:
    deployments = {}
    for name in ("creeps", "steady", "short"):
        deployments[name] = world.deployment(world.pool(), schedules=[{"schedule": {"interval": 3600}}])
    for number in range(20):
        for name, took in (
            ("creeps", 55 if number < 5 else 35),
            ("steady", 55),
            ("short", 10 if number < 5 else 5),
        ):
            ended = world.now - timedelta(hours=number, minutes=1)
            world.store.merge_runs(
                [
                    make.run(
                        run_id=f"{name}-{number}",
                        deployment_id=deployments[name],
                        state_type=StateType.COMPLETED,
                        run_count=1,
                        started=ended - timedelta(minutes=took),
                        ended=ended,
                        updated=ended,
                    )
                ]
            )
    site_only(world)
    at = DetectorSnapshot(store=world.store, forecaster=NoForecast(), parameters=PARAMETERS, now=world.now)
    (finding,) = unlike_before(at)
    assert (finding.failure_class, finding.subject) == (
        FailureClass.CREEPING,
        f"deployment:{deployments['creeps']}",
    )


def site_only(world: World) -> None:
    """Collect what governs runs, and no run."""
    import asyncio

    from tests.planner.detect.waiting_worlds import reader_of

    async def work() -> None:
        async with reader_of(world.fake) as reader:
            await world.sync.everything(reader)

    asyncio.run(work())


def test_a_day_of_two_hundred_deployments_as_they_should_be_finds_nothing(world: World) -> None:
    rng = world.rng
    pools = [world.pool("fast", "slow") for _ in range(4)]
    for pool in pools:
        world.worker(pool)
    for number in range(200):
        hour = rng.randrange(24)
        schedule: dict[str, Any] = {"interval": rng.choice((1800, 3600, 7200))}
        if number % 2:
            schedule = {"cron": f"{rng.randrange(60)} {hour} * * *", "timezone": "Europe/Berlin"}
        limit = {"concurrency_limit": 2} if number % 10 == 0 else {}
        world.deployment(
            rng.choice(pools),
            rng.choice(("default", "fast", "slow")),
            takes=timedelta(minutes=rng.choice((1, 2, 5, 12))),
            schedules=[{"schedule": schedule}],
            paused=number % 40 == 39,
            **limit,
        )
    seen: list[Finding] = []
    for _ in range(8):
        world.passes(180)
        at = snapshot(world)
        seen += [finding for detector in DETECTORS for finding in detector(at)]
    assert len([run for run in world.fake.tables.runs.values() if run.state.type == "COMPLETED"]) > 2000
    assert [(each.rule_id, each.subject, each.evidence[0].note) for each in seen] == []


def test_a_wait_for_a_place_is_found_only_when_it_is_unusual(world: World) -> None:
    pool = world.pool(concurrency_limit=1)
    world.worker(pool)
    deployment = world.deployment(pool, takes=timedelta(minutes=40))
    for _ in range(8):  # its runs usually wait for each other
        world.run(deployment)
        world.run(deployment)
        world.passes(90)
    world.run(deployment)
    world.run(deployment)
    world.passes(38)
    assert [each for each in found(world) if each.rule_id == Cause.POOL_FULL.value] == []


def test_a_run_that_waits_for_long_does_not_wait_for_a_pause_that_just_began(world: World) -> None:
    pool = world.pool("held")
    world.worker(pool, slots=0)
    world.run(world.deployment(pool, "held"))
    world.passes(20)
    assert found(world) == []
    world.ask("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": True})
    world.passes(1)
    assert found(world) == []
    world.passes(6)
    assert [finding.rule_id for finding in found(world)] == ["queue_paused"]
