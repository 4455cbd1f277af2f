"""Why a run does not go on: one pure function that walks the chain from its schedule to its start and names the first
blockage, with its numbers and holders.

The order is that in which Prefect comes to it: schedule, deployment, pool, workers, queue, limits, start time, Prefect
itself. A step whose facts are missing or too old blames nothing and is named among the doubts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pilotage.planner.detect import holding
from pilotage.planner.detect.blockage import (
    USUAL_TIMES,
    Blockage,
    Cause,
    ago,
    doubts_about,
    named,
    who_paused,
)
from pilotage.planner.detect.schedules import next_start, schedule_blockage, wrong_zone
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import words_of
from pilotage.telemetry.facts import LimitFact, PoolFact, QueueFact, RunFact, StateType, WorkerFact
from pilotage.telemetry.queries.site import SiteFacts

TAKEN_WITHIN = timedelta(seconds=45)
"""A due run is no trouble sooner: workers ask every 10 to 15 s, and Prefect calls it Late after 15 s."""
POLLED_WITHIN = timedelta(seconds=90)
"""Workers ask for runs every 10 to 15 s; Prefect calls a queue not ready after 60 s."""
BEATS_MISSED = 3
"""So many heartbeats a worker may miss, as in Prefect."""
BEAT = 30.0
"""Seconds between the heartbeats of a worker that does not say."""
BEATS_SHOW = timedelta(minutes=10)
"""A run that sends heartbeats has sent one by then: Prefect's default is one in 3 min."""
OFFERED = 200
"""Runs that Prefect offers a worker at a time."""
HELD_FOR = timedelta(seconds=25)
"""A lever of ours that moves runs holds their queue for some seconds: a pause is called so when it stands for longer."""
UNSERVED = (":push", ":managed")
"""Ends of the types of pools that need no worker."""


def why_waiting(run: RunFact, site: SiteFacts, parameters: PlaybookParameters) -> Blockage | None:
    """Return what keeps a run from going on, or None when it has ended."""
    found = _why(run, site, parameters, seen=())
    return found and replace(found, doubts=tuple(dict.fromkeys(found.doubts)))


def why_missing(deployment_id: str, site: SiteFacts, parameters: PlaybookParameters) -> Blockage | None:
    """Return why a deployment has no run where one is expected; None when the deployment is not known.

    A due run that waits is what is missing: then it is what that one waits for.
    """
    deployment = site.deployments.get(deployment_id)
    if deployment is None:
        return None
    due = [run for run in site.live if run.deployment_id == deployment_id and is_due(run, site)]
    if due:
        return why_waiting(
            min(due, key=lambda run: (run.expected_start or run.created, run.run_id)), site, parameters
        )
    return schedule_blockage(deployment, site, parameters)


def is_due(run: RunFact, site: SiteFacts) -> bool:
    """Return whether a run is made and should have begun."""
    if run.state_type is not StateType.SCHEDULED:
        return False
    return run.state_name == "AwaitingConcurrencySlot" or (
        run.next_start is not None and run.next_start <= site.now
    )


def waits_since(run: RunFact, site: SiteFacts) -> timedelta:
    """Return for how long a run has stood in what it waits for."""
    if run.state_type is StateType.SCHEDULED:
        began = run.next_start
        if run.state_name == "AwaitingConcurrencySlot":
            began = max(run.expected_start or run.created, run.created)
        elif run.run_count == 0 and run.expected_start is not None and began is not None:
            began = max(began, run.created)
    else:
        began = run.state_at or run.started or run.updated
    return max(site.now - began, timedelta(0)) if began else timedelta(0)


def _why(
    run: RunFact, site: SiteFacts, parameters: PlaybookParameters, seen: tuple[str, ...]
) -> Blockage | None:
    match run.state_type:
        case StateType.SCHEDULED:
            return _scheduled(run, site, parameters)
        case StateType.PENDING:
            return _pending(run, site, parameters)
        case StateType.CANCELLING:
            return _cancelling(run, site, parameters)
        case StateType.PAUSED:
            return Blockage(
                cause=Cause.WAITS_FOR_PERSON,
                entity=f"run:{run.run_id}",
                since=run.state_at,
                words=f"It is {run.state_name} {_for(run, site)}: it goes on when somebody resumes or answers it.",
                todo="Resume it, answer it, or cancel it.",
                disproof="a state after it",
            )
        case StateType.RUNNING:
            return _running(run, site, parameters, seen)
    return None


