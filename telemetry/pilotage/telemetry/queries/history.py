"""Failures of the past, each as it was then: what a run looked like when it failed, and what came of it.

The table of runs knows only how things stand now; how a run failed before somebody tried it again is told by
the events, whose ids are those of the states.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pilotage.telemetry.facts import LogLine, RunFact, StateType
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import fact_from_row, facts_from_rows

MOST = 5000
"""The newest failing runs that are looked at."""
LATE_LINES = timedelta(seconds=5)
"""Log lines arrive in batches, a little after the state that they tell of."""
SAME_END = timedelta(seconds=5)
"""A run's end and the event that tells of it differ by less."""
_NAMES = {
    "prefect.flow-run.Running": StateType.RUNNING,
    "prefect.flow-run.Completed": StateType.COMPLETED,
    "prefect.flow-run.Failed": StateType.FAILED,
    "prefect.flow-run.TimedOut": StateType.FAILED,
    "prefect.flow-run.Crashed": StateType.CRASHED,
    "prefect.flow-run.Cancelled": StateType.CANCELLED,
}
_FAILED = frozenset({StateType.FAILED, StateType.CRASHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoricalFailure:
    """One failure of one run."""

    run: RunFact
    """As it was when it had failed; its tags, parameters and job variables are the present ones."""
    at: datetime
    tried_again: datetime | None = None
    """When the run entered Running the next time, or None when it has not."""
    ended_as: StateType | None = None
    """How that attempt ended, or None when it has not, or there was none."""


def failures_then(store: Store, since: datetime) -> list[HistoricalFailure]:
    """Every failure after a moment, oldest first; of the newest `MOST` failing runs."""
    failed = "('prefect.flow-run.Failed', 'prefect.flow-run.TimedOut', 'prefect.flow-run.Crashed')"
    wanted = (
        f"SELECT run_id FROM (SELECT run_id, max(occurred) AS seen FROM events WHERE name IN {failed} "  # noqa: S608
        "AND occurred > ? GROUP BY run_id UNION ALL SELECT run_id, ended FROM runs "
        "WHERE state_type IN ('FAILED', 'CRASHED') AND ended > ?) GROUP BY run_id ORDER BY max(seen) DESC LIMIT ?"
    )
    runs = facts_from_rows(
        RunFact,
        store.rows(f"SELECT * FROM runs WHERE run_id IN ({wanted})", [since, since, MOST]),  # noqa: S608
    )
    names = ", ".join(f"'{name}'" for name in _NAMES)
    events = store.rows(
        f"SELECT run_id, event_id, occurred, name, payload FROM events WHERE name IN ({names}) "  # noqa: S608
        f"AND resource_id = 'prefect.flow-run.' || run_id AND run_id IN ({wanted}) ORDER BY occurred, event_id",
        [since, since, MOST],
    )
    of_run: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        of_run.setdefault(event["run_id"], []).append(event)
    failures = [
        failure
        for run in runs
        for failure in _episodes(run, of_run.get(run.run_id, []))
        if failure.at > since
    ]
    return sorted(failures, key=lambda failure: (failure.at, failure.run.run_id))


def logs_then(store: Store, episode: HistoricalFailure, limit: int) -> list[LogLine]:
    """The last `limit` log lines that the run had when it failed, oldest first."""
    sql = 'SELECT * FROM logs WHERE run_id = ? AND "at" <= ? ORDER BY "at" DESC, log_id DESC LIMIT ?'
    rows = store.rows(sql, [episode.run.run_id, episode.at + LATE_LINES, limit])
    return facts_from_rows(LogLine, rows)[::-1]


def forecast_then(store: Store, episode: HistoricalFailure) -> Forecast | None:
    """The last forecast that was made of the run up to its failure, or None when none is kept."""
    sql = "SELECT * FROM forecasts WHERE run_id = ? AND made_at <= ? ORDER BY made_at DESC LIMIT 1"
    rows = store.rows(sql, [episode.run.run_id, episode.at])
    return fact_from_row(Forecast, rows[0]) if rows else None


def ended_then(store: Store, deployment_id: str, at: datetime, limit: int) -> list[RunFact]:
    """The runs of a deployment whose last end lies before a moment, newest first."""
    sql = (
        "SELECT * FROM runs WHERE deployment_id = ? AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED') "
        "AND ended < ? ORDER BY ended DESC, run_id LIMIT ?"
    )
    return facts_from_rows(RunFact, store.rows(sql, [deployment_id, at, limit]))


def _episodes(run: RunFact, events: Sequence[Mapping[str, Any]]) -> Iterator[HistoricalFailure]:
    attempts, last = 0, None
    for place, event in enumerate(events):
        state = _NAMES[event["name"]]
        attempts += state is StateType.RUNNING
        if state not in _FAILED:
            continue
        last, rest = event["occurred"], events[place + 1 :]
        restarted = next((event for event in rest if _NAMES[event["name"]] is StateType.RUNNING), None)
        ended = next((event for event in rest if restarted and _is_end_after(event, restarted)), None)
        then = replace(
            run,
            state_type=state,
            state_name=event["name"].rpartition(".")[2],
            state_id=event["event_id"],
            state_message=_message(event["payload"]),
            run_count=max(1, attempts),
            next_start=None,
            ended=last,
            updated=last,
        )
        yield HistoricalFailure(
            run=then,
            at=last,
            tried_again=restarted["occurred"] if restarted else None,
            ended_as=_NAMES[ended["name"]] if ended else None,
        )
    # what failed before its events were kept is known by its present state alone
    same_end = last is not None and run.ended is not None and abs(run.ended - last) <= SAME_END
    if run.state_type in _FAILED and run.ended is not None and not same_end:
        yield HistoricalFailure(run=run, at=run.ended)


def _is_end_after(event: Mapping[str, Any], begun: Mapping[str, Any]) -> bool:
    ends = _NAMES[event["name"]] is not StateType.RUNNING
    return bool(ends and event["occurred"] >= begun["occurred"])


def _message(payload: str | None) -> str:
    """The state's message as the event tells it; empty when the payload has been dropped. Redacted; untrusted."""
    message = (json.loads(payload or "{}").get("validated_state") or {}).get("message")
    return message if isinstance(message, str) else ""
