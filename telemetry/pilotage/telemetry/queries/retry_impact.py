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
from pilotage.telemetry.redaction import quoted

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


def _listed(tasks: tuple[tuple[str, int], ...]) -> str:
    named = [f"{quoted(name, 40)}{f' ({n} times)' if n > 1 else ''}" for name, n in tasks[:NAMED]]
    more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
    return ", ".join(named) + more
