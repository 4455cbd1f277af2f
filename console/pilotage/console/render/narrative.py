"""`pilotage why`: a story drawn as a time line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from pilotage.console.render.text import OUT, harmless
from pilotage.flows.notify.describe import label, readable, told
from pilotage.telemetry import times

STYLES = {
    "found": "bold",
    "forecast": "magenta",
    "proposed": "cyan",
    "judged": "blue",
    "approved": "green",
    "rejected": "red",
    "replaced": "yellow",
    "admitted": "blue",
    "injected": "bold green",
    "verified": "green",
    "undone": "yellow",
    "refused": "red",
    "failed": "red",
}
"""Words carry the meaning; the colour only helps to find them."""


def story_table(steps: Sequence[dict[str, Any]]) -> Table:
    """One row a step, with the seconds since the first."""
    table = Table(title=_title(steps), title_justify="left", header_style="bold")
    for column in ("at", "+s", "step", "who", "what"):
        table.add_column(column, overflow="fold", justify="right" if column == "+s" else "left")
    start = datetime.fromisoformat(str(steps[0]["at"]))
    shown = ""
    for step, count in readable(steps):
        at = datetime.fromisoformat(str(step["at"]))
        if step["proposal_id"] != shown and shown:
            table.add_section()
        shown = step["proposal_id"]
        table.add_row(
            times.local(at, "%H:%M:%S"),
            f"{(at - start).total_seconds():.1f}",
            Text(label(step), style=STYLES.get(label(step), "")),
            harmless(step.get("actor")),
            harmless(told(step) + (f" (said {count} times)" if count > 1 else ""), limit=1200),
        )
    return table


def print_story(steps: list[dict[str, Any]]) -> None:
    """Prints it."""
    OUT.print(story_table(steps))


def _title(steps: Sequence[dict[str, Any]]) -> Text:
    runs = sorted({step["run_id"] for step in steps if step.get("run_id")})
    incidents = sorted({step["incident_id"] for step in steps if step.get("incident_id")})
    return harmless(f"Run {', '.join(runs) or '-'}   incident {', '.join(incidents)}")