# -- a run that has not begun -------------------------------------------------------------------------------------


def _scheduled(run: RunFact, site: SiteFacts, parameters: PlaybookParameters) -> Blockage:
    waits = run.state_name == "AwaitingConcurrencySlot"
    if run.next_start is not None and run.next_start > site.now and not waits:
        return _not_due(run, site, parameters)
    doubts: list[str] = []
    for found in _chain(run, site, parameters, doubts):
        return replace(found, doubts=(*found.doubts, *doubts))
    if waits_since(run, site) < TAKEN_WITHIN:
        return Blockage(
            cause=Cause.JUST_DUE,
            entity=f"run:{run.run_id}",
            words=f"It is due since {words_of(waits_since(run, site))}; workers ask every 10 to 15 s, and nothing is "
            "known to be in its way.",
            doubts=tuple(doubts),
        )
    if doubts:
        return Blockage(
            cause=Cause.FACTS_OLD,
            entity="facts",
            words=f"It is due since {words_of(waits_since(run, site))}, and it cannot be told why.",
            todo="See whether Prefect answers: `pilotage status`, `pilotage doctor`.",
            doubts=tuple(doubts),
        )
    return _not_taken(run, site)


def _not_due(run: RunFact, site: SiteFacts, parameters: PlaybookParameters) -> Blockage:
    when = next_start(run.next_start, site)
    if run.state_name == "AwaitingRetry" or run.run_count > 0:
        return Blockage(
            cause=Cause.RETRY_PENDING,
            entity=f"run:{run.run_id}",
            since=run.state_at,
            words=f"It is tried again {when}.{_loses_its_slot(run, site)}",
        )
    for schedule in site.schedules.get(run.deployment_id or "", ()):
        doubt = wrong_zone(schedule, site, parameters) if run.auto_scheduled else None
        if doubt is not None:
            return doubt
    return Blockage(cause=Cause.NOT_DUE, entity=f"run:{run.run_id}", words=f"It is due {when}.")


def _loses_its_slot(run: RunFact, site: SiteFacts) -> str:
    """Return that a retry waits longer than the lease of its slot lasts, after which Prefect has crashed such runs."""
    limited = f"deployment:{run.deployment_id}" in site.limits
    began, due = run.state_at, run.next_start
    if not limited or began is None or due is None or due - began <= holding.LEASES_LAST:
        return ""
    return (
        f" Its deployment has a limit, and the lease of its slot lasts {words_of(holding.LEASES_LAST)}: a wait of "
        f"{words_of(due - began)} loses the slot, and the run may crash. A shorter delay keeps it."
    )


def _chain(
    run: RunFact, site: SiteFacts, parameters: PlaybookParameters, doubts: list[str]
) -> Iterator[Blockage]:
    """Yield what is in the way of a due run, first things first; what could not be looked at goes to the doubts."""
    doubts += doubts_about(site, "deployments")
    deployment = site.deployments.get(run.deployment_id or "")
    if run.deployment_id and deployment is None and not doubts:
        yield Blockage(
            cause=Cause.DEPLOYMENT_GONE,
            entity=f"deployment:{run.deployment_id}",
            words=f"Its deployment {run.deployment_name or run.deployment_id} is not there any more: nobody will take it.",
            todo="Cancel the run, or deploy again and start a new one.",
            disproof="a deployment of that id",
        )
    if run.pool is None:
        served = deployment is not None and _lately(deployment.last_polled, site, "deployments")
        if not served:
            yield _place_gone(run, site) or Blockage(
                cause=Cause.NO_POOL,
                entity=f"deployment:{run.deployment_id or ''}",
                words="It has no work pool, so no worker takes it; only a process that serves the deployment would, "
                f"and the deployment was last asked for runs {ago(deployment.last_polled if deployment else None, site)}.",
                todo="Deploy it to a work pool, or start the process that serves it (`flow.serve`).",
                disproof="a poll of the deployment in the last minute",
            )
        return
    yield from _pool(run, run.pool, site, doubts)
    yield from _queue(run, run.pool, site, doubts)
    yield from _limits(run, site, doubts)
    yield from _prefect(site, parameters)


