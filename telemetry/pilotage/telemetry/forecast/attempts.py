"""Reads attempts of runs from the telemetry store: one attempt of one run is what is forecast.

A retried run is several attempts, told apart by its events. An attempt counts as submitted when it began to run.
What a store is asked for is either everything, by the page, or the few attempts of the last moments.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from pilotage.telemetry.forecast.counters import Keys, NamedCodes
from pilotage.telemetry.forecast.point_in_time import LEVELS
from pilotage.telemetry.forecast.run_history import Flags, RunHistory
from pilotage.telemetry.pool_memory import memory_of
from pilotage.telemetry.store.protocol import Store

FAILURES = ("FAILED", "CRASHED")
"""The outcomes that are forecast."""
NUMBERS = ("attempt", "memory_mb")
"""The requested numbers that a store knows of each attempt."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
EARLY = timedelta(minutes=1)
"""How much earlier than the start that Prefect names a run's first event may be."""
PAGE = 400_000
"""Attempts that are read at once; a store gives at most 500,000 rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of one run. Times are epoch seconds."""

    run_id: str
    number: int
    """Attempts of the same run before this one."""
    deployment: str
    """Deployment id, or the flow's name where there is no deployment."""
    owner: str
    """The tag `owner:` or `team:`, else the flow's name: what a new or renamed deployment leans on."""
    queue: str
    """Pool and queue."""
    memory_mb: float
    """NaN when nobody said."""
    started: float
    ended: float
    """Infinite while it has not ended."""
    outcome: str
    """`RUNNING` while it has not ended."""

    @property
    def id(self) -> str:
        """What tells it from every other attempt."""
        return f"{self.run_id}/{self.number}"

    @property
    def keys(self) -> Keys:
        """Its key at each of LEVELS."""
        memory = "" if math.isnan(self.memory_mb) else f"{self.memory_mb:.0f}"
        shape = f"{self.owner}|{self.number}|{memory}"
        of_level = {
            "site": "",
            "owner": self.owner,
            "deployment": self.deployment,
            "shape": shape,
            "queue": self.queue,
        }
        return tuple(of_level[level] for level in LEVELS)

    @property
    def numbers(self) -> tuple[float, ...]:
        """Its NUMBERS."""
        return float(self.number), self.memory_mb

    @property
    def failed(self) -> bool:
        """Whether it ended as what is forecast."""
        return self.outcome in FAILURES

    @property
    def log_duration(self) -> float:
        """Return log(1 + seconds it took); 0 while it has not ended."""
        return math.log1p(max(0.0, self.ended - self.started)) if math.isfinite(self.ended) else 0.0


