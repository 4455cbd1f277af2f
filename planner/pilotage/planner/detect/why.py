"""The answer to "why is it late": from a name or a question to what is meant, and from there to the first blockage."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from pilotage.planner.detect.blockage import Blockage
from pilotage.planner.detect.waiting import is_due, why_missing, why_waiting
from pilotage.planner.parameters import PlaybookParameters
from pilotage.telemetry.facts import DeploymentFact, RunFact
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.site import site_facts
from pilotage.telemetry.store.protocol import Store

_RUN_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_TOKEN = re.compile(r"[^\s?!,;:\"'`“”()]+")
_NO_NAMES = frozenset(
    {"why", "is", "are", "does", "did", "the", "a", "run", "not", "late", "it", "deployment", "flow"}
)
MOST_TOKENS = 40
HOLDERS = 20
LONGEST = 1000
"""Characters of an answer's words."""


def why_it_waits(
    store: Store, words: str, now: datetime, parameters: PlaybookParameters | None = None
) -> dict[str, Any] | None:
    """Return why a run waits, or why a deployment has none; None where the words name neither.

    `words` are an id, a name or a question in which one stands. The answer: `subject` (`run:<id>` or
    `deployment:<id>`), `name`, `state`, `cause`, `key`, `trouble`, `words`, `todo`, `by`, `since`, `holders` (run ids),
    `doubts` and `disproof`.
    """
    run, deployment = _meant(store, words, now)
    limits = parameters or PlaybookParameters()
    if run is not None:
        site = site_facts(store, now, extra=(run.run_id,))
        found = why_waiting(run, site, limits)
        if found is None:
            return _answer(f"run:{run.run_id}", run.name, run.state_name, None)
        return _answer(f"run:{run.run_id}", run.name, run.state_name, found)
    if deployment is not None:
        found = why_missing(deployment.deployment_id, site_facts(store, now), limits)
        return _answer(f"deployment:{deployment.deployment_id}", deployment.name, "", found)
    return None


def _answer(subject: str, name: str, state: str, found: Blockage | None) -> dict[str, Any]:
    shown = {"subject": subject, "name": harmless(name, 80), "state": harmless(state, 60)}
    if found is None:
        return shown | {
            "cause": "ended" if state else "unknown", "key": "", "trouble": False, "words": "It has ended." if state else
            "Nothing is known of it.", "todo": "", "by": "", "since": None, "holders": [], "doubts": [], "disproof": "",
        }  # fmt: skip
    return shown | {
        "cause": found.cause.value,
        "key": found.key,
        "trouble": found.trouble,
        "words": harmless(found.words, LONGEST),
        "todo": harmless(found.todo, LONGEST),
        "by": harmless(found.by, 200),
        "since": found.since.isoformat() if found.since else None,
        "holders": list(found.holders[:HOLDERS]),
        "doubts": [harmless(doubt, 300) for doubt in found.doubts],
        "disproof": harmless(found.disproof, 300),
    }


def told(answer: dict[str, Any]) -> str:
    """Return an answer in words."""
    parts = [str(answer["words"])]
    if answer["by"]:
        parts.append(f"By {answer['by']}.")
    if answer["todo"]:
        parts.append(str(answer["todo"]))
    if answer["doubts"]:
        parts.append(f"Not certain: {'; '.join(answer['doubts'])}.")
    return " ".join(parts)


def _meant(store: Store, words: str, now: datetime) -> tuple[RunFact | None, DeploymentFact | None]:
    """The run or deployment that is meant: an id, then a deployment's name, then a run's."""
    if found := _RUN_ID.search(words):
        run_id = found.group(0).lower()
        if (run := run_queries.run(store, run_id)) is not None:
            return run, None
        return None, next(iter(run_queries.deployments_called(store, "", run_id)), None)
    tokens = [token.rstrip(".") for token in _TOKEN.findall(words)[:MOST_TOKENS]]
    names = [words.strip(), *(token for token in tokens if token.lower() not in _NO_NAMES)]
    for name in dict.fromkeys(names):
        if not name:
            continue
        called = run_queries.deployments_called(store, name)
        if len(called) > 1:
            live = site_facts(store, now)
            due = {run.deployment_id for run in live.live if is_due(run, live)}
            called.sort(key=lambda each: each.deployment_id not in due)
        if called:
            return None, called[0]
        runs = [run for run in run_queries.runs_called(store, name) if run.ended is None]
        if runs:
            return runs[0], None
    return None, None
