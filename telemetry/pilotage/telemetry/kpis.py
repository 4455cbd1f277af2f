"""What the work is worth, counted from the store: each number with what it means, how it is made and from how many.

Nothing is estimated but the reclaimed hours, whose one assumption is a parameter and is shown beside them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pilotage.telemetry.store.protocol import Store

LEAST = 3
"""From fewer cases no number is told: it would be an anecdote."""
MINUTES_BY_HAND = 10.0
"""Minutes a person is taken to need for one change by hand: look, decide, do, look again. Put in your own."""
AGAIN_WITHIN = timedelta(hours=24)
"""The same class of failure on the same deployment within this time after a recovery is a recurrence."""
Z95 = 1.959964
"""For 95 of 100 samples the truth lies within this many standard errors."""

Unit = Literal["seconds", "share", "hours"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One number."""

    name: str
    value: float | None
    """In `unit`; None where there is not enough to count. Of times it is the median."""
    low: float | None = None
    """Of shares: the lower end of Wilson's 95 % interval. Of times: the 25th percentile."""
    high: float | None = None
    """The upper end, or the 75th percentile."""
    unit: Unit
    cases: int
    """How many it was made from."""
    definition: str
    formula: str


def measured(store: Store, since: datetime, *, minutes_by_hand: float = MINUTES_BY_HAND) -> list[Kpi]:
    """Every number over what was decided and what ended since a moment."""
    took: Callable[[str], list[float]] = lambda sql: _seconds(store, sql, since)  # noqa: E731
    changes = _one(store, _CHANGES, since)
    runs = _one(store, _RUNS, since)
    incidents = _one(store, _INCIDENTS, since)
    answers = _one(store, _ANSWERS, since)
    retried = _one(store, _AGAIN, since, AGAIN_WITHIN)
    wasted = _one(store, _WASTED, since)
    by_machine = int(changes["by_machine"] or 0)
    return [
        _time(
            "time to detect",
            took(_DETECTED),
            "From a run's failure to the first proposal about it (MTTD).",
            "median over incidents of (first proposal - last failure before it)",
        ),
        _time(
            "time to approve",
            took(_APPROVED),
            "From the moment a person was asked to the last approval.",
            "median over approved proposals of (last approval - first verdict needs_approval)",
        ),
        _time(
            "time to recover",
            took(_RECOVERED),
            "From a run's failure to its completion, of runs that were changed (MTTR).",
            "median over recovered runs of (end - last failure before the first injection)",
        ),
        _share(
            "recurrence",
            retried["again"],
            retried["recovered"],
            f"Recovered incidents whose failure class came back on the same deployment within {_hours(AGAIN_WITHIN)} h.",
            "came back / recovered",
        ),
        _share(
            "handled with no human",
            incidents["alone"],
            incidents["recovered"],
            "Recovered incidents in which nobody proposed or voted.",
            "recovered without a person / recovered",
        ),
        _share(
            "taken as proposed",
            answers["taken"],
            answers["answered"],
            "Proposals that people answered and approved as they stood, neither rejecting nor editing them.",
            "approved only / (approved + rejected + replaced by an edit)",
        ),
        _share(
            "promises kept",
            changes["verified"],
            changes["ended"],
            "Injected changes whose promise was kept when it was checked.",
            "verified / (verified + found failed)",
        ),
        _share(
            "success rate",
            runs["good"],
            runs["ended"],
            "Ended runs that are COMPLETED now.",
            "completed / (completed + failed + crashed)",
        ),
        Kpi(
            name="retry-hours wasted",
            value=float(wasted["hours"] or 0.0) if wasted["attempts"] else None,
            unit="hours",
            cases=int(wasted["attempts"]),
            definition="Time that second and later attempts ran before they failed again.",
            formula="sum over attempts after a run's first of (end - start), of those that failed",
        ),
        Kpi(
            name="reclaimed hours",
            value=by_machine * minutes_by_hand / 60 if by_machine else None,
            unit="hours",
            cases=by_machine,
            definition=f"Verified changes that nobody proposed by hand, at {minutes_by_hand:g} minutes of a person's "
            "time each. The minutes are an assumption: put in your own.",
            formula=f"verified changes by automation x {minutes_by_hand:g} min / 60",
        ),
    ]


def _time(name: str, seconds: Sequence[float], definition: str, formula: str) -> Kpi:
    enough = len(seconds) >= LEAST
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if enough else (None,) * 3
    return Kpi(
        name=name,
        value=middle,
        low=low,
        high=high,
        unit="seconds",
        cases=len(seconds),
        definition=definition,
        formula=formula,
    )


def _share(name: str, part: Any, whole: Any, definition: str, formula: str) -> Kpi:
    k, n = int(part or 0), int(whole or 0)
    low, high = wilson(k, n) if n >= LEAST else (None, None)
    return Kpi(
        name=name,
        value=k / n if n >= LEAST else None,
        low=low,
        high=high,
        unit="share",
        cases=n,
        definition=definition,
        formula=formula,
    )


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `k` in `n > 0`, within [0, 1]."""
    share, z2 = k / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _seconds(store: Store, sql: str, since: datetime) -> list[float]:
    return [float(row["seconds"]) for row in store.rows(sql, [since]) if row["seconds"] is not None]


def _one(store: Store, sql: str, since: datetime, *more: Any) -> dict[str, Any]:
    return store.rows(sql, [since, *(each.total_seconds() for each in more)])[0]


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:g}"


_FAILURES = "('prefect.flow-run.Failed', 'prefect.flow-run.Crashed', 'prefect.flow-run.TimedOut')"
_STARTS = "('prefect.flow-run.Running', 'prefect.flow-run.Retrying')"
_RECENT = 'WITH d AS (SELECT * FROM decisions WHERE "at" >= ?)'
_PERSON = "json_extract_string(detail, '$.playbook') = 'person'"

_DETECTED = f"""
    {_RECENT}, first AS (
        SELECT incident_id, run_id, min("at") AS proposed FROM d
        WHERE step = 'proposed' AND run_id IS NOT NULL GROUP BY ALL
    )
    SELECT epoch(min(proposed) - max(e.occurred)) AS seconds
    FROM first JOIN events e ON e.run_id = first.run_id AND e.occurred <= proposed AND e.name IN {_FAILURES}
    GROUP BY incident_id
