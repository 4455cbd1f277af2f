"""Draws the levers' documentation from the levers: `python -m pilotage.flows.levers.document` writes README.md."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args

from pilotage.flows.announce import Announcer
from pilotage.flows.levers.table import build_levers
from pilotage.flows.prefect_api import PrefectApi
from pilotage.flows.receipts import Lever
from pilotage.planner.actions import Action, DeploymentAction, QueueAction, RunAction

README = Path(__file__).with_name("README.md")
_HEAD = """# The levers

Every way in which pilotage changes Prefect. Each looks at Prefect again before it acts, refuses a target that has
moved on, has one effect however often it is repeated, says whether its promise was kept, and knows its way back.
Drawn from the code by `python -m pilotage.flows.levers.document`; a test holds the two together.

| action | on | what it does | undo | verified within |
|---|---|---|---|---|
"""
_TAIL = """
## What no lever does, and why

- **`force`**, for any state: Prefect's rules are the last guard against a run that is executed twice.
- **Paused from outside**: Prefect accepts it, and the tasks go on.
- **States of task runs from outside**: accepted, and ignored when the run is tried again.
- **A limit of 0**: tasks that wait for it fail.
- **Completed to Scheduled, Pending or Running to Scheduled**: the run is executed again, or twice.
- **Deletes**, of anything but pilotage's own notes.
- **A first concurrency limit of a deployment, or an edit of its schedules**: Prefect deletes its future runs, with all
  that people changed in them. A limit that is there is changed underneath.
- **Releasing a leaked slot, marking a zombie run Crashed**: no safe route is proven. As Prefect 3.8.8 is written, a
  slot is given back under the id of its lease, which its holder alone knows, and the bare decrement takes a slot from
  whoever holds one; a lease that is not renewed lapses by itself. A Crashed that is set from outside does not end a
  process that still lives. Until two independent signs of death can be shown, the owner is told and does it by hand:
  the reset of a tag's limit in Prefect's UI, or Cancel and then Retry on the run.
- **Overriding a task's result**: the result store is reached with the flow's own storage and code, which pilotage does
  not hold.
"""


def as_markdown() -> str:
    """The text of README.md."""

    async def let_go(run_id: str, after: datetime) -> bool:
        return True

    levers = build_levers(let_go=let_go, announcer=Announcer(), api=PrefectApi("http://127.0.0.1/api"))
    rows = [
        f"| `{kind}` | {row['on']} | {row['does']} | {row['undo']} | {row['within']} |"
        for kind, row in in_words(levers).items()
    ]
    return _HEAD + "\n".join(rows) + "\n" + _TAIL


def in_words(levers: Mapping[str, Lever]) -> dict[str, dict[str, str]]:
    """What people are told of each lever by kind of action: `{on, does, undo, within}`."""
    what = {_kind(action): action for action in get_args(get_args(Action)[0])}
    return {
        kind: {
            "on": _target(what[kind]),
            "does": _first(what[kind].__doc__),
            "undo": lever.undoable,
            "within": _span(lever.window),
        }
        for kind, lever in levers.items()
    }


def _kind(action: type) -> str:
    return str(action.model_fields["kind"].default)  # type: ignore[attr-defined]


def _target(action: type) -> str:
    if action in get_args(RunAction):
        return "run"
    if action in get_args(DeploymentAction):
        return "deployment"
    return "queue or pool" if action in get_args(QueueAction) else "limit"


def _first(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _span(window: timedelta) -> str:
    return f"{window.total_seconds() / 60:.0f} min"


if __name__ == "__main__":
    README.write_text(as_markdown())
