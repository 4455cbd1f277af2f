"""The detector of running runs that nobody owns, and its playbook."""

from __future__ import annotations

from pilotage.planner.detect.ongoing import ongoing_finding
from pilotage.planner.detect.registry import DetectorSnapshot
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.remediation import DesiredAction, IncidentContext, Playbook, Remediation, run_of
from pilotage.telemetry.queries import fleet
from pilotage_example.action import LabelRun

RULE = "unowned-run"


def unowned_runs(at: DetectorSnapshot) -> list[Finding]:
    """Return a finding for each running run without an `owner:` tag."""
    return [
        ongoing_finding(
            f"run:{run.run_id}",
            FailureClass.AT_RISK,
            at.now,
            episode=run.run_id,
            rule_id=RULE,
            evidence=(Evidence(ref=f"state:{run.state_id}", note="the run has no `owner:` tag"),),
        )
        for run in fleet.running(at.store)
        if not any(tag.startswith("owner:") for tag in run.tags)
    ]


def label_it(s: IncidentContext) -> Remediation:
    """Ask for a label."""
    label = LabelRun(run_id=run_of(s).run_id, label="unowned")
    return Remediation(desired=(DesiredAction(action=label, effect="people find the run"),))


PLAYBOOK = Playbook("label-unowned", label_it)
