"""The same numbers before and after a moment, each with the range in which chance alone would leave it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilotage.telemetry.kpis import Z95
from pilotage.telemetry.store.protocol import Store

_FIRST_CHANGE = "SELECT min(\"at\") AS at FROM decisions WHERE step = 'injected' AND outcome <> 'refused'"
_NUMBERS = """
    WITH mine AS (
        SELECT *, epoch(ended - started) AS took, epoch(started - greatest(expected_start, created)) AS waited FROM runs
        WHERE ended >= $1 AND ended < $2 AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED')
    ), failed AS (
        SELECT e.run_id, min(e.occurred) AS at FROM events e WHERE e.occurred >= $1 AND e.occurred < $2
        AND e.name IN ('prefect.flow-run.Failed', 'prefect.flow-run.Crashed')
        AND e.resource_id = 'prefect.flow-run.' || e.run_id GROUP BY e.run_id
    )
    SELECT count(*) AS ended, count(*) FILTER (state_type = 'COMPLETED') AS completed,
        count(f.run_id) AS ever_failed, count(f.run_id) FILTER (state_type = 'COMPLETED') AS recovered,
        median(epoch(ended - f.at)) FILTER (state_type = 'COMPLETED' AND f.run_id IS NOT NULL) AS recovery_s,
        median(waited) FILTER (waited >= 0) AS wait_s, quantile_cont(waited, 0.95) FILTER (waited >= 0) AS wait_p95_s
    FROM mine LEFT JOIN failed f USING (run_id)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with Wilson's 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    cases: int


def first_change(store: Store) -> datetime | None:
    """Return when something was injected for the first time, or None while nothing was. Raises StoreError."""
    [row] = store.rows(_FIRST_CHANGE)
    found: datetime | None = row["at"]
    return found


def numbers(store: Store, since: datetime, until: datetime) -> dict[str, Any]:
    """Return the counts and medians of the runs that ended between two moments. Raises StoreError."""
    [row] = store.rows(_NUMBERS, [since, until])
    return row


def shares(counted: dict[str, Any]) -> list[Share]:
    """Return the shares that counts tell; one without cases is left out."""
    wanted = (
        ("completed in the end", counted["completed"], counted["ended"]),
        ("failed at least once", counted["ever_failed"], counted["ended"]),
        ("recovered after a failure", counted["recovered"], counted["ever_failed"]),
    )
    return [wilson(name, int(part), int(whole)) for name, part, whole in wanted if whole]


def wilson(name: str, part: int, whole: int) -> Share:
    """Return a share with the interval in which it lies in 95 of 100 samples (Wilson, 1927)."""
    share, z2 = part / whole, Z95 * Z95
    middle = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = Z95 / (1 + z2 / whole) * ((share * (1 - share) + z2 / (4 * whole)) / whole) ** 0.5
    return Share(
        name=name, value=share, low=max(0.0, middle - half), high=min(1.0, middle + half), cases=whole
    )


def differ(before: Share, after: Share) -> bool:
    """Return whether two shares are further apart than chance would leave them: their intervals do not meet."""
    return before.high < after.low or after.high < before.low
