"""What another attempt of a run will do again, told from the task runs of its last attempt.

A task whose result is in storage is looked up there by the next attempt of the same run, and found as long as it
is given the same inputs; all other tasks are done again. What the attempt never reached is not known. A task that
keeps its result but turns caching off (`cache_policy=NO_CACHE`) cannot be told from one that does not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pilotage.telemetry.facts import StateType, TaskRunFact
from pilotage.telemetry.harmless import harmless

OURS = "pilotage."
"""How the keys of task runs begin that pilotage itself put into a run."""
NAMED = 8
"""Tasks that are named in one sentence; the others are counted."""
_KEY = re.compile(r"-[0-9a-f]{8}$")
"""Prefect ends a task's key with a hash of its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryImpact:
    """The tasks of a run's last attempt, by name, with how many task runs each had. Names are untrusted."""

    again: tuple[tuple[str, int], ...] = ()
    """Done again by the next attempt."""
    kept: tuple[tuple[str, int], ...] = ()
    """Taken from storage."""

    @property
    def known(self) -> bool:
        """Whether anything is known of the last attempt's tasks."""
        return bool(self.again or self.kept)

    def words(self) -> str:
        """The same as one phrase; empty when nothing is known."""
        if not self.known:
            return ""
        done = f"{_listed(self.again)} and what follows run again" if self.again else "only what follows runs"
        stored = f"{_listed(self.kept)} taken from storage" if self.kept else "no result was kept"
        return f"{done}; {stored}"


def retry_impact_of(task_runs: Iterable[TaskRunFact]) -> RetryImpact:
    """What the next attempt does again and what it finds in storage."""
    rows = [row for row in task_runs if not row.task_key.startswith(OURS)]
    last = max((row.attempt for row in rows), default=0)
    repeats: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for row in rows:
        if row.attempt == last:
            stored = row.kept and row.state_type is StateType.COMPLETED
            (kept if stored else repeats)[_KEY.sub("", row.task_key) or row.name] += 1
    return RetryImpact(again=tuple(sorted(repeats.items())), kept=tuple(sorted(kept.items())))


_TIMED_OUT = re.compile(r"time[d]? ?-?out", re.IGNORECASE)
_NEVER_CONNECTED = re.compile(
    r"connect(?:ion)? ?time|connecttimeout|while connecting|timed out connecting", re.IGNORECASE
)
_NOT_BEGUN = frozenset({StateType.SCHEDULED, StateType.PENDING})


def begun_tasks(task_runs: Iterable[TaskRunFact]) -> frozenset[str]:
    """Return the names of the tasks that the last attempt began and whose results are not in storage."""
    rows = [row for row in task_runs if not row.task_key.startswith(OURS)]
    last = max((row.attempt for row in rows), default=0)
    return frozenset(
        _KEY.sub("", row.task_key) or row.name
        for row in rows
        if row.attempt == last
        and row.state_type not in _NOT_BEGUN
        and not (row.kept and row.state_type is StateType.COMPLETED)
    )


def half_done(
    state_type: StateType,
    state_name: str,
    message: str,
    run_count: int,
    task_runs: Iterable[TaskRunFact],
    repeatable_tasks: Iterable[str] = (),
) -> bool:
    """Return whether a run was cut off in the middle of work that another attempt may do twice.

    That is a time-out, a crash or a cancellation after which a task is left that had begun, keeps no result and is not
    named as repeatable; or of a run that had started and of whose tasks nothing is known. An error that the code itself
    raised is no such cut.
    """
    timed_out = state_name == "TimedOut" or bool(
        _TIMED_OUT.search(message) and not _NEVER_CONNECTED.search(message)
    )
    cut_off = timed_out or state_type in (StateType.CRASHED, StateType.CANCELLED)
    if run_count < 1 or not cut_off:
        return False
    rows = list(task_runs)
    if not rows:
        return True
    return bool(begun_tasks(rows) - set(repeatable_tasks))


def _listed(tasks: tuple[tuple[str, int], ...]) -> str:
    named = [f"{harmless(name, 40)}{f' ({n} times)' if n > 1 else ''}" for name, n in tasks[:NAMED]]
    more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
    return ", ".join(named) + more
