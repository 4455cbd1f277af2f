"""Which kinds of action a caller may propose at all: asked of the gate, on a well-disposed target."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from pilotage.planner.actions.base import EXAMPLE_TIME
from pilotage.planner.actions.types import ACTIONS, KINDS, ActionKind, example_of, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts

_WELL_DISPOSED = {
    "allowed_deployments": ("*",),
    "allowed_queues": ("*",),
    "freeze": (),
    "weekly_freeze": (),
    "min_slots": 1,
}
"""Guardrails that stand in the way of some targets and times, not of a kind of action."""

_SOME_DEPLOYMENT = "00000000-0000-4000-8000-000000000001"


def permitted_kinds(gate: Gate, identity: Identity) -> tuple[ActionKind, ...]:
    """The kinds that are not denied to this caller when nothing about the target stands in the way.

    Each caller's answer is worked out once for each bundle: the planner asks at every turn.
    """
    return gate.kept(("permitted_kinds", identity), lambda bundle: _permitted(gate, bundle, identity))


def _permitted(gate: Gate, bundle: Bundle, identity: Identity) -> tuple[ActionKind, ...]:
    disposed = Gate(
        replace(bundle, guardrails=bundle.guardrails.model_copy(update=_WELL_DISPOSED)),
        server_lacks=gate.server_lacks,
    )
    return tuple(kind for kind in KINDS if _open_to(disposed, identity, kind))


def _open_to(gate: Gate, identity: Identity, kind: ActionKind) -> bool:
    action = example_of(kind)
    proposal = Proposal(
        id="p-000000000000",
        incident_id="i-000000000000",
        action=action,
        expires_at=EXAMPLE_TIME + timedelta(hours=1),
    )
    filed = FiledProposal(
        proposal=proposal,
        case=CaseFile(subject=target_of(action), failure_class="unknown"),
        proposer=identity,
        digest=digest_of(proposal, identity),
        filed_at=EXAMPLE_TIME,
    )
    target = TargetFacts(
        target=target_of(action),
        read_at=EXAMPLE_TIME,
        state_type=ACTIONS[kind].example_state,
        deployment_id=_SOME_DEPLOYMENT,
        env=next(iter(gate.bundle.guardrails.non_production), ""),
        memory_mb=255,
        proven_memory_mb=256,
        seconds_to_start=60,
        death="process",
    )
    verdict = gate.judge(filed, target, LedgerFacts(stage="judge", mode=Mode.AUTO), EXAMPLE_TIME)
    return verdict.outcome is not Outcome.DENY
