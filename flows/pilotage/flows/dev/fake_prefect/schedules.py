"""The runs that a deployment's schedules make ahead of time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo

from pilotage.flows.dev.fake_prefect.engine import Engine
from pilotage.flows.dev.fake_prefect.filters import BadRequest
from pilotage.flows.dev.fake_prefect.records import Json, Run, moment_of, text_of
from pilotage.flows.dev.fake_prefect.rules import Proposed
from pilotage.flows.dev.fake_prefect.run_routes import system_labels

MIN_RUNS, MAX_RUNS = 3, 100
MIN_TIME, MAX_TIME = timedelta(hours=1), timedelta(days=100)
EVERY = timedelta(seconds=60)
"""Between two looks of the scheduler."""


def keep_scheduling(engine: Engine) -> None:
    """Let the scheduler look at every deployment, for as long as the server runs."""

    def look(now: datetime) -> None:
        for deployment in list(engine.tables.deployments.values()):
            if not deployment["paused"]:
                schedule_runs(engine, deployment, now)

    engine.agenda.every(EVERY, engine.started + EVERY, look)


def schedule_runs(
    engine: Engine,
    deployment: Json,
    now: datetime,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    min_time: timedelta | None = None,
    min_runs: int | None = None,
    max_runs: int | None = None,
) -> list[Run]:
    """Make the runs that are not there yet: at least so many and so far ahead, at most so many."""
    begin = start or now
    until = end or begin + MAX_TIME
    enough = begin + (MIN_TIME if min_time is None else min_time)
    least = MIN_RUNS if min_runs is None else min_runs
    runs: list[Run] = []
    for schedule in deployment["schedules"]:
        if not schedule["active"]:
            continue
        for number, due in enumerate(dates_of(schedule["schedule"], begin), start=1):
            if due > until or number > (MAX_RUNS if max_runs is None else max_runs):
                break
            if (run := _scheduled(engine, deployment, schedule, due, now)) is not None:
                runs.append(run)
            if number >= least and due >= enough:
                break
    return runs


def dates_of(schedule: Json, start: datetime) -> Iterator[datetime]:
    """Yield the times of a schedule from `start` on. Raises BadRequest for a kind that the fake does not know."""
    if "interval" in schedule:
        interval = timedelta(seconds=float(schedule["interval"]))
        anchor = moment_of(schedule["anchor_date"]) or start
        steps = math.ceil((start - anchor) / interval)
        while True:
            yield anchor + steps * interval
            steps += 1
    elif "cron" in schedule:
        zone = schedule.get("timezone") or "UTC"
        day = start.astimezone(ZoneInfo(zone)).date()
        while True:
            of_day, after = _cron_dates(schedule["cron"], zone, day)
            for due in of_day:
                if due >= start:
                    yield due.astimezone(start.tzinfo)
            day = after
    else:
        raise BadRequest(501, "the fake knows schedules with an interval and with cron")


@lru_cache(maxsize=4096)
def _cron_dates(cron: str, zone: str, day: date) -> tuple[tuple[datetime, ...], date]:
    """Return when cron fires on a day of a zone, and the next day on which it does.

    Kept, since the scheduler asks for the same dates each minute.
    """
    # start-up time: Prefect brings it, and only cron needs it
    croniter: Any = import_module("prefect._vendor.croniter").croniter
    midnight = datetime.combine(day, time(), ZoneInfo(zone))
    dates = croniter(cron, midnight - timedelta(seconds=1))
    found: list[datetime] = []
    while (due := dates.get_next(datetime)).date() <= day:
        found.append(due)
    return tuple(found), due.date()


def _scheduled(engine: Engine, deployment: Json, schedule: Json, due: datetime, now: datetime) -> Run | None:
    key = f"scheduled {deployment['id']} {schedule['id']} {due}"
    if (deployment["flow_id"], key) in engine.tables.by_key:
        return None
    run_id = engine.tables.new_id(now)
    run = Run(
        id=run_id,
        name=f"run-{run_id[-6:]}",
        flow_id=deployment["flow_id"],
        deployment_id=deployment["id"],
        work_queue_id=deployment["work_queue_id"],
        parameters={**deployment["parameters"], **schedule["parameters"]},
        tags=["auto-scheduled", *deployment["tags"]],
        labels=system_labels(deployment["flow_id"], deployment["id"]),
        idempotency_key=key,
        auto_scheduled=True,
        created_by={"id": schedule["id"], "type": "SCHEDULE", "display_value": "IntervalSchedule"},
        created=now,
        updated=now,
    )
    first = Proposed(
        type="SCHEDULED",
        name="Scheduled",
        message="Flow run scheduled",
        details={"scheduled_time": text_of(due)},
    )
    return engine.new_run(run, first, now)
