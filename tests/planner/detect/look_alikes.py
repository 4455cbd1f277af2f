"""For each rule a pair of sites on the fake Prefect: in one something stands still, the other only looks like it.

Each function builds both: with `trouble` the rule is to be found at the end, without it nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from tests.planner.detect.waiting_worlds import World

Pair = Callable[[World, bool], None]
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
OFF = ["pilotage:meant-to-be-off"]


def every(seconds: int) -> list[dict[str, Any]]:
    return [{"schedule": {"interval": seconds}}]


def slow_poll(w: World, pool: str, **more: Any) -> Any:
    """A worker that asks once a minute: days pass quicker."""
    worker = w.worker(pool, **more)
    worker.poll = timedelta(seconds=60)
    return worker


# -- what a due run waits for


def no_worker(w: World, trouble: bool) -> None:
    """Its worker is replaced by another one, within three minutes."""
    pool = w.pool()
    first = w.worker(pool)
    deployment = w.deployment(pool)
    w.run(deployment)
    w.passes(5)
    first.kill()
    w.run(deployment)
    w.passes(3)
    if not trouble:
        w.worker(pool)
    w.passes(12)


def queue_not_polled(w: World, trouble: bool) -> None:
    """Nobody serves the queue, and nothing is due in it."""
    pool = w.pool("rest")
    w.worker(pool, ("default",))
    w.run(w.deployment(pool, "rest"), timedelta(0) if trouble else 9 * HOUR)
    w.passes(30)


def pool_paused(w: World, trouble: bool) -> None:
    """It is paused, and nothing is due in it."""
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool)
    w.ask("PATCH", f"/work_pools/{pool}", {"is_paused": True})
    w.run(deployment, timedelta(0) if trouble else 9 * HOUR)
    w.passes(30)


def queue_paused(w: World, trouble: bool) -> None:
    """It is paused for three minutes, and its runs wait until then."""
    pool = w.pool("held")
    w.worker(pool)
    w.ask("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": True})
    w.run(w.deployment(pool, "held"))
    w.passes(3)
    if not trouble:
        w.ask("PATCH", f"/work_pools/{pool}/queues/held", {"is_paused": False})
    w.passes(5)


def gone(w: World, what: str, trouble: bool) -> None:
    """It was deleted, after its deployment moved away from it."""
    pool = w.pool("old", "new")
    worker = w.worker(pool)
    deployment = w.deployment(pool, "old")
    w.run(deployment)
    w.passes(3)
    run = w.run(deployment, timedelta(minutes=5))
    w.passes(1)
    w.collect()
    if not trouble:
        w.ask("DELETE", f"/flow_runs/{run}")
    if what == "pool":
        worker.kill()
    w.ask("DELETE", f"/work_pools/{pool}/queues/old" if what == "queue" else f"/work_pools/{pool}")
    w.passes(30)


def queue_gone(w: World, trouble: bool) -> None:
    gone(w, "queue", trouble)


def pool_gone(w: World, trouble: bool) -> None:
    gone(w, "pool", trouble)


def deployment_gone(w: World, trouble: bool) -> None:
    """It was deleted when its last run had ended; with trouble that one is to be tried again."""
    pool = w.pool()
    worker = w.worker(pool)
    deployment = w.deployment(pool)
    run = w.run(deployment)
    w.passes(5)
    w.ask("DELETE", f"/deployments/{deployment}")
    worker.stop()
    if trouble:
        retry = {
            "type": "SCHEDULED",
            "name": "AwaitingRetry",
            "state_details": {"scheduled_time": str(w.now)},
        }
        w.ask("POST", f"/flow_runs/{run}/set_state", {"state": retry, "force": True})
    w.passes(10)


def no_pool(w: World, trouble: bool) -> None:
    """It is served by a process that asks for its runs, which is busy for a while."""
    deployment = w.deployment()
    w.run(deployment)
    for _ in range(20):
        w.passes(0.5)
        if not trouble:
            w.fake.tables.deployments[deployment]["last_polled"] = w.now.isoformat()


def full(w: World, what: str, trouble: bool) -> None:
    """It is full, and whoever waits has waited no longer than such a thing may take."""
    room: dict[str, Any] = {"concurrency_limit": 1} if what == "pool" else {}
    pool = w.pool("narrow", **room)
    if what == "queue":
        w.ask("PATCH", f"/work_pools/{pool}/queues/narrow", {"concurrency_limit": 1})
    w.worker(pool, slots=1 if what == "worker" else 1000)
    limit = {"concurrency_limit": 1} if what == "deployment" else {}
    long = w.deployment(pool, "narrow", takes=None, **limit)
    holder = w.run(long)
    w.passes(2)
    for lease in w.fake.tables.leases.values():
        lease.expires += DAY  # a living process renews its lease
    w.passes(40)
    w.says(holder)
    w.run(long)
    w.passes(40 if trouble else 12)


def pool_full(w: World, trouble: bool) -> None:
    full(w, "pool", trouble)


def queue_full(w: World, trouble: bool) -> None:
    full(w, "queue", trouble)


def deployment_limit(w: World, trouble: bool) -> None:
    full(w, "deployment", trouble)


def not_taken(w: World, trouble: bool) -> None:
    full(w, "worker", trouble)


def tag_limit(w: World, trouble: bool) -> None:
    """The tag's slot is taken for long, and the other's task has no such tag."""
    pool = w.pool()
    w.worker(pool)
    w.limit("tag:db", 1)
    holder, other = w.run(w.deployment(pool, takes=None)), w.run(w.deployment(pool, takes=None))
    w.passes(2)
    task = w.task(holder, ["db"], "RUNNING")
    w.ask("POST", "/concurrency_limits/increment", {"names": ["db"], "task_run_id": task})
    w.task(other, ["db"] if trouble else ["files"], "PENDING")
    w.passes(1)
    w.collect()
    w.passes(45)


def global_limit(w: World, trouble: bool) -> None:
    """The limit is full for long; the other runs take slots of it too, and now and then do something."""
    pool = w.pool()
    w.worker(pool)
    limit = w.limit("warehouse", 1)
    deployment = w.deployment(pool, takes=None)
    runs = [w.run(deployment) for _ in range(2)]
    w.passes(1)
    for run in runs:
        w.slots(limit, run)
        w.slots(limit, run, "released")
    w.slots(limit, runs[0])
    w.passes(1)
    w.collect()
    for _ in range(9):
        w.passes(5)
        if not trouble:
            w.says(runs[1])


def slots_of_nobody(w: World, trouble: bool) -> None:
    """All slots of a global limit are taken, by a run that lives."""
    pool = w.pool()
    w.worker(pool)
    limit = w.limit("warehouse", 1)
    quick, long = w.deployment(pool, takes=timedelta(minutes=20)), w.deployment(pool, takes=None)
    holder, waits = w.run(quick if trouble else long), w.run(long)
    w.passes(1)
    w.slots(limit, waits)
    w.slots(limit, waits, "released")
    w.slots(limit, holder)
    w.passes(1)
    w.collect()
    w.passes(25)
    if not trouble:
        w.says(waits)
    w.passes(15)


def ring(w: World, trouble: bool) -> None:
    """Each has what the other has had, and one of them is at work."""
    pool = w.pool()
    w.worker(pool)
    limits = [w.limit(name, 1) for name in ("red", "blue")]
    runs = [w.run(w.deployment(pool, takes=None)) for _ in limits]
    w.passes(1)
    for run in runs:
        for limit in limits:
            w.slots(limit, run)
            w.slots(limit, run, "released")
    w.passes(1)
    for run, limit in zip(runs, limits, strict=True):
        w.slots(limit, run)
    for _ in range(8):
        w.passes(2)
        if not trouble:
            w.says(runs[1])


def never_started(w: World, trouble: bool) -> None:
    """Its pool needs twelve minutes to start anything."""
    pool = w.pool()
    worker = w.worker(pool)
    worker.start_up = timedelta(minutes=12)
    deployment = w.deployment(pool)
    for _ in range(12):
        w.run(deployment)
        w.passes(2)
    w.passes(30)
    worker.start_up = 9 * DAY
    w.run(deployment)
    w.passes(60 if trouble else 20)


def cancelling_too_long(w: World, trouble: bool) -> None:
    """Its process takes three minutes to end."""
    pool = w.pool()
    worker = w.worker(pool)
    run = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    worker.poll = HOUR if trouble else timedelta(minutes=3)
    w.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    # an old server never ends it by itself
    w.fake.engine._cancelled_at_last = lambda *_: None  # type: ignore[method-assign]
    w.fake.agenda._heap = [
        each for each in w.fake.agenda._heap if "_later" not in getattr(each[2], "__qualname__", "")
    ]
    w.passes(12 if trouble else 3)


def waits_for_person(w: World, trouble: bool) -> None:
    """Somebody was asked yesterday evening."""
    run = w.run(w.deployment(w.pool()), HOUR)
    for state in ("PENDING", "RUNNING", "PAUSED"):
        w.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
    w.passes(60 * (26 if trouble else 16))


# -- why there is no run


def deployment_paused(w: World, trouble: bool) -> None:
    """It is paused, and its owner says that it is meant to be."""
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, schedules=every(600), tags=[] if trouble else OFF)
    w.passes(20)
    w.collect()
    w.ask("POST", f"/deployments/{deployment}/pause_deployment")
    w.passes(40)


def schedule_inactive(w: World, trouble: bool) -> None:
    """One of two schedules is off, and the other makes its runs."""
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, schedules=every(600) + ([] if trouble else every(900)))
    w.passes(20)
    w.collect()
    off = w.fake.tables.deployments[deployment]["schedules"][0]["id"]
    w.ask("PATCH", f"/deployments/{deployment}/schedules/{off}", {"active": False})
    for run in list(w.fake.tables.by_deployment[deployment].values()):
        if run.state.type == "SCHEDULED" and (run.created_by or {}).get("id") == off:
            w.fake.tables.drop_run(run.id)
    w.passes(40)


def wrong_zone(w: World, trouble: bool) -> None:
    """It has no zone, and fires every quarter of an hour: there are no hours that could be wrong."""
    pool = w.pool()
    w.worker(pool)
    for hour in range(5):
        w.deployment(pool, schedules=[{"schedule": {"cron": f"0 {hour} * * *", "timezone": "Europe/Berlin"}}])
    cron = f"15 {(w.now + HOUR).hour} * * *" if trouble else "*/15 * * * *"
    w.deployment(pool, schedules=[{"schedule": {"cron": cron}}])
    w.passes(40)


def not_made(w: World, trouble: bool) -> None:
    """At the time of its start it was paused, and is not any more; with trouble somebody deleted the run."""
    pool = w.pool()
    w.worker(pool)
    w.deployment(pool, schedules=every(600))
    first = w.now + timedelta(minutes=30, seconds=30)  # between two looks of Prefect's scheduler
    schedule = {"interval": 7200, "anchor_date": first.isoformat()}
    deployment = w.deployment(pool, schedules=[{"schedule": schedule}])
    w.passes(40)  # its first run is done
    w.collect()
    w.passes(100)
    if trouble:
        of = w.fake.tables.by_deployment[deployment].values()
        due = min((run for run in of if run.state.type == "SCHEDULED"), key=lambda run: run.id)
        w.passes(10.2)  # so late it is not made again
        w.fake.tables.drop_run(due.id)
        w.passes(10)
    else:
        w.passes(10)
        w.ask("POST", f"/deployments/{deployment}/pause_deployment")
        w.passes(4)
        w.ask("POST", f"/deployments/{deployment}/resume_deployment")
        w.passes(6)


def not_counted(w: World, trouble: bool) -> None:
    """The lease of its slot is renewed, as the process of a run does."""
    pool = w.pool()
    w.worker(pool)
    w.run(w.deployment(pool, takes=None, concurrency_limit=1))
    w.passes(1)
    if not trouble:
        for lease in w.fake.tables.leases.values():
            lease.expires += DAY
    w.passes(20)


def prefect_slow(w: World, trouble: bool) -> None:
    """A few requests among many were not answered."""
    w.worker(w.pool())
    w.asks(40, in_vain=False)
    w.asks(40 if trouble else 2, in_vain=True)


# -- unlike before


def twin(w: World, trouble: bool) -> None:
    """Runs of one start with other parameters, and of other starts with the same."""
    deployment = w.deployment(w.pool())
    w.run(deployment, HOUR, parameters={"day": 1})
    w.run(deployment, HOUR, parameters={"day": 1 if trouble else 2})
    w.run(deployment, HOUR, parameters={"day": 3})
    w.run(deployment, 2 * HOUR, parameters={"day": 1})


def executed_twice(w: World, trouble: bool) -> None:
    """Two workers took it, one for each of its attempts, and one of them said so twice."""
    pool = w.pool()
    worker = w.worker(pool)
    run = w.run(w.deployment(pool, takes=None))
    w.passes(2)
    w.taken(run, worker.name)
    if not trouble:
        failed = {
            "type": "SCHEDULED",
            "name": "AwaitingRetry",
            "state_details": {"scheduled_time": str(w.now)},
        }
        w.ask("POST", f"/flow_runs/{run}/set_state", {"state": failed, "force": True})
        worker.kill()
    w.taken(run, "another")
    if not trouble:
        for state in ("PENDING", "RUNNING"):
            w.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
        w.worker(pool)
    w.passes(2)


def long_run(w: World, trouble: bool, *, at_work: bool) -> None:
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, takes=timedelta(minutes=5 if trouble else 55))
    for _ in range(10):
        w.run(deployment)
        w.passes(10 if trouble else 60)
    w.plans[deployment] = None if trouble else timedelta(minutes=55)
    run = w.run(deployment)
    for _ in range(10):
        w.passes(5)
        if at_work:
            w.says(run)


def overlong(w: World, trouble: bool) -> None:
    """A long run, as all of its deployment are; with trouble it goes on working."""
    long_run(w, trouble, at_work=True)


def hung(w: World, trouble: bool) -> None:
    """A long run that does nothing but compute, as all of its deployment are."""
    long_run(w, trouble, at_work=False)


def failures_inside(w: World, trouble: bool) -> None:
    """Tasks of it fail in every run, and always have."""
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, takes=timedelta(minutes=2))
    for number in range(8):
        run = w.run(deployment)
        w.passes(1)
        w.task(run, [], "COMPLETED" if trouble and number < 4 else "FAILED")
        w.passes(9)


def creeping(w: World, trouble: bool) -> None:
    """It takes nearly as long as it may, and always has."""
    pool = w.pool()
    slow_poll(w, pool)
    deployment = w.deployment(pool, schedules=every(3600), takes=timedelta(minutes=38 if trouble else 55))
    w.passes(60 * 16)
    w.plans[deployment] = timedelta(minutes=55)
    w.passes(60 * 6)


def one_value_fails(w: World, trouble: bool) -> None:
    """A third of its runs fails, with whatever value."""
    pool = w.pool()
    slow_poll(w, pool)
    deployment = w.deployment(pool)
    regions = ("eu", "us", "ap", "sa")
    numbers: dict[str, int] = {}
    w.breaks[deployment] = lambda run: (
        run.parameters["region"] == "eu" if trouble else numbers[run.id] % 3 == 0
    )
    for number in range(16):
        run = w.run(deployment, parameters={"region": regions[number % 4]})
        numbers[run] = number
        w.passes(5)


def pile_up(w: World, trouble: bool) -> None:
    """Many starts at one minute, and workers that have room for all of them."""
    pool = w.pool()
    slow_poll(w, pool, slots=4 if trouble else 1000)
    at = w.now + HOUR
    cron = {"cron": f"{at.minute} {at.hour} * * *", "timezone": "UTC"}
    for _ in range(25):
        w.deployment(pool, schedules=[{"schedule": cron}], takes=timedelta(minutes=5))
    w.passes(60 * 72)
    w.collect()
    w.passes(35)


# -- left behind


def missed_heartbeats(w: World, trouble: bool) -> None:
    """It is heard by its heartbeats alone, for long."""
    pool = w.pool()
    worker = w.worker(pool)
    run = w.run(w.deployment(pool, takes=None))
    w.passes(1)
    w.beats(run, minutes=4)
    if trouble:
        worker.kill()
        w.worker(pool)
        w.passes(6)
    else:
        w.beats(run, minutes=16)


def lost_slots(w: World, trouble: bool) -> None:
    """Its only slot is held, by a run of it that lives."""
    pool = w.pool()
    w.worker(pool)
    deployment = w.deployment(pool, takes=None, concurrency_limit=1)
    if trouble:
        name = f"deployment:{deployment}"
        w.ask("POST", "/v2/concurrency_limits/increment", {"names": [name], "slots": 1})
    w.run(deployment)
    w.passes(1)
    if not trouble:
        for lease in w.fake.tables.leases.values():
            lease.expires += DAY
        w.run(deployment)
    w.collect()
    w.passes(15)


def nobody_started_it(w: World, trouble: bool) -> None:
    """It is Pending for some minutes, and nobody said yet that it started anything for it."""
    pool = w.pool()
    w.worker(pool)
    lost = w.run(w.deployment(pool), HOUR)
    w.ask("POST", f"/flow_runs/{lost}/set_state", {"state": {"type": "PENDING", "name": "Pending"}})
    w.passes(13 if trouble else 7)


PAIRS: Mapping[str, Pair] = {
    **{
        each.__name__: each
        for each in (
            no_worker,
            queue_not_polled,
            pool_paused,
            queue_paused,
            queue_gone,
            pool_gone,
            deployment_gone,
            no_pool,
            pool_full,
            queue_full,
            deployment_limit,
            not_taken,
            tag_limit,
            global_limit,
            slots_of_nobody,
            ring,
            never_started,
            cancelling_too_long,
            waits_for_person,
            deployment_paused,
            schedule_inactive,
            wrong_zone,
            not_made,
            not_counted,
            prefect_slow,
            twin,
            overlong,
            hung,
            creeping,
        )
    },
    "executed-twice": executed_twice,
    "failures-inside": failures_inside,
    "one-value-fails": one_value_fails,
    "pile-up": pile_up,
    "missed-heartbeats": missed_heartbeats,
    "slots-of-nobody": lost_slots,
    "never-started": nobody_started_it,
}
"""By the rule that is found."""
