"""A run over time, drawn with signs to the width there is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pilotage.console.render.text import harmless
from pilotage.telemetry import times

LABEL = 16
"""Columns of a lane's name."""
SIGNS: Mapping[str, tuple[str, str]] = {
    "scheduled": ("·", "dim"),
    "late": ("·", "yellow"),
    "pending": ("-", "dim"),
    "awaitingretry": ("w", "yellow"),
    "running": ("=", "blue"),
    "retrying": ("=", "blue"),
    "completed": ("+", "green"),
    "failed": ("x", "red"),
    "crashed": ("X", "red"),
    "timedout": ("x", "red"),
    "cancelled": ("o", "magenta"),
    "suspended": ("z", "yellow"),
    "paused": ("z", "yellow"),
}
"""One sign for each state, so that nothing rests on the colour."""
OTHER = ("?", "")


def drawn(block: Mapping[str, Any], width: int) -> RenderableType:
    """The lanes of a `timeline` block, each one line of at most `width` columns, and what the signs mean."""
    title = harmless(block["title"])
    title.stylize("bold cyan")
    moments = [
        _moment(span[end]) for lane in block["lanes"] for span in lane["spans"] for end in ("start", "end")
    ]
    known = sorted(moment for moment in moments if moment is not None)
    if not known:
        return Group(title, Text("No state of it is kept."))
    first, last = known[0], known[-1]
    room = max(10, width - LABEL - 2)
    whole = max((last - first).total_seconds(), 1e-6)

    def column(moment: datetime) -> int:
        return min(room - 1, int((moment - first).total_seconds() / whole * (room - 1)))

    lines, seen = [], {}
    for lane in block["lanes"]:
        signs: list[tuple[str, str]] = [(" ", "")] * room
        for span in lane["spans"]:
            start, end = _moment(span["start"]), _moment(span["end"])
            if start is None:
                continue
            state = str(span["state"]).lower().replace(" ", "")
            sign = SIGNS.get(state, OTHER)
            seen[state] = sign
            until = column(end) if end is not None else column(start)
            for at in range(column(start), max(until, column(start)) + 1):
                signs[at] = sign
        label = harmless(lane["label"], limit=LABEL)
        label.pad_right(max(0, LABEL - label.cell_len))
        lines.append(Text.assemble(label, " ", *signs))
    legend = Text("  ").join(Text.assemble(sign, " ", harmless(state)) for state, sign in seen.items())
    left, right = (times.local(at, "%H:%M:%S") for at in (first, last))
    axis = f"{left}{right.rjust(max(1, room - len(left)))}"
    return Group(title, *lines, harmless(" " * (LABEL + 1) + axis, style="dim"), legend)


def _moment(text: object) -> datetime | None:
    return times.parsed(text) if text else None
