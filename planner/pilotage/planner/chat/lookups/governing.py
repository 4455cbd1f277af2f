"""What governs runs now: schedules and the load that is coming, limits and who holds them, workers, automations."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from pilotage.planner.chat.lookups.shapes import SHOWN, at, left_out, said
from pilotage.planner.detect.waiting import why_waiting
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.site import SiteFacts, site_facts
from pilotage.telemetry.store.protocol import Store

WAITING = ("SCHEDULED", "PENDING", "CANCELLING", "PAUSED")


def schedules(store: Store, now: datetime, deployment_id: str = "") -> dict[str, Any]:
    """Return the schedules, all or those of a deployment: `{schedules, gaps}`; when each fired last and fires next."""
    site = site_facts(store, now)
    found = [
        {
            "deployment_id": owner,
            "deployment": _name(site, owner),
            "active": schedule.active,
            "fires": said(schedule.cron or schedule.rrule or f"every {schedule.interval} s", 100),
            "timezone": said(schedule.timezone or "UTC", 60),
            "last_due": at(schedule.last_due),
            "next_due": at(schedule.next_due),
            "paused": site.deployments[owner].paused if owner in site.deployments else None,
            "edited": at(schedule.changed),
        }
        for owner, those in site.schedules.items()
        for schedule in those
        if deployment_id in ("", owner)
    ]
    found.sort(key=lambda row: str(row["next_due"] or "~"))
    return {
        "schedules": found[:SHOWN],
        "gaps": left_out(len(found), "schedules") or ([] if found else ["no schedule is known"]),
    }


def upcoming(store: Store, since: datetime, until: datetime, deployment_id: str = "") -> dict[str, Any]:
    """Return the runs that are scheduled between two moments, soonest first, and how many start in each hour and pool."""
    runs = [
        run
        for run in run_queries.upcoming_runs(store, since, max(until - since, timedelta(0)))
        if deployment_id in ("", run.deployment_id)
    ]
    by_hour = Counter(run.next_start.strftime("%Y-%m-%dT%H:00%z") for run in runs if run.next_start)
    return {
        "since": at(since),
        "until": at(until),
        "count": len(runs),
        "runs": [
            {"run_id": run.run_id, "name": said(run.name, 80), "flow": said(run.flow_name, 80),
             "deployment": said(run.deployment_name or "", 80), "pool": said(run.pool or "", 60),
             "start": at(run.next_start)}
            for run in runs[:SHOWN]
        ],
        "starts_by_hour": dict(sorted(by_hour.items())[:48]),
        "starts_by_pool": dict(Counter(said(run.pool or "none", 60) for run in runs).most_common(SHOWN)),
        "gaps": left_out(len(runs), "runs") or ([] if runs else ["no run is scheduled in this time"]),
    }  # fmt: skip


def limits(store: Store, now: datetime, name: str = "") -> dict[str, Any]:
    """Return the concurrency limits, all or those whose name contains `name`: slots, how many are taken, who holds them."""
    site = site_facts(store, now)
    owners = {task: run for task, run in site.task_owners.items() if run}
    found = []
    for limit in sorted(site.limits.values(), key=lambda each: (each.taken < each.limit, each.name)):
        shown = limit.name.removeprefix("deployment:")
        words = _name(site, shown) if limit.name.startswith("deployment:") else said(limit.name, 80)
        if name and name.lower() not in f"{limit.name} {words}".lower():
            continue
        holders = [owners.get(task, "") for task in limit.holders]
        holders += site.slot_holders.get(limit.limit_id, ())
        if limit.name.startswith("deployment:"):
            holders += [
                r.run_id
                for r in site.live
                if r.deployment_id == shown and r.state_type in ("PENDING", "RUNNING")
            ]
        named = list(dict.fromkeys(each for each in holders if each))
        found.append(
            {"limit": words, "slots": limit.limit, "taken": limit.taken, "full": limit.taken >= limit.limit,
             "active": limit.active, "full_since": at(limit.full_since),
             "holders": [{"run_id": run_id} for run_id in named[:SHOWN]], "free_per_second": limit.decay}
        )  # fmt: skip
    gaps = left_out(len(found), "limits") or ([] if found else ["no such limit is known"])
    if any(row["taken"] and not row["holders"] for row in found):
        gaps.append("Prefect does not say who holds every slot")
    return {"limits": found[:SHOWN], "gaps": gaps}


def workers(store: Store, now: datetime, pool: str = "") -> dict[str, Any]:
    """Return the workers of all pools or one: status, and seconds since the last heartbeat; and when queues were polled."""
    site = site_facts(store, now)
    found = [
        {
            "worker": said(worker.name, 80),
            "pool": said(worker.pool, 60),
            "status": said(worker.status, 30),
            "heard": at(worker.heard),
            "seconds_ago": round((now - worker.heard).total_seconds()) if worker.heard else None,
            "every_seconds": worker.every,
        }
        for worker in site.workers
        if pool.lower() in ("", worker.pool.lower())
    ]
    polled = [
        {
            "queue": f"{said(key[0], 60)}/{said(key[1], 60)}",
            "last_polled": at(queue.last_polled),
            "status": queue.status,
        }
        for key, queue in sorted(site.queues.items())
        if pool.lower() in ("", key[0].lower())
    ]
    pools = [
        {
            "pool": said(each.pool, 60),
            "type": said(each.type, 40),
            "status": each.status,
            "paused": each.paused,
        }
        for each in site.pools.values()
        if pool.lower() in ("", each.pool.lower())
    ]
    gaps = left_out(len(found), "workers") or ([] if found else ["no worker is known"])
    return {"workers": found[:SHOWN], "pools": pools[:SHOWN], "queues": polled[:SHOWN], "gaps": gaps}


def automations(store: Store, now: datetime, since: datetime | None = None) -> dict[str, Any]:
    """Return Prefect's automations, and what each did since a moment: `{automations, fired, gaps}`."""
    site = site_facts(store, now)
    fired = [
        {
            "at": at(act.at),
            "by": said(act.by, 100),
            "did": said(act.kind, 60),
            "to": [_name(site, t) for t in act.targets[:5]],
        }
        for act in site.acts
        if not act.ours and (since is None or act.at >= since)
    ]
    known = [
        {"automation": said(a.name, 80), "enabled": a.enabled, "actions": [said(each, 60) for each in a.actions],
         "targets": [_name(site, t) for t in a.targets[:5]]}
        for a in site.automations
    ]  # fmt: skip
    gaps = left_out(len(fired), "firings") + ([] if known else ["no automation is known"])
    return {"automations": known[:SHOWN], "fired": fired[:SHOWN], "gaps": gaps}


