"""The questions about runs that every package asks the store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pilotage.telemetry.facts import DecisionFact, DeploymentFact, LogLine, QueueFact, RunFact
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

RECENT = timedelta(minutes=2)
"""A queue that was not seen for this long before the newest snapshot has been deleted."""


def _runs(store: Store, condition: str, parameters: Sequence[Any]) -> list[RunFact]:
    return facts_from_rows(RunFact, store.rows(f"SELECT * FROM runs WHERE {condition}", parameters))  # noqa: S608


def run(store: Store, run_id: str) -> RunFact | None:
    """The run as last seen, or None when the store does not know it."""
    return next(iter(_runs(store, "run_id = ?", [run_id])), None)


def runs_of(store: Store, run_ids: Sequence[str]) -> dict[str, RunFact]:
    """The runs with these ids that the store knows, by id."""
    facts = _runs(store, "run_id IN (SELECT unnest(?::VARCHAR[]))", [list(run_ids)]) if run_ids else []
    return {one.run_id: one for one in facts}


def done_by_later(store: Store, run_ids: Sequence[str]) -> dict[str, str]:
    """Which of these failed runs of a schedule a later run of the same schedule and parameters stands for, by id."""
    sql = """
        SELECT f.run_id, arg_min(l.run_id, l.ended) AS later FROM runs f JOIN runs l
        ON l.deployment_id = f.deployment_id AND l.state_type = 'COMPLETED' AND l.auto_scheduled
        AND l.expected_start > f.expected_start AND l.started > f.ended
        AND CAST(l.parameters AS VARCHAR) = CAST(f.parameters AS VARCHAR)
        WHERE f.run_id IN (SELECT unnest(?::VARCHAR[])) AND f.auto_scheduled
        AND f.state_type IN ('FAILED', 'CRASHED') GROUP BY f.run_id
    """
    return {row["run_id"]: row["later"] for row in store.rows(sql, [list(run_ids)])} if run_ids else {}


def failures_since(store: Store, moment: datetime) -> list[RunFact]:
    """The runs that are FAILED or CRASHED now and ended after a moment, in the order of their ends."""
    return _runs(store, "state_type IN ('FAILED', 'CRASHED') AND ended > ? ORDER BY ended, run_id", [moment])


def latest_runs(store: Store, words: str = "", limit: int = 30) -> list[RunFact]:
    """The runs that changed last, newest first; with `words`, those in whose name, flow, deployment, state, queue or
    id they occur, whatever the case."""
    return _runs(
        store,
        "? = '' OR contains(lower(concat_ws(' ', run_id, name, flow_name, deployment_name, state_name, queue)), lower(?)) "
        "ORDER BY updated DESC, run_id LIMIT ?",
        [words, words, limit],
    )


def run_page(
    store: Store, *, words: str = "", state: str = "", deployment: str = "", after: str = "", limit: int = 30
) -> dict[str, Any]:
    """Return `{rows, count, next}` of the runs that changed last, newest first, beginning behind the page before.

    `words` as in `latest_runs`; `state` is a name or a type of a state; `deployment` its name, `flow/name`, or its flow.
    `after` is the `next` of the page before. Raises ValueError for another text.
    """
    where = (
        "(? = '' OR contains(lower(concat_ws(' ', run_id, name, flow_name, deployment_name, state_name, queue)), "
        "lower(?))) AND (? = '' OR lower(state_name) = lower(?) OR state_type = upper(?)) "
        "AND (? = '' OR ? IN (flow_name, deployment_name, concat(flow_name, '/', deployment_name)))"
    )
    given: list[Any] = [words, words, state, state, state, deployment, deployment]
    (counted,) = store.rows(f"SELECT count(*) AS n FROM runs WHERE {where}", given)  # noqa: S608 - constants above
    behind, beyond = "", []
    if after:
        moment, _, run_id = after.partition("_")
        at = datetime.fromisoformat(moment)
        behind, beyond = " AND (updated < ? OR (updated = ? AND run_id > ?))", [at, at, run_id]
    found = _runs(
        store, f"{where}{behind} ORDER BY updated DESC, run_id LIMIT ?", [*given, *beyond, limit + 1]
    )
    rows = found[:limit]
    more = f"{rows[-1].updated.isoformat()}_{rows[-1].run_id}" if len(found) > limit else ""
    return {"rows": rows, "count": int(counted["n"]), "next": more}


MOST_CALLED = 200
"""Runs or deployments of one name that are read; more are not told apart by reading on."""


def runs_called(store: Store, name: str, id_begin: str = "") -> list[RunFact]:
    """Return the runs of that name, or whose id begins with `id_begin` where it is not empty; newest first."""
    return _runs(
        store,
        "name = ? OR (? <> '' AND starts_with(run_id, ?)) ORDER BY updated DESC, run_id LIMIT ?",
        [name, id_begin, id_begin, MOST_CALLED],
    )


def deployments_called(store: Store, name: str, id_begin: str = "") -> list[DeploymentFact]:
    """Return the deployments called `name` or `flow/name`, or whose id begins with `id_begin` where it is not empty."""
    sql = (
        "SELECT * FROM deployments WHERE name = ? OR concat(flow_name, '/', name) = ? "
        "OR (? <> '' AND starts_with(deployment_id, ?)) ORDER BY flow_name, name LIMIT ?"
    )
    return facts_from_rows(DeploymentFact, store.rows(sql, [name, name, id_begin, id_begin, MOST_CALLED]))


def upcoming_runs(store: Store, now: datetime, horizon: timedelta) -> list[RunFact]:
    """The SCHEDULED runs that start in [now, now + horizon], soonest first."""
    return _runs(
        store,
        "state_type = 'SCHEDULED' AND next_start BETWEEN ? AND ? ORDER BY next_start, run_id",
        [now, now + horizon],
    )


def waiting_runs(store: Store, now: datetime) -> list[RunFact]:
    """The SCHEDULED runs that are due and not picked up, longest waiting first."""
    return _runs(store, "state_type = 'SCHEDULED' AND next_start <= ? ORDER BY next_start, run_id", [now])


def logs_of(store: Store, run_id: str, limit: int = 50) -> list[LogLine]:
    """The last `limit` kept log lines of a run, oldest first."""
    sql = 'SELECT * FROM logs WHERE run_id = ? ORDER BY "at" DESC, log_id DESC LIMIT ?'
    return facts_from_rows(LogLine, store.rows(sql, [run_id, limit]))[::-1]


def queue_snapshots(store: Store) -> list[QueueFact]:
    """The latest snapshot of each queue that still exists, by pool and priority."""
    sql = """
        SELECT * FROM queues
        WHERE "at" > (SELECT max("at") FROM queues) - to_seconds(?)
        QUALIFY row_number() OVER (PARTITION BY pool, queue ORDER BY "at" DESC) = 1
        ORDER BY pool, priority, queue
    """
    return facts_from_rows(QueueFact, store.rows(sql, [RECENT.total_seconds()]))


def worker_released(store: Store, run_id: str, after: datetime) -> bool:
    """Whether the worker has reported the end of this run's process after a moment.

    Retrying sooner has been seen to break a worker that was started with `--limit`.
    """
    sql = (
        "SELECT 1 FROM events WHERE run_id = ? AND occurred > ? "
        "AND name = 'prefect.worker.executed-flow-run' LIMIT 1"
    )
    return bool(store.rows(sql, [run_id, after]))


def deployment_of(store: Store, run_id: str) -> DeploymentFact | None:
    """The deployment that governs a run, or None when it has none."""
    sql = "SELECT d.* FROM deployments d JOIN runs r USING (deployment_id) WHERE r.run_id = ?"
    return next(iter(facts_from_rows(DeploymentFact, store.rows(sql, [run_id]))), None)


def decisions_about(store: Store, *run_ids: str) -> list[DecisionFact]:
    """Every recorded step of every proposal about these runs, in order."""
    sql = 'SELECT * FROM decisions WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY "at", decision_id'
    return facts_from_rows(DecisionFact, store.rows(sql, [list(run_ids)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpis:
    """How it goes. A number that nothing was counted for is None."""

    ended: int
    """Runs that ended as COMPLETED, FAILED or CRASHED."""
    success_rate: float | None
    """The part of them that is COMPLETED now."""
    proposed: int
    """Proposals that were made."""
    injected: int
    """Proposals that changed something in Prefect."""
    verified: int
    """Injected proposals whose promise was kept."""
    recovered: int
    """Runs that ended COMPLETED after an injection into them."""
    recovery_p50: timedelta | None
    """From a run's last failure before the first injection to its completion: the median."""
    recovery_p95: timedelta | None
    """The same, 95th percentile."""