def _place_gone(run: RunFact, site: SiteFacts) -> Blockage | None:
    """Return that the queue or pool was deleted in which earlier runs of the deployment were, or None."""
    pool, queue = site.was_in.get(run.deployment_id or "", ("", ""))
    if not pool or doubts_about(site, "pools") or doubts_about(site, "queues"):
        return None
    if pool not in site.pools:
        cause, entity, what = Cause.POOL_GONE, f"pool:{pool}", f"the work pool {pool}"
    elif queue and (pool, queue) not in site.queues:
        cause, entity, what = Cause.QUEUE_GONE, f"queue:{pool}/{queue}", f"the work queue {pool}/{queue}"
    else:
        return None
    return Blockage(
        cause=cause,
        entity=entity,
        words=f"It is in no work pool any more: earlier runs of its deployment were in {what}, which was deleted.",
        todo="Deploy again to a queue that exists, and start a new run: one that is made again under the old name does "
        "not take this run back.",
        disproof="the run in a work pool",
    )


def _lately(polled: datetime | None, site: SiteFacts, kind: str) -> bool:
    """Return whether something was polled shortly before it was last asked about."""
    if polled is None:
        return False
    return site.now - polled <= POLLED_WITHIN + (site.age(kind) or timedelta(0))


def _pool(run: RunFact, name: str, site: SiteFacts, doubts: list[str]) -> Iterator[Blockage]:
    unsure = doubts_about(site, "pools")
    doubts += unsure
    if unsure:
        return
    pool = site.pools.get(name)
    if pool is None:
        yield Blockage(
            cause=Cause.POOL_GONE,
            entity=f"pool:{name}",
            words=f"Its work pool {name} is not there any more.",
            todo="Make the pool again, or deploy to another.",
            disproof="a pool of that name",
        )
    elif pool.paused:
        act = who_paused(site, (name, f"{name}/"), pool.changed, "pause-work-pool", "hold_queue")
        yield Blockage(
            cause=Cause.POOL_PAUSED,
            entity=f"pool:{name}",
            since=pool.changed,
            words=f"Its work pool {name} is paused{_seen_since(pool, site)}; {_due_in(site, name)} due runs wait in it.",
            by=act.by if act else "",
            ours=bool(act and act.ours),
            todo=_goes_back(act is not None and act.ours, f"Resume the work pool {name}"),
            disproof="the pool is resumed",
        )
    elif not pool.type.endswith(UNSERVED):
        yield from _workers(name, pool, site, doubts)


def _seen_since(pool: PoolFact, site: SiteFacts) -> str:
    return f" since {ago(pool.changed, site)}".replace(" ago", "") if pool.changed else ""


def _goes_back(ours: bool, words: str) -> str:
    return (
        "It is taken back by itself when its time is over; an admin can do it now." if ours else f"{words}."
    )


def _due_in(site: SiteFacts, pool: str, queue: str | None = None) -> int:
    return sum(is_due(run, site) for run in site.live if run.pool == pool and queue in (None, run.queue))


def _workers(name: str, pool: PoolFact, site: SiteFacts, doubts: list[str]) -> Iterator[Blockage]:
    known = [worker for worker in site.workers if worker.pool == name]
    living = [worker for worker in known if _heard(worker)]
    queues = [queue for (of, _), queue in site.queues.items() if of == name]
    polled = [queue for queue in queues if _lately(queue.last_polled, site, "queues")]
    if not doubts_about(site, "queues") and polled:
        return
    unsure = doubts_about(site, f"workers:{name}")
    if (
        pool.status == "READY"
        and (unsure or living)
        and not (queues and _never_polled_since(queues, pool, site))
    ):
        doubts += unsure
        return
    last = max((queue.last_polled for queue in queues if queue.last_polled), default=None)
    heard = max((worker.heard for worker in known if worker.heard), default=None)
    if living and pool.status == "READY":
        words = (
            f"Nobody takes runs of the work pool {name}: {len(living)} of its workers still send heartbeats (last "
            f"{ago(heard, site)}), but none asked for runs since {ago(last, site)}."
        )
        todo = "Restart the worker: it is heard, and does not work."
    elif known:
        words = (
            f"No worker serves the work pool {name}: none of the {len(known)} that it had is heard, the last one "
            f"({_newest(known)}) {ago(heard, site)}."
        )
        todo = f"Start a worker: `prefect worker start --pool {name}`."
    else:
        words = f"No worker serves the work pool {name}: none was ever heard."
        todo = f"Start a worker: `prefect worker start --pool {name}`."
    yield Blockage(
        cause=Cause.NO_WORKER,
        entity=f"pool:{name}",
        since=last or heard,
        words=f"{words} {_due_in(site, name)} due runs wait in it.",
        todo=todo,
        doubts=unsure,
        disproof="a heartbeat of a worker of this pool, or a poll of one of its queues",
    )


