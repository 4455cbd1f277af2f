"""Who holds what others wait for: places of queues and pools, slots of limits, parents and children, and rings of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from pilotage.planner.detect.blockage import Blockage, Cause, named
from pilotage.planner.remediation import words_of
from pilotage.telemetry.facts import LimitFact, RunFact, StateType
from pilotage.telemetry.queries.site import SiteFacts

IN_PLACE = frozenset({StateType.RUNNING, StateType.PENDING})
"""In these a run takes a place of its queue and pool, as Prefect counts when it hands out."""
WITH_SLOT = IN_PLACE | {StateType.CANCELLING}
"""In these a run keeps a slot of its deployment's limit."""
LEASES_LAST = timedelta(minutes=5)
"""A slot whose holder died comes free by itself after so long."""
QUIET = timedelta(seconds=30)
"""A run that was heard since, otherwise than by a heartbeat, waits for nothing."""
DEEPEST = 12
"""Runs of one ring; longer ones are not looked for."""


def occupying(site: SiteFacts, pool: str, queue: str | None = None) -> list[RunFact]:
    """Return the runs that take a place of a pool, or of one of its queues."""
    return [
        run
        for run in site.live
        if run.pool == pool and queue in (None, run.queue) and run.state_type in IN_PLACE
    ]


def holders_of_deployment(site: SiteFacts, deployment_id: str) -> list[RunFact]:
    """Return the runs that keep a slot of their deployment's limit."""
    return [run for run in site.live if run.deployment_id == deployment_id and run.state_type in WITH_SLOT]


def holders_of(limit: LimitFact, site: SiteFacts) -> list[RunFact]:
    """Return the living runs that hold slots of a limit, as far as is known."""
    if limit.name.startswith("deployment:"):
        return holders_of_deployment(site, limit.name.removeprefix("deployment:"))
    ids = {site.task_owners.get(task) for task in limit.holders} | set(
        site.slot_holders.get(limit.limit_id, ())
    )
    return [run for run in site.live if run.run_id in ids]


def full(
    cause: Cause, entity: str, what: str, limit: int, taken: int, holders: Sequence[RunFact], site: SiteFacts
) -> Blockage:
    """Return that a queue or a pool has no place left."""
    if limit == 0:
        return Blockage(
            cause=cause,
            entity=entity,
            words=f"{what} has a limit of 0: nothing is ever handed out.",
            todo="Raise the limit, or pause it instead.",
            disproof="another limit",
        )
    over = f", {taken - limit} more than the limit allows" if taken > limit else ""
    return Blockage(
        cause=cause,
        entity=entity,
        words=f"{what} is full: {taken} of {limit} places are taken{over}, by {named(holders, site)}.",
        todo="It goes on when one of them ends; raise the limit, or end what hangs.",
        holders=tuple(run.run_id for run in holders),
        disproof="a free place",
    )


def full_limit(
    limit: LimitFact, cause: Cause, what: str, holders: Sequence[RunFact], site: SiteFacts
) -> Blockage:
    """Return that a limit has no slot left: held by runs, or by nobody."""
    if limit.limit == 0:
        return full(cause, f"limit:{limit.name}", what, 0, limit.taken, holders, site)
    since = f" since {words_of(site.now - limit.full_since)}" if limit.full_since else ""
    if len(holders) < limit.limit and lost(limit, holders, site):
        return Blockage(
            cause=Cause.SLOTS_OF_NOBODY,
            entity=f"limit:{limit.name}",
            since=limit.full_since,
            words=f"{what} is full{since}: {limit.taken} of {limit.limit} slots are taken, and the runs that live hold "
            f"{len(holders)} of them; {limit.taken - len(holders)} are held by nobody.",
            todo="The lost slots come free when their leases end (5 min); where they have none, set the limit's active "
            "slots to what is held.",
            holders=tuple(run.run_id for run in holders),
            disproof="a living run that holds the slots",
        )
    shown = max(limit.taken, len(holders))
    return Blockage(
        cause=cause,
        entity=f"limit:{limit.name}",
        since=limit.full_since,
        words=f"{what} is full{since}: {shown} of {limit.limit} slots are taken, by {named(holders, site)}.",
        todo="It goes on when one of them ends; raise the limit, or end what hangs.",
        holders=tuple(run.run_id for run in holders),
        disproof="a free slot",
    )


