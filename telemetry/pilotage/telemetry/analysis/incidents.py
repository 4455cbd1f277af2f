"""What failed and what became of it: failures by flow and day, incidents from their first word to their end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pilotage.telemetry.store.protocol import Store

_BY_FLOW = """
    SELECT flow_name AS flow, count(*) FILTER (state_type = 'FAILED') AS failed,
        count(*) FILTER (state_type = 'CRASHED') AS crashed,
        count(*) FILTER (state_type = 'COMPLETED' AND run_count > 1) AS after_retry, count(*) AS ended
    FROM runs WHERE ended >= $1 AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED')
    GROUP BY flow_name HAVING failed + crashed + after_retry > 0
    ORDER BY failed + crashed + after_retry DESC, flow LIMIT $2
"""
_BY_HOUR = """
    SELECT date_trunc('hour', ended) AS hour, count(*) FILTER (state_type IN ('FAILED', 'CRASHED')) AS failed,
        count(*) AS ended
    FROM runs WHERE ended >= $1 AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED') GROUP BY hour ORDER BY hour
"""
_INCIDENTS = """
    SELECT incident_id, min("at") AS opened, max("at") AS last, count(DISTINCT proposal_id) AS proposals,
        count(DISTINCT run_id) AS runs, list(DISTINCT action ORDER BY action) AS actions,
        min(epoch("at")) FILTER (step = 'injected') - min(epoch("at")) AS to_act_s,
        max(epoch("at")) FILTER (step = 'verified') - min(epoch("at")) AS to_verify_s,
        bool_or(step IN ('approved', 'rejected', 'replaced')) AS asked, bool_or(step = 'verified') AS verified,
        bool_or(step = 'rejected') AS rejected, bool_or(step = 'injected') AS injected
    FROM decisions WHERE "at" >= $1 AND incident_id <> '' GROUP BY incident_id ORDER BY opened, incident_id
"""


def failures_by_flow(store: Store, since: datetime, limit: int = 15) -> list[dict[str, Any]]:
    """Return `flow, failed, crashed, after_retry, ended`, the most troubled first. Raises StoreError."""
    return store.rows(_BY_FLOW, [since, limit])


def failures_by_hour(store: Store, since: datetime) -> list[dict[str, Any]]:
    """Return `hour, failed, ended`. Raises StoreError."""
    return store.rows(_BY_HOUR, [since])


def incidents(store: Store, since: datetime) -> list[dict[str, Any]]:
    """Return one row for each incident, the oldest first, with `end`: how it stands now. Raises StoreError.

    `to_act_s` and `to_verify_s` are seconds from its first proposal, None where that has not come.
    """
    return [row | {"end": _end(row)} for row in store.rows(_INCIDENTS, [since])]


def _end(row: dict[str, Any]) -> str:
    if row["verified"]:
        return "verified, a person was asked" if row["asked"] else "verified, nobody was asked"
    if row["rejected"]:
        return "rejected by a person"
    return "injected, not verified" if row["injected"] else "nothing was done"