def _never_polled_since(queues: Sequence[QueueFact], pool: PoolFact, site: SiteFacts) -> bool:
    """Return whether nobody polls a pool that is called ready, for longer than Prefect takes to notice."""
    last = max((queue.last_polled for queue in queues if queue.last_polled), default=None)
    if doubts_about(site, "queues"):
        return False
    if last is None:
        return pool.changed is None or site.now - pool.changed > POLLED_WITHIN
    return site.now - last > POLLED_WITHIN + (site.age("queues") or timedelta(0))


def _heard(worker: WorkerFact) -> bool:
    """Return whether a worker was alive when it was last asked about."""
    if worker.heard is None:
        return False
    return worker.seen - worker.heard <= timedelta(seconds=BEATS_MISSED * (worker.every or BEAT))


def _newest(workers: Sequence[WorkerFact]) -> str:
    return max(workers, key=lambda worker: (worker.heard or worker.seen, worker.name)).name


def _queue(run: RunFact, pool: str, site: SiteFacts, doubts: list[str]) -> Iterator[Blockage]:
    unsure = doubts_about(site, "queues")
    doubts += unsure
    if unsure or run.queue is None:
        return
    name = f"{pool}/{run.queue}"
    queue = site.queues.get((pool, run.queue))
    if queue is None:
        yield Blockage(
            cause=Cause.QUEUE_GONE,
            entity=f"queue:{name}",
            words=f"Its work queue {name} is not there any more.",
            todo="Make the queue again, or deploy to another.",
            disproof="a queue of that name",
        )
        return
    if queue.paused and not queue.pool_paused:
        since = site.queue_paused_since.get((pool, run.queue))
        act = who_paused(site, (name, run.queue), since, "pause-work-queue", "hold_queue")
        told = f" since {words_of(site.now - since)}" if since else ""
        opened = site.queue_last_open.get((pool, run.queue))
        if opened is not None and site.now - opened < HELD_FOR and act is None:
            yield Blockage(
                cause=Cause.JUST_DUE,
                entity=f"queue:{name}",
                since=since,
                words=f"Its work queue {name} is paused{told}. Levers of pilotage hold a queue for some seconds while they "
                "move runs in it, and open it again by themselves: it is called paused when it stays so.",
            )
        yield Blockage(
            cause=Cause.QUEUE_PAUSED,
            entity=f"queue:{name}",
            since=since,
            words=f"Its work queue {name} is paused{told}; {_due_in(site, pool, run.queue)} due runs wait in it.",
            by=act.by if act else "",
            ours=bool(act and act.ours),
            todo=_goes_back(act is not None and act.ours, f"Resume the work queue {name}"),
            disproof="the queue is resumed",
        )
    of_pool = site.pools.get(pool)
    others = [other for (of, _), other in site.queues.items() if of == pool and other.queue != run.queue]
    served = [other for other in others if _lately(other.last_polled, site, "queues")]
    pushed = of_pool is not None and of_pool.type.endswith(UNSERVED)
    if served and not pushed and not _lately(queue.last_polled, site, "queues"):
        polled = ", ".join(f"{other.queue} ({ago(other.last_polled, site)})" for other in served[:5])
        yield Blockage(
            cause=Cause.QUEUE_NOT_POLLED,
            entity=f"queue:{name}",
            since=queue.last_polled,
            words=f"No worker asks for the runs of its work queue {name} (last: {ago(queue.last_polled, site)}); the "
            f"workers of the pool serve {polled}. {_due_in(site, pool, run.queue)} due runs wait in it.",
            todo=f"Start a worker for it (`prefect worker start --pool {pool} --work-queue {run.queue}`), or move its "
            "deployments.",
            disproof="a poll of this queue",
        )


