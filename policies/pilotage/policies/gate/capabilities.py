"""What a caller may do at all, asked of the gate on samples: for people to read, and no decision rests on it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, get_args

from pilotage.planner.actions.types import NotifyOwner
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Command, Gate
from pilotage.policies.grants import BreakGlassGrant, Delegation
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome

SOMEBODY_ELSE = Identity(name="-", kind="agent", roles=frozenset({"agent"}))
_RUN = "00000000-0000-4000-8000-000000000000"


def commands_open_to(gate: Gate, caller: Identity, mode: Mode, now: datetime) -> dict[str, bool]:
    """For voting and for each command whether the caller may give it, on somebody else's fresh proposal."""
    filed = _sample(now)
    vote = gate.judge_vote(caller, filed, filed.digest, "approve", now)
    allowed = {"vote": vote.outcome is Outcome.ALLOW}
    for command in get_args(Command):
        verdict = gate.judge_command(
            caller, command, mode=mode, now=now, **_needed(command, caller, filed, now)
        )
        allowed[command] = verdict.outcome is Outcome.ALLOW
    return allowed


def _needed(command: str, caller: Identity, filed: FiledProposal, now: datetime) -> dict[str, Any]:
    minute = timedelta(minutes=1)
    match command:
        case "undo":
            return {"filed": filed}
        case "set_mode":
            return {"to": Mode.SHADOW}
        case "set_autonomy":
            return {"to": "standard"}
        case "break_glass":
            lent = BreakGlassGrant(
                id="g-", holder=caller.name, reason="-", since=now, until=now + minute, kinds=(), targets=()
            )
            return {"grant": lent}
        case "delegate":
            return {
                "grant": Delegation(giver=caller.name, taker="-", reason="-", since=now, until=now + minute)
            }
        case _:
            return {}


def _sample(now: datetime) -> FiledProposal:
    proposal = Proposal(
        id="p-000000000000",
        incident_id="i-000000000000",
        action=NotifyOwner(run_id=_RUN),
        expires_at=now + timedelta(hours=1),
    )
    return FiledProposal(
        proposal=proposal,
        case=CaseFile(subject=f"run:{_RUN}", failure_class="unknown"),
        proposer=SOMEBODY_ELSE,
        digest=digest_of(proposal, SOMEBODY_ELSE),
        filed_at=now,
    )
