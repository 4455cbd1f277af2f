"""How verdicts and proposals look as plain JSON: one shape for the desk, the files at rest and every skin."""

from __future__ import annotations

from typing import Any

from pilotage.planner.actions import action_as_json, target_of
from pilotage.policies.verdicts import FiledProposal, Verdict


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain JSON values."""
    return {
        "outcome": verdict.outcome.value,
        "policy_ids": list(verdict.policy_ids),
        "reasons": list(verdict.reasons),
        "requirements": dict(verdict.requirements),
        "would_change": list(verdict.would_change),
        "bundle": verdict.bundle,
        "errors": list(verdict.errors),
    }


def proposal_as_json(filed: FiledProposal, status: str | None, verdict: Verdict | None) -> dict[str, Any]:
    """One proposal with its digest, status and last verdict."""
    judged = verdict_as_json(verdict) if verdict else {"outcome": "unjudged", "policy_ids": [], "reasons": []}
    return {
        "proposal_id": filed.proposal.id,
        "incident_id": filed.proposal.incident_id,
        "digest": filed.digest,
        "status": status,
        "target": target_of(filed.proposal.action),
        "action": action_as_json(filed.proposal.action),
        "playbook": filed.proposal.playbook,
        "proposer": filed.proposer.name,
        "expires_at": filed.proposal.expires_at.isoformat(),
        "case": filed.case.model_dump(mode="json"),
        **judged,
    }