# -- limits -------------------------------------------------------------------------------------------------------


def _limits(run: RunFact, site: SiteFacts, doubts: list[str]) -> Iterator[Blockage]:
    ring = holding.ring_of(run, site)
    if ring is not None:
        yield ring
    queue = site.queues.get((run.pool or "", run.queue or ""))
    if queue is not None:
        in_queue = holding.occupying(site, queue.pool, queue.queue)
        if queue.limit is not None and len(in_queue) >= queue.limit:
            yield holding.full(
                Cause.QUEUE_FULL, f"queue:{queue.pool}/{queue.queue}", f"Its work queue {queue.pool}/{queue.queue}",
                queue.limit, len(in_queue), in_queue, site,
            )  # fmt: skip
    pool = site.pools.get(run.pool or "")
    if pool is not None and pool.limit is not None:
        in_pool = holding.occupying(site, pool.pool)
        if len(in_pool) >= pool.limit:
            yield holding.full(
                Cause.POOL_FULL, f"pool:{pool.pool}", f"Its work pool {pool.pool}", pool.limit, len(in_pool), in_pool,
                site,
            )  # fmt: skip
    if run.deployment_id:
        yield from _of_deployment(run, site, doubts)


def _of_deployment(run: RunFact, site: SiteFacts, doubts: list[str]) -> Iterator[Blockage]:
    limit = site.limits.get(f"deployment:{run.deployment_id}")
    waits = run.state_name == "AwaitingConcurrencySlot"
    unsure = doubts_about(site, "limits")
    if unsure and (waits or limit is not None):
        doubts += unsure
    if limit is None or not limit.active or unsure:
        return
    holders = holding.holders_of_deployment(site, run.deployment_id or "")
    if limit.taken < limit.limit and not (waits and len(holders) >= limit.limit):
        return
    name = run.deployment_name or run.deployment_id or ""
    yield holding.full_limit(
        limit, Cause.DEPLOYMENT_LIMIT, f"The limit of the deployment {name}", holders, site
    )


# -- a run that has begun -----------------------------------------------------------------------------------------


def _pending(run: RunFact, site: SiteFacts, parameters: PlaybookParameters) -> Blockage:
    waited = waits_since(run, site)
    taken = site.handed_out.get(run.run_id)
    taker = (
        f"the worker {taken.worker} took it {ago(taken.at, site)}"
        if taken
        else "no worker said that it took it"
    )
    usual = site.usually_pending.get(run.pool or "")
    patience = max(parameters.pending_after, USUAL_TIMES * usual) if usual else parameters.pending_after
    if waited < patience:
        return Blockage(
            cause=Cause.JUST_DUE,
            entity=f"run:{run.run_id}",
            since=run.state_at,
            words=f"It is {run.state_name} for {words_of(waited)}: {taker}, and its infrastructure is starting"
            f"{_as_usual(usual)}.",
        )
    fellows = [
        each
        for each in site.live
        if each.state_type is StateType.PENDING
        and each.pool == run.pool
        and waits_since(each, site) >= patience
    ]
    doubts: list[str] = []
    unserved = next(_pool(run, run.pool, site, doubts), None) if run.pool else None
    dead = f" {unserved.words}" if unserved is not None and unserved.cause is Cause.NO_WORKER else ""
    heard = site.heard.get(run.run_id)
    return Blockage(
        cause=Cause.NEVER_STARTED,
        entity=f"pool:{run.pool}" if run.pool else f"run:{run.run_id}",
        since=run.state_at,
        words=f"It is {run.state_name} for {words_of(waited)}: {taker}, its process was never heard, and nothing at all "
        f"since {ago(heard or run.state_at, site)}{_as_usual(usual)}. {len(fellows)} runs of its pool stand so.{dead}",
        todo="Look whether its infrastructure was ever made; where it was not, cancel the run and start it again."
        + (f" {unserved.todo}" if dead and unserved is not None else ""),
        holders=tuple(each.run_id for each in fellows),
        doubts=tuple(doubts),
        disproof="a line or an event of its process",
    )


