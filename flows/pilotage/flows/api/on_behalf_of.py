"""Who stands behind a proposal that comes from a conversation, and a proposal that is only imagined.

A chat holds its person's token, but what it hands in is an agent's request: the API files it under the agent's
name on behalf of that person, so that it needs the rights of both and its person cannot approve it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.api.client import ApiClient, ApiRejection
from pilotage.planner.actions.types import ACTION, ActionKind, target_of
from pilotage.planner.chat.lookups.records import READABLE
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of
from pilotage.policies.types import FiledProposal, Identity


def agent_for(caller: Identity, through: str) -> Identity | None:
    """The agent that acts for this caller, or None when the caller acts. Raises ApiRejection for anything else.

    Each person has an agent of their own, so that one person's waiting proposals never fill another's share.
    """
    if not through:
        return None
    if through != "agent" or caller.kind != "user":
        raise ApiRejection(
            "bad-request",
            f"Asking through {through!r}: a person asks through `agent`, everybody else by themselves.",
        )
    name = f"agent-of-{caller.name}"[:80]
    return Identity(name=name, kind="agent", roles=frozenset({"agent"}), scope=caller.scope)


def hypothetical_proposal(
    caller: Identity, agent: Identity | None, action: Mapping[str, Any], now: datetime
) -> FiledProposal:
    """The action as if it had just been filed; it is in no ledger. Raises pydantic's ValidationError."""
    wanted = ACTION.validate_json(json.dumps(dict(action)))
    proposal = Proposal(
        id=f"p-{secrets.token_hex(6)}",
        incident_id="i-000000000000",
        action=wanted,
        expires_at=now + timedelta(hours=1),
        on_behalf_of=caller.name if agent else "",
    )
    proposer = agent or caller
    return FiledProposal(
        proposal=proposal,
        case=CaseFile(subject=target_of(wanted), failure_class="unknown"),
        proposer=proposer,
        digest=digest_of(proposal, proposer),
        filed_at=now,
    )


class AgentApi:
    """The API as an agent reaches it for the person whose token the client carries."""

    def __init__(self, control_api: ApiClient) -> None:
        self._control_api = control_api

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        """What became of the proposal; see `pilotage.planner.proposals.ProposalApi`."""
        reply: dict[str, Any] = self._control_api.call(
            "file",
            proposal=proposal.model_dump(mode="json"),
            case=case.model_dump(mode="json"),
            through="agent",
        )
        return reply

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        """The kinds of action that both the person and the agent may propose."""
        return tuple(self._control_api.call("offered", through="agent"))

    def read(self, op: str, **arguments: Any) -> Any:
        """One operation that reads, in the person's own name; see `pilotage.planner.chat.lookups.records.RecordsApi`.

        Raises ApiRejection for any other, ApiError.
        """
        if op not in READABLE:
            raise ApiRejection(
                "bad-request", f"Reading {op!r} in a conversation: it may ask {sorted(READABLE)}."
            )
        return self._control_api.call(op, **arguments)

    def consider(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """What would be said of the action now; see `pilotage.planner.chat.queries.ChatApi`."""
        reply: dict[str, Any] = self._control_api.call("consider", action=dict(action), through="agent")
        return reply
