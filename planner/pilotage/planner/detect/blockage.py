"""What keeps a run from going on: one cause, what it is a cause of, its numbers and who holds what it waits for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pilotage.planner.remediation import words_of
from pilotage.telemetry.fact_ages import KEPT_FRESH
from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.queries.site import Act, SiteFacts

SHOWN = 5
"""Holders that are named; the others are counted."""
USUAL_TIMES = 3
"""So many times what is usual is unusual."""
PAUSED_TOGETHER = timedelta(minutes=5)
"""So close to the time since when something is paused somebody did it."""


class Cause(StrEnum):
    """What a run waits for, or why there is none. The value is a part of the cause key, and is shown."""

    SCHEDULE_INACTIVE = "schedule_inactive"
    NO_SCHEDULE = "no_schedule"
    DEPLOYMENT_PAUSED = "deployment_paused"
    DEPLOYMENT_GONE = "deployment_gone"
    NO_POOL = "no_pool"
    POOL_GONE = "pool_gone"
    POOL_PAUSED = "pool_paused"
    NO_WORKER = "no_worker"
    QUEUE_GONE = "queue_gone"
    QUEUE_PAUSED = "queue_paused"
    QUEUE_NOT_POLLED = "queue_not_polled"
    QUEUE_FULL = "queue_full"
    POOL_FULL = "pool_full"
    DEPLOYMENT_LIMIT = "deployment_limit"
    TAG_LIMIT = "tag_limit"
    GLOBAL_LIMIT = "global_limit"
    SLOTS_OF_NOBODY = "slots_of_nobody"
    NOT_COUNTED = "not_counted"
    RING = "ring"
    WRONG_ZONE = "wrong_zone"
    NOT_MADE = "not_made"
    PREFECT_SLOW = "prefect_slow"
    NOT_TAKEN = "not_taken"
    NEVER_STARTED = "never_started"
    CANCELLING_TOO_LONG = "cancelling_too_long"
    SILENT = "silent"
    WAITS_FOR_PERSON = "waits_for_person"
    FACTS_OLD = "facts_old"
    # no trouble: what is shown to who asks, and never found
    NOT_DUE = "not_due"
    JUST_DUE = "just_due"
    RETRY_PENDING = "retry_pending"
    GOES_ON = "goes_on"


NO_TROUBLE = frozenset({Cause.NOT_DUE, Cause.JUST_DUE, Cause.RETRY_PENDING, Cause.GOES_ON})


@dataclass(frozen=True, slots=True, kw_only=True)
class Blockage:
    """The first thing in the way."""

    cause: Cause
    entity: str
    """`pool:<name>`, `queue:<pool>/<name>`, `limit:<name>`, `deployment:<id>`, `run:<id>`, `facts` or `prefect`."""
    words: str
    """What is in the way, with its numbers; one or two sentences."""
    todo: str = ""
    """What to do about it; empty where nothing is to be done."""
    since: datetime | None = None
    """Since when, where that is known."""
    holders: tuple[str, ...] = ()
    """Ids of the runs that hold what it waits for."""
    by: str = ""
    """Who or what brought it about, where that is known."""
    ours: bool = False
    """Whether that was pilotage."""
    disproof: str = ""
    """Which fact would prove it wrong."""
    doubts: tuple[str, ...] = ()
    """Facts that this rests on, or that stand before it in the chain, and are missing or too old."""

    @property
    def key(self) -> str:
        """The cause key: equal for everything that waits for the same thing."""
        return f"{self.cause}:{self.entity}"

    @property
    def trouble(self) -> bool:
        """Whether anything is wrong at all."""
        return self.cause not in NO_TROUBLE

    def told(self) -> str:
        """Return all of it in words."""
        parts = [self.words]
        if self.by:
            parts.append(f"By {self.by}.")
        if self.todo:
            parts.append(self.todo)
        if self.doubts:
            parts.append(f"Not certain: {'; '.join(self.doubts)}.")
        return " ".join(parts)


def doubts_about(site: SiteFacts, *kinds: str) -> tuple[str, ...]:
    """Return, in words, which of these kinds of fact are missing or too old."""
    found = []
    for kind in kinds:
        age, family = site.age(kind), kind.partition(":")[0]
        if age is None:
            error = site.asked[kind].error if kind in site.asked else ""
            found.append(f"{_KINDS[family]} were never read{': ' + error if error else ''}")
        elif age > KEPT_FRESH[family]:
            found.append(f"{_KINDS[family]} were last read {words_of(age)} ago")
    return tuple(found)


_KINDS = {
    "pools": "the work pools",
    "queues": "the work queues",
    "deployments": "the deployments",
    "limits": "the concurrency limits",
    "tag_limits": "the holders of limits by tag",
    "workers": "the workers",
    "automations": "the automations",
    "tasks": "the tasks that have not begun",
}


def ago(moment: datetime | None, site: SiteFacts) -> str:
    """Return `4 min ago`, or `never`."""
    return "never" if moment is None else f"{words_of(max(site.now - moment, timedelta(0)))} ago"


def named(runs: Iterable[RunFact], site: SiteFacts) -> str:
    """Return the names of the first of these runs, how long each has been so, and how many more there are."""
    listed = sorted(runs, key=lambda run: (run.started or run.state_at or run.created, run.run_id))
    told = [f"{run.name} of {run.flow_name} ({run.state_name}{_since(run, site)})" for run in listed[:SHOWN]]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(told) + more if told else "no run that is known"


def _since(run: RunFact, site: SiteFacts) -> str:
    began = run.state_at or run.started
    return f" for {words_of(site.now - began)}" if began else ""


def who_paused(site: SiteFacts, targets: Iterable[str], since: datetime | None, *words: str) -> Act | None:
    """Return what paused one of these, by id or name, about when it became paused; None where nothing says so."""
    wanted = set(targets)
    for act in site.acts:
        about = wanted & set(act.targets) and any(word in act.kind for word in words)
        if about and (since is None or abs(act.at - since) <= PAUSED_TOGETHER):
            return act
    return None