def _as_usual(usual: timedelta | None) -> str:
    return f"; nineteen of twenty runs of its pool need up to {words_of(usual)} for it" if usual else ""


def _cancelling(run: RunFact, site: SiteFacts, parameters: PlaybookParameters) -> Blockage:
    waited = waits_since(run, site)
    usual = site.usually_cancelling.get(run.pool or "")
    if waited < (
        max(parameters.cancelling_after, USUAL_TIMES * usual) if usual else parameters.cancelling_after
    ):
        return Blockage(
            cause=Cause.GOES_ON,
            entity=f"run:{run.run_id}",
            since=run.state_at,
            words=f"It is being cancelled for {words_of(waited)}{_as_usual(usual)}.",
        )
    doubts: list[str] = []
    unserved = next(_pool(run, run.pool, site, doubts), None) if run.pool else None
    why = f" {unserved.words}" if unserved is not None else " Whoever runs it has not ended it."
    return Blockage(
        cause=Cause.CANCELLING_TOO_LONG,
        entity=f"pool:{run.pool}" if unserved is not None else f"run:{run.run_id}",
        since=run.state_at,
        words=f"It is Cancelling for {words_of(waited)} and keeps its slot.{why}",
        todo=(
            unserved.todo
            if unserved
            else "See whether its process lives; then end it, and Prefect frees the slot."
        )
        + " Prefect calls it Cancelled by itself after 5 min since 3.7.5; an older server never does.",
        doubts=tuple(doubts),
        disproof="its state becomes Cancelled",
    )


def _running(
    run: RunFact, site: SiteFacts, parameters: PlaybookParameters, seen: tuple[str, ...]
) -> Blockage:
    if run.run_id in site.silent:
        return _silent(run, site)
    ring = holding.ring_of(run, site)
    if ring is not None:
        return ring
    limit = holding.waits_on(run, site)
    if limit is not None:
        return _on_limit(limit, run, site)
    children = holding.children_of(run, site)
    waiting = [
        child
        for child in children
        if child.state_type is not StateType.RUNNING or child.run_id in site.silent
    ]
    for child in sorted(waiting, key=lambda each: (each.expected_start or each.created, each.run_id)):
        if child.run_id in seen:
            continue
        below = _why(child, site, parameters, (*seen, run.run_id))
        if below is not None and below.trouble:
            words = f"It waits for its child {child.name} of {child.flow_name}, which is {child.state_name}. {below.words}"
            return replace(below, words=words)
    if children:
        return Blockage(
            cause=Cause.GOES_ON,
            entity=f"run:{run.run_id}",
            since=run.state_at,
            words=f"It is Running and has started {named(children, site)}.",
        )
    heard = site.heard.get(run.run_id)
    return Blockage(
        cause=Cause.GOES_ON,
        entity=f"run:{run.run_id}",
        since=run.state_at,
        words=f"It is Running {_for(run, site)}; it was last heard {ago(heard, site)}."
        + (
            " It sends no heartbeats, so nothing would show that its process died."
            if run.run_id not in site.beating and waits_since(run, site) > BEATS_SHOW
            else ""
        ),
    )


def _silent(run: RunFact, site: SiteFacts) -> Blockage:
    heartbeat = site.silent[run.run_id]
    return Blockage(
        cause=Cause.SILENT,
        entity=f"run:{run.run_id}",
        since=heartbeat.heard,
        words=f"It is Running by its state and silent for {words_of(site.now - heartbeat.heard)}; it sent a heartbeat each "
        f"{words_of(heartbeat.every)}: its process is probably dead.",
        todo="It is marked Crashed when a second sign proves its death; see whether its process lives.",
        disproof="a heartbeat or a line of it",
    )


