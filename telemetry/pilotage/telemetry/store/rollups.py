"""Hours and days of each deployment in one row each, kept for good after the runs have gone."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

ROLLED_UP = "rolled_up"
"""The watermark up to which runs were cut: what ended before stands in the roll-ups alone, and is never counted again."""
_ROLL_UP = """
    INSERT INTO rollups BY NAME
    SELECT $grain AS grain, date_trunc($grain, coalesce(ended, updated)) AS start,
        coalesce(deployment_id, '') AS deployment_id, coalesce(max(deployment_name), '') AS deployment_name,
        max(flow_name) AS flow_name, count(*) AS runs,
        count(*) FILTER (state_type = 'COMPLETED') AS completed, count(*) FILTER (state_type = 'FAILED') AS failed,
        count(*) FILTER (state_type = 'CRASHED') AS crashed, count(*) FILTER (state_type = 'CANCELLED') AS cancelled,
        count(*) FILTER (run_count > 1) AS retried,
        coalesce(sum(epoch(ended - started)), 0)::DOUBLE AS seconds,
        quantile_cont(epoch(ended - started), 0.5) AS seconds_p50,
        quantile_cont(epoch(ended - started), 0.95) AS seconds_p95,
        quantile_cont(greatest(epoch(started - expected_start), 0), 0.95) AS late_p95
    FROM runs
    WHERE state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') AND coalesce(ended, updated) >= $since
    GROUP BY ALL
"""


class Writer(Protocol):
    """What runs a statement inside a transaction."""

    def execute(self, sql: str, parameters: object = ...) -> object:
        """Run it."""
        ...


def roll_up(writer: Writer, since: datetime) -> None:
    """Count every hour and day anew that begins at `since`, a midnight, or later."""
    writer.execute("DELETE FROM rollups WHERE start >= ?", [since])
    for grain in ("hour", "day"):
        writer.execute(_ROLL_UP, {"grain": grain, "since": since})
