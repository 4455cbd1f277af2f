"""`pilotage why`: a story drawn as a time line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from pilotage.console.render.text import OUT, harmless, print_pairs, table_of
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


def story_rows(steps: Sequence[dict[str, Any]]) -> list[list[Text]]:
    """Return one row a step, with the seconds since the first."""
    start = datetime.fromisoformat(str(steps[0]["at"]))
    return [
        [
            Text(times.local(step["at"], "%H:%M:%S")),
            Text(f"{(datetime.fromisoformat(str(step['at'])) - start).total_seconds():.1f}", justify="right"),
            harmless(label(step), style=STYLES.get(label(step), "")),
            harmless(step.get("actor")),
            harmless(told(step) + (f" (said {count} times)" if count > 1 else ""), limit=1200),
        ]
        for step, count in readable(steps)
    ]


def print_wait(found: dict[str, Any]) -> None:
    """Prints why a run waits, or why a deployment has none."""
    about = {
        "state": found["state"],
        "in its way" if found["trouble"] else "now": found["words"],
        "by": found["by"],
        "since": times.local(found["since"]) if found["since"] else "",
        "to do": found["todo"],
        "not certain": "; ".join(found["doubts"]),
        "would prove it wrong": found["disproof"] if found["trouble"] else "",
    }
    print_pairs(f"Why {found['name']} waits", {name: value for name, value in about.items() if value})


def print_story(steps: list[dict[str, Any]]) -> None:
    """Prints it."""
    columns = ("at", "+s", "step", "who", "what")
    OUT.print(table_of(_title(steps), columns, story_rows(steps), OUT.width))


def _title(steps: Sequence[dict[str, Any]]) -> Text:
    runs = sorted({step["run_id"] for step in steps if step.get("run_id")})
    incidents = sorted({step["incident_id"] for step in steps if step.get("incident_id")})
    return harmless(f"Run {', '.join(runs) or '-'}   incident {', '.join(incidents)}")
