"""When a schedule fires: the last time and the next, as Prefect counts them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pilotage.telemetry.facts import ScheduleFact

DAY = timedelta(hours=24)


def with_fire_times(schedule: ScheduleFact, now: datetime) -> ScheduleFact:
    """Return the schedule with its last and next time; without them where it cannot be told (an `rrule`)."""
    try:
        last, following = _around(schedule, now)
    except (ValueError, KeyError, ZoneInfoNotFoundError):
        return schedule
    if last is None or following is None:
        return schedule
    return replace(
        schedule, last_due=last, next_due=following, every=(following - last).total_seconds() or None
    )


def _around(schedule: ScheduleFact, now: datetime) -> tuple[datetime | None, datetime | None]:
    zone = ZoneInfo(schedule.timezone or "UTC")
    if schedule.cron:
        # start-up time: Prefect brings it, and only cron needs it
        croniter: Any = import_module("prefect._vendor.croniter").croniter
        here = now.astimezone(zone)
        before: datetime = croniter(schedule.cron, here).get_prev(datetime)
        after: datetime = croniter(schedule.cron, before).get_next(datetime)
        # the moment itself is not before itself
        if after <= here:
            before, after = after, croniter(schedule.cron, after).get_next(datetime)
        return before.astimezone(UTC), after.astimezone(UTC)
    if schedule.interval and schedule.anchor is not None:
        dates = _steps(schedule.anchor, timedelta(seconds=schedule.interval), zone, now)
        return next(dates), next(dates)
    return None, None


def _steps(anchor: datetime, interval: timedelta, zone: ZoneInfo, now: datetime) -> Iterator[datetime]:
    """Yield the last step up to now and those after it; days keep the hour of the zone's clock, as in Prefect."""
    number = math.floor((now - anchor) / interval)
    if interval < DAY:
        while True:
            yield anchor + number * interval
            number += 1
    local = anchor.astimezone(zone).replace(tzinfo=None)
    at = (local + number * interval).replace(tzinfo=zone).astimezone(UTC)
    if at > now:
        number -= 1
    while True:
        yield (local + number * interval).replace(tzinfo=zone).astimezone(UTC)
        number += 1
