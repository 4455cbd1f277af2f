"""Drafts: an action that a model or rules wrote down, and the digest by which a person sends exactly that one.

Nothing about a draft is in force. It becomes a proposal when the person to whom it was shown sends it, and only while
what it is about is still as it was drafted for.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pilotage.planner.actions.types import action_as_json
from pilotage.planner.proposals import Proposal

ONLY_YOU = "nothing is handed in: only the person can send a draft, by its id"


def digest_of(proposal: Proposal) -> str:
    """Return the digest, in hexadecimal, of what is done, to what in which state, and for whom.

    The time is not in it: the same draft a minute later is the same.
    """
    content = [action_as_json(proposal.action), proposal.expected_state_id, proposal.on_behalf_of]
    return hashlib.sha256(b"pilotage.draft.v1\0" + json.dumps(content, sort_keys=True).encode()).hexdigest()


def draft_of(proposal: Proposal) -> dict[str, Any]:
    """Return the draft as plain JSON: `{draft_id, digest, action, status}`. The id is the digest's beginning."""
    digest = digest_of(proposal)
    return {
        "draft_id": f"d-{digest[:12]}",
        "digest": digest,
        "action": action_as_json(proposal.action),
        "status": f"drafted; {ONLY_YOU}",
    }
