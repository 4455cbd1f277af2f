"""A proposal as a person decides on it: one value for every skin, made from what the desk says.

Nothing in it is the caller's own claim: kind, target, verdict and digest come from the ledger, the chance of
failing from the calibrated forecast, never from a language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotage.flows.telling import action_in_words

Card = dict[str, Any]

WAITING = frozenset({"filed", "needs_approval", "held"})
"""Standings in which a person's answer still counts."""


def card_of(proposal: Mapping[str, Any], lever: Mapping[str, Any] | None = None) -> Card:
    """The card of one proposal. `lever` is that kind's row of the desk's `levers`: what it does, how it is undone."""
    action, case = proposal.get("action") or {}, proposal.get("case") or {}
    verdict, facts = proposal.get("verdict") or {}, proposal.get("target_facts") or {}
    outcome = proposal.get("outcome") or {}
    return {
        "proposal_id": proposal["proposal_id"],
        "digest": proposal["digest"],
        "incident_id": proposal.get("incident_id", ""),
        "run_id": proposal.get("run_id", ""),
        "kind": proposal["kind"],
        "action": dict(action),
        "words": action_in_words(action),
        "target": proposal.get("target", ""),
        "deployment": facts.get("deployment_name", ""),
        "env": facts.get("env", ""),
        "tier": facts.get("tier"),
        "team": facts.get("team", ""),
        "changes": changes_of(action, facts),
        "effect": case.get("expected_effect", ""),
        "failure_class": case.get("failure_class", ""),
        "found_by": case.get("rule_id") or case.get("found_by", ""),
        "notes": list(case.get("notes") or ()),
        "alternatives": list(case.get("alternatives") or ()),
        "explanation": case.get("explanation", ""),
        "p_fail": case.get("p_fail"),
        "forecast_model": case.get("forecast_model", ""),
        "forecast_reasons": list(case.get("forecast_reasons") or ()),
        "proposer": proposal.get("proposer", ""),
        "on_behalf_of": (proposal.get("proposal") or {}).get("on_behalf_of", ""),
        "evidence": list((proposal.get("proposal") or {}).get("evidence") or ()),
        "verdict": verdict.get("outcome", "unjudged"),
        "policies": list(verdict.get("policy_ids") or ()),
        "reasons": list(verdict.get("reasons") or ()),
        "missing": dict(verdict.get("requirements") or {}),
        "would_change": list(verdict.get("would_change") or ()),
        "undo": (lever or {}).get("undo", ""),
        "does": (lever or {}).get("does", ""),
        "within": (lever or {}).get("within", ""),
        "votes": [dict(vote) for vote in proposal.get("votes") or ()],
        "status": proposal["status"],
        "outcome": dict(outcome),
        "filed_at": proposal.get("filed_at", ""),
        "expires_at": proposal.get("expires_at", ""),
        "open": proposal["status"] in WAITING,
    }


def changes_of(action: Mapping[str, Any], facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """What would be different: `{what, before, after}` for each typed argument that changes something."""
    match action.get("kind"):
        case "retry_run":
            return [_change("state", facts.get("state_name") or facts.get("state_type"), "AwaitingRetry")]
        case "resize_run":
            return [
                _change("memory", _mib(facts.get("memory_mb")), _mib(action.get("memory_mb"))),
                _change("state", facts.get("state_name") or facts.get("state_type"), "AwaitingRetry"),
            ]
        case "reschedule_run":
            before = facts.get("seconds_to_start")
            return [_change("start", f"in {before} s" if before is not None else "", action.get("start"))]
        case "cancel_run" | "cancel_tree":
            return [_change("state", facts.get("state_name") or facts.get("state_type"), "Cancelled")]
        case "pause_deployment":
            return [_change("schedules", "paused" if facts.get("paused") else "active", "paused")]
        case "change_parameters":
            return [_change(str(c.get("name")), "", c.get("value")) for c in action.get("changes") or ()]
        case _:
            skip = {"kind", "run_id", "deployment_id", "pool", "queue"}
            return [_change(key, "", value) for key, value in action.items() if key not in skip]


def _change(what: str, before: object, after: object) -> dict[str, str]:
    return {"what": what, "before": str(before or "not known"), "after": str(after)}


def _mib(value: object) -> str:
    return f"{value} MiB" if value else ""
