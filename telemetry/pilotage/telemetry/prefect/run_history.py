"""Reads the runs that a Prefect server remembers, page by page, for the history that forecasts are tried on.

Only what was known at submission is taken beside the times and the outcome: a run's count of attempts, for one, tells
how it went.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilotage.telemetry.pool_memory import memory_of
from pilotage.telemetry.prefect.http import PrefectReader
from pilotage.telemetry.prefect.models import moment
from pilotage.telemetry.redaction import redact

OWNER_TAGS = ("owner:", "team:")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """One flow run as a row of a run history."""

    run_id: str
    deployment: str
    """Flow and deployment, or the flow alone."""
    owner: str
    """The tag `owner:` or `team:`, else the flow's name."""
    queue: str
    """Pool and queue; empty where there is none."""
    submitted: datetime
    """When it was due, or made where it was due at once."""
    started: datetime | None
    ended: datetime | None
    outcome: str
    """The type of its state; `RUNNING` while it has not ended."""
    memory_mb: int | None


async def past_runs(reader: PrefectReader, since: datetime | None = None) -> AsyncIterator[list[PastRun]]:
    """Give the runs that were due from `since` on, a page at a time. Runs that are due later are left out."""
    wanted = {"expected_start_time": {"after_": since.isoformat()}} if since else {}
    names: dict[str, dict[str, str]] = {"flows": {}, "deployments": {}}
    seen: set[str] = set()
    # what arrives between two pages shifts those that follow: a run that comes twice is taken once
    async for rows in reader.pages("/flow_runs/filter", {"flow_runs": wanted}, sort="ID_DESC"):
        new = [row for row in rows if str(row["id"]) not in seen]
        seen |= {str(row["id"]) for row in new}
        await _learn(reader, names, new)
        yield [run for row in new if (run := _past_run(row, names)) is not None]


async def _learn(reader: PrefectReader, names: dict[str, dict[str, str]], rows: list[dict[str, Any]]) -> None:
    def missing(kind: str, key: str) -> list[str]:
        return sorted({str(row[key]) for row in rows if row.get(key)} - set(names[kind]))

    found = {
        "flows": await reader.by_id("/flows/filter", "flows", missing("flows", "flow_id")),
        "deployments": await reader.by_id(
            "/deployments/filter", "deployments", missing("deployments", "deployment_id")
        ),
    }
    for kind, records in found.items():
        names[kind].update({str(record["id"]): redact(str(record["name"])) for record in records})


def _past_run(row: dict[str, Any], names: dict[str, dict[str, str]]) -> PastRun | None:
    state = str(row.get("state_type") or (row.get("state") or {}).get("type") or "PENDING")
    if state == "SCHEDULED":
        return None
    flow = names["flows"].get(str(row.get("flow_id")), "")
    deployment = names["deployments"].get(str(row.get("deployment_id")))
    owners = sorted(str(tag) for tag in row.get("tags") or () if str(tag).startswith(OWNER_TAGS))
    place = [str(row[key]) for key in ("work_pool_name", "work_queue_name") if row.get(key)]
    submitted = moment(row.get("expected_start_time")) or moment(row.get("created"))
    if submitted is None:
        return None
    return PastRun(
        run_id=str(row["id"]),
        deployment=f"{flow}/{deployment}" if deployment else flow,
        owner=redact(owners[0]) if owners else flow,
        queue="/".join(place),
        submitted=submitted,
        started=moment(row.get("start_time")),
        ended=moment(row.get("end_time")) if state in ENDED else None,
        outcome=state if state in ENDED else "RUNNING",
        memory_mb=memory_of(row.get("job_variables") or {}),
    )
