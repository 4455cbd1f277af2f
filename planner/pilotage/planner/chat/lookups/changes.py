"""What is different: a deployment now and when it last completed, and one run beside another."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pilotage.planner.chat.lookups.shapes import SHOWN, at, run_in_short, said, seconds
from pilotage.telemetry.facts import DeploymentFact, RunFact, ScheduleFact
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.site import site_facts
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

NOT_KEPT = (
    "which version of the code ran is not kept; a changed image or job variable is all that tells of it"
)


def what_changed(store: Store, deployment_id: str, now: datetime) -> dict[str, Any]:
    """Return what is different between a deployment's last success and what came after it.

    `{last_success, since, differences, acts, gaps}`: a difference is `{what, before, after}`, an act `{at, by, kind}`.
    """
    rows = store.rows(
        "SELECT * FROM runs WHERE deployment_id = ? AND started IS NOT NULL ORDER BY started DESC, run_id LIMIT 200",
        [deployment_id],
    )
    runs = facts_from_rows(RunFact, rows)
    good = next((run for run in runs if run.state_type == "COMPLETED"), None)
    after = [
        run for run in runs if good is None or (run.started and good.started and run.started > good.started)
    ]
    [*found] = facts_from_rows(
        DeploymentFact, store.rows("SELECT * FROM deployments WHERE deployment_id = ?", [deployment_id])
    )
    deployment = found[0] if found else None
    newest = after[0] if after else None
    since = good.started if good else None
    differences = _between(good, newest) if good and newest else []
    if deployment and newest is None and good:
        differences += _of_maps("job variable", good.job_variables, deployment.job_variables)
    schedules = facts_from_rows(
        ScheduleFact, store.rows("SELECT * FROM schedules WHERE deployment_id = ?", [deployment_id])
    )
    for schedule in schedules:
        if schedule.changed and since and schedule.changed > since:
            fires = schedule.cron or schedule.rrule or f"every {schedule.interval} s"
            differences.append(
                {
                    "what": "schedule edited",
                    "before": "",
                    "after": said(fires, 80),
                    "at": at(schedule.changed),
                }
            )
    site = site_facts(store, now)
    named = {
        deployment_id,
        *((f"{deployment.pool}/{deployment.queue}", deployment.pool) if deployment else ()),
    }
    acts = [
        {"at": at(act.at), "by": said(act.by, 80), "kind": said(act.kind, 60)}
        for act in site.acts
        if named & set(act.targets) and (since is None or act.at > since)
    ]
    gaps = [NOT_KEPT]
    if good is None:
        gaps.append("no success of it is on record, so there is nothing to compare with")
    elif newest is None and not differences:
        gaps.append("nothing has run since its last success")
    return {
        "deployment_id": deployment_id,
        "last_success": run_in_short(good) if good else None,
        "newest": run_in_short(newest) if newest else None,
        "runs_since": len(after) if good else 0,
        "updated": at(deployment.updated) if deployment else None,
        "differences": differences[:SHOWN],
        "acts": acts[:SHOWN],
        "gaps": gaps,
    }


def compare_runs(store: Store, first_id: str, second_id: str) -> dict[str, Any]:
    """Return two runs side by side and what differs: `{first, second, differences, gaps}`."""
    runs = run_queries.runs_of(store, [first_id, second_id])
    if lacking := [run_id for run_id in (first_id, second_id) if run_id not in runs]:
        return {
            "error": "the store does not know this run",
            "run_id": said(lacking[0], 60),
            "status": "refused",
        }
    first, second = runs[first_id], runs[second_id]
    return {
        "first": run_in_short(first) | {"seconds": _took(first)},
        "second": run_in_short(second) | {"seconds": _took(second)},
        "differences": _between(first, second)[:SHOWN],
        "gaps": [NOT_KEPT],
    }


def _took(run: RunFact) -> float | None:
    return seconds(run.ended - run.started) if run.ended and run.started else None


def _between(first: RunFact, second: RunFact) -> list[dict[str, Any]]:
    differences = [
        {"what": what, "before": said(before, 120), "after": said(after, 120)}
        for what, before, after in (
            ("state", first.state_type, second.state_type),
            ("message", first.state_message, second.state_message),
            ("pool", first.pool, second.pool),
            ("queue", first.queue, second.queue),
            ("tags", ", ".join(sorted(first.tags)), ", ".join(sorted(second.tags))),
            ("attempts", first.run_count, second.run_count),
            (
                "made by",
                *("a schedule" if run.auto_scheduled else "a person or program" for run in (first, second)),
            ),
        )
        if before != after
    ]
    differences += _of_maps("parameter", first.parameters, second.parameters)
    return differences + _of_maps("job variable", first.job_variables, second.job_variables)


def _of_maps(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "what": f"{what} {said(key, 60)}",
            "before": said(before.get(key, ""), 120),
            "after": said(after.get(key, ""), 120),
        }
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]  # fmt: skip
