"""One step of a story in words: the same sentence for the terminal, the artifact in Prefect and the demo's table.

Pure, and light. What it returns may quote untrusted text; whoever shows it makes that harmless.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pilotage.flows.notify.describe_governance import governed
from pilotage.telemetry import times
from pilotage.telemetry.harmless import harmless, markdown

_ISO_SPAN = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d+))?S)?)?")

QUIET = frozenset({"claimed", "signed_in", "sign_in_failed", "sessions_ended"})
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
            said = said_of_it(detail.get("case") or {}, detail.get("replaces") or "")
            effect, turned_down = said["expected_effect"], "; ".join(said["alternatives"])
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
            done = after.get("reason") or after.get("tasks") or ""
            return f"{detail.get('effect')}" + (f": {done}" if done else "")
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


def proposal_for_log(proposal: Mapping[str, Any]) -> str:
    """Return a proposal's id with its action, deployment and run, as each line of a log names it."""
    facts: Mapping[str, Any] = proposal.get("target_facts") or {}
    kind = proposal.get("kind") or (proposal.get("action") or {}).get("kind") or "unknown action"
    run_id = proposal.get("run_id") or (proposal.get("action") or {}).get("run_id")
    target = f"run {run_id}" if run_id else str(proposal.get("target") or "")
    on = ", ".join(each for each in (facts.get("deployment_name"), target) if each) or "an unknown target"
    said = f"{proposal['proposal_id']} {kind} on {on}"
    return harmless(said, 300)


def action_in_words(action: Mapping[str, Any]) -> str:
    """The action as one phrase that names every argument but the ids of its target: what is approved is what is read."""
    match action.get("kind"):
        case "retry_run":
            return f"retry the run in place {_after(action)}" + _with_other(action.get("changes"))
        case "resize_run":
            return f"give it {action.get('memory_mb')} MiB and retry in place"
        case "size_run":
            return f"let it start with {action.get('memory_mb')} MiB"
        case "reschedule_run":
            return f"move its start to {times.local(action.get('start'))}"
        case "reserve_slot":
            cap = (
                f"cap queue {action.get('busy_queue')} of pool {action.get('pool')} at {action.get('limit')}"
            )
            return f"{cap} for {_span(action.get('hold'))} so that {action.get('starved_queue')} gets a slot"
        case "cancel_run":
            return "cancel the run"
        case "pause_deployment":
            lost = "Prefect deletes its scheduled runs, with what people changed in them; they are made again after it"
            return f"pause the deployment for {_span(action.get('hold'))} ({lost})"
        case "notify_owner":
            return f"tell the owner, as {action.get('severity', 'error')}"
        case "change_parameters":
            return f"change its {_values(action.get('changes'))}"
        case "move_run":
            return f"move it to queue {action.get('queue')}"
        case "set_priority":
            what = f"queue {action.get('queue')} of pool {action.get('pool')}"
            return f"give {what} rank {action.get('priority')} for {_span(action.get('hold'))}"
        case "set_limit":
            of_pool = f" of pool {action.get('pool')}" if action.get("pool") else ""
            what = f"{action.get('scope')} {action.get('name')}{of_pool}"
            return f"limit {what} to {action.get('limit')} for {_span(action.get('hold'))}"
        case "hold_queue":
            return f"hold {_place(action)} for {_span(action.get('hold'))}"
        case "release_queue":
            return f"release {_place(action)}"
        case "raise_retries":
            return f"give it {action.get('retries')} retries, each {_after(action, 'the failure')}"
        case "cancel_tree":
            return "cancel the run and all below it"
        case "launch_remediation":
            nth = f", attempt {action['attempt']}" if action.get("attempt", 1) != 1 else ""
            return f"start its remediation, deployment {action.get('deployment_id')}{nth}"
        case "send_directive":
            return f"tell the flow to {str(action.get('directive')).replace('_', ' ')}"
        case "suspend_run":
            return f"suspend the run for {_span(action.get('hold'))}"
        case "resume_run":
            return "resume the run"
        case "spread_runs":
            return f"start its waiting runs, {action.get('most', 1000)} at most, {waves_in_words(action)}"
        case "catch_up":
            rest = "and cancel the others"
            return (
                f"run the newest {action.get('keep')} of its overdue runs, {waves_in_words(action)}, {rest}"
            )
        case "mark_crashed":
            return "mark the dead run as crashed"
        case "start_run":
            missed = action.get("missed")
            return f"make the run that was missed at {missed}" if missed else "make the run again"
        case "release_slot":
            return f"give back the slots of {action.get('scope')} {action.get('name')} that dead work holds"
        case "override_result":
            return f"put {action.get('value')!r} in the place of its {action.get('task')} and retry in place"
        case "answer_run":
            return f"answer the waiting run: {_values(action.get('answers'))}"
        case "resolve_alert":
            return "tell the owner that it is over"
        case kind:
            given = {name: value for name, value in action.items() if name not in ("kind", "run_id")}
            return (
                f"{str(kind).replace('_', ' ')} ({_named(given)})" if given else str(kind).replace("_", " ")
            )


