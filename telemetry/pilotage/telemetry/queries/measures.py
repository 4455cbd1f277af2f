"""What is measured of runs and forecasts: counts that a monitoring system asks for again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.telemetry.store.protocol import Store

SCORED_WITHIN = timedelta(days=30)
"""Forecasts whose runs ended so long ago count no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The due runs of one queue that no worker has taken."""

    pool: str
    queue: str
    due: int
    late_seconds: float
    """Of the run that was to start first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastQuality:
    """How the forecasts did whose runs have ended."""

    newest: datetime | None
    """When the newest forecast was made, ended or not."""
    scored: int
    brier: float | None
    """Mean squared error; None where nothing was scored."""
    calibration_error: float | None
    """Mean distance between forecast and frequency over ten bins of equal width, weighted by their size."""


def unfinished_runs(store: Store) -> Mapping[str, int]:
    """How many runs have not ended, by state type. Raises StoreError."""
    sql = (
        "SELECT state_type, count(*) AS n FROM runs "
        "WHERE state_type NOT IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') GROUP BY 1 ORDER BY 1"
    )
    return {str(row["state_type"]): int(row["n"]) for row in store.rows(sql)}


def waiting_by_queue(store: Store, now: datetime) -> Sequence[Waiting]:
    """The queues in which due runs wait, by pool and name. Raises StoreError."""
    sql = (
        "SELECT coalesce(pool, '') AS pool, coalesce(queue, '') AS queue, count(*) AS due, min(next_start) AS first "
        "FROM runs WHERE state_type = 'SCHEDULED' AND next_start <= ? GROUP BY ALL ORDER BY 1, 2"
    )
    return [
        Waiting(
            pool=row["pool"],
            queue=row["queue"],
            due=int(row["due"]),
            late_seconds=(now - row["first"]).total_seconds(),
        )
        for row in store.rows(sql, [now])
    ]


def failures_by_deployment(store: Store, run_ids: Sequence[str]) -> Mapping[str, int]:
    """How many of these runs each deployment has, by `flow/deployment`; by flow where there is none. Raises StoreError."""
    if not run_ids:
        return {}
    sql = (
        "SELECT concat_ws('/', nullif(flow_name, ''), nullif(deployment_name, '')) AS name, count(*) AS n FROM runs "
        "WHERE run_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY 1 ORDER BY 1"
    )
    return {str(row["name"]): int(row["n"]) for row in store.rows(sql, [list(run_ids)])}


def forecast_quality(store: Store, now: datetime) -> ForecastQuality:
    """How good the forecasts were whose runs ended within `SCORED_WITHIN`. Raises StoreError."""
    sql = """
        WITH scored AS (
            SELECT p_fail AS p, failed::DOUBLE AS y, least(floor(p_fail * 10), 9) AS bin FROM forecasts
            WHERE failed IS NOT NULL AND ended > ?
            QUALIFY row_number() OVER (PARTITION BY run_id, ended ORDER BY made_at DESC) = 1
        ), bins AS (
            SELECT count(*) AS n, abs(avg(p) - avg(y)) AS off, sum((p - y) * (p - y)) AS squares FROM scored GROUP BY bin
        )
        SELECT (SELECT max(made_at) FROM forecasts) AS newest, coalesce(sum(n), 0)::BIGINT AS scored,
            sum(squares) / sum(n) AS brier, sum(n * off) / sum(n) AS off FROM bins
    """
    (row,) = store.rows(sql, [now - SCORED_WITHIN])
    return ForecastQuality(
        newest=row["newest"], scored=int(row["scored"]), brier=row["brier"], calibration_error=row["off"]
    )