def _on_limit(limit: LimitFact, run: RunFact, site: SiteFacts) -> Blockage:
    tag = limit.name.startswith("tag:")
    cause = Cause.TAG_LIMIT if tag else Cause.GLOBAL_LIMIT
    what = (
        f"The limit of the tag {limit.name.removeprefix('tag:')}" if tag else f"The global limit {limit.name}"
    )
    unsure = doubts_about(site, "limits", *(("tag_limits",) if tag else ()))
    found = holding.full_limit(limit, cause, what, holding.holders_of(limit, site), site)
    return replace(found, doubts=(*found.doubts, *unsure))


def _for(run: RunFact, site: SiteFacts) -> str:
    return f"for {words_of(waits_since(run, site))}"


# -- what is left -------------------------------------------------------------------------------------------------


def _prefect(site: SiteFacts, parameters: PlaybookParameters) -> Iterator[Blockage]:
    if (found := prefect_slow(site, parameters)) is not None:
        yield found


def prefect_slow(site: SiteFacts, parameters: PlaybookParameters) -> Blockage | None:
    """Return that Prefect itself answers late or not at all, or None."""
    api = site.asked.get("api")
    if api is None or api.requests < parameters.slow_requests:
        return None
    late = api.ms >= parameters.slow_answer.total_seconds() * 1000
    failing = api.failures >= max(3, parameters.slow_failures * api.requests)
    if not late and not failing:
        return None
    return Blockage(
        cause=Cause.PREFECT_SLOW,
        entity="prefect",
        words=f"Prefect itself is slow: of {api.requests} requests in five minutes {api.failures} were not answered, "
        f"and one in twenty took {api.ms / 1000:.1f} s or longer."
        + (f" The last failure: {api.error[:200]}" if api.error else ""),
        todo=_mend_prefect(api.error),
        disproof="its answers are quick again",
    )


SHORT_OF = (
    (("too many connections", "too many clients", "queuepool", "remaining connection slots"),
     "Its database has no connection left: give it more, or Prefect a smaller pool"),
    (("database is locked", "sqlite"), "Its SQLite database is locked: one writer at a time is not enough, use PostgreSQL"),
    (("no space left", "disk full", "disk i/o"), "Its disk is full: make room"),
)  # fmt: skip
"""What a failed answer says that Prefect is short of, and what to do."""


def _mend_prefect(error: str) -> str:
    for signs, todo in SHORT_OF:
        if any(sign in error.lower() for sign in signs):
            return f"{todo}; nothing is made better by more requests."
    return (
        "Look at its database (locks, connections, size) and at the machine before anything else; nothing is made "
        "better by more requests."
    )


def _not_taken(run: RunFact, site: SiteFacts) -> Blockage:
    pool, queue = run.pool or "", run.queue or ""
    mine = run.next_start or run.created
    ahead = [
        each
        for each in site.live
        if is_due(each, site)
        and (each.pool, each.queue) == (run.pool, run.queue)
        and (each.next_start or each.created) < mine
    ]
    under_way = holding.occupying(site, pool)
    workers = [worker for worker in site.workers if worker.pool == pool and _heard(worker)]
    if not pool:
        return Blockage(
            cause=Cause.NOT_TAKEN,
            entity=f"deployment:{run.deployment_id or ''}",
            words=f"The process that serves its deployment asks for runs and does not take it, for "
            f"{words_of(waits_since(run, site))}.",
            todo="See what that process logs; its own limit may be reached.",
            disproof="the run is taken",
        )
    crowd = (
        f" {len(ahead)} due runs are ahead of it, and Prefect offers {OFFERED} at a time." if ahead else ""
    )
    return Blockage(
        cause=Cause.NOT_TAKEN,
        entity=f"queue:{pool}/{queue}",
        words=f"The workers of its pool ask for runs (last {ago(_polled(site, pool, queue), site)}) and do not take it, "
        f"for {words_of(waits_since(run, site))}: no limit that Prefect knows is reached, {len(under_way)} runs are "
        f"under way on {len(workers)} workers.{crowd}",
        todo="See what the worker logs: its own `--limit` may be reached, which Prefect does not tell.",
        holders=tuple(each.run_id for each in under_way),
        disproof="the run is taken",
    )


def _polled(site: SiteFacts, pool: str, queue: str) -> datetime | None:
    known = site.queues.get((pool, queue))
    return known.last_polled if known else None
