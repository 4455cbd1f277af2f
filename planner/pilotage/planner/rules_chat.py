"""Answers without a model: a small closed set of questions, told from the same tools."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilotage.planner.tools import Toolbox

RUN_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
NO_MODEL = "No language model is configured: these answers come from rules."
HELP = (
    "I can answer: `status`, `failures`, `why <run id>`, `forecast <run id>`, `queues`, `proposals`, "
    "and hand in `retry <run id>`. Approving and rejecting is done with the commands of that name."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesAnswer:
    """One answer: which tool was asked with what, what it said, and the words for people."""

    text: str
    tool: str = ""
    arguments: dict[str, Any]
    result: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One question that rules understand."""

    name: str
    words: re.Pattern[str]
    tool: str
    needs_run: bool
    tell: Callable[[dict[str, Any]], str]


def _status(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in found["runs_by_state"].items()) or "no runs yet"
    waiting = "; ".join(found["queues_waiting"]) or "no queue waits"
    return f"Runs: {counts}. Failed in the last day: {found['failed_in_last_day']}. Queues: {waiting}."


def _failures(found: dict[str, Any]) -> str:
    if not found["failures"]:
        return "No run failed in the last day."
    lines = [f"- {f['run_id']} {f['name']}: {f['failure_class']}, {f['message']}" for f in found["failures"]]
    return f"{found['count']} failed in the last day:\n" + "\n".join(lines)


def _why(found: dict[str, Any]) -> str:
    lines = [f"{found['run_id']} {found['name']} of {found['flow']}: {found['state']}, {found['message']}"]
    if "failure_class" in found:
        lines.append(f"Taken for {found['failure_class']}: {'; '.join(found['because']) or 'no rule fits'}")
    lines += [
        f"- {d['at']} {d['step']} {d['action']}: {d['outcome']} {', '.join(d['policies'])}".rstrip()
        for d in found["decisions"]
    ]
    return "\n".join(lines if found["decisions"] else [*lines, "Nothing was proposed about it."])


def _forecast(found: dict[str, Any]) -> str:
    reasons = "; ".join(found["reasons"]) or "no single reason stands out"
    return f"{found['p_fail']:.0%} chance of failing, says {found['model']}: {reasons}."


def _queues(found: dict[str, Any]) -> str:
    rows = [
        f"- {q['queue']}: priority {q['priority']}, {q['running']} running, {q['waiting']} waiting"
        + (", paused" if q["paused"] else "")
        for q in found["queues"]
    ]
    return "\n".join(rows) or "No queue was seen yet."


def _proposals(found: dict[str, Any]) -> str:
    rows = [
        f"- {d['at']} {d['proposal_id']} {d['step']} {d['action']}: {d['outcome']}"
        for d in found["decisions"]
    ]
    return "\n".join(rows) or "Nothing was proposed yet."


def _filed(found: dict[str, Any]) -> str:
    return f"Handed in as {found['proposal_id']}: {found.get('outcome', 'filed')}."


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


INTENTS = (
    Intent(name="retry", words=_words(r"^\s*(?:please\s+)?(?:retry|propose retry)\b"), tool="propose_retry",
           needs_run=True, tell=_filed),
    Intent(name="forecast", words=_words(r"forecast|risk|chance"), tool="forecast_of", needs_run=True, tell=_forecast),
    Intent(name="why", words=_words(r"\bwhy\b|story|happened"), tool="why_run", needs_run=True, tell=_why),
    Intent(name="failures", words=_words(r"fail|crash|broke"), tool="recent_failures", needs_run=False, tell=_failures),
    Intent(name="queues", words=_words(r"queue|slot|starv"), tool="queues", needs_run=False, tell=_queues),
    Intent(name="proposals", words=_words(r"propos|decision|verdict"), tool="recent_decisions", needs_run=False,
           tell=_proposals),
    Intent(name="status", words=_words(r"status|floor|how (?:is|are|goes)|what.?s up"), tool="floor_status",
           needs_run=False, tell=_status),
)  # fmt: skip
"""The first row whose words occur is meant. Retrying must be asked for first thing, never in passing."""


def answer_by_rules(question: str, tools: Toolbox) -> RulesAnswer:
    """The answer to one of the questions that rules understand, or which ones they are. Reads the store."""
    run = RUN_ID.search(question)
    intent = next((i for i in INTENTS if i.words.search(question)), None)
    if intent is None:
        return RulesAnswer(text=HELP, arguments={}, result={})
    if intent.needs_run and run is None:
        return RulesAnswer(text=f"`{intent.name}` needs a run id. {HELP}", arguments={}, result={})
    arguments = {"run_id": run.group(0).lower()} if intent.needs_run and run else {}
    result: dict[str, Any] = getattr(tools, intent.tool)(**arguments)
    words = f"It cannot be told: {result['error']}." if "error" in result else intent.tell(result)
    return RulesAnswer(text=words, tool=intent.tool, arguments=arguments, result=result)
