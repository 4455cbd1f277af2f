"""Which incident a failure belongs to: it opens one, joins an open one, or reopens one that was resolved lately. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal

Decision = Literal["opened", "joined", "reopened"]

SHARED_WINDOW = timedelta(minutes=15)
"""Failures of different deployments have one cause only when they are no further apart than this."""
WORKER_WINDOW = timedelta(minutes=2)
"""Runs that die together die together."""
REOPEN = timedelta(hours=1)
"""A cause that comes back sooner reopens its incident; later it is a new one, linked to the earlier."""
WINDOWS: Mapping[str, timedelta | None] = MappingProxyType(
    {
        "run": None,
        "fault": None,
        "forecast": None,
        "ongoing": None,
        "host": SHARED_WINDOW,
        "table": SHARED_WINDOW,
        "credential": SHARED_WINDOW,
        "words": SHARED_WINDOW,
        "prefect": SHARED_WINDOW,
        "worker": WORKER_WINDOW,
    }
)
"""How long after an open incident's last failure another of the same key still joins it; None: while it is open."""
SHARED = frozenset({"host", "table", "credential", "words", "prefect", "worker", "pool", "queue"})
"""Kinds of keys that several deployments can have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One failure, or one other finding, that has to be put somewhere."""

    occurrence_id: str
    subject: str
    """As `Finding.subject`, such as `run:<id>`."""
    causes: tuple[str, ...]
    """The strongest first, as `causes_of` gives them."""
    at: datetime

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key by which it belongs to others: its causes, and itself where it is a failure."""
        if self.causes and kind_of(self.causes[0]) in ("forecast", "ongoing"):
            return self.causes
        return tuple(dict.fromkeys((*self.causes, self.subject)))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIncident:
    """One incident that is open, or was resolved lately."""

    incident_id: str
    keys: frozenset[str]
    last_at: datetime
    """When its last failure was."""
    opened_at: datetime
    resolved_at: datetime | None = None
    """None while it is open."""
    sealed: bool = False
    """A person split it off: it takes only what is surely its own (its runs and their own fault)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an occurrence goes, and which open incidents it shows to be one with that."""

    decision: Decision
    incident_id: str
    merged: tuple[str, ...] = ()
    """Open incidents that turned out to have the same cause; they become part of `incident_id`."""
    by: str = ""
    """The key that decided, or empty for a new incident."""


def kind_of(key: str) -> str:
    """The part of a cause key that says what kind of cause it is."""
    return key.partition(":")[0]


def placed(occurrence: Occurrence, known: Iterable[KnownIncident]) -> Placement:
    """Return where an occurrence belongs; the same for the same facts in whatever order they are listed."""
    incidents = sorted(known, key=lambda one: (one.opened_at, one.incident_id))
    open_ones = [
        (one, key)
        for one in incidents
        if one.resolved_at is None and (key := _matching(occurrence, one)) is not None
    ]
    if open_ones:
        # the oldest is the one that people know
        (first, key), *others = open_ones
        merged = tuple(one.incident_id for one, _ in others if not (one.sealed or first.sealed))
        return Placement(decision="joined", incident_id=first.incident_id, merged=merged, by=key)
    back = [
        (one, key)
        for one in incidents
        if one.resolved_at is not None
        and occurrence.at - one.resolved_at <= REOPEN
        and (key := _matching(occurrence, one, again=True)) is not None
    ]
    if back:
        one, key = max(back, key=lambda pair: (pair[0].resolved_at, pair[0].incident_id))
        return Placement(decision="reopened", incident_id=one.incident_id, by=key)
    return Placement(decision="opened", incident_id=occurrence.occurrence_id)


def _matching(occurrence: Occurrence, incident: KnownIncident, *, again: bool = False) -> str | None:
    """The first key that the two have in common and that still holds, or None."""
    for key in occurrence.keys:
        if key not in incident.keys:
            continue
        kind = kind_of(key)
        if incident.sealed and kind in SHARED:
            continue
        # a shared cause is not known to be the same one a while later; a fault of one deployment is
        if again and kind in SHARED:
            continue
        window = WINDOWS.get(kind, SHARED_WINDOW)
        if window is None or again or abs(occurrence.at - incident.last_at) <= window:
            return key
    return None


def shared_cause(keys: Sequence[str] | frozenset[str]) -> bool:
    """Whether an incident with these keys may be the trouble of something that several deployments use."""
    return any(kind_of(key) in SHARED for key in keys)
