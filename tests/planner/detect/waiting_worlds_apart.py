"""Sites in which something stands still, written apart from those that the detectors were built with.

Each was written from what Prefect does and what its users ask about, before it was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tests.planner.detect.waiting_worlds import State, Subject, World

from pilotage.planner.detect.blockage import Cause


def deploy_again(w: World, deployment: str, pool: str, **more: Any) -> None:
    """As `flow.deploy` does when the deployment exists."""
    row = w.fake.tables.deployments[deployment]
    place = {"work_pool_name": pool, "work_queue_name": "default"}
    w.ask("POST", "/deployments/", {"name": row["name"], "flow_id": row["flow_id"], **place, **more})


def queue_limit_zero(w: World) -> Subject:
    """Somebody "paused" a queue by a limit of 0."""
    pool = w.pool("shut")
    w.worker(pool)
    deployment = w.deployment(pool, "shut")
    w.run(deployment)
    w.passes(10)
    w.collect()
    w.ask("PATCH", f"/work_pools/{pool}/queues/shut", {"concurrency_limit": 0})
    run = w.run(deployment)
    w.passes(w.rng.uniform(35, 90))
    return Subject(cause=Cause.QUEUE_FULL, entity=f"queue:{pool}/shut", run_id=run)


def pool_limit_zero(w: World) -> Subject:
    pool = w.pool(concurrency_limit=0)
    w.worker(pool)
    run = w.run(w.deployment(pool))
    w.passes(w.rng.uniform(35, 90))
    return Subject(cause=Cause.POOL_FULL, entity=f"pool:{pool}", run_id=run)


def moved_to_another_pool(w: World) -> Subject:
    """The deployment moved to a pool with a worker; the run was made before and waits where nobody is left."""
    old, new = w.pool(), w.pool()
    worker = w.worker(old)
    deployment = w.deployment(old)
    w.run(deployment)
    w.passes(10)
    worker.kill()
    run = w.run(deployment)
    w.worker(new)
    deploy_again(w, deployment, new)
    w.passes(w.rng.uniform(8, 40))
    return Subject(cause=Cause.NO_WORKER, entity=f"pool:{old}", run_id=run)


def served_by_another_pool_only(w: World) -> Subject:
    """A worker of another pool, of a like name, is well."""
    pool = w.pool(name="etl-prod")
    other = w.pool(name="etl-prod-2")
    w.worker(other)
    w.run(w.deployment(other))
    run = w.run(w.deployment(pool))
    w.passes(w.rng.uniform(8, 40))
    return Subject(cause=Cause.NO_WORKER, entity=f"pool:{pool}", run_id=run)


def higher_queue_eats_the_pool(w: World) -> Subject:
    """A pool of two places, and a queue of first rank that is never empty."""
    pool = w.pool("first", "last", concurrency_limit=2)
    w.ask("PATCH", f"/work_pools/{pool}/queues/first", {"priority": 1})
    w.ask("PATCH", f"/work_pools/{pool}/queues/last", {"priority": 9})
    w.worker(pool)
    greedy = w.deployment(pool, "first", takes=timedelta(minutes=8))
    for _ in range(30):
        w.run(greedy)
    w.passes(3)
    run = w.run(w.deployment(pool, "last"))
    w.passes(w.rng.uniform(35, 60))
    return Subject(cause=Cause.POOL_FULL, entity=f"pool:{pool}", run_id=run)


def behind_a_stuck_pending_run(w: World) -> Subject:
    """The one place of the deployment is kept by a run that is Pending for ever."""
    pool = w.pool()
    worker = w.worker(pool)
    worker.start_up = timedelta(days=9)
    deployment = w.deployment(pool, concurrency_limit=1)
    w.run(deployment)
    w.passes(2)
    for lease in w.fake.tables.leases.values():
        lease.expires += timedelta(days=9)
    run = w.run(deployment)
    w.passes(w.rng.uniform(35, 60))
    return Subject(cause=Cause.DEPLOYMENT_LIMIT, entity=f"limit:deployment:{deployment}", run_id=run)


def ring_of_three(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    limits = [w.limit(w.word(name), 1) for name in ("a", "b", "c")]
    deployments = [w.deployment(pool, takes=None) for _ in limits]
    runs = [w.run(each) for each in deployments]
    w.passes(1)
    for place, run in enumerate(runs):
        for limit in (limits[place], limits[(place + 1) % 3]):
            w.slots(limit, run)
            w.slots(limit, run, "released")
    w.passes(1)
    for run, limit in zip(runs, limits, strict=True):
        w.slots(limit, run)
    w.passes(w.rng.uniform(35, 60))
    return Subject(cause=Cause.RING, entity="ring:" + ",".join(sorted(runs)), run_id=runs[1])


def child_in_a_dead_pool(w: World) -> Subject:
    """The parent runs well and waits for a child that nobody can start."""
    pool, dead = w.pool(), w.pool()
    w.worker(pool)
    parent = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    task = w.task(parent, [], "RUNNING")
    w.run(w.deployment(dead), parent_task_run_id=task)
    w.passes(w.rng.uniform(35, 60))
    return Subject(cause=Cause.NO_WORKER, entity=f"pool:{dead}", run_id=parent)


def queue_deleted(w: World) -> Subject:
    pool = w.pool("gone")
    w.worker(pool)
    deployment = w.deployment(pool, "gone")
    w.run(deployment)
    w.passes(3)
    run = w.run(deployment, due=timedelta(minutes=5))
    w.passes(1)
    w.collect()
    w.ask("DELETE", f"/work_pools/{pool}/queues/gone")
    w.passes(w.rng.uniform(15, 60))
    return Subject(cause=Cause.QUEUE_GONE, entity=f"queue:{pool}/gone", run_id=run)


def paused_pool_without_workers(w: World) -> Subject:
    """Two causes: the pause comes first."""
    pool = w.pool(is_paused=True)
    run = w.run(w.deployment(pool))
    w.passes(w.rng.uniform(8, 40))
    return Subject(cause=Cause.POOL_PAUSED, entity=f"pool:{pool}", run_id=run)


def paused_queue_of_full_pool(w: World) -> Subject:
    pool = w.pool("held", concurrency_limit=1)
    w.worker(pool)
    w.run(w.deployment(pool, takes=None))
    w.passes(2)
    w.ask("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": True})
    run = w.run(w.deployment(pool, "held"))
    w.passes(w.rng.uniform(35, 60))
    return Subject(cause=Cause.QUEUE_PAUSED, entity=f"queue:{pool}/held", run_id=run)


def cron_paused_over_night(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    schedule = {"cron": "*/20 * * * *", "timezone": "America/New_York"}
    deployment = w.deployment(pool, schedules=[{"schedule": schedule}])
    w.passes(65)
    w.collect()
    w.ask("POST", f"/deployments/{deployment}/pause_deployment")
    w.passes(w.rng.uniform(400, 600))
    return Subject(cause=Cause.DEPLOYMENT_PAUSED, entity=f"deployment:{deployment}", deployment_id=deployment)


def one_of_two_schedules_off(w: World) -> Subject:
    """The hourly one goes on, and the one that somebody asks about is off: the run of the hourly one is due later."""
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, schedules=[{"schedule": {"interval": 300}}], paused=True)
    w.ask("POST", f"/deployments/{deployment}/resume_deployment")
    w.passes(30)
    w.collect()
    for each in w.fake.tables.deployments[deployment]["schedules"]:
        w.ask("PATCH", f"/deployments/{deployment}/schedules/{each['id']}", {"active": False})
    for run in list(w.fake.tables.by_deployment[deployment].values()):
        if run.state.type == "SCHEDULED":
            w.fake.tables.drop_run(run.id)
    w.passes(w.rng.uniform(35, 200))
    return Subject(cause=Cause.SCHEDULE_INACTIVE, entity=f"deployment:{deployment}", deployment_id=deployment)


def never_a_worker(w: World) -> Subject:
    """A pool of type docker that was made in the UI; many runs wait, this is the newest."""
    pool = w.pool(type="docker")
    deployment = w.deployment(pool)
    for _ in range(20):
        w.run(deployment)
        w.passes(1)
    run = w.run(deployment)
    w.passes(w.rng.uniform(8, 30))
    return Subject(cause=Cause.NO_WORKER, entity=f"pool:{pool}", run_id=run)


def asks_for_input(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    run = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    until = (w.now + timedelta(days=30)).isoformat()
    state = {"type": "PAUSED", "name": "Paused", "state_details": {"pause_timeout": until}}
    w.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    w.passes(60 * 30)
    return Subject(cause=Cause.WAITS_FOR_PERSON, entity=f"run:{run}", run_id=run)


def due_tomorrow(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    run = w.run(w.deployment(pool), due=timedelta(hours=20))
    w.passes(5)
    return Subject(cause=Cause.NOT_DUE, entity=f"run:{run}", run_id=run)


def just_due(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool)
    w.run(deployment)
    w.passes(5)
    run = w.run(deployment)
    w.passes(0.05)
    return Subject(cause=Cause.JUST_DUE, entity=f"run:{run}", run_id=run)


def awaits_retry(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    run = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    at = (w.now + timedelta(minutes=30)).isoformat()
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": at}}
    w.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    w.passes(5)
    return Subject(cause=Cause.RETRY_PENDING, entity=f"run:{run}", run_id=run)


def long_and_healthy(w: World) -> Subject:
    pool = w.pool()
    w.worker(pool)
    run = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    w.beats(run, minutes=50)
    return Subject(cause=Cause.GOES_ON, entity=f"run:{run}", run_id=run)


def deployment_limit_of_two_pools(w: World) -> Subject:
    """The holder of the deployment's only place was started in another pool, before the deployment moved."""
    first, second = w.pool(), w.pool()
    w.worker(first)
    w.worker(second)
    deployment = w.deployment(first, takes=None, concurrency_limit=1)
    w.run(deployment)
    w.passes(2)
    for lease in w.fake.tables.leases.values():
        lease.expires += timedelta(days=9)
    deploy_again(w, deployment, second, concurrency_limit=1)
    run = w.run(deployment)
    w.passes(w.rng.uniform(35, 60))
    return Subject(cause=Cause.DEPLOYMENT_LIMIT, entity=f"limit:deployment:{deployment}", run_id=run)


APART: Mapping[str, State] = {
    each.__name__: each
    for each in (
        queue_limit_zero,
        pool_limit_zero,
        moved_to_another_pool,
        served_by_another_pool_only,
        higher_queue_eats_the_pool,
        behind_a_stuck_pending_run,
        ring_of_three,
        child_in_a_dead_pool,
        queue_deleted,
        paused_pool_without_workers,
        paused_queue_of_full_pool,
        cron_paused_over_night,
        one_of_two_schedules_off,
        never_a_worker,
        asks_for_input,
        due_tomorrow,
        just_due,
        awaits_retry,
        long_and_healthy,
        deployment_limit_of_two_pools,
    )
}
"""Written apart, by name."""