def waves_in_words(action: Mapping[str, Any]) -> str:
    """How the runs of an action on many are released: how many at a time, from when, how often."""
    wave, every = action.get("wave"), _span(action.get("every"))
    return f"{wave} at a time from {times.local(action.get('first'))}, every {every}"


def said_of_it(case: Mapping[str, Any], replaces: str) -> dict[str, Any]:
    """Return what the proposer says of the action: `{expected_effect, alternatives, explanation}`, as it came.

    All of it is empty for an edit (`replaces` is what was edited): those words are about another action.
    """
    if replaces:
        return {"expected_effect": "", "alternatives": (), "explanation": ""}
    return {
        "expected_effect": case.get("expected_effect") or "",
        "alternatives": tuple(case.get("alternatives") or ()),
        "explanation": case.get("explanation") or "",
    }


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _values(changes: Any) -> str:
    return ", ".join(f"{change.get('name')}={change.get('value')!r}" for change in changes or ())


def _with_other(changes: Any) -> str:
    return f", with {_values(changes)}" if changes else ""


def _place(action: Mapping[str, Any]) -> str:
    pool = f"pool {action.get('pool')}"
    return f"queue {action.get('queue')} of {pool}" if action.get("queue") else pool


def _after(action: Mapping[str, Any], what: str = "") -> str:
    delay = _span(action.get("delay") or "PT0S")
    if delay == times.span(timedelta(0)):
        return "at once"
    return f"{delay} after {what}" if what else f"in {delay}"


def _span(value: Any) -> str:
    length = span_of(value)
    return str(value or "") if length is None else times.span(length)


def span_of(value: Any) -> timedelta | None:
    """Return the duration that an action's JSON writes as ISO 8601, or None when it writes none."""
    match = _ISO_SPAN.fullmatch(str(value or ""))
    if match is None:
        return None
    days, hours, minutes, seconds, part = match.groups(default="0")
    whole = timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return whole + timedelta(microseconds=int(part.ljust(6, "0")[:6]))


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
    groups: list[tuple[Mapping[str, Any], int]] = []
    for step in steps:
        if step["step"] in QUIET:
            continue
        if groups and (label(step), told(step)) == (label(groups[-1][0]), told(groups[-1][0])):
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((step, 1))
    return groups


def as_markdown(steps: Sequence[Mapping[str, Any]]) -> str:
    """A story as a list for Prefect's artifact view, whose tables do not wrap; what is quoted is escaped."""
    lines = []
    for step, count in readable(steps):
        what = told(step) + (f" (said {count} times)" if count > 1 else "")
        who = markdown(step.get("actor"))
        lines.append(
            f"- {times.local(step['at'], '%H:%M:%S')} **{markdown(label(step))}**, {who}: {markdown(what)}"
        )
    day = f"{times.local(steps[0]['at'], '%Y-%m-%d')}\n\n" if steps else ""
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
