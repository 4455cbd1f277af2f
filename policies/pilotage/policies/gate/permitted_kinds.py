"""Which kinds of action a caller may propose at all: asked of the gate, on a well-disposed target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pilotage.planner.actions.types import (
    Action,
    ActionKind,
    AnswerRun,
    CancelRun,
    CancelTree,
    CatchUp,
    ChangeParameters,
    Directive,
    HoldQueue,
    LaunchRemediation,
    LimitScope,
    MarkCrashed,
    MoveRun,
    NotifyOwner,
    OverrideResult,
    ParameterValue,
    PauseDeployment,
    RaiseRetries,
    ReleaseQueue,
    ReleaseSlot,
    RescheduleRun,
    ReserveSlot,
    ResizeRun,
    ResolveAlert,
    ResumeRun,
    RetryRun,
    SendDirective,
    SetLimit,
    SetPriority,
    SizeRun,
    SpreadRuns,
    SuspendRun,
    target_of,
)
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts

_THEN = datetime(2000, 1, 1, tzinfo=UTC)
"""The sample's own time; no window of guardrails.yaml reaches back there."""
_SOME = "00000000-0000-4000-8000-000000000000"
_WELL_DISPOSED = {
    "allowed_deployments": ("*",),
    "allowed_queues": ("*",),
    "freeze": (),
    "weekly_freeze": (),
    "min_slots": 1,
}
"""Guardrails that stand in the way of some targets and times, not of a kind of action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    action: Action
    state: str = ""


_MINUTE = timedelta(minutes=1)
_SAMPLES: tuple[_Sample, ...] = (
    _Sample(action=RetryRun(run_id=_SOME), state="FAILED"),
    _Sample(action=ResizeRun(run_id=_SOME, memory_mb=256), state="FAILED"),
    _Sample(action=SizeRun(run_id=_SOME, memory_mb=256), state="SCHEDULED"),
    _Sample(action=RescheduleRun(run_id=_SOME, start=_THEN + timedelta(minutes=2)), state="SCHEDULED"),
    _Sample(
        action=ReserveSlot(pool="p", busy_queue="a", starved_queue="b", limit=1, hold=timedelta(seconds=60))
    ),
    _Sample(action=CancelRun(run_id=_SOME), state="RUNNING"),
    _Sample(action=PauseDeployment(deployment_id=_SOME, hold=timedelta(seconds=60))),
    _Sample(action=NotifyOwner(run_id=_SOME), state="FAILED"),
    _Sample(
        action=ChangeParameters(run_id=_SOME, changes=(ParameterValue(name="a", value=1),)), state="SCHEDULED"
    ),
    _Sample(action=MoveRun(run_id=_SOME, queue="b"), state="SCHEDULED"),
    _Sample(action=SetPriority(pool="p", queue="a", priority=1, hold=timedelta(seconds=60))),
    _Sample(
        action=SetLimit(scope=LimitScope.QUEUE, pool="p", name="a", limit=10_000, hold=timedelta(seconds=60))
    ),
    _Sample(action=HoldQueue(pool="p", queue="a", hold=timedelta(seconds=60))),
    _Sample(action=ReleaseQueue(pool="p", queue="a")),
    _Sample(action=RaiseRetries(run_id=_SOME, retries=1), state="RUNNING"),
    _Sample(action=CancelTree(run_id=_SOME), state="RUNNING"),
    _Sample(action=LaunchRemediation(run_id=_SOME, deployment_id=_SOME), state="FAILED"),
    _Sample(action=SendDirective(run_id=_SOME, directive=Directive.CARRY_ON), state="RUNNING"),
    _Sample(action=SuspendRun(run_id=_SOME, hold=timedelta(seconds=60)), state="RUNNING"),
    _Sample(action=ResumeRun(run_id=_SOME), state="PAUSED"),
    _Sample(action=SpreadRuns(deployment_id=_SOME, first=_THEN + _MINUTE, wave=1, every=_MINUTE)),
    _Sample(action=CatchUp(deployment_id=_SOME, keep=1, first=_THEN + _MINUTE, wave=1, every=_MINUTE)),
    _Sample(action=MarkCrashed(run_id=_SOME), state="RUNNING"),
    _Sample(action=ReleaseSlot(scope=LimitScope.DEPLOYMENT, name=_SOME)),
    _Sample(action=OverrideResult(run_id=_SOME, task="a", value=1), state="FAILED"),
    _Sample(action=AnswerRun(run_id=_SOME, answers=(ParameterValue(name="a", value=1),)), state="PAUSED"),
    _Sample(action=ResolveAlert(run_id=_SOME), state="COMPLETED"),
)


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
    return tuple(sample.action.kind for sample in _SAMPLES if _open_to(disposed, identity, sample))


def _open_to(gate: Gate, identity: Identity, sample: _Sample) -> bool:
    proposal = Proposal(
        id="p-000000000000",
        incident_id="i-000000000000",
        action=sample.action,
        expires_at=_THEN + timedelta(hours=1),
    )
    filed = FiledProposal(
        proposal=proposal,
        case=CaseFile(subject=target_of(sample.action), failure_class="unknown"),
        proposer=identity,
        digest=digest_of(proposal, identity),
        filed_at=_THEN,
    )
    target = TargetFacts(
        target=target_of(sample.action),
        read_at=_THEN,
        state_type=sample.state,
        env=next(iter(gate.bundle.guardrails.non_production), ""),
        memory_mb=255,
        proven_memory_mb=256,
        seconds_to_start=60,
        death="process",
    )
    verdict = gate.judge(filed, target, LedgerFacts(stage="judge", mode=Mode.AUTO), _THEN)
    return verdict.outcome is not Outcome.DENY
