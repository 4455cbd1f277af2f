"""What would be different: each argument of an action that changes something, with what is there now.

What is there now is known from the facts that the gate saw and from telemetry; what neither knows is said to be not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilotage.flows.notify.describe import span_of, waves_in_words
from pilotage.telemetry import times
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.store.protocol import Store

Change = dict[str, str]
Known = Mapping[str, Any]

FIXED = frozenset({"kind", "run_id", "deployment_id"})
"""What names the action and its target; an edit keeps it."""
NOT_KNOWN = "not known"
_OF_QUEUES = frozenset({"reserve_slot", "set_priority", "set_limit", "hold_queue", "release_queue"})
_OF_RUNS = frozenset({"retry_run", "change_parameters", "move_run", "raise_retries"})


def known_before(store: Store, action: Known) -> dict[str, Any]:
    """What telemetry knows of the target beside the gate's facts; empty when it cannot be read."""
    kind = action.get("kind")
    try:
        if kind in _OF_QUEUES:
            name = action.get("busy_queue") or action.get("queue") or action.get("name")
            pool = action.get("pool") or (action.get("name") if action.get("scope") == "pool" else "")
            for queue in run_queries.queue_snapshots(store):
                if queue.pool == pool and (queue.queue == name or action.get("scope") == "pool"):
                    return {
                        "priority": queue.priority,
                        "limit": queue.pool_limit if action.get("scope") == "pool" else queue.limit,
                        "paused": queue.paused,
                    }
        if kind == "retry_run" and not action.get("changes"):
            return {}
        if kind in _OF_RUNS and (run := run_queries.run(store, str(action.get("run_id")))):
            return {"parameters": dict(run.parameters), "queue": run.queue, "retries": run.retries}
    except AdapterError:
        return {}
    return {}


def changes_of(action: Known, facts: Known, before: Known) -> list[Change]:
    """The list for one action: `{what, before, after}` each. `facts` as the gate saw them, `before` as above."""
    return TELL.get(str(action["kind"]), _arguments)(action, facts, before)


def _change(what: str, before: object, after: object) -> Change:
    was = NOT_KNOWN if before is None or before == "" else str(before)
    return {"what": what, "before": was, "after": str(after)}


def in_words(seconds: float) -> str:
    """A span of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _state(facts: Known, after: str) -> Change:
    return _change("state", facts.get("state_name") or facts.get("state_type"), after)


def _mib(value: object) -> str:
    return f"{value} MiB" if value else ""


def _limit(before: Known) -> object:
    if "limit" not in before:
        return None
    return "no limit" if before["limit"] is None else before["limit"]


def _running(before: Known) -> object:
    return {True: "paused", False: "handing out runs", None: None}[before.get("paused")]


def _held(action: Known) -> Change:
    length = span_of(action.get("hold"))
    return _change("for", "-", times.span(length) if length is not None else action.get("hold"))


def _arguments(action: Known, facts: Known, before: Known) -> list[Change]:
    """Return each argument beside the target: what a kind without a row of its own changes."""
    return [
        _change(name.replace("_", " "), None, value) for name, value in action.items() if name not in FIXED
    ]


def _resize(action: Known, facts: Known, before: Known) -> list[Change]:
    memory = _change("memory", _mib(facts.get("memory_mb")), _mib(action.get("memory_mb")))
    return [memory, _state(facts, "AwaitingRetry")]


def _reschedule(action: Known, facts: Known, before: Known) -> list[Change]:
    left = facts.get("seconds_to_start")
    was = "" if left is None else f"in {in_words(left)}" if left >= 0 else f"{in_words(-left)} ago"
    return [_change("start", was, times.local(action.get("start")))]


def _parameters(action: Known, facts: Known, before: Known) -> list[Change]:
    now: Known = before.get("parameters") or {}
    return [
        _change(str(change.get("name")), now.get(str(change.get("name"))), change.get("value"))
        for change in action.get("changes") or ()
    ]


def _reserve(action: Known, facts: Known, before: Known) -> list[Change]:
    cap = _change(f"limit of {action.get('busy_queue')}", _limit(before), action.get("limit"))
    return [cap, _held(action)]


def _answers(action: Known, facts: Known, before: Known) -> list[Change]:
    return [
        *(
            _change(str(answer.get("name")), "no answer", answer.get("value"))
            for answer in action.get("answers") or ()
        ),
        _state(facts, "Running"),
    ]


TELL: Mapping[str, Callable[[Known, Known, Known], list[Change]]] = {
    "retry_run": lambda a, f, b: [_state(f, "AwaitingRetry"), *_parameters(a, f, b)],
    "resize_run": _resize,
    "size_run": lambda a, f, b: [_change("memory", _mib(f.get("memory_mb")), _mib(a.get("memory_mb")))],
    "reschedule_run": _reschedule,
    "cancel_run": lambda a, f, b: [_state(f, "Cancelled")],
    "cancel_tree": lambda a, f, b: [_state(f, "Cancelled, with all below it")],
    "pause_deployment": lambda a, f, b: [
        _change("schedules", "paused" if f.get("paused") else "active", "paused"),
        _held(a),
    ],
    "notify_owner": lambda a, f, b: [_change("owner", "not told by this", f"told, as {a.get('severity')}")],
    "change_parameters": _parameters,
    "move_run": lambda a, f, b: [_change("queue", b.get("queue"), a.get("queue"))],
    "set_priority": lambda a, f, b: [_change("rank", b.get("priority"), a.get("priority")), _held(a)],
    "set_limit": lambda a, f, b: [_change("limit", _limit(b), a.get("limit")), _held(a)],
    "reserve_slot": _reserve,
    "hold_queue": lambda a, f, b: [_change("queue", _running(b), "paused"), _held(a)],
    "release_queue": lambda a, f, b: [_change("queue", _running(b), "handing out runs")],
    "suspend_run": lambda a, f, b: [_state(f, "Suspended"), _held(a)],
    "resume_run": lambda a, f, b: [_state(f, "Scheduled")],
    "raise_retries": lambda a, f, b: [_change("retries", b.get("retries"), a.get("retries"))],
    "launch_remediation": lambda a, f, b: [_change("its remediation", "not started", "started beside it")],
    "send_directive": lambda a, f, b: [
        _change("told to", "carry on", str(a.get("directive")).replace("_", " "))
    ],
    "mark_crashed": lambda a, f, b: [_state(f, "Crashed")],
    "start_run": lambda a, f, b: [_change("a run in its place", "not started", "started")],
    "release_slot": lambda a, f, b: [
        _change(f"slots of {a.get('scope')} {a.get('name')}", "held by dead work", "free")
    ],
    "override_result": lambda a, f, b: [
        _change(f"result of {a.get('task')}", "none: it failed", a.get("value")),
        _state(f, "AwaitingRetry"),
    ],
    "answer_run": _answers,
    "resolve_alert": lambda a, f, b: [_change("owner", "told of the trouble", "told that it is over")],
    "spread_runs": lambda a, f, b: [_change("its waiting runs", "all due at once", waves_in_words(a))],
    "catch_up": lambda a, f, b: [
        _change("its overdue runs", "all due at once", f"the newest {a.get('keep')}, {waves_in_words(a)}"),
        _change("older ones", "waiting", "Cancelled"),
    ],
}
"""What each kind of action changes."""
