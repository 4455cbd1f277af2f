"""The queues of the past as their snapshots tell, and which runs waited together at a moment.

The table of runs keeps the start that a run was made for and the one it had; that it was put off in between is
not kept, so a run counts as waiting from the one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.telemetry.facts import QueueFact, RunFact
from pilotage.telemetry.queries.runs import RECENT
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import fact_from_row, facts_from_rows

MOST = 20_000
"""Rows of one answer."""
A_WAIT = timedelta(minutes=1)
"""Who waited for less is in no backlog: Prefect itself looks for due runs only every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWait:
    """One run from when it was due until it was taken."""

    run: RunFact
    due: datetime
    taken: datetime | None
    """When it started, or ended without a start; None while it waits."""

    def at(self, moment: datetime) -> bool:
        """Whether it waited then."""
        return self.due < moment and (self.taken is None or self.taken > moment)


def pools_then(
    store: Store, since: datetime, longer_than: timedelta
) -> list[tuple[datetime, list[QueueFact]]]:
    """All queues of a pool, once for each minute in which a due run of one had waited for so long; oldest first."""
    sql = """
        WITH waited AS (
            SELECT min("at") AS moment, pool FROM queues
            WHERE "at" > ? AND waiting > 0 AND NOT paused AND "at" - oldest_due > to_seconds(?)
            GROUP BY pool, time_bucket(INTERVAL 1 MINUTE, "at")
        )
        SELECT w.moment, q.* FROM waited w JOIN queues q
        ON q.pool = w.pool AND q."at" <= w.moment AND q."at" > w.moment - to_seconds(?)
        QUALIFY row_number() OVER (PARTITION BY w.moment, q.pool, q.queue ORDER BY q."at" DESC) = 1
        ORDER BY w.moment, q.pool, q.priority, q.queue LIMIT ?
    """
    rows = store.rows(sql, [since, longer_than.total_seconds(), RECENT.total_seconds(), MOST])
    snapshots: dict[tuple[datetime, str], list[QueueFact]] = {}
    for row in rows:
        snapshots.setdefault((row["moment"], row["pool"]), []).append(fact_from_row(QueueFact, row))
    return [(moment, queues) for (moment, _), queues in snapshots.items()]


def queue_then(store: Store, pool: str, queue: str, moment: datetime) -> QueueFact | None:
    """The newest snapshot of a queue up to a moment, or None when it was not seen lately then."""
    sql = (
        'SELECT * FROM queues WHERE pool = ? AND queue = ? AND "at" <= ? AND "at" > ? - to_seconds(?) '
        'ORDER BY "at" DESC LIMIT 1'
    )
    rows = store.rows(sql, [pool, queue, moment, moment, RECENT.total_seconds()])
    return fact_from_row(QueueFact, rows[0]) if rows else None


def completed_then(store: Store, since: datetime) -> list[RunFact]:
    """The runs in queues that completed after a moment, newest first."""
    sql = (
        "SELECT * FROM runs WHERE state_type = 'COMPLETED' AND ended > ? AND pool IS NOT NULL AND queue IS NOT NULL "
        "ORDER BY ended DESC, run_id LIMIT ?"
    )
    return facts_from_rows(RunFact, store.rows(sql, [since, MOST]))


def waits_then(store: Store, since: datetime) -> Mapping[str, list[QueueWait]]:
    """Every wait of a run that was over, if at all, after a moment, by deployment, longest due first."""
    sql = """
        SELECT *, greatest(expected_start, created) AS due, coalesce(started, ended) AS taken FROM runs
        WHERE deployment_id IS NOT NULL AND expected_start IS NOT NULL
        AND (state_type = 'SCHEDULED' OR coalesce(started, ended) > ?)
        AND coalesce(started, ended, now()) - greatest(expected_start, created) > to_seconds(?)
        ORDER BY due, run_id LIMIT ?
    """
    waits: dict[str, list[QueueWait]] = {}
    for row in store.rows(sql, [since, A_WAIT.total_seconds(), MOST]):
        run = fact_from_row(RunFact, row)
        waits.setdefault(str(run.deployment_id), []).append(
            QueueWait(run=run, due=row["due"], taken=row["taken"])
        )
    return waits


def begun_again(store: Store, since: datetime, pause: timedelta) -> list[tuple[str, datetime]]:
    """Every moment after `since` at which a pool started a run, having started none for so long; oldest first."""
    sql = """
        SELECT pool, started FROM (
            SELECT pool, started, lag(started) OVER (PARTITION BY pool ORDER BY started) AS before FROM runs
            WHERE pool IS NOT NULL AND started IS NOT NULL
        ) WHERE started > ? AND (before IS NULL OR started - before >= to_seconds(?))
        ORDER BY started, pool LIMIT ?
    """
    return [(row["pool"], row["started"]) for row in store.rows(sql, [since, pause.total_seconds(), MOST])]
