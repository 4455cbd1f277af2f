"""How long runs of a deployment take, against what is usual for it, and how often they fail."""

from __future__ import annotations

import statistics
from datetime import datetime, timedelta
from typing import Any

from pilotage.planner.chat.lookups.shapes import at, run_in_short, said, seconds
from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.queries import unusual
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

LATELY = 5
"""Newest runs that are held against those before."""
ENDED = "('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"


def durations(store: Store, deployment_id: str, now: datetime) -> dict[str, Any]:
    """Return how long the runs of a deployment take, in seconds.

    `usual` is of runs that completed at the first attempt: `{runs, p50, p95, longest}`; `lately` the same of the newest
    five; `last` the newest run that ended; `running` those under way, each with its seconds so far.
    """
    past = unusual.durations(store, [deployment_id]).get(deployment_id, [])
    rows = store.rows(
        "SELECT * FROM runs WHERE deployment_id = ? AND started IS NOT NULL "  # noqa: S608
        f"AND (ended IS NULL OR state_type IN {ENDED}) ORDER BY coalesce(ended, started) DESC, run_id LIMIT 50",
        [deployment_id],
    )
    runs = facts_from_rows(RunFact, rows)
    running = [run for run in runs if run.ended is None and run.state_type == "RUNNING"]
    last = next((run for run in runs if run.ended is not None), None)
    gaps = [] if past else ["no run of it completed at the first attempt, so what is usual is not known"]
    return {
        "deployment_id": deployment_id,
        "unit": "seconds",
        "usual": _measures(past),
        "lately": _measures(past[:LATELY]),
        "last": _with_seconds(last, now) if last else None,
        "running": [_with_seconds(run, now) for run in running[:LATELY]],
        "gaps": gaps,
    }


def _measures(spans: list[timedelta]) -> dict[str, Any]:
    if not spans:
        return {"runs": 0, "p50": None, "p95": None, "longest": None}
    values = sorted(span.total_seconds() for span in spans)
    return {
        "runs": len(values),
        "p50": round(statistics.median(values), 1),
        "p95": round(values[min(len(values) - 1, int(0.95 * len(values)))], 1),
        "longest": round(values[-1], 1),
    }


def _with_seconds(run: RunFact, now: datetime) -> dict[str, Any]:
    took = (run.ended or now) - run.started if run.started else None
    return run_in_short(run) | {"seconds": seconds(took)}


def how_often(store: Store, deployment_id: str, since: datetime, until: datetime) -> dict[str, Any]:
    """Return how runs of a deployment ended between two moments, or those of all where the id is empty.

    `{since, until, ended, by_state, failed, share_failed}`; the share is a count by a count, not a forecast.
    """
    rows = store.rows(
        "SELECT state_type, count(*) AS n FROM runs WHERE (? = '' OR deployment_id = ?) "  # noqa: S608
        f"AND state_type IN {ENDED} AND ended BETWEEN ? AND ? GROUP BY 1 ORDER BY 1",
        [deployment_id, deployment_id, since, until],
    )
    by_state = {said(row["state_type"], 30): int(row["n"]) for row in rows}
    ended = sum(by_state.values())
    failed = by_state.get("FAILED", 0) + by_state.get("CRASHED", 0)
    return {
        "deployment_id": deployment_id,
        "since": at(since),
        "until": at(until),
        "ended": ended,
        "by_state": by_state,
        "failed": failed,
        "share_failed": round(failed / ended, 4) if ended else None,
        "gaps": [] if ended else ["no run ended in this time"],
    }
