"""A proposal as a person decides on it: one value for every frontend, made from what the API says.

Nothing in it is the caller's own claim: kind, target, verdict and digest come from the ledger, the chance of
failing from the calibrated forecast, never from a language model. What is said of the action is made from the action
that the digest covers; words of the proposer are kept apart, and dropped where they are about an action that a person
edited since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotage.console.render.statuses import PROPOSAL
from pilotage.console.session.changes import changes_of
from pilotage.flows.notify.describe import action_in_words, said_of_it

Card = dict[str, Any]

WAITING = frozenset({"filed", "needs_approval", "held"})
"""Standings in which a person's answer still counts."""
UNDER_WAY = frozenset({"allowed", "admitted", "delivered"})
"""Standings that change without anybody."""


def card_of(
    proposal: Mapping[str, Any],
    lever: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Card:
    """The card of one proposal. `lever` is that kind's row of the API's `levers`: what it does, how it is undone.

    `beside` is what telemetry knows, see `beside.card_context_of`.
    """
    known = beside or {}
    action, case = proposal.get("action") or {}, proposal.get("case") or {}
    verdict, facts = proposal.get("verdict") or {}, proposal.get("target_facts") or {}
    outcome, filed = proposal.get("outcome") or {}, proposal.get("proposal") or {}
    said = said_of_it(case, proposal.get("replaces") or "")
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
        "deployment_id": facts.get("deployment_id", ""),
        "env": facts.get("env", ""),
        "tier": facts.get("tier"),
        "team": facts.get("team", ""),
        "changes": changes_of(action, facts, known.get("before") or {}),
        "touches": dict(known.get("touches") or {}),
        "takes": known.get("takes", ""),
        "proposer_says": said["expected_effect"],
        "failure_class": case.get("failure_class", ""),
        "found_by": case.get("rule_id") or case.get("found_by", ""),
        "notes": list(case.get("notes") or ()),
        "alternatives": list(said["alternatives"]),
        "explanation": said["explanation"],
        "p_fail": case.get("p_fail"),
        "forecast_model": case.get("forecast_model", ""),
        "forecast_reasons": list(case.get("forecast_reasons") or ()),
        "proposer": proposal.get("proposer", ""),
        "on_behalf_of": filed.get("on_behalf_of", ""),
        "evidence": list(filed.get("evidence") or ()),
        "verdict": verdict.get("outcome", "unjudged"),
        "policies": list(verdict.get("policy_ids") or ()),
        "reasons": list(verdict.get("reasons") or ()),
        "missing": dict(verdict.get("requirements") or {}),
        "who_may": who_may(proposal),
        "would_change": list(verdict.get("would_change") or ()),
        "undo": (lever or {}).get("undo", ""),
        "does": (lever or {}).get("does", ""),
        "within": (lever or {}).get("within", ""),
        "votes": [dict(vote) for vote in proposal.get("votes") or ()],
        "status": proposal["status"],
        "replaces": proposal.get("replaces", ""),
        "replaced_by": proposal.get("replaced_by", ""),
        "standing": _standing(proposal),
        "outcome": dict(outcome),
        "filed_at": proposal.get("filed_at", ""),
        "expires_at": proposal.get("expires_at", ""),
        "you": dict(proposal.get("you") or {}),
        "open": proposal["status"] in WAITING,
        "settled": proposal["status"] not in WAITING | UNDER_WAY,
    }


def _standing(proposal: Mapping[str, Any]) -> str:
    if proposal.get("replaced_by"):
        return f"edited by a person; {proposal['replaced_by']} took its place"
    return PROPOSAL.get(proposal["status"], proposal["status"])


def who_may(proposal: Mapping[str, Any]) -> list[str]:
    """Who can still fill the seats that policy asks for, in words; empty when nobody is asked."""
    verdict, facts = proposal.get("verdict") or {}, proposal.get("target_facts") or {}
    missing: Mapping[str, int] = verdict.get("requirements") or {}
    if verdict.get("outcome") != "needs_approval" or not missing:
        return []
    approval_requirements = [
        f"{count} more {_approval_requirement(role, str(facts.get('team') or ''))}"
        for role, count in missing.items()
    ]
    barred = [
        proposal.get("proposer", ""),
        (proposal.get("proposal") or {}).get("on_behalf_of", ""),
        *(vote["voter"] for vote in proposal.get("votes") or ()),
    ]
    names = list(dict.fromkeys(str(name) for name in barred if name))
    return [*approval_requirements, f"not {' or '.join(names)}"] if names else approval_requirements


def _approval_requirement(role: str, team: str) -> str:
    return f"owner, an approver of team {team or 'that owns it'}" if role == "owner" else role
