"""The questions about runs unlike those before them: twins, durations, failures inside runs that completed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

MOST = 200
"""Rows of one answer."""
AHEAD = timedelta(seconds=5)
"""A run that was asked for with a start further ahead than this is meant for that time, and not for now."""
LISTED = timedelta(minutes=1)
"""Within this the waiting runs that start soon are asked for anew, and what Prefect deleted is forgotten."""
LISTED_AHEAD = timedelta(minutes=10)
"""What starts later than this is asked for seldom."""
PAST = 50
"""The newest completed runs of a deployment that say how long its runs take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """Two runs of one deployment with one start and the same parameters."""

    first: RunFact
    later: RunFact


def twins(store: Store, now: datetime) -> list[Twin]:
    """The waiting runs that have a living twin which was made before them; children are their parents' business.

    Two runs that a schedule made, or two that were asked for with one start ahead of them. What was asked for at once
    is no twin, nor are three or more that were asked for alike: work is shared out so. Nor are runs that were asked
    for and wait for one limit. What a schedule made later than its twin is one only once Prefect, asked since, still
    lists the other: a schedule that is changed or resumed deletes its runs and makes them anew.
    """
    sql = """
        SELECT a.run_id AS later, min_by(b.run_id, (b.created, b.run_id)) AS first, bool_and(b.auto_scheduled) AS scheduled
        FROM runs a JOIN runs b
        ON a.deployment_id = b.deployment_id AND a.expected_start = b.expected_start AND a.parameters = b.parameters
        AND a.job_variables = b.job_variables AND a.run_id <> b.run_id
        AND (b.created < a.created OR (b.created = a.created AND b.run_id < a.run_id))
        WHERE a.state_type = 'SCHEDULED' AND a.run_count = 0 AND b.state_type IN ('SCHEDULED', 'PENDING', 'RUNNING')
        AND a.parent_task_run_id IS NULL AND b.parent_task_run_id IS NULL
        AND ((a.auto_scheduled AND b.auto_scheduled)
             OR (a.state_name <> 'AwaitingConcurrencySlot' AND b.state_name <> 'AwaitingConcurrencySlot'
                 AND a.expected_start > a.created + to_seconds($1) AND b.expected_start > b.created + to_seconds($1)))
        AND (NOT b.auto_scheduled OR b.state_type <> 'SCHEDULED' OR a.created < b.created + INTERVAL 1 SECOND
             OR (a.created < $3 AND b.next_start < $4))
        GROUP BY a.run_id ORDER BY a.run_id LIMIT $2
    """
    pairs = store.rows(sql, [AHEAD.total_seconds(), MOST, now - LISTED, now + LISTED_AHEAD])
    alike = Counter(pair["first"] for pair in pairs)
    pairs = [pair for pair in pairs if pair["scheduled"] or alike[pair["first"]] == 1]
    ids = sorted({pair[name] for pair in pairs for name in ("first", "later")})
    known = {run.run_id: run for run in _runs(store, ids)}
    return [Twin(first=known[pair["first"]], later=known[pair["later"]]) for pair in pairs]


def _runs(store: Store, ids: Sequence[str]) -> list[RunFact]:
    if not ids:
        return []
    sql = "SELECT * FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY run_id"
    return facts_from_rows(RunFact, store.rows(sql, [list(ids)]))


