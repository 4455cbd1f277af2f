"""Times in a question: "last night", "yesterday", "in the last 3 hours", "since the deploy". Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.telemetry.times import clock_time

DAY = timedelta(days=1)
EVENING, MORNING = timedelta(hours=18), timedelta(hours=8)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time that was named."""

    label: str
    """How it is called here, such as `last night` or `3h`."""
    since: datetime | None
    """None where it begins with an event, such as a deploy."""
    until: datetime | None
    """None where it goes on."""


def _midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def _last_night(now: datetime) -> tuple[datetime, datetime]:
    day = _midnight(now)
    return day - DAY + EVENING, min(now, day + MORNING)


def _tonight(now: datetime) -> tuple[datetime, datetime]:
    day = _midnight(now)
    if now < day + MORNING:
        return now, day + MORNING
    return max(now, day + EVENING), day + DAY + MORNING


def _week(now: datetime) -> datetime:
    return _midnight(now) - now.weekday() * DAY


Bounds = Callable[[datetime], tuple[datetime | None, datetime | None]]
PHRASES: tuple[tuple[str, str, Bounds], ...] = (
    ("since deploy",
     r"(?:since|after|from) (?:the |our |my |its )?(?:last |latest |new )?(?:deploy(?:ment)?|release|rollout)\b",
     lambda now: (None, None)),
    ("last night", r"(?:(?:over|during|through|in) the|last) night\b|\bovernight\b", _last_night),
    ("tonight", r"\b(?:tonight|this (?:evening|night))\b", _tonight),
    ("yesterday", r"\bsince yesterday\b", lambda now: (_midnight(now) - DAY, now)),
    ("yesterday", r"\byesterday\b", lambda now: (_midnight(now) - DAY, _midnight(now))),
    ("tomorrow", r"\btomorrow\b", lambda now: (_midnight(now) + DAY, _midnight(now) + 2 * DAY)),
    ("this morning", r"\bthis morning\b", lambda now: (_midnight(now), min(now, _midnight(now) + timedelta(hours=12)))),
    ("today", r"\b(?:today|so far this day)\b", lambda now: (_midnight(now), _midnight(now) + DAY)),
    ("this week", r"\bthis week\b", lambda now: (_week(now), now)),
    ("last week", r"\b(?:last|previous) week\b", lambda now: (_week(now) - 7 * DAY, _week(now))),
    ("weekend", r"\b(?:over |at |on )?the weekend\b", lambda now: (_week(now) - 2 * DAY, _week(now))),
    ("this month", r"\bthis month\b", lambda now: (_midnight(now).replace(day=1), now)),
    ("last month", r"\b(?:last|previous) month\b",
     lambda now: ((_midnight(now).replace(day=1) - DAY).replace(day=1), _midnight(now).replace(day=1))),
    ("last hour", r"\b(?:in |within |during |over )?(?:the )?(?:last|past) hour\b",
     lambda now: (now - timedelta(hours=1), now)),
    ("next hour", r"\b(?:in |within |during |over )?the next hour\b|\bwithin the hour\b",
     lambda now: (now, now + timedelta(hours=1))),
)  # fmt: skip
"""The first phrase that occurs is meant: its label, how it is said, and what it means at a moment."""
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(
    r"\b(?:in |within |during |over |for |since )?(?:the )?(last|past|next|coming) (\d{1,4}|few|couple of) ?"
    r"(m|min|mins|minutes?|h|hrs?|hours?|d|days?|w|weeks?)\b|\bin (\d{1,4}) ?(minutes?|hours?|days?)\b"
)
_WEEKDAY = re.compile(rf"\b(since|on|last|until|by) (?:last )?({'|'.join(WEEKDAYS)})\b")
_CLOCK = re.compile(r"\b(?:since|after|from) (\d{1,2})(?::(\d{2}))? ?(am|pm)?\b")


def window_in(text: str, now: datetime) -> tuple[Window | None, str]:
    """Return the stretch of time that a lower-case question names, and the question without it.

    `now` is aware, in the zone of the person: a day is one of that zone.
    """
    for label, pattern, bounds in PHRASES:
        if match := re.search(pattern, text):
            since, until = bounds(now)
            return Window(label=label, since=since, until=until), _without(text, match)
    if match := _SPAN.search(text):
        direction, count, unit = match[1] or "next", match[2] or match[4], match[3] or match[5]
        number = {"few": 3, "couple of": 2}.get(count) or int(count)
        span = timedelta(seconds=number * _UNITS[unit[0]])
        ahead = direction in ("next", "coming")
        return Window(label=f"{number}{unit[0]}", since=now if ahead else now - span,
                      until=now + span if ahead else now), _without(text, match)  # fmt: skip
    if match := _WEEKDAY.search(text):
        back = (now.weekday() - WEEKDAYS.index(match[2])) % 7 or 7
        day = _midnight(now) - back * DAY
        until = day + DAY if match[1] in ("on", "last") else now
        return Window(label=match[2], since=day, until=until), _without(text, match)
    if match := _CLOCK.search(text):
        hour = int(match[1]) % 12 + 12 * (match[3] == "pm") if match[3] else int(match[1])
        if hour < 24:
            at = _midnight(now) + timedelta(hours=hour, minutes=int(match[2] or 0))
            since = at - DAY * (at > now)
            return Window(label=f"since {clock_time(since)}", since=since, until=now), _without(text, match)
    return None, text


def _without(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()].rstrip()} {text[match.end() :].lstrip()}".strip()
