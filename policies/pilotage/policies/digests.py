"""What a vote is bound to: the digest of a proposal and of who proposed it."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID, uuid5

import rfc8785

from pilotage.planner.proposals import Proposal
from pilotage.policies.types import Identity

DIGEST_PREFIX = b"pilotage.proposal.v1\0"
MARKS = UUID("7d0a4a0e-2f58-5d3c-9c4e-6f1b3f6f9a11")
"""Namespace of the marks; any fixed UUID would do."""


def canonical(proposal: Proposal, proposer: Identity) -> bytes:
    """The RFC 8785 form of a proposal and its proposer."""
    content: dict[str, Any] = {
        "proposal": proposal.model_dump(mode="json"),
        "proposer": {"name": proposer.name, "kind": proposer.kind},
        "on_behalf_of": proposal.on_behalf_of,
    }
    return rfc8785.dumps(content)


def digest_of(proposal: Proposal, proposer: Identity) -> str:
    """The digest in hexadecimal: a change of any field makes it another one."""
    return hashlib.sha256(DIGEST_PREFIX + canonical(proposal, proposer)).hexdigest()


def idempotency_key_of(digest: str) -> str:
    """The UUID by which Prefect shows that this very proposal was delivered before."""
    return str(uuid5(MARKS, digest))
