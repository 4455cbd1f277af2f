"""What becomes of a proposal that a person edits: another proposal, by that person, that nobody has approved."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import rfc8785

from pilotage.planner.actions.types import Action, action_as_json
from pilotage.planner.proposals import Proposal
from pilotage.policies.digests import digest_of
from pilotage.policies.types import FiledProposal, Identity


def amended(filed: FiledProposal, action: Action, editor: Identity, now: datetime) -> FiledProposal:
    """The edited proposal, to be filed and judged from nothing; the same edit by the same person is the same one.

    It lives as long as the old one would have, is about the same incident, and rests on the same state. What was
    found stays in its case; what the proposer said of the old action goes, since it is not true of this one.
    """
    old = filed.proposal
    detail: dict[str, Any] = {"amends": filed.digest, "action": action_as_json(action), "editor": editor.name}
    proposal = Proposal(
        id=f"p-{hashlib.sha256(rfc8785.dumps(detail)).hexdigest()[:12]}",
        incident_id=old.incident_id,
        action=action,
        expected_state_id=old.expected_state_id,
        evidence=old.evidence,
        playbook="person",
        expires_at=old.expires_at,
        on_behalf_of=old.on_behalf_of,
    )
    return FiledProposal(
        proposal=proposal,
        case=filed.case.model_copy(update={"expected_effect": "", "alternatives": (), "explanation": ""}),
        proposer=editor,
        digest=digest_of(proposal, editor),
        filed_at=now,
    )