_KNOWN = """
    SELECT run_id, coalesce(deployment_id, flow_name) AS deployment, flow_name, pool, queue, tags, job_variables, started,
        ended, state_type, run_count FROM runs
"""
_ENDS = (
    "('prefect.flow-run.Completed', 'prefect.flow-run.Failed', 'prefect.flow-run.Crashed', "
    "'prefect.flow-run.TimedOut', 'prefect.flow-run.Cancelled')"
)
_TERMINAL = "('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"
_TOUCHED = f"""
    touched AS (
        SELECT DISTINCT run_id FROM events WHERE occurred > $1 AND occurred < $2 AND run_id IS NOT NULL
        AND resource_id = 'prefect.flow-run.' || run_id AND name IN {_ENDS}
        UNION SELECT run_id FROM runs WHERE ended > $1 AND ended < $2 AND state_type IN {_TERMINAL}
    )
"""  # noqa: S608
_EXTENT = f"""
    WITH {_TOUCHED} SELECT count(*) AS runs, sum(greatest(run_count, 1)) AS attempts, min(least(started, $1)) AS first
    FROM runs SEMI JOIN touched USING (run_id)
"""  # noqa: S608
"""How much there is to read, and since when: an event from before a run first started says nothing of its attempts."""
_ENDED = f"""
    WITH {_TOUCHED}, known AS (
        SELECT k.* FROM ({_KNOWN}) k SEMI JOIN touched USING (run_id) WHERE hash(k.run_id) % $3 = $4
    ), told AS (
        SELECT e.run_id, e.occurred AS ended, CASE e.name WHEN 'prefect.flow-run.Completed' THEN 'COMPLETED'
            WHEN 'prefect.flow-run.Cancelled' THEN 'CANCELLED' WHEN 'prefect.flow-run.Crashed' THEN 'CRASHED'
            ELSE 'FAILED' END AS outcome
        FROM events e SEMI JOIN known USING (run_id) WHERE e.occurred >= $5 AND e.occurred < $2
        AND e.resource_id = 'prefect.flow-run.' || e.run_id AND e.name IN {_ENDS}
        UNION ALL
        -- a run whose events are gone or not here yet counts by its present state
        SELECT k.run_id, k.ended, k.state_type FROM known k WHERE k.ended < $2 AND k.state_type IN {_TERMINAL}
        AND NOT EXISTS (
            SELECT 1 FROM events e WHERE e.occurred >= $5 AND e.run_id = k.run_id AND e.occurred BETWEEN
            k.ended - INTERVAL 5 SECOND AND k.ended + INTERVAL 5 SECOND
            AND e.resource_id = 'prefect.flow-run.' || e.run_id AND e.name IN {_ENDS}
        )
    ), numbered AS (
        SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY ended) - 1 AS number,
            lag(ended) OVER (PARTITION BY run_id ORDER BY ended) AS before,
            lead(ended) OVER (PARTITION BY run_id ORDER BY ended) IS NULL AS newest
        FROM told
    ), begun AS (
        SELECT n.*, s.occurred AS began FROM numbered n ASOF LEFT JOIN (
            SELECT run_id, occurred FROM events SEMI JOIN known USING (run_id)
            WHERE occurred >= $5 AND name = 'prefect.flow-run.Running'
        ) s ON n.run_id = s.run_id AND n.ended > s.occurred
    )
    SELECT k.run_id, b.number, k.deployment, k.flow_name, k.pool, k.queue, k.tags,
        CASE WHEN b.newest THEN k.job_variables END AS job_variables, b.outcome, epoch(b.ended) AS ended,
        epoch(CASE WHEN b.began IS NOT NULL AND (b.before IS NULL OR b.began >= b.before) THEN b.began
            WHEN b.number = 0 AND k.started <= b.ended THEN k.started ELSE b.ended END) AS started
    FROM begun b JOIN known k USING (run_id) WHERE b.ended > $1 ORDER BY b.ended, k.run_id
"""  # noqa: S608
_RUNNING = "state_type IN ('RUNNING', 'PAUSED', 'CANCELLING')"
_AGAIN = "(run_count > 1 OR started IS NULL)"
_OPEN_AGAIN = f"""
    SELECT min(coalesce(started, updated - INTERVAL 1 DAY)) AS first FROM runs WHERE {_RUNNING} AND {_AGAIN}
"""  # noqa: S608
_OPEN = f"""
    WITH open AS (SELECT *, $1::TIMESTAMPTZ AS moment FROM ({_KNOWN}) WHERE {_RUNNING}), again AS (
        SELECT run_id, occurred AS began FROM events SEMI JOIN (FROM open WHERE {_AGAIN}) USING (run_id)
        WHERE occurred >= $2 AND name = 'prefect.flow-run.Running'
    )
    SELECT o.run_id, greatest(run_count - 1, 0) AS number, deployment, flow_name, pool, queue, tags, job_variables,
        'RUNNING' AS outcome, NULL::DOUBLE AS ended, epoch(coalesce(began, o.started)) AS started
    FROM open o ASOF LEFT JOIN again a ON o.run_id = a.run_id AND o.moment >= a.began
    WHERE coalesce(began, o.started) IS NOT NULL
"""  # noqa: S608
_NEXT = f"""
    SELECT run_id, run_count AS number, deployment, flow_name, pool, queue, tags, job_variables, 'RUNNING' AS outcome,
        NULL::DOUBLE AS ended, $1::DOUBLE AS started
    FROM ({_KNOWN}) WHERE run_id IN (SELECT unnest($2::VARCHAR[]))
"""  # noqa: S608


def ended_attempts(store: Store, since: datetime, until: datetime) -> list[Attempt]:
    """Return the attempts that ended between two moments, in the order of their ends. Raises StoreError."""
    [extent] = store.rows(_EXTENT, [since, until])
    if not extent["runs"]:
        return []
    pages = 1 + int(extent["attempts"]) // PAGE
    found: list[Attempt] = []
    for page in range(pages):
        table = store.query(_ENDED, [since, until, pages, page, extent["first"] - EARLY])
        found += attempts_in(table.to_pydict())
    return found if pages == 1 else sorted(found, key=lambda attempt: (attempt.ended, attempt.run_id))


def open_attempts(store: Store, now: datetime) -> list[Attempt]:
    """Return the attempts that are running. Raises StoreError."""
    # the events of those that run for the first time need not be looked through: that is all of the history
    [again] = store.rows(_OPEN_AGAIN)
    return attempts_in(store.query(_OPEN, [now, (again["first"] or now) - EARLY]).to_pydict())


