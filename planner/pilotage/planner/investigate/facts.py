"""What an investigation without a model looks at: a failed run, its deployment's history, its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.planner.detect.context import background_of
from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.findings import Finding
from pilotage.planner.incidents.causes import causes_of
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import Background
from pilotage.planner.similar_incidents import PastIncident, past_incidents
from pilotage.telemetry.facts import LogLine, RunFact, StateType
from pilotage.telemetry.queries import fleet
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.queries.site import SiteFacts, site_facts
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

NEAR = timedelta(minutes=45)
"""Failures of others so close are looked at together; an outage is seen by all who call within it."""
HISTORY = 60
"""Ended runs of the deployment that are read."""
NEIGHBOURS = 60
"""Failures of others that are diagnosed."""
LOGS = 200
FAILED = frozenset({StateType.FAILED, StateType.CRASHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A failure of another deployment at about the same time."""

    run: RunFact
    finding: Finding
    causes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    """Everything about one failed run."""

    run: RunFact
    logs: tuple[LogLine, ...]
    finding: Finding
    causes: frozenset[str]
    around: Background
    children: tuple[tuple[RunFact, Finding], ...]
    """Failed runs that it had started, with what is wrong with each."""
    ended: tuple[RunFact, ...]
    """Of the same deployment, newest first, the run itself among them."""
    neighbours: tuple[Neighbour, ...]
    completed_in_pool: tuple[RunFact, ...]
    """Runs of other deployments in the same pool that began after the failure of this one and completed."""
    site: SiteFacts
    past: tuple[PastIncident, ...]


def case_facts(store: Store, run: RunFact, now: datetime, parameters: PlaybookParameters) -> CaseFacts:
    """Return what is known around a failed run. Raises StoreError."""
    logs = run_queries.logs_of(store, run.run_id, LOGS)
    finding = diagnose_run(run, logs, now)
    failed_at = run.ended or run.updated
    rows = store.rows(
        "SELECT * FROM runs WHERE state_type IN ('FAILED', 'CRASHED') AND ended BETWEEN ? AND ? AND run_id <> ? "
        "AND coalesce(deployment_id, flow_name) <> ? ORDER BY ended, run_id LIMIT ?",
        [failed_at - NEAR, failed_at + NEAR, run.run_id, run.deployment_id or run.flow_name, NEIGHBOURS],
    )
    neighbours = []
    for other in facts_from_rows(RunFact, rows):
        known = diagnose_run(other, run_queries.logs_of(store, other.run_id, LOGS), now)
        neighbours.append(Neighbour(run=other, finding=known, causes=_causes(known, other)))
    well = store.rows(
        "SELECT * FROM runs WHERE state_type = 'COMPLETED' AND pool = ? AND started BETWEEN ? AND ? "
        "AND coalesce(deployment_id, '') <> ? ORDER BY started, run_id LIMIT 20",
        [run.pool or "", failed_at - timedelta(minutes=5), failed_at + NEAR, run.deployment_id or ""],
    )
    return CaseFacts(
        run=run,
        logs=tuple(logs),
        finding=finding,
        causes=_causes(finding, run),
        around=background_of(store, run, None, now, parameters),
        children=tuple(
            (child, diagnose_run(child, run_queries.logs_of(store, child.run_id, LOGS), now))
            for child in fleet.failed_children(store, run)
        ),
        ended=tuple(fleet.last_ended(store, run.deployment_id, HISTORY)) if run.deployment_id else (run,),
        neighbours=tuple(neighbours),
        completed_in_pool=tuple(facts_from_rows(RunFact, well)) if run.pool else (),
        site=site_facts(store, now),
        past=past_incidents(store, finding),
    )


def _causes(finding: Finding, run: RunFact) -> frozenset[str]:
    notes = tuple(each.note for each in finding.evidence if each.tainted)
    return frozenset(
        key for key in causes_of(finding, run, notes) if not key.startswith(("fault:", "ongoing:", "run:"))
    )