def lost(limit: LimitFact, holders: Sequence[RunFact], site: SiteFacts) -> bool:
    """Return whether slots of a full limit are held by nobody: for longer than leases last, or with nobody there at all."""
    if limit.full_since is None or limit.decay > 0:
        return False
    named_by_prefect = limit.name.startswith(("deployment:", "tag:"))
    if not named_by_prefect and limit.limit_id not in {one for each in site.takers.values() for one in each}:
        # nobody was ever heard to take a slot of it: who holds it is not known, and that is another thing
        return not any(run.state_type in WITH_SLOT for run in site.live)
    return site.now - limit.full_since >= LEASES_LAST or not holders


def not_counted(limit: LimitFact, site: SiteFacts) -> Blockage | None:
    """Return that Prefect counts fewer slots of a limit as taken than running runs hold, so that too many may start.

    So it is when a limit was made while they ran, and when they lost the leases of their slots.
    """
    if limit.name.startswith("tag:") or limit.decay > 0 or limit.limit < 1 or not limit.active:
        return None
    settled = limit.seen - LEASES_LAST
    holders = [
        run
        for run in holders_of(limit, site)
        if run.state_type is StateType.RUNNING and run.state_at is not None and run.state_at < settled
    ]
    if len(holders) < limit.limit or limit.taken >= min(limit.limit, len(holders)):
        return None
    what = limit.name
    if limit.name.startswith("deployment:"):
        what = f"of the deployment {holders[0].deployment_name or holders[0].deployment_id}"
    return Blockage(
        cause=Cause.NOT_COUNTED,
        entity=f"limit:{limit.name}",
        since=min(run.state_at for run in holders if run.state_at is not None),
        words=f"The limit {what} allows {limit.limit}, {len(holders)} runs are under way in it ({named(holders, site)}), "
        f"and Prefect counts {limit.taken}: more may start than it allows. They began before it was made, or lost the "
        "leases of their slots.",
        todo="Let them end before more start: pause the deployment, or set the limit's active slots to what runs.",
        holders=tuple(run.run_id for run in holders),
        disproof="as many slots taken as runs under way",
    )


def waits_on(run: RunFact, site: SiteFacts) -> LimitFact | None:
    """Return the full limit that a RUNNING run waits for, or None.

    By tag: a task of it is Pending and carries the tag. Global: its deployment takes slots of it, it holds none, and
    it has sent nothing but heartbeats for a while.
    """
    if run.state_type is not StateType.RUNNING:
        return None
    for task in site.tasks.get(run.run_id, ()):
        if task.state_type not in (StateType.PENDING, StateType.SCHEDULED):
            continue
        for tag in task.tags:
            limit = site.limits.get(f"tag:{tag}")
            if limit is not None and _is_full(limit) and task.task_run_id not in limit.holders:
                return limit
    acted = site.acted.get(run.run_id)
    taken = site.takers.get(run.deployment_id or "", ())
    for limit in sorted(site.limits.values(), key=lambda each: each.name):
        mine = run.run_id in site.slot_holders.get(limit.limit_id, ())
        if limit.limit_id not in taken or mine or not _is_full(limit):
            continue
        if acted is None or site.now - acted >= QUIET:
            return limit
    return None


def _is_full(limit: LimitFact) -> bool:
    return limit.active and limit.taken >= limit.limit


def children_of(run: RunFact, site: SiteFacts) -> list[RunFact]:
    """Return the living runs that a run has started."""
    return [
        child
        for child in site.live
        if child.parent_task_run_id and site.task_owners.get(child.parent_task_run_id) == run.run_id
    ]


# -- rings --------------------------------------------------------------------------------------------------------


