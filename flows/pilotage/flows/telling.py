"""One step of a story in words: the same sentence for the terminal, the artifact in Prefect and the demo's table.

Pure, and light. What it returns may quote untrusted text; whoever shows it makes that harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.flows.telling_governance import governed

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
                + (f", instead of {detail['replaces']}" if detail.get("replaces") else "")
                + (f" ({effect})" if effect else "")
                + (f"; not taken: {turned_down}" if turned_down else "")
            )
        case "judged" | "admitted" | "refused" | "vote_refused" | "edit_refused":
            return _verdict(detail.get("verdict") or {})
        case "approved" | "rejected":
            roles = ", ".join(detail.get("roles") or ())
            return f"as {roles}" + (f": {detail['reason']}" if detail.get("reason") else "")
        case "injected":
            after = (detail.get("receipt") or {}).get("after") or {}
            said = after.get("reason") or after.get("tasks") or ""
            return f"{detail.get('effect')}" + (f": {said}" if said else "")
        case "failed":
            return f"{detail.get('why')}" if detail.get("transient") else f"{detail.get('why')}; given up"
        case "verified":
            return f"{detail.get('judgement')}: {detail.get('text')}"
        case "undone":
            undo = detail.get("undo") or {}
            return f"{detail.get('effect')}: {undo.get('why', '')} {undo.get('reason', '')}".strip()
        case name:
            plain = "; ".join(f"{key} {value}" for key, value in detail.items() if isinstance(value, str))
            return governed(name, detail) or plain


def action_in_words(action: Mapping[str, Any]) -> str:
    """The action as one phrase."""
    match action.get("kind"):
        case "retry_run":
            return "retry the run in place" + _with_other(action.get("changes"))
        case "resize_run":
            return f"give it {action.get('memory_mb')} MiB and retry in place"
        case "size_run":
            return f"let it start with {action.get('memory_mb')} MiB"
        case "reschedule_run":
            return f"move its start to {str(action.get('start'))[:19].replace('T', ' ')} UTC"
        case "reserve_slot":
            cap = f"cap queue {action.get('busy_queue')} at {action.get('limit')}"
            return f"{cap} so that {action.get('starved_queue')} gets a slot"
        case "cancel_run":
            return "cancel the run"
        case "pause_deployment":
            lost = "Prefect deletes its scheduled runs, with what people changed in them; they are made anew after it"
            return f"pause the deployment for {_span(action)} ({lost})"
        case "notify_owner":
            return "tell the owner"
        case "change_parameters":
            return f"change its {_names(action.get('changes'))}"
        case "move_run":
            return f"move it to queue {action.get('queue')}"
        case "set_priority":
            return f"give queue {action.get('queue')} rank {action.get('priority')} for {_span(action)}"
        case "set_limit":
            what = f"{action.get('scope')} {action.get('name')}"
            return f"limit {what} to {action.get('limit')} for {_span(action)}"
        case "hold_queue":
            return f"hold {_place(action)} for {_span(action)}"
        case "release_queue":
            return f"release {_place(action)}"
        case "raise_retries":
            return f"give it {action.get('retries')} retries"
        case "cancel_tree":
            return "cancel the run and all below it"
        case "launch_remediation":
            return "start its remediation"
        case "send_directive":
            return f"tell the flow to {str(action.get('directive')).replace('_', ' ')}"
        case "suspend_run":
            return f"suspend the run for {_span(action)}"
        case "resume_run":
            return "resume the run"
        case "spread_runs":
            return f"start its waiting runs in waves of {action.get('wave')}"
        case "catch_up":
            return f"run the newest {action.get('keep')} of its overdue runs and cancel the others"
        case "mark_crashed":
            return "mark the dead run as crashed"
        case "release_slot":
            return f"give back the slots of {action.get('scope')} {action.get('name')} that dead work holds"
        case "override_result":
            return f"put {action.get('value')!r} in the place of its {action.get('task')} and retry in place"
        case "answer_run":
            told = (f"{one.get('name')}={one.get('value')!r}" for one in action.get("answers") or ())
            return f"answer the waiting run: {', '.join(told)}"
        case "resolve_alert":
            return "tell the owner that it is over"
        case kind:
            return str(kind)


def _names(changes: Any) -> str:
    return ", ".join(str(change.get("name")) for change in changes or ())


def _with_other(changes: Any) -> str:
    return f" with other {_names(changes)}" if changes else ""


def _place(action: Mapping[str, Any]) -> str:
    pool = f"pool {action.get('pool')}"
    return f"queue {action.get('queue')} of {pool}" if action.get("queue") else pool


def _span(action: Mapping[str, Any]) -> str:
    return str(action.get("hold")).removeprefix("PT").lower()


def label(step: Mapping[str, Any]) -> str:
    """What the step is called for people: a try that will be repeated is a wait, not a failure."""
    detail = step.get("detail", {})
    verdict = detail.get("verdict") or {}
    waits = (step["step"] == "failed" and detail.get("transient")) or (
        step["step"] == "refused" and verdict.get("outcome") == "needs_approval"
    )
    return "waiting" if waits else str(step["step"])


def readable(steps: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], int]]:
    """The steps that people want to read, each with how many times it was said in a row."""
    found: list[tuple[Mapping[str, Any], int]] = []
    for step in steps:
        if step["step"] in QUIET:
            continue
        if found and (label(step), told(step)) == (label(found[-1][0]), told(found[-1][0])):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((step, 1))
    return found


def as_markdown(steps: Sequence[Mapping[str, Any]]) -> str:
    """A story as a list for Prefect's artifact view, whose tables do not wrap; what is quoted is escaped."""
    lines = []
    for step, times in readable(steps):
        what = told(step) + (f" (said {times} times)" if times > 1 else "")
        who = _escaped(step.get("actor"))
        lines.append(f"- {str(step['at'])[11:19]} **{_escaped(label(step))}**, {who}: {_escaped(what)}")
    day = f"{str(steps[0]['at'])[:10]}, times in UTC\n\n" if steps else ""
    return day + "\n".join(lines)


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


def _escaped(value: object) -> str:
    return str(value or "")[:1200].translate(_MARKDOWN)