def kpis(store: Store, since: datetime | None = None) -> Kpis:
    """The numbers over all runs that ended and decisions that were taken since a moment, or ever."""
    from_ = since or datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    (runs,) = store.rows(
        "SELECT count(*) AS ended, count(*) FILTER (state_type = 'COMPLETED') AS good FROM runs "
        "WHERE state_type IN ('COMPLETED', 'FAILED', 'CRASHED') AND ended >= ?",
        [from_],
    )
    (steps,) = store.rows(
        "SELECT count(DISTINCT proposal_id) FILTER (step = 'proposed') AS proposed, "
        "count(DISTINCT proposal_id) FILTER (step = 'injected' AND outcome <> 'refused') AS injected, "
        "count(DISTINCT proposal_id) FILTER (step = 'verified' AND outcome = 'verified') AS verified "
        'FROM decisions WHERE "at" >= ?',
        [from_],
    )
    # Prefect keeps one end per run, so the failure before the retry is taken from the events
    (recovery,) = store.rows(
        """
        WITH first AS (
            SELECT run_id, min("at") AS injected FROM decisions
            WHERE step = 'injected' AND outcome <> 'refused' AND run_id IS NOT NULL AND "at" >= ?
            GROUP BY run_id
        ), failed AS (
            SELECT f.run_id, max(e.occurred) AS failed FROM first f JOIN events e
            ON e.run_id = f.run_id AND e.occurred <= f.injected
            AND e.name IN ('prefect.flow-run.Failed', 'prefect.flow-run.Crashed', 'prefect.flow-run.TimedOut')
            GROUP BY f.run_id
        ), took AS (
            SELECT epoch(r.ended - coalesce(failed, injected)) AS seconds
            FROM first JOIN runs r USING (run_id) LEFT JOIN failed USING (run_id)
            WHERE r.state_type = 'COMPLETED' AND r.ended > injected
        )
        SELECT count(*) AS n, quantile_cont(seconds, 0.5) AS p50, quantile_cont(seconds, 0.95) AS p95
        FROM took
        """,
        [from_],
    )
    return Kpis(
        ended=runs["ended"],
        success_rate=runs["good"] / runs["ended"] if runs["ended"] else None,
        proposed=steps["proposed"],
        injected=steps["injected"],
        verified=steps["verified"],
        recovered=recovery["n"],
        recovery_p50=_span(recovery["p50"]),
        recovery_p95=_span(recovery["p95"]),
    )


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None or math.isnan(seconds) else timedelta(seconds=seconds)
