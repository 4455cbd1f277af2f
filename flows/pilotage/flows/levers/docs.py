"""Draws the levers' documentation from the levers: `python -m pilotage.flows.levers.docs` writes README.md."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from pilotage.flows.execution.receipts import Lever
from pilotage.flows.levers.registry import build_levers
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import ACTIONS, DeploymentAction, QueueAction, RunAction

README = Path(__file__).with_name("README.md")
_HEAD = """# The levers

Every way in which pilotage changes Prefect. Each looks at Prefect again before it acts, refuses a target that has
moved on, has one effect however often it is repeated, says whether its promise was kept, and knows its way back.
Drawn from the code by `python -m pilotage.flows.levers.docs`; a test holds the two together.

| action | on | what it does | undo | verified within |
|---|---|---|---|---|
"""
_SENDS = """
## What each may send

The connection of the levers sends nothing else, and this only for the target of an admitted row of the outbox while it
is being delivered or taken back: the run, deployment, queue or limit itself, and what Prefect answered meanwhile that
belongs to it. Reading aside. A lever of a package declares its requests in the same way (`writes`).

| action | requests |
|---|---|
"""
_TAIL = """
## What an owner says by a tag of a deployment

| tag | what it says | for |
|---|---|---|
| `pilotage:suspend-safe` | its work is done in tasks that keep their results, so it may begin again | `suspend_run` |
| `pilotage:remediation` | it may be started to help another run | `launch_remediation` |
| `pilotage:overridable` | its tasks under `@overridable("name")` take a value of that name | `override_result` |
| `pilotage:this-host` | its processes run beside pilotage, which sees when one is gone | `mark_crashed` |

## What no lever does, and why

- **`force`**, for any state: Prefect's rules are the last guard against a run that is executed twice.
- **Paused from outside**: Prefect accepts it, and the tasks go on.
- **States of task runs from outside**: accepted, and ignored when the run is tried again.
- **A limit of 0**: tasks that wait for it fail.
- **Completed to Scheduled, Pending or Running to Scheduled**: the run is executed again, or twice.
- **Deletes**, of anything but pilotage's own notes.
- **A first concurrency limit of a deployment, or an edit of its schedules**: Prefect deletes its future runs, with all
  that people changed in them. A limit that is there is changed underneath.
- **Giving back a slot of a global limit**: its slots are nameless; Prefect lists no holder, and the bare decrement
  takes a slot from whoever has one. What a dead process held lapses within five minutes; what a restart of the server
  forgot does not. A person counts what runs, then `prefect gcl update NAME --active-slots COUNT`.
- **The reset of a tag's limit** (`/concurrency_limits/tag/TAG/reset`): it ends every lease, the living ones too, and
  leaves the count as it was, so the slots are lost for good.
- **Writing into a result store**: it is reached with the flow's own storage and serializer, which pilotage does not
  hold. A task that its author made ready (`overridable`) takes a value that is put down on its run.

## What was found about the dead, on a Prefect 3.8.8 server and process worker

Each line is held by a test.

- A process that a worker started lives on when the worker is killed: a worker's death says nothing of its runs.
- With the worker dead, nobody reports the end of a killed process: the run stays Running, its task's slot and its
  deployment's slot stay taken. The worker is called offline about three minutes later.
- A heartbeat is sent at the start of a run and then each 180 s (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY`, 30 s at least),
  from a thread of its own.
- Running to Crashed is accepted from outside without force, **for a living run too**; its process goes on.
- Prefect gives back the slot of a deployment's limit with that state, under the lease that the run's state names. When
  the lease has lapsed, it takes one from the count all the same: a living run's.
- A tag's slot is given back in its task run's name (`/concurrency_limits/decrement`), alone and once.
- Leases are kept in memory by default: a server that restarts forgets them, and the slots stay counted for good.

## What was found beside a thousand due runs, on a Prefect 3.8.8 server that keeps its data in SQLite

- Its event loop, collecting garbage, meets a forgotten cursor of a connection that waits for the write lock, and waits
  as well, up to a minute; whoever has the lock waits for the loop. `python -m pilotage.flows.dev.threaded_gc` ends that.
- A write that reads first (queues, pools, deployments) is answered 503 at once when anybody else writes in between: one
  in a hundred gets through. States of runs are written under the lock, and wait for their turn.
- To pause a queue takes a second connection while the lock is held. A worker's proposals have them all, and the server
  stands still for 30 s. To limit the queue takes one, so the queue of a backlog is limited first, and paused once quiet.
- A worker goes on proposing what it was handed for a dozen seconds after its queue is held.
- Bulk creation answers 200 for runs that it did not make; each of them says `FAILED`.
"""


def as_markdown() -> str:
    """The text of README.md."""

    async def worker_has_released(run_id: str, after: datetime) -> bool:
        return True

    levers = build_levers(
        worker_has_released=worker_has_released, notifier=Notifier(), api=PrefectApi("http://127.0.0.1/api")
    )
    rows = [
        f"| `{kind}` | {row['on']} | {row['does']} | {row['undo']} | {row['within']} |"
        for kind, row in in_words(levers).items()
    ]
    sends = [f"| `{kind}` | {_sent(lever)} |" for kind, lever in levers.items()]
    return _HEAD + "\n".join(rows) + "\n" + _SENDS + "\n".join(sends) + "\n" + _TAIL


def _sent(lever: Lever) -> str:
    requests: dict[str, set[str]] = {}
    notes = [write for write in lever.writes if write.route.startswith("/variables")]
    for write in lever.writes:
        if write not in notes:
            requests.setdefault(f"{write.method} {write.route}", set()).update(write.fields or ())
    named = [
        f"`{what}`" + (f" ({', '.join(sorted(fields))})" if fields else "")
        for what, fields in requests.items()
    ]
    if notes:
        named.append("its notes, as Prefect variables")
    return "; ".join(named) or "none; events and pages go the way of pilotage's own notices"


def in_words(levers: Mapping[str, Lever]) -> dict[str, dict[str, str]]:
    """What people are told of each lever by kind of action: `{on, does, undo, within}`."""
    return {
        kind: {
            "on": _target(ACTIONS[kind]),
            "does": _first(ACTIONS[kind].__doc__),
            "undo": lever.undoable,
            "within": _span(lever.window),
        }
        for kind, lever in levers.items()
    }


def _target(action: type) -> str:
    if issubclass(action, RunAction):
        return "run"
    if issubclass(action, DeploymentAction):
        return "deployment"
    return "queue or pool" if issubclass(action, QueueAction) else "limit"


def _first(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _span(window: timedelta) -> str:
    return f"{window.total_seconds() / 60:.0f} min"


if __name__ == "__main__":
    README.write_text(as_markdown())