"""  # noqa: S608 - constants of this module

_APPROVED = f"""
    {_RECENT}, asked AS (
        SELECT proposal_id, min("at") AS asked FROM d
        WHERE step = 'judged' AND outcome = 'needs_approval' GROUP BY ALL
    )
    SELECT epoch(max(d."at") - min(asked)) AS seconds
    FROM asked JOIN d ON d.proposal_id = asked.proposal_id AND d.step = 'approved' GROUP BY asked.proposal_id
"""  # noqa: S608

_RECOVERED = f"""
    {_RECENT}, first AS (
        SELECT run_id, min("at") AS injected FROM d
        WHERE step = 'injected' AND outcome <> 'refused' AND run_id IS NOT NULL AND action <> 'notify_owner'
        GROUP BY ALL
    ), failed AS (
        SELECT f.run_id, max(e.occurred) AS failed FROM first f JOIN events e
        ON e.run_id = f.run_id AND e.occurred <= f.injected AND e.name IN {_FAILURES} GROUP BY ALL
    )
    SELECT epoch(r.ended - failed) AS seconds
    FROM first JOIN failed USING (run_id) JOIN runs r USING (run_id)
    WHERE r.state_type = 'COMPLETED' AND r.ended > injected
"""  # noqa: S608

_INCIDENTS = f"""
    {_RECENT}, i AS (
        SELECT incident_id,
            bool_or(step = 'verified' AND outcome = 'verified' AND action <> 'notify_owner') AS recovered,
            bool_or(step IN ('approved', 'rejected') OR (step = 'proposed' AND {_PERSON})) AS touched
        FROM d GROUP BY ALL
    )
    SELECT count(*) FILTER (recovered) AS recovered, count(*) FILTER (recovered AND NOT touched) AS alone FROM i
"""  # noqa: S608

_ANSWERS = f"""
    {_RECENT}, p AS (
        SELECT bool_or(step = 'approved') AS yes, bool_or(step IN ('rejected', 'replaced', 'amended')) AS otherwise
        FROM d GROUP BY proposal_id
    )
    SELECT count(*) FILTER (yes AND NOT otherwise) AS taken, count(*) FILTER (yes OR otherwise) AS answered FROM p
"""  # noqa: S608

_CHANGES = f"""
    {_RECENT}, p AS (
        SELECT proposal_id,
            bool_or(step = 'verified' AND outcome = 'verified') AS verified,
            bool_or(step = 'verified') AS checked,
            bool_or(step = 'proposed' AND {_PERSON}) AS by_hand
        FROM d WHERE action <> 'notify_owner' GROUP BY ALL
    )
    SELECT count(*) FILTER (verified) AS verified, count(*) FILTER (checked) AS ended,
        count(*) FILTER (verified AND NOT by_hand) AS by_machine FROM p
"""  # noqa: S608

_AGAIN = f"""
    {_RECENT}, i AS (
        SELECT d.incident_id, any_value(r.deployment_id) AS deployment_id,
            max(json_extract_string(d.detail, '$.failure_class')) AS class,
            min(d."at") FILTER (d.step = 'proposed') AS began,
            max(d."at") FILTER (d.step = 'verified' AND d.outcome = 'verified' AND d.action <> 'notify_owner') AS well
        FROM d LEFT JOIN runs r USING (run_id) GROUP BY ALL
    )
    SELECT count(*) AS recovered, count(*) FILTER (EXISTS (
        SELECT 1 FROM i AS later WHERE later.deployment_id = i.deployment_id AND later.class = i.class
        AND later.began > i.well AND later.began <= i.well + to_seconds(?)
    )) AS again FROM i WHERE well IS NOT NULL
"""  # noqa: S608

_RUNS = """
    SELECT count(*) AS ended, count(*) FILTER (state_type = 'COMPLETED') AS good FROM runs
    WHERE state_type IN ('COMPLETED', 'FAILED', 'CRASHED') AND ended >= ?
"""

_WASTED = f"""
    WITH s AS (
        SELECT run_id, occurred, name IN {_STARTS} AS begins, name IN {_FAILURES} AS fails FROM events
        WHERE occurred >= ? AND run_id IS NOT NULL
        AND (name IN {_STARTS} OR name IN {_FAILURES} OR name = 'prefect.flow-run.Completed')
    ), numbered AS (
        SELECT run_id, occurred, begins, fails,
            sum(begins::INT) OVER (PARTITION BY run_id ORDER BY occurred) AS attempt,
            lead(occurred) OVER (PARTITION BY run_id ORDER BY occurred) AS ends,
            lead(fails) OVER (PARTITION BY run_id ORDER BY occurred) AS failed
        FROM s
    )
    SELECT count(*) FILTER (failed) AS attempts, sum(epoch(ends - occurred)) FILTER (failed) / 3600 AS hours
    FROM numbered WHERE begins AND attempt > 1
"""  # noqa: S608
