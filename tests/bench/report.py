"""How every bench measures and reports: contestants in turn, several times, medians, one table, one file."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

WIDE = 160
"""Columns of a report: its names are long, and a number that is cut is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure of ours beside a peer's."""

    measure: str
    value: float
    """The median of ours."""
    unit: str
    peer: str = ""
    """Who else was measured, or empty."""
    peer_value: float | None = None
    ratio: float | None = None
    """Ours divided by the peer's."""
    runs: int = 1


def in_turn(contestants: Mapping[str, Callable[[], float]], runs: int) -> dict[str, float]:
    """The median of each contestant. They take turns, so that a busy moment of the machine hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, measured in contestants.items():
            found[name].append(measured())
    return {name: statistics.median(values) for name, values in found.items()}


def beside(
    measure: str, unit: str, runs: int, *, ours: float, peer: str = "", theirs: float | None = None
) -> Row:
    """One row of the report."""
    ratio = ours / theirs if theirs else None
    return Row(measure=measure, value=ours, unit=unit, peer=peer, peer_value=theirs, ratio=ratio, runs=runs)


def host() -> dict[str, str | int | float | None]:
    """The machine that it was measured on."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def publish(name: str, rows: list[Row]) -> None:
    """Prints the table and writes `.bench/NAME.json`."""
    table = Table(title=f"bench-{name} (medians)")
    for heading in ("measure", "value", "unit", "peer", "peer value", "ratio", "runs"):
        justify: Literal["left", "right"] = "left" if heading in ("measure", "unit", "peer") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(
            row.measure,
            _shown(row.value),
            row.unit,
            row.peer,
            _shown(row.peer_value),
            _shown(row.ratio),
            str(row.runs),
        )
    Console(width=WIDE).print(table)
    target = Path(".bench") / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"rows": [asdict(row) for row in rows], "host": host()}, indent=2) + "\n")


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
