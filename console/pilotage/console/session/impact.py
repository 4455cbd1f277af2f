"""Whom an action concerns beside its own target, and what it takes: as telemetry knows it now, for people to see before
they decide. The lever looks again when it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from pilotage.console.session.changes import in_words
from pilotage.telemetry import times
from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.queries.fleet import last_ended, running, task_runs_of
from pilotage.telemetry.queries.runs import upcoming_runs, waiting_runs
from pilotage.telemetry.store.protocol import Store

Named = Mapping[str, Any]
SHOWN = 25
"""Runs that a card names; the others are counted."""
AHEAD = timedelta(days=1)
LIKE = 20
"""Ended runs of a deployment from which it is told how long one takes."""
_RUNS_AGAIN = frozenset({"retry_run", "resize_run", "override_result"})
_RUNS_LATER = frozenset({"size_run", "reschedule_run", "move_run", "resume_run"})


def touched_by(store: Store, action: Named, now: datetime) -> dict[str, Any]:
    """`{runs: [{run_id, name, becomes}], more}` for an action on many runs; `{}` for one on its target alone."""
    find = _MANY.get(str(action.get("kind")))
    if find is None:
        return {}
    touched = list(find(store, action, now))
    return {
        "runs": [
            {"run_id": run.run_id, "name": run.name, "becomes": becomes} for run, becomes in touched[:SHOWN]
        ],
        "more": max(0, len(touched) - SHOWN),
    }


def takes(store: Store, action: Named, deployment_id: str) -> str:
    """What it takes in words, from what other runs of the deployment took; empty for an action that runs nothing."""
    kind = str(action.get("kind"))
    if kind not in _RUNS_AGAIN | _RUNS_LATER or not deployment_id:
        return ""
    spans = [
        (run.ended - run.started).total_seconds()
        for run in last_ended(store, deployment_id, LIKE)
        if run.started and run.ended and run.state_type == "COMPLETED"
    ]
    if not spans:
        return "not known: no like run completed yet"
    which = "another run of" if kind in _RUNS_AGAIN else "a run of"
    memory = f", with {action['memory_mb']} MiB" if action.get("memory_mb") else ""
    return f"{which} about {in_words(median(spans))}{memory} (median of {len(spans)} that completed)"


Becomes = Iterable[tuple[RunFact, str]]


def _due(store: Store, deployment_id: object, now: datetime) -> list[RunFact]:
    """The deployment's runs that were due and still wait, oldest first."""
    known = {run.run_id: run for run in (*waiting_runs(store, now), *upcoming_runs(store, now, AHEAD))}
    due = [
        run
        for run in known.values()
        if run.deployment_id == deployment_id and (run.expected_start or now) <= now
    ]
    return sorted(due, key=lambda run: (run.expected_start or now, run.run_id))


def _in_waves(runs: Sequence[RunFact], action: Named) -> Becomes:
    first = datetime.fromisoformat(str(action["first"]))
    every, wave = _span(action["every"]), int(action["wave"])
    for n, run in enumerate(runs):
        yield run, f"starts {times.local(first + every * (n // wave), '%H:%M:%S')}"


def _spread(store: Store, action: Named, now: datetime) -> Becomes:
    due, most = _due(store, action["deployment_id"], now), int(action.get("most") or 1000)
    yield from _in_waves(due[:most], action)
    yield from ((run, "is left alone") for run in due[most:])


def _catch_up(store: Store, action: Named, now: datetime) -> Becomes:
    due = _due(store, action["deployment_id"], now)
    cut = max(0, len(due) - int(action["keep"]))
    yield from _in_waves(due[cut:], action)
    yield from ((run, "is cancelled: newer ones take its place") for run in due[:cut])


def _unscheduled(store: Store, action: Named, now: datetime) -> Becomes:
    for run in upcoming_runs(store, now, AHEAD):
        if run.deployment_id == action["deployment_id"] and run.auto_scheduled:
            yield run, "is not started while it is paused"


def _below(store: Store, action: Named, now: datetime) -> Becomes:
    live = [*running(store), *waiting_runs(store, now), *upcoming_runs(store, now, AHEAD)]
    todo, seen = [str(action["run_id"])], set[str]()
    while todo:
        tasks = {task.task_run_id for task in task_runs_of(store, todo.pop())}
        for run in live:
            if run.parent_task_run_id in tasks and run.run_id not in seen:
                seen.add(run.run_id)
                todo.append(run.run_id)
                yield run, "is cancelled with it"


def _queued(becomes: str, key: str = "queue") -> Callable[[Store, Named, datetime], Becomes]:
    def find(store: Store, action: Named, now: datetime) -> Becomes:
        for run in waiting_runs(store, now):
            if run.pool == action.get("pool") and action.get(key) in ("", None, run.queue):
                yield run, becomes

    return find


_MANY: Mapping[str, Callable[[Store, Named, datetime], Becomes]] = {
    "spread_runs": _spread,
    "catch_up": _catch_up,
    "pause_deployment": _unscheduled,
    "cancel_tree": _below,
    "hold_queue": _queued("waits until the queue is released"),
    "release_queue": _queued("may start"),
    "reserve_slot": _queued("may start in the slot that gets free", "starved_queue"),
}
"""The kinds that concern runs beside their target."""


def _span(value: object) -> timedelta:
    from pydantic import TypeAdapter  # start-up time

    return TypeAdapter(timedelta).validate_python(value)
