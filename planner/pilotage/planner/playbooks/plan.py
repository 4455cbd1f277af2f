"""Turns an incident context into proposals: the playbook of its class, quarantine on top, and only permitted kinds.

What is decided here is decided in `playbooks`; this gives each desired action its id, its expiry and its case file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilotage.planner.actions.preconditions import AGAIN, KnownRun, why_not
from pilotage.planner.actions.types import Action, ActionKind, RetryRun
from pilotage.planner.findings import NEEDS_NO_RUN, NOT_A_FAILURE
from pilotage.planner.incidents.causes import causes_of
from pilotage.planner.playbooks.registry import playbook_for, quarantine, remedy
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.planner.remediation import DesiredAction, IncidentContext, Remediation, notify, run_of
from pilotage.telemetry.facts import RunFact


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
    if s.around.remedy_helped:
        remediation = after_the_remedy(s)
    rejected = [*remediation.alternatives, *none_because]
    wanted = [*remedies, *remediation.desired, *quarantine(s)]
    if remedies:
        # what must change first changes first; what comes next depends on what came of it
        wanted, held = list(remedies), [w for w in wanted if w.action.kind in AGAIN]
        rejected += [f"{w.action.kind}: the remedy that its owners declared comes first" for w in held]
    by_parent = s.around.parent_ended == "badly" and s.finding.failure_class not in NOT_A_FAILURE
    if by_parent:
        # whoever is tried again starts another run in its place: both would do its work twice
        wanted, held = [w for w in wanted if w.action.kind not in AGAIN], wanted
        rejected += [
            f"{w.action.kind}: the run that started it is tried again, and starts another in its place"
            for w in held
            if w.action.kind in AGAIN
        ]
    again = any(w.action.kind in AGAIN for w in wanted)
    if again and any(w.action.kind == "pause_deployment" for w in wanted):
        # never a pause beside a retry: the retry first, and the pause where the fault goes on and on
        goes_on = s.around.same_fault_in_row >= 2 * s.parameters.quarantine_after
        dropped = AGAIN if goes_on else frozenset({"pause_deployment"})
        why = "the deployment is paused instead" if goes_on else "the run is tried again first"
        rejected += [f"{w.action.kind}: {why}" for w in wanted if w.action.kind in dropped]
        wanted = [w for w in wanted if w.action.kind not in dropped]
    run = KnownRun(state_type=s.run.state_type, has_deployment=bool(s.run.deployment_id)) if s.run else None
    impossible = {w.action.kind: why for w in wanted if (why := why_not(w.action, run))}
    rejected += [f"{kind}: {why}" for kind, why in impossible.items()]
    wanted = [w for w in wanted if w.action.kind not in impossible]
    kinds = {w.action.kind for w in wanted}
    failed = s.finding.failure_class not in NOT_A_FAILURE
    told = by_parent or (
        s.run is not None and s.run.parent_task_run_id is not None and not s.run.deployment_id
    )
    if "notify_owner" not in kinds and failed and (not kinds or "pause_deployment" in kinds) and not told:
        wanted += notify(s)
    refused = tuple(
        f"{w.action.kind}: not offered to this planner"
        for w in wanted
        if w.action.kind not in permitted_kinds
    )
    proposals = tuple(
        (_proposal(s, desired_action, name), _case(s, desired_action, (*rejected, *refused)))
        for desired_action in wanted
        if desired_action.action.kind in permitted_kinds
    )
    return Plan(playbook=name, proposals=proposals, alternatives=(*rejected, *refused))


def owner_told(s: IncidentContext) -> Plan:
    """Return the plan that tells the owner and does nothing else."""
    return Plan(
        playbook="owner", proposals=tuple((_proposal(s, w, "owner"), _case(s, w, ())) for w in notify(s))
    )


def after_the_remedy(s: IncidentContext) -> Remediation:
    """The run tried again once its remedy has ended well, whatever its class; its owner when attempts are used up."""
    run = run_of(s)
    if run.run_count >= s.parameters.max_attempts:
        why = f"retry_run: it has been tried {run.run_count} times"
        return Remediation(desired=notify(s), alternatives=(why,))
    again = RetryRun(run_id=run.run_id)
    effect = "what had to change first has changed, so the same run completes"
    return Remediation(desired=(DesiredAction(action=again, effect=effect),))


def proposal_id(incident: str, action: Action, attempt: str) -> str:
    """`p-` and 12 hex digits: equal for the same desired action in the same attempt, whatever its numbers."""
    seed = json.dumps([incident, action.kind, attempt])
    return "p-" + hashlib.sha256(seed.encode()).hexdigest()[:12]


def _proposal(s: IncidentContext, desired_action: DesiredAction, playbook: str) -> Proposal:
    state_id = s.run.state_id if s.run and desired_action.bound_to_state else ""
    # A failure's state is its attempt. Other trouble is proposed on once, whatever states follow.
    attempt = s.run.state_id if s.run and s.finding.failure_class not in NOT_A_FAILURE else ""
    latest = s.now + s.parameters.proposal_life
    refs = desired_action.rests_on or tuple(dict.fromkeys(e.ref[:300] for e in s.finding.evidence))
    if s.forecast is not None:
        refs = (*refs, f"forecast:{s.forecast.run_id}")
    if desired_action.plan:
        refs = (desired_action.plan, *refs)
    return Proposal(
        id=proposal_id(s.finding.incident_id, desired_action.action, attempt),
        incident_id=s.finding.incident_id,
        action=desired_action.action,
        expected_state_id=state_id,
        evidence=tuple(dict.fromkeys(refs))[:50],
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
