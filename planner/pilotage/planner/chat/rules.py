"""Answers without a model: a small closed set of questions, told from the same tools, and from memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pilotage.planner.chat.tools import LookedUp, Toolbox, looked_up

RUN_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
NO_MODEL = "No language model is configured: these answers come from rules."
HELP = (
    "I can answer: `status`, `failures`, `incidents`, `why <run id>`, `logs <run id>`, `similar <run id>`, "
    "`forecast <run id>`, `riskiest`, `queues`, `runs <words>`, `proposals`, `kpi`, and hand in `retry <run id>`. "
    "What waits for a person: `/inbox`; answer it with `/approve ID` or `/reject ID WHY`."
)
FROM_MEMORY = "The same fault came before, so this is told from memory; no model was asked."


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesAnswer:
    """One answer: the words for people, and the look-ups that they are told from."""

    text: str
    found: tuple[LookedUp, ...] = ()
    remembered: bool = field(default=False)
    """Whether it is told from what became of the same fault before."""
    understood: bool = True
    """Whether rules know what was asked; else the text says what can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One question that rules understand."""

    name: str
    words: re.Pattern[str]
    tool: str
    tell: Callable[[dict[str, Any]], str]
    needs_run: bool = False
    proposes: str = ""
    """The kind of action that is handed in for the run."""
    needs_words: bool = False
    """Whether what follows the intent's own word is looked for."""


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


def _runs(found: dict[str, Any]) -> str:
    rows = [
        f"- {r['run_id']} {r['name']} of {r['flow_name']}: {r['state_type']} ({r['state_name']})"
        for r in found["runs"]
    ]
    return "\n".join(rows) or "No run of the last day fits."


def _riskiest(found: dict[str, Any]) -> str:
    rows = [
        f"- {r['run_id']} {r['name']} of {r['flow']} at {r['start']}: {r['p_fail']:.0%} chance of failing, "
        f"says {r['model']}: {'; '.join(r['reasons']) or 'no single reason stands out'}"
        for r in found["runs"]
    ]
    return "\n".join(rows) or "No run is scheduled in the next day."


def _incidents(found: dict[str, Any]) -> str:
    rows = [
        f"- {i['since']} {i['incident_id']} run {i['run_id']}: {i['failure_class'] or 'class unknown'}, "
        f"{i['step']} {i['action']} {i['outcome']}".rstrip()
        for i in found["incidents"]
    ]
    return "\n".join(rows) or "No incident in the last day."


def _similar(found: dict[str, Any]) -> str:
    rows = [
        f"- {s['incident_id']} at {s['at']} ({s['failure_class']}, {s['likeness']:.0%} alike): "
        + (
            "; ".join(f"{d['action']} {d['step']} {d['outcome']}".rstrip() for d in s["done"])
            or "nothing was done"
        )
        for s in found["similar"]
    ]
    return "\n".join(rows) or "Nothing like it is on record."


def _logs(found: dict[str, Any]) -> str:
    rows = [f"- {t['times']} x {t['template']}" for t in found["templates"]]
    return "\n".join(rows) or "No log line of this run is kept."


def _kpis(found: dict[str, Any]) -> str:
    rate = "none" if found["success_rate"] is None else f"{found['success_rate']:.1%}"
    p50 = found["recovery_seconds"]["p50"]
    recovery = f" Recovery took {p50:.0f} s in the median." if p50 is not None else ""
    return (
        f"In {found['days']} days {found['ended']} runs ended, {rate} of them well. Proposed {found['proposed']}, "
        f"injected {found['injected']}, verified {found['verified']}.{recovery}"
    )


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


INTENTS = (
    Intent(name="retry", words=_words(r"^\s*(?:please\s+)?(?:retry|propose retry)\b"), tool="propose",
           needs_run=True, proposes="retry_run", tell=_filed),
    Intent(name="similar", words=_words(r"similar|\bbefore\b|last time"), tool="similar_incidents", needs_run=True,
           tell=_similar),
    Intent(name="riskiest", words=_words(r"riskiest|at risk|likely to fail|likeliest"), tool="riskiest_runs",
           tell=_riskiest),
    Intent(name="forecast", words=_words(r"forecast|risk|chance"), tool="forecast_of", needs_run=True, tell=_forecast),
    Intent(name="logs", words=_words(r"\blogs?\b"), tool="log_templates", needs_run=True, tell=_logs),
    Intent(name="why", words=_words(r"\bwhy\b|story|happened"), tool="why_run", needs_run=True, tell=_why),
    Intent(name="kpi", words=_words(r"\bkpis?\b|success rate"), tool="kpis", tell=_kpis),
    Intent(name="incidents", words=_words(r"incident|trouble"), tool="incidents", tell=_incidents),
    Intent(name="failures", words=_words(r"fail|crash|broke"), tool="recent_failures", tell=_failures),
    Intent(name="queues", words=_words(r"queue|slot|starv"), tool="queues", tell=_queues),
    Intent(name="proposals", words=_words(r"propos|decision|verdict"), tool="recent_decisions", tell=_proposals),
    Intent(name="runs", words=_words(r"^\s*(?:runs|find)\b"), tool="find_runs", needs_words=True, tell=_runs),
    Intent(name="status", words=_words(r"status|floor|how (?:is|are|goes)|what.?s up"), tool="cluster_status",
           tell=_status),
)  # fmt: skip
"""The first row whose words occur is meant. Retrying must be asked for first thing, never in passing."""


def answer_by_rules(question: str, tools: Toolbox) -> RulesAnswer:
    """The answer to one of the questions that rules understand, or which ones they are. Reads the store."""
    run = RUN_ID.search(question)
    intent = next((i for i in INTENTS if i.words.search(question)), None)
    if intent is None:
        return RulesAnswer(text=HELP, understood=False)
    if intent.needs_run and run is None:
        return RulesAnswer(text=f"`{intent.name}` needs a run id. {HELP}", understood=False)
    arguments = {"run_id": run.group(0).lower()} if intent.needs_run and run else {}
    if intent.proposes:
        arguments = {"kind": intent.proposes, "target": arguments["run_id"]}
    if intent.needs_words:
        arguments = {"words": " ".join(question.split()[1:])}
    found = looked_up(tools, intent.tool, arguments)
    result = found.result
    words = f"It cannot be told: {result['error']}." if "error" in result else intent.tell(result)
    return RulesAnswer(text=words, found=(found,))


def answer_from_memory(question: str, tools: Toolbox) -> RulesAnswer | None:
    """The story of a run whose fault came before and of which is known what helped; None for all else."""
    run = RUN_ID.search(question)
    intent = next((i for i in INTENTS if i.words.search(question)), None)
    if intent is None or intent.name != "why" or run is None:
        return None
    arguments = {"run_id": run.group(0).lower()}
    past = looked_up(tools, "similar_incidents", arguments)
    told = [
        d
        for one in past.result.get("similar", ())
        if one["likeness"] == 1
        for d in one["done"]
        if d["step"] == "verified"
    ]
    if not told:
        return None
    story = looked_up(tools, "why_run", arguments)
    text = f"{FROM_MEMORY}\n{_why(story.result)}\nBefore:\n{_similar(past.result)}"
    return RulesAnswer(text=text, found=(story, past), remembered=True)
