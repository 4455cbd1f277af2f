"""Times as people in one place say them: local clock facts, and windows that come back every week."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_OF_WEEK = 7 * 24 * 60
_WEEKLY = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([01]\d|2[0-3]):([0-5]\d) to "
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([01]\d|2[0-3]):([0-5]\d)"
)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError("a time zone of the IANA database, such as Europe/Berlin or UTC") from exc
    return name


Zone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_known_zone)]


class Freeze(BaseModel):
    """A time in which nothing disruptive is done."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    start: AwareDatetime
    end: AwareDatetime
    why: str = ""


class WeeklyWindow(BaseModel):
    """A stretch of every week by the local clock, such as `Fri 16:00 to Mon 06:00`; it may cross Sunday night."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    start: Annotated[int, Field(ge=0, lt=MINUTES_OF_WEEK)]
    """Minutes since Monday 00:00, local."""
    end: Annotated[int, Field(ge=0, lt=MINUTES_OF_WEEK)]
    """The first minute that is outside again."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        match = _WEEKLY.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("a text such as `Fri 16:00 to Mon 06:00`")
        first, last = _minute_of_week(*match.groups()[:3]), _minute_of_week(*match.groups()[3:])
        if first == last:
            raise ValueError("two different times")
        return {"start": first, "end": last}

    def holds(self, local: datetime) -> bool:
        """Whether this local time lies in the window."""
        minute = local.weekday() * 24 * 60 + local.hour * 60 + local.minute
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


def clock_facts(now: datetime, zone: str) -> dict[str, int]:
    """The local time as Cedar's `Clock`: Monday is 1, minutes since local midnight, minutes ahead of UTC."""
    local = now.astimezone(ZoneInfo(zone))
    offset = local.utcoffset()
    return {
        "weekday": local.isoweekday(),
        "minute_of_day": local.hour * 60 + local.minute,
        "utc_offset_minutes": 0 if offset is None else int(offset.total_seconds() // 60),
    }


def _minute_of_week(day: str, hour: str, minute: str) -> int:
    return DAYS.index(day) * 24 * 60 + int(hour) * 60 + int(minute)
