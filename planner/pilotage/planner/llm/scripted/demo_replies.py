"""What the demo's scripted model replies: sentences made of what it was shown, and no judgement of its own."""

from __future__ import annotations

import json
import re
from typing import Any

from pilotage.planner.llm.scripted.steps import Step, text, tool

TOOL_FOR = (
    (re.compile(r"\bwhy\b|\bstory\b", re.IGNORECASE), "why_run"),
    (re.compile(r"fail|crash|broke", re.IGNORECASE), "recent_failures"),
    (re.compile(r"queue|starv|slot", re.IGNORECASE), "queues"),
    (re.compile(r"forecast|risk|expect", re.IGNORECASE), "forecast_of"),
    (re.compile(r"retry|again", re.IGNORECASE), "draft"),
    (re.compile(r"propos|decision", re.IGNORECASE), "recent_decisions"),
    (re.compile(r"status|floor|how|what", re.IGNORECASE), "cluster_status"),
)
"""Which tool a question asks for: the first row whose words it contains."""
NEEDS_RUN = frozenset({"why_run", "forecast_of", "draft"})
_RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FACTS = re.compile(r"<facts>\s*(\{.*\})\s*</facts>", re.DOTALL)


def demo_script(body: dict[str, Any]) -> Step:
    """The reply to one request: a tool call or its result told, a typed answer, or an explanation."""
    messages = body.get("messages") or []
    last = messages[-1] if messages else {}
    if body.get("response_format") or body.get("tool_choice"):
        return text(json.dumps(_typed(str(last.get("content") or ""))))
    if last.get("role") == "tool":
        return text("Here is what the records say: " + str(last.get("content"))[:1500])
    said = str(last.get("content") or "")
    tool_names = {entry["function"]["name"] for entry in body.get("tools") or []}
    if tool_names:
        return _chat(said, tool_names)
    return text(_explanation(said))


def _chat(said: str, tool_names: set[str]) -> Step:
    run = _RUN_ID.search(said.lower())
    for words, name in TOOL_FOR:
        if name in tool_names and words.search(said) and (run or name not in NEEDS_RUN):
            if run and name == "draft":
                return tool(name, {"kind": "retry_run", "target": run.group(0)})
            return tool(name, {"run_id": run.group(0)} if run and name in NEEDS_RUN else {})
    return text(
        "I am the demo's scripted model. Ask about status, failures, queues, a forecast, or why a run failed."
    )


def _typed(said: str) -> dict[str, Any]:
    """The typed answer: every offer of a plan, what rules found of an investigation, or that no class is clear."""
    facts = _facts_in(said)
    if "offers" in facts:
        return {"steps": [offer["number"] for offer in facts["offers"]]}
    if rules := facts.get("by_rules"):
        step = {"do": "conclude", "because": "The facts say so.", "citations": ["facts"]}
        return {"step": step | {"failure_class": rules["failure_class"], "origin": rules["origin"]}}
    return {"failure_class": "unknown"}


def _facts_in(said: str) -> dict[str, Any]:
    match = _FACTS.search(said)
    try:
        facts: dict[str, Any] = json.loads(match.group(1)) if match else {}
    except ValueError:
        return {}
    return facts


def _explanation(said: str) -> str:
    facts = _facts_in(said)
    if not facts:
        return "There are no facts to explain."
    because = f", by rule {facts['rule_id']}" if facts.get("rule_id") else ""
    wanted = ", ".join(facts.get("actions") or ()) or "nothing"
    odds = facts.get("p_fail")
    chance = (
        f" The forecast gives the next attempt a {odds:.0%} chance of failing." if odds is not None else ""
    )
    return f"This was taken for {facts.get('failure_class', 'unknown')}{because}.{chance} Proposed: {wanted}."
