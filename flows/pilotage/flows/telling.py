"""One step of a story in words: the same sentence for the terminal, the artifact in Prefect and the demo's table.

Pure, and light. What it returns may quote untrusted text; whoever shows it makes that harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

QUIET = frozenset({"claimed"})
"""Steps of the machinery that people do not want to read."""


def told(step: Mapping[str, Any]) -> str:
    """The step in one sentence."""
    detail: Mapping[str, Any] = step.get("detail", {})
    match step["step"]:
        case "found":
            by = detail.get("rule_id") or detail.get("found_by") or "rule"
            notes = "; ".join(detail.get("notes") or ())
            return f"{detail.get('failure_class')} by {by}" + (f": {notes}" if notes else "")
        case "forecast":
            reasons = "; ".join(detail.get("forecast_reasons") or ())
            chance = f"{float(detail['p_fail']):.0%} chance of failing, says {detail.get('forecast_model')}"
            return chance + (f": {reasons}" if reasons else "")
        case "proposed":
            case = detail.get("case") or {}
            effect = case.get("expected_effect") or ""
            turned_down = "; ".join(case.get("alternatives") or ())
            return (
                f"{action_in_words(detail['proposal']['action'])}"
                + (f" ({effect})" if effect else "")
                + (f"; not taken: {turned_down}" if turned_down else "")
            )
        case "judged" | "admitted" | "refused" | "vote_refused":
            return _verdict(detail.get("verdict") or {})
        case "approved" | "rejected":
            roles = ", ".join(detail.get("roles") or ())
            return f"as {roles}" + (f": {detail['reason']}" if detail.get("reason") else "")
        case "injected":
            receipt = detail.get("receipt") or {}
            reason = (receipt.get("after") or {}).get("reason", "")
            return f"{detail.get('effect')}" + (f": {reason}" if reason else "")
        case "failed":
            again = "; it will be tried again" if detail.get("transient") else "; given up"
            return f"{detail.get('why')}{again}"
        case "verified":
            return f"{detail.get('judgement')}: {detail.get('text')}"
        case "undone":
            undo = detail.get("undo") or {}
            return f"{detail.get('effect')}: {undo.get('why', '')} {undo.get('reason', '')}".strip()
        case _:
            return "; ".join(f"{key} {value}" for key, value in detail.items() if isinstance(value, str))


def action_in_words(action: Mapping[str, Any]) -> str:
    """The action as one phrase."""
    match action.get("kind"):
        case "retry_run":
            return "retry the run in place"
        case "resize_run":
            return f"give it {action.get('memory_mb')} MiB and retry in place"
        case "reschedule_run":
            return f"move its start to {str(action.get('start'))[:19].replace('T', ' ')}"
        case "reserve_slot":
            cap = f"cap queue {action.get('busy_queue')} at {action.get('limit')}"
            return f"{cap} so that {action.get('starved_queue')} gets a slot"
        case "cancel_run":
            return "cancel the run"
        case "pause_deployment":
            return "pause the deployment"
        case "notify_owner":
            return "tell the owner"
        case kind:
            return str(kind)


def as_markdown(steps: Sequence[Mapping[str, Any]]) -> str:
    """A story as a table for Prefect's artifact view, every cell escaped."""
    lines = ["| when | step | who | what |", "|---|---|---|---|"]
    lines += [
        f"| {str(step['at'])[:19]} | {_cell(step['step'])} | {_cell(step.get('actor'))} | {_cell(told(step))} |"
        for step in steps
        if step["step"] not in QUIET
    ]
    return "\n".join(lines)


def _verdict(verdict: Mapping[str, Any]) -> str:
    ids = ", ".join(verdict.get("policy_ids") or ())
    reasons = "; ".join(verdict.get("reasons") or ())
    change = "; ".join(verdict.get("would_change") or ())
    text = f"{verdict.get('outcome')} by {ids}" if ids else str(verdict.get("outcome"))
    if reasons:
        text += f": {reasons}"
    if change and verdict.get("outcome") != "allow":
        text += f" (what would change it: {change})"
    return text


_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]<>()#+-.!|~"} | {"\n": " ", "\r": " "})


def _cell(value: object) -> str:
    return str(value or "")[:400].translate(_MARKDOWN)