def next_attempts(store: Store, run_ids: Sequence[str], now: datetime) -> dict[str, Attempt]:
    """Return the next attempt of each known run, by run id, as if it started now. Raises StoreError."""
    columns = store.query(_NEXT, [now.timestamp(), list(run_ids)]).to_pydict()
    return {attempt.run_id: attempt for attempt in attempts_in(columns)}


def attempts_in(columns: dict[str, list[object]]) -> list[Attempt]:
    """Return attempts from the columns of a result; more columns than those of an attempt do no harm."""
    memories: dict[str, float] = {}
    owners: dict[tuple[str, str], str] = {}
    found = []
    for run_id, number, deployment, flow, pool, queue, tags, variables, outcome, ended, started in zip(
        *(columns[name] for name in _COLUMNS), strict=True
    ):
        said, labels = str(variables or ""), str(tags or "")
        if said not in memories:
            memories[said] = float(memory_of(json.loads(said)) or math.nan) if said else math.nan
        if (labels, str(flow)) not in owners:
            owners[labels, str(flow)] = _owner(labels, str(flow))
        found.append(
            Attempt(
                run_id=str(run_id),
                number=int(number or 0),
                deployment=str(deployment),
                owner=owners[labels, str(flow)],
                queue=f"{pool}/{queue}" if pool else "",
                memory_mb=memories[said],
                started=float(started),
                ended=math.inf if ended is None else float(ended),
                outcome=str(outcome),
            )
        )
    return found


_COLUMNS = (
    "run_id",
    "number",
    "deployment",
    "flow_name",
    "pool",
    "queue",
    "tags",
    "job_variables",
    "outcome",
    "ended",
    "started",
)


def _owner(tags: str, flow: str) -> str:
    named = [tag for tag in json.loads(tags or "[]") if str(tag).startswith(("owner:", "team:"))]
    return sorted(named)[0] if named else flow


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHistory:
    """The attempts of a store as a run history, with the keys of each level."""

    runs: RunHistory
    failed: Flags
    levels: dict[str, NamedCodes]
    attempts: Sequence[Attempt]
    """In the order of `runs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSource:
    """Where a forecaster finds what it follows: things that begin, end one way or the other, and are forecast before."""

    ended: Callable[[Store, datetime, datetime], list[Attempt]]
    """Those that ended between two moments, in the order of their ends."""
    running: Callable[[Store, datetime], list[Attempt]]
    """Those that have begun and not ended."""
    following: Callable[[Store, Sequence[str], datetime], dict[str, Attempt]]
    """The next of each known run, as if it began at a moment."""
    label: tuple[str, ...]
    """What is forecast, in words for a model's card."""


RUN_ATTEMPTS = AttemptSource(
    ended=ended_attempts, running=open_attempts, following=next_attempts, label=FAILURES
)
"""The attempts of runs, from their starts to their ends."""


def stored_history(store: Store, now: datetime, source: AttemptSource = RUN_ATTEMPTS) -> StoredHistory:
    """Return every attempt that began before `now`, as known at `now`. Raises StoreError."""
    ended = source.ended(store, LONG_AGO, now)
    over = {attempt.id for attempt in ended}
    return history_of([*ended, *(a for a in source.running(store, now) if a.id not in over)])


def history_of(attempts: Sequence[Attempt]) -> StoredHistory:
    """Return attempts as a run history in the order of their starts."""
    ordered = sorted(attempts, key=lambda attempt: attempt.started)
    keys = list(zip(*(attempt.keys for attempt in ordered), strict=True)) or [()] * len(LEVELS)
    levels = {}
    for level, of_runs in zip(LEVELS, keys, strict=True):
        place = {key: number for number, key in enumerate(dict.fromkeys(of_runs))}
        codes = np.fromiter((place[key] for key in of_runs), np.int64, len(of_runs))
        levels[level] = NamedCodes(codes=codes, names=list(place))
    started = np.array([attempt.started for attempt in ordered], dtype=np.float64)
    numbers = np.array([attempt.numbers for attempt in ordered], dtype=np.float64).reshape(-1, len(NUMBERS))
    return StoredHistory(
        runs=RunHistory(
            run_id=tuple(attempt.id for attempt in ordered),
            deployment=levels["deployment"].codes,
            owner=levels["owner"].codes,
            queue=levels["queue"].codes,
            submitted=started,
            started=started,
            ended=np.maximum(np.array([a.ended for a in ordered], dtype=np.float64), started),
            outcome=tuple(attempt.outcome for attempt in ordered),
            numbers={name: numbers[:, place] for place, name in enumerate(NUMBERS)},
            clock=True,
        ),
        failed=np.array([attempt.failed for attempt in ordered], dtype=bool),
        levels=levels,
        attempts=ordered,
    )