def _held_by(run: RunFact, site: SiteFacts) -> Iterator[tuple[str, RunFact]]:
    """Yield which runs a run waits for, and through what."""
    if run.state_type is StateType.RUNNING:
        for child in children_of(run, site):
            if child.state_type in (StateType.SCHEDULED, StateType.RUNNING, StateType.PENDING):
                yield f"its child {child.name}", child
        if (limit := waits_on(run, site)) is not None:
            for holder in holders_of(limit, site):
                yield f"the limit {limit.name}", holder
        return
    if run.state_type is not StateType.SCHEDULED:
        return
    limit = site.limits.get(f"deployment:{run.deployment_id}")
    if limit is not None and _is_full(limit):
        for holder in holders_of_deployment(site, run.deployment_id or ""):
            yield f"the limit of the deployment {run.deployment_name or run.deployment_id}", holder
    queue = site.queues.get((run.pool or "", run.queue or ""))
    if queue is not None and queue.limit is not None:
        places = occupying(site, queue.pool, queue.queue)
        if len(places) >= queue.limit:
            for holder in places:
                yield f"a place of the queue {queue.pool}/{queue.queue}", holder
    pool = site.pools.get(run.pool or "")
    if pool is not None and pool.limit is not None:
        places = occupying(site, pool.pool)
        if len(places) >= pool.limit:
            for holder in places:
                yield f"a place of the pool {pool.pool}", holder


def ring_of(run: RunFact, site: SiteFacts) -> Blockage | None:
    """Return the ring of runs that wait for one another in which a run stands, or None.

    Where several runs could free what a run waits for, it is a ring only when every one of them waits in it.
    """
    if run.state_type not in (StateType.RUNNING, StateType.SCHEDULED):
        return None
    stuck = _stuck(run, site)
    if stuck is None:
        return None
    steps, runs = stuck
    through = sorted({what for what, _ in steps})
    return Blockage(
        cause=Cause.RING,
        entity="ring:" + ",".join(sorted(each.run_id for each in runs)[:3]),
        since=min((each.state_at for each in runs if each.state_at), default=None),
        words=f"{len(runs)} runs wait for one another and none can go on: "
        + "; ".join(
            f"{holder.name} of {holder.flow_name} is waited for by {what}" for what, holder in steps[:4]
        )
        + f". They are {named(runs, site)}, through {', '.join(through[:4])}.",
        todo="Cancel one of them, the one with the least to lose; then give the limits an order, or more room.",
        holders=tuple(each.run_id for each in runs),
        disproof="one of them goes on",
    )


def _stuck(run: RunFact, site: SiteFacts) -> tuple[list[tuple[str, RunFact]], list[RunFact]] | None:
    """Return a set of runs, this one in it or before it, of which each waits only for others of the set."""
    reached: dict[str, RunFact] = {run.run_id: run}
    edges: dict[str, list[tuple[str, RunFact]]] = {}
    todo = [run]
    while todo and len(reached) <= DEEPEST * 4:
        at = todo.pop()
        edges[at.run_id] = list(_held_by(at, site))
        if not edges[at.run_id]:
            continue
        for _, holder in edges[at.run_id]:
            if holder.run_id not in reached:
                reached[holder.run_id] = holder
                todo.append(holder)
    # whoever waits for nothing can go on, and so can who waits for one that can: what is left is stuck
    free = {each for each in reached if not edges.get(each)}
    while True:
        more = {each for each in reached if each not in free and _can_go_on(edges[each], free)}
        if not more:
            break
        free |= more
    if run.run_id in free:
        return None
    stuck = [each for key, each in reached.items() if key not in free]
    steps = [
        (what, holder) for each in stuck for what, holder in edges[each.run_id] if holder.run_id not in free
    ]
    return steps, stuck


def _can_go_on(waits: Sequence[tuple[str, RunFact]], free: set[str]) -> bool:
    """Return whether one thing that is waited for will come: any holder of a limit will do, but every child must end."""
    by_what: dict[str, list[str]] = {}
    for what, holder in waits:
        by_what.setdefault(what, []).append(holder.run_id)
    return all(any(each in free for each in holders) for holders in by_what.values())