def taken_by(store: Store, runs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By run, the different workers that said that they took it."""
    if not runs:
        return {}
    sql = (
        "SELECT DISTINCT run_id, resource_id FROM events WHERE name = 'prefect.worker.submitted-flow-run' "
        "AND run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY ALL"
    )
    values: dict[str, tuple[str, ...]] = {}
    for row in store.rows(sql, [list(runs)]):
        name = str(row["resource_id"]).rpartition(".")[2]
        values[row["run_id"]] = (*values.get(row["run_id"], ()), name)
    return values


def durations(store: Store, deployments: Sequence[str]) -> dict[str, list[timedelta]]:
    """By deployment, how long its newest runs took that completed at the first attempt; newest first."""
    if not deployments:
        return {}
    sql = """
        SELECT deployment_id, epoch(ended - started) AS seconds FROM runs
        WHERE deployment_id IN (SELECT unnest(?::VARCHAR[])) AND state_type = 'COMPLETED' AND run_count = 1
        AND started IS NOT NULL AND ended IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY deployment_id ORDER BY ended DESC, run_id) <= ?
        ORDER BY deployment_id, ended DESC, run_id
    """
    by_deployment: dict[str, list[timedelta]] = {}
    for row in store.rows(sql, [list(deployments), PAST]):
        by_deployment.setdefault(row["deployment_id"], []).append(timedelta(seconds=row["seconds"]))
    return by_deployment


def schedule_gaps(store: Store) -> dict[str, timedelta]:
    """By deployment, the shortest time from one start of its active schedules to the next."""
    sql = 'SELECT deployment_id, min("every") AS seconds FROM schedules WHERE active AND "every" > 0 GROUP BY deployment_id'
    return {row["deployment_id"]: timedelta(seconds=row["seconds"]) for row in store.rows(sql)}


def late_minutes(store: Store, since: datetime, at_least: int) -> dict[str, timedelta]:
    """By pool, by how much runs began late, in the median, in minutes for which so many of it were due.

    Only pools with three such minutes since a moment.
    """
    sql = """
        WITH due AS (
            SELECT r.pool, date_trunc('minute', r.expected_start) AS minute,
                   epoch(r.started - greatest(r.expected_start, r.created)) AS late
            FROM runs r WHERE r.auto_scheduled AND r.pool IS NOT NULL AND r.expected_start > ? AND r.run_count = 1
            AND r.started IS NOT NULL
        ), crowded AS (
            SELECT pool, minute FROM due GROUP BY pool, minute HAVING count(*) >= ?
        )
        SELECT pool, median(late) AS late FROM due JOIN crowded USING (pool, minute)
        GROUP BY pool HAVING count(DISTINCT minute) >= 3
    """
    rows = store.rows(sql, [since, at_least])
    return {row["pool"]: timedelta(seconds=max(0.0, row["late"])) for row in rows}


def usual_waits(store: Store, since: datetime) -> dict[str, timedelta]:
    """By deployment, the wait from its due start that nineteen of twenty runs had at most, of runs since a moment."""
    sql = """
        SELECT deployment_id, quantile_cont(epoch(started - greatest(expected_start, created)), 0.95) AS seconds
        FROM runs WHERE deployment_id IS NOT NULL AND started > ? AND expected_start IS NOT NULL AND run_count = 1
        GROUP BY deployment_id HAVING count(*) >= 5
    """
    return {
        row["deployment_id"]: timedelta(seconds=max(0.0, row["seconds"])) for row in store.rows(sql, [since])
    }


def ended_since(store: Store, since: datetime) -> set[str]:
    """The deployments of which a run ended since a moment."""
    sql = (
        "SELECT DISTINCT deployment_id FROM runs WHERE ended > ? AND deployment_id IS NOT NULL "
        "AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED')"
    )
    return {row["deployment_id"] for row in store.rows(sql, [since])}


def failed_since(store: Store, since: datetime, at_least: int) -> set[str]:
    """The deployments of which a run failed since a moment, and so many at all; failures are counted by themselves."""
    sql = (
        "SELECT deployment_id FROM runs WHERE state_type IN ('FAILED', 'CRASHED') AND deployment_id IS NOT NULL "
        "GROUP BY deployment_id HAVING count(*) >= ? AND max(ended) > ?"
    )
    return {row["deployment_id"] for row in store.rows(sql, [at_least, since])}


def time_limits(store: Store) -> dict[str, timedelta]:
    """By deployment, the time after which its runs were last stopped for taking too long."""
    sql = """
        SELECT deployment_id, arg_max(epoch(ended - started), ended) AS seconds FROM runs
        WHERE state_name = 'TimedOut' AND deployment_id IS NOT NULL AND started IS NOT NULL AND ended IS NOT NULL
        AND run_count = 1 GROUP BY deployment_id
    """
    return {row["deployment_id"]: timedelta(seconds=row["seconds"]) for row in store.rows(sql)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenFailures:
    """A deployment whose newest runs completed although parts of them failed."""

    deployment_id: str
    newest_run: str
    bad: int
    """The newest runs in a row that completed with failed parts."""
    failed: int
    """Failed tasks and children in them."""
    good_before: int
    """Runs in a row before them that completed without."""
    since: datetime
    """The end of the first of the bad ones."""
    example: str


def hidden_failures(store: Store, since: datetime) -> list[HiddenFailures]:
    """The deployments whose newest run since a moment completed with failed tasks or children."""
    sql = """
        WITH parts AS (
            SELECT t.run_id, t.attempt, t.name FROM task_runs t
            WHERE t.state_type IN ('FAILED', 'CRASHED') AND t.run_id IS NOT NULL
        ), ended AS (
            SELECT r.run_id, r.deployment_id, r.ended,
                   count(p.run_id) AS failed, min(p.name) AS example,
                   row_number() OVER (PARTITION BY r.deployment_id ORDER BY r.ended DESC, r.run_id) AS nth
            FROM runs r LEFT JOIN parts p ON p.run_id = r.run_id AND (p.attempt = 0 OR p.attempt = r.run_count)
            WHERE r.state_type = 'COMPLETED' AND r.deployment_id IS NOT NULL AND r.ended IS NOT NULL
            GROUP BY r.run_id, r.deployment_id, r.ended
        )
        SELECT * FROM ended WHERE nth <= 20 AND deployment_id IN (
            SELECT deployment_id FROM ended WHERE nth = 1 AND failed > 0 AND ended > ?)
        ORDER BY deployment_id, nth
    """
    by_deployment: dict[str, list[dict[str, object]]] = {}
    for row in store.rows(sql, [since]):
        by_deployment.setdefault(row["deployment_id"], []).append(row)
    failures = []
    for deployment_id, rows in by_deployment.items():
        bad = _in_a_row(rows, failed=True)
        good = _in_a_row(rows[len(bad) :], failed=False)
        first = bad[-1]["ended"]
        if isinstance(first, datetime):
            failures.append(
                HiddenFailures(
                    deployment_id=deployment_id,
                    newest_run=str(bad[0]["run_id"]),
                    bad=len(bad),
                    failed=sum(int(str(row["failed"])) for row in bad),
                    good_before=len(good),
                    since=first,
                    example=str(bad[0]["example"]),
                )
            )
    return failures


def _in_a_row(rows: Sequence[dict[str, object]], *, failed: bool) -> list[dict[str, object]]:
    kept = []
    for row in rows:
        if bool(row["failed"]) is not failed:
            break
        kept.append(row)
    return kept
