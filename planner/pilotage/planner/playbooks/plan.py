"""Turns an incident context into proposals: the playbook of its class, quarantine on top, and only permitted kinds.

What is decided here is decided in `playbooks`; this gives each desired action its id, its expiry and its case file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilotage.planner.actions.types import Action, ActionKind
from pilotage.planner.findings import NEEDS_NO_RUN, NOT_A_FAILURE
from pilotage.planner.incidents.causes import causes_of
from pilotage.planner.playbooks.registry import playbook_for, quarantine, remedy
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.planner.remediation import DesiredAction, IncidentContext, notify
from pilotage.telemetry.facts import RunFact

AGAIN: frozenset[ActionKind] = frozenset({"retry_run", "resize_run"})
"""What runs a failed run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The proposals for one finding, in the order they should be filed."""

    playbook: str
    proposals: tuple[tuple[Proposal, CaseFile], ...] = ()
    alternatives: tuple[str, ...] = ()


def plan_for(s: IncidentContext, permitted_kinds: Sequence[ActionKind]) -> Plan:
    """The proposals for a situation, only of kinds that are offered, and the rejected not taken."""
    name, remediation_of = playbook_for(s.finding)
    if s.run is None and s.finding.failure_class not in NEEDS_NO_RUN:
        return Plan(playbook=name, alternatives=("nothing: the run is not in the store any more",))
    remediation = remediation_of(s)
    remedies, none_because = remedy(s)
    if remedies and any(desired_action.action.kind in AGAIN for desired_action in remediation.desired):
        remedies, none_because = (), ("launch_remediation: another attempt is tried first",)
    wanted = [*remedies, *remediation.desired, *quarantine(s)]
    kinds = {desired_action.action.kind for desired_action in wanted}
    if "pause_deployment" in kinds and "notify_owner" not in kinds:
        wanted += notify(s)
    refused = tuple(
        f"{w.action.kind}: not offered to this planner"
        for w in wanted
        if w.action.kind not in permitted_kinds
    )
    rejected = (*remediation.alternatives, *none_because, *refused)
    proposals = tuple(
        (_proposal(s, desired_action, name), _case(s, desired_action, rejected))
        for desired_action in wanted
        if desired_action.action.kind in permitted_kinds
    )
    return Plan(playbook=name, proposals=proposals, alternatives=rejected)


def proposal_id(incident: str, action: Action, attempt: str) -> str:
    """`p-` and 12 hex digits: equal for the same desired action in the same attempt, whatever its numbers."""
    seed = json.dumps([incident, action.kind, attempt])
    return "p-" + hashlib.sha256(seed.encode()).hexdigest()[:12]


def _proposal(s: IncidentContext, desired_action: DesiredAction, playbook: str) -> Proposal:
    state_id = s.run.state_id if s.run and desired_action.bound_to_state else ""
    # A failure's state is its attempt. Other trouble is proposed on once, whatever states follow.
    attempt = s.run.state_id if s.run and s.finding.failure_class not in NOT_A_FAILURE else ""
    latest = s.now + s.parameters.proposal_life
    refs = tuple(dict.fromkeys(e.ref[:300] for e in s.finding.evidence))
    if s.forecast is not None:
        refs = (*refs, f"forecast:{s.forecast.run_id}")
    return Proposal(
        id=proposal_id(s.finding.incident_id, desired_action.action, attempt),
        incident_id=s.finding.incident_id,
        action=desired_action.action,
        expected_state_id=state_id,
        evidence=refs[:50],
        playbook=playbook,
        expires_at=min(latest, desired_action.until) if desired_action.until else latest,
    )


def _place_of(run: RunFact | None) -> str:
    """`flow/deployment` of a run, or its flow where it has no deployment; empty without a run."""
    if run is None:
        return ""
    return f"{run.flow_name}/{run.deployment_name}" if run.deployment_name else run.flow_name


def _case(s: IncidentContext, desired_action: DesiredAction, alternatives: tuple[str, ...]) -> CaseFile:
    known: dict[str, Any] = {}
    if s.forecast is not None:
        known = {
            "p_fail": s.forecast.p_fail,
            "forecast_model": s.forecast.model,
            "forecast_reasons": s.forecast.reasons,
        }
    began = (
        s.run.ended or s.run.updated
        if s.run and s.finding.failure_class not in NOT_A_FAILURE
        else s.finding.found_at
    )
    run = s.run
    shown = next((e.note for e in reversed(s.finding.evidence) if e.tainted), "")
    return CaseFile(
        causes=causes_of(
            s.finding,
            run,
            tuple(e.note for e in s.finding.evidence if e.tainted),
            failed_children=s.around.failed_children,
        ),
        deployment=_place_of(run),
        error=shown[:500],
        subject=s.finding.subject,
        failure_class=s.finding.failure_class.value,
        found_by=s.finding.by,
        rule_id=s.finding.rule_id,
        fingerprint=s.finding.fingerprint,
        notes=tuple(e.note for e in s.finding.evidence),
        expected_effect=desired_action.effect,
        alternatives=alternatives,
        failed_at=began,
        **known,
    )