def waiting(store: Store, now: datetime, parameters: PlaybookParameters) -> dict[str, Any]:
    """Return all that waits, by the first thing in its way: `{count, causes, gaps}`, the cause with most runs first."""
    site = site_facts(store, now)
    groups: dict[str, dict[str, Any]] = {}
    count = 0
    for run in site.live:
        if run.state_type not in WAITING and run.run_id not in site.silent:
            continue
        found = why_waiting(run, site, parameters)
        if found is None:
            continue
        count += 1
        group = groups.setdefault(
            found.key,
            {"cause": found.cause.value, "trouble": found.trouble, "words": said(found.words, 300),
             "todo": said(found.todo, 300), "since": at(found.since), "count": 0, "runs": []},
        )  # fmt: skip
        group["count"] += 1
        if len(group["runs"]) < 5:
            group["runs"].append(
                {"run_id": run.run_id, "name": said(run.name, 80), "flow": said(run.flow_name, 80)}
            )
    causes = sorted(groups.values(), key=lambda group: (not group["trouble"], -group["count"]))
    return {
        "count": count,
        "causes": causes[:SHOWN],
        "gaps": left_out(len(causes), "causes"),
    }


def _name(site: SiteFacts, key: str) -> str:
    known = site.deployments.get(key)
    return said(f"{known.flow_name}/{known.name}" if known else key, 120)
