"""What a plan may be made of: concrete actions that playbooks offer for a finding, and nothing that its origin forbids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pilotage.planner.actions.preconditions import AGAIN
from pilotage.planner.actions.types import ActionKind, action_as_json
from pilotage.planner.detect.context import background_of
from pilotage.planner.detect.registry import DETECTORS, DetectorSnapshot
from pilotage.planner.findings import Finding
from pilotage.planner.investigate.eliminate import with_clues
from pilotage.planner.investigate.facts import CaseFacts
from pilotage.planner.investigate.types import Conclusion, Origin, Step
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks.plan import Plan, owner_told, plan_for
from pilotage.planner.remediation import IncidentContext
from pilotage.planner.similar_incidents import PastIncident
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.forecasts import Forecast, Forecaster
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.store.protocol import Store

NO_RETRY = frozenset({Origin.VALUE, Origin.CHANGE, Origin.CHILD})
"""Origins for which running the same again meets the same, or is another run's matter."""


def plan_for_failure(
    f: CaseFacts, conclusion: Conclusion, now: datetime, parameters: PlaybookParameters, permitted: Sequence[ActionKind],
    forecast: Forecast | None = None,
) -> Plan:  # fmt: skip
    """Return the proposals for a failed run whose origin is known."""
    finding = replace(
        f.finding,
        failure_class=conclusion.failure_class,
        evidence=with_clues(f.finding.evidence, conclusion),
    )
    kinds = [kind for kind in permitted if not (conclusion.origin in NO_RETRY and kind in AGAIN)]
    vain = did_not_help(f.past)
    kinds = [kind for kind in kinds if kind not in vain]
    context = IncidentContext(
        finding=finding, run=f.run, forecast=forecast, around=f.around, now=now, parameters=parameters
    )
    plan = plan_for(context, kinds)
    if vain:
        told = tuple(f"{kind}: it did not help when the same fault came before" for kind in sorted(vain))
        plan = replace(plan, alternatives=(*plan.alternatives, *told))
    if (vain or conclusion.origin in NO_RETRY) and not plan.proposals and "notify_owner" in permitted:
        return replace(owner_told(context), alternatives=plan.alternatives)
    return plan


def did_not_help(past: Sequence[PastIncident]) -> frozenset[str]:
    """Return the kinds that were carried out for the same fault before and never kept their promise."""
    same = [action for incident in past if incident.likeness == 1 for action in incident.actions]
    helped = {action.action for action in same if action.helped}
    return frozenset(action.action for action in same if action.helped is False) - helped - {"notify_owner"}


def plan_for_wait(
    store: Store, forecaster: Forecaster, conclusion: Conclusion, now: datetime, parameters: PlaybookParameters,
    permitted: Sequence[ActionKind],
) -> Plan:  # fmt: skip
    """Return the proposals for what stands still: those of the detectors' finding about it, if one has found it yet."""
    snapshot = DetectorSnapshot(store=store, forecaster=forecaster, parameters=parameters, now=now)
    for look in DETECTORS:
        try:
            findings = look(snapshot)
        except AdapterError:
            continue
        for finding in findings:
            if _about(finding, conclusion):
                subject = finding.subject
                run = (
                    run_queries.run(store, subject.removeprefix("run:"))
                    if subject.startswith("run:")
                    else None
                )
                around = background_of(store, run, finding, now, parameters)
                context = IncidentContext(
                    finding=finding, run=run, forecast=None, around=around, now=now, parameters=parameters
                )
                return plan_for(context, permitted)
    return Plan(
        playbook="", alternatives=("nothing: it has not waited for long enough to be anybody's trouble",)
    )


def _about(finding: Finding, conclusion: Conclusion) -> bool:
    return finding.subject in (conclusion.root, conclusion.subject) or (
        bool(conclusion.cause) and finding.cause == f"ongoing:{conclusion.cause}:{conclusion.root}"
    )


def steps_of(plan: Plan) -> list[Step]:
    """Return the plan as ordered actions, each with what would show that it worked."""
    return [
        Step(
            action=action_as_json(proposal.action),
            shows=case.expected_effect or "the trouble is found no more",
        )
        for proposal, case in plan.proposals
    ]
