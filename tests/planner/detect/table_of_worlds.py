"""Print how often the first cause named is right, by state: `python -m tests.planner.detect.table_of_worlds`.

The table stands in docs/waiting.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.planner.detect.test_waiting import LOOKED_AT, NOT_LOOKED_AT, in_a_world, named
from tests.planner.detect.waiting_worlds import World
from tests.planner.detect.waiting_worlds_apart import APART

COLUMNS = ("looked at", "not looked at", "written apart")


def right_apart(path: Path, state: str) -> bool:
    """Return whether the cause is named in a world that was written apart."""
    world = World(path)
    try:
        world.crowd(3)
        subject = APART[state](world)
        found = named(world, subject)
        return found is not None and found.cause is subject.cause
    finally:
        world.close()


def table() -> str:
    """Return the table in Markdown, its states in the order of the alphabet."""
    told: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name:
        for column, seeds in zip(COLUMNS, (LOOKED_AT, NOT_LOOKED_AT), strict=False):
            for seed in seeds:
                state, right, _ = in_a_world(Path(name), seed)
                told[state][column].append(right)
        for state in APART:
            told[state][COLUMNS[2]].append(right_apart(Path(name), state))
    rows = [f"| state | {' | '.join(COLUMNS)} |", "|---|---|---|---|"]
    for state in sorted(told):
        rows.append(f"| {_words(state)} | {' | '.join(_figure(told[state][column]) for column in COLUMNS)} |")
    sums = [_figure([right for state in told.values() for right in state[column]]) for column in COLUMNS]
    return "\n".join([*rows, f"| **all** | {' | '.join(sums)} |"])


def _words(state: str) -> str:
    return state.replace("_", " ")


def _figure(right: list[bool]) -> str:
    return f"{sum(right)} of {len(right)}" if right else "–"


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
