"""Answers without a model: a small closed set of questions, told from the same tools, and from memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pilotage.planner.chat.tools import LookedUp, Toolbox, looked_up
from pilotage.planner.detect.why import told

RUN_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
NO_MODEL = "No language model is configured: these answers come from rules."
HELP = (
    "I can answer: `status`, `failures`, `incidents`, `why <run id>`, `why is <name> late`, `logs <run id>`, "
    "`similar <run id>`, `forecast <run id>`, `riskiest`, `queues`, `runs <words>`, `proposals`, `kpi`, and hand in "
    "`retry <run id>`. What waits for a person: `/inbox`; answer it with `/approve ID` or `/reject ID WHY`."
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
    needs_name: bool = False
    """Whether the whole question is looked through for a name of a run or a deployment."""


def _status(result: dict[str, Any]) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in result["runs_by_state"].items()) or "no runs yet"
    waiting = "; ".join(result["queues_waiting"]) or "no queue waits"
    return f"Runs: {counts}. Failed in the last day: {result['failed_in_last_day']}. Queues: {waiting}."


def _failures(result: dict[str, Any]) -> str:
    if not result["failures"]:
        return "No run failed in the last day."
    lines = [f"- {f['run_id']} {f['name']}: {f['failure_class']}, {f['message']}" for f in result["failures"]]
    return f"{result['count']} failed in the last day:\n" + "\n".join(lines)


def _why(result: dict[str, Any]) -> str:
    lines = [
        f"{result['run_id']} {result['name']} of {result['flow']}: {result['state']}, {result['message']}"
    ]
    if "failure_class" in result:
        lines.append(f"Taken for {result['failure_class']}: {'; '.join(result['because']) or 'no rule fits'}")
    lines += [
        f"- {d['at']} {d['step']} {d['action']}: {d['outcome']} {', '.join(d['policies'])}".rstrip()
        for d in result["decisions"]
    ]
    return "\n".join(lines if result["decisions"] else [*lines, "Nothing was proposed about it."])


def _waits(found: dict[str, Any]) -> str:
    state = f" is {found['state']}" if found["state"] else ""
    return f"{found['name']}{state}: {told(found)}"


def _forecast(result: dict[str, Any]) -> str:
    reasons = "; ".join(result["reasons"]) or "no single reason stands out"
    return f"{result['p_fail']:.0%} chance of failing, says {result['model']}: {reasons}."


def _queues(result: dict[str, Any]) -> str:
    rows = [
        f"- {q['queue']}: priority {q['priority']}, {q['running']} running, {q['waiting']} waiting"
        + (", paused" if q["paused"] else "")
        for q in result["queues"]
    ]
    return "\n".join(rows) or "No queue was seen yet."


def _proposals(result: dict[str, Any]) -> str:
    rows = [
        f"- {d['at']} {d['proposal_id']} {d['step']} {d['action']}: {d['outcome']}"
        for d in result["decisions"]
    ]
    return "\n".join(rows) or "Nothing was proposed yet."


def _drafted(result: dict[str, Any]) -> str:
    return f"Drafted, and not handed in: send it with `/send {result['draft_id']}`."


def _runs(result: dict[str, Any]) -> str:
    rows = [
        f"- {r['run_id']} {r['name']} of {r['flow_name']}: {r['state_type']} ({r['state_name']})"
        for r in result["runs"]
    ]
    return "\n".join(rows) or "No run of the last day fits."


def _riskiest(result: dict[str, Any]) -> str:
    rows = [
        f"- {r['run_id']} {r['name']} of {r['flow']} at {r['start']}: {r['p_fail']:.0%} chance of failing, "
        f"says {r['model']}: {'; '.join(r['reasons']) or 'no single reason stands out'}"
        for r in result["runs"]
    ]
    return "\n".join(rows) or "No run is scheduled in the next day."


def _incidents(result: dict[str, Any]) -> str:
    rows = [
        f"- {i['since']} {i['incident_id']} run {i['run_id']}: {i['failure_class'] or 'class unknown'}, "
        f"{i['step']} {i['action']} {i['outcome']}".rstrip()
        for i in result["incidents"]
    ]
    return "\n".join(rows) or "No incident in the last day."


def _similar(result: dict[str, Any]) -> str:
    rows = [
        f"- {s['incident_id']} at {s['at']} ({s['failure_class']}, {s['likeness']:.0%} alike): "
        + (
            "; ".join(f"{d['action']} {d['step']} {d['outcome']}".rstrip() for d in s["done"])
            or "nothing was done"
        )
        for s in result["similar"]
    ]
    return "\n".join(rows) or "Nothing like it is on record."


def _logs(result: dict[str, Any]) -> str:
    rows = [f"- {t['times']} x {t['template']}" for t in result["templates"]]
    return "\n".join(rows) or "No log line of this run is kept."


def _kpis(result: dict[str, Any]) -> str:
    rate = "none" if result["success_rate"] is None else f"{result['success_rate']:.1%}"
    p50 = result["recovery_seconds"]["p50"]
    recovery = f" Recovery took {p50:.0f} s in the median." if p50 is not None else ""
    return (
        f"In {result['days']} days {result['ended']} runs ended, {rate} of them well. Proposed {result['proposed']}, "
        f"injected {result['injected']}, verified {result['verified']}.{recovery}"
    )


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


LATE = (
    r"\bwhy\b.*\b(?:late|wait\w*|stuck|hang\w*|pending|cancelling|not (?:yet )?(?:run|ran|start\w*|begin|begun|scheduled)|"
    r"stands? still|no runs?|isn.t running|didn.t (?:run|start)|doesn.t (?:run|start))\b"
)
"""A question why something does not begin or go on."""

INTENTS = (
    Intent(name="retry", words=_words(r"^\s*(?:please\s+)?(?:retry|propose retry)\b"), tool="draft",
           needs_run=True, proposes="retry_run", tell=_drafted),
    Intent(name="similar", words=_words(r"similar|\bbefore\b|last time"), tool="similar_incidents", needs_run=True,
           tell=_similar),
    Intent(name="riskiest", words=_words(r"riskiest|at risk|likely to fail|likeliest"), tool="riskiest_runs",
           tell=_riskiest),
    Intent(name="forecast", words=_words(r"forecast|risk|chance"), tool="forecast_of", needs_run=True, tell=_forecast),
    Intent(name="logs", words=_words(r"\blogs?\b"), tool="log_templates", needs_run=True, tell=_logs),
    Intent(name="late", words=_words(LATE), tool="why_it_waits", needs_name=True, tell=_waits),
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
    if intent.needs_name:
        arguments = {"name": question.strip()[:500]}
    if intent.needs_words:
        arguments = {"words": " ".join(question.split()[1:])}
    lookup = looked_up(tools, intent.tool, arguments)
    result = lookup.result
    words = f"It cannot be told: {result['error']}." if "error" in result else intent.tell(result)
    return RulesAnswer(text=words, found=(lookup,))


def answer_from_memory(question: str, tools: Toolbox) -> RulesAnswer | None:
    """The story of a run whose fault came before and of which is known what helped; None for all else."""
    run = RUN_ID.search(question)
    intent = next((i for i in INTENTS if i.words.search(question)), None)
    if intent is None or intent.name != "why" or run is None:
        return None
    arguments = {"run_id": run.group(0).lower()}
    past = looked_up(tools, "similar_incidents", arguments)
    lines = [
        d
        for incident in past.result.get("similar", ())
        if incident["likeness"] == 1
        for d in incident["done"]
        if d["step"] == "verified"
    ]
    if not lines:
        return None
    story = looked_up(tools, "why_run", arguments)
    text = f"{FROM_MEMORY}\n{_why(story.result)}\nBefore:\n{_similar(past.result)}"
    return RulesAnswer(text=text, found=(story, past), remembered=True)
