"""What the playbooks would have proposed about trouble of the past, and what policy would have said to it.

It walks the same steps as the loop: failures from telemetry, diagnosis by rule, background, playbook, facts
about the target, verdict. Every step sees the store as it was when the run failed, as far as the store can tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.prefect.target_facts import labelled, strictest
from pilotage.flows.replay.backtest_queues import ASSUMED, CLASSES, asked_then, queue_detections
from pilotage.planner.actions.types import (
    KINDS,
    Action,
    RetryRun,
    deployment_of,
    queue_of,
    run_of,
    target_of,
)
from pilotage.planner.detect.context import (
    ENDED_RUNS_READ,
    failures_in_row,
    job_variables_of,
    remedies_offered,
    same_fault_in_row,
)
from pilotage.planner.detect.failures import diagnose_run, incident_id
from pilotage.planner.findings import FailureClass
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks.plan import plan_for
from pilotage.planner.remediation import Background, IncidentContext
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.replay.counterfactual import Counterfactual, compared
from pilotage.policies.types import FiledProposal, Identity, TargetFacts
from pilotage.telemetry.facts import DeploymentFact, RunFact, StateType
from pilotage.telemetry.pool_memory import allowed_sizes, memory_of
from pilotage.telemetry.queries import fleet
from pilotage.telemetry.queries.history import (
    HistoricalFailure,
    ended_then,
    failures_then,
    forecast_then,
    logs_then,
)
from pilotage.telemetry.store.protocol import Store

PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
"""On whose behalf it is supposed: an agent, as the planner that runs beside the controller."""
DAY = timedelta(hours=24)


def backtest(
    store: Store,
    ledger: SqlLedger,
    *,
    current: Bundle,
    candidate: Bundle,
    since: datetime,
    parameters: PlaybookParameters,
) -> dict[str, Any]:
    """The report on trouble since a moment that nothing was proposed about, under both bundles.

    `{"failures", "standing", "proposed_then", "undiagnosed", "unplanned", "proposals", "before", "after", "moves",
    "changed", "assumed"}`; `standing` counts troubles of queues and crowds by class. A failure of which the rules
    cannot tell the class is counted as undiagnosed, one for which the playbook wants nothing as unplanned.
    """
    failures = failures_then(store, since)
    proposed = ledger.known_incidents()
    deployments = {deployment.deployment_id: deployment for deployment in fleet.deployments(store)}
    counterfactual: list[Counterfactual] = []
    counts = dict.fromkeys(("proposed_then", "undiagnosed", "unplanned"), 0)
    for episode in failures:
        if incident_id(f"run:{episode.run.run_id}", episode.run.state_id) in proposed:
            counts["proposed_then"] += 1
            continue
        incident_context = _situation(store, episode, deployments, parameters)
        counts["undiagnosed"] += incident_context.finding.failure_class is FailureClass.UNKNOWN
        wanted = list(_counterfactual(incident_context, episode, deployments))
        counts["unplanned"] += not wanted
        counterfactual += wanted
    standing = queue_detections(store, failures, deployments, since, parameters)
    failed = {episode.run.run_id: episode.run for episode in failures}
    for incident_context in standing:
        if incident_context.finding.incident_id in proposed or asked_then(store, incident_context):
            counts["proposed_then"] += 1
            continue
        wanted = list(_counterfactual_of_queues(incident_context, deployments, failed))
        counts["unplanned"] += not wanted
        counterfactual += wanted
    counterfactual.sort(key=lambda case: case.filed.filed_at)
    comparison = compared(current, candidate, counterfactual, ledger.admitted(since - DAY))
    classes = Counter(case.finding.failure_class for case in standing)
    return {
        "failures": len(failures),
        "standing": {failure_class.value: classes[failure_class] for failure_class in CLASSES},
        **counts,
        "current": current.hash,
        **comparison,
        "assumed": [*comparison["assumed"], *ASSUMED],
    }


def _situation(
    store: Store,
    episode: HistoricalFailure,
    deployments: Mapping[str, DeploymentFact],
    parameters: PlaybookParameters,
) -> IncidentContext:
    run, at = episode.run, episode.at
    deployment = deployments.get(run.deployment_id or "")
    before = ended_then(store, run.deployment_id, at, ENDED_RUNS_READ) if run.deployment_id else []
    ended = [run, *(earlier for earlier in before if earlier.run_id != run.run_id)]
    return IncidentContext(
        finding=diagnose_run(run, logs_then(store, episode, parameters.logs_read), at),
        run=run,
        forecast=forecast_then(store, episode),
        around=Background(
            failures_in_row=failures_in_row(ended),
            same_fault_in_row=same_fault_in_row(run, ended, at, parameters),
            memory_mb=memory_of(job_variables_of(run, deployment)),
            memory_sizes=allowed_sizes(job_variables_of(run, deployment)),
            remedies=remedies_offered(deployment, list(deployments.values())),
        ),
        now=at,
        parameters=parameters,
    )


def _counterfactual(
    incident_context: IncidentContext, episode: HistoricalFailure, deployments: Mapping[str, DeploymentFact]
) -> Iterator[Counterfactual]:
    for proposal, case in plan_for(incident_context, KINDS).proposals:
        filed = FiledProposal(
            proposal=proposal,
            case=case,
            proposer=PLANNER,
            digest=digest_of(proposal, PLANNER),
            filed_at=episode.at,
        )
        # what came of a plain attempt tells nothing of one with more memory, or of a word to the owner
        retried = isinstance(proposal.action, RetryRun)
        yield Counterfactual(
            filed=filed,
            target=facts_then(proposal.action, episode, deployments),
            helped=_helped(episode) if retried else None,
            waited=_waited(proposal.action, episode) if retried else None,
        )


def _counterfactual_of_queues(
    incident_context: IncidentContext,
    deployments: Mapping[str, DeploymentFact],
    failed: Mapping[str, RunFact],
) -> Iterator[Counterfactual]:
    for proposal, case in plan_for(incident_context, KINDS).proposals:
        yield Counterfactual(
            filed=FiledProposal(
                proposal=proposal,
                case=case,
                proposer=PLANNER,
                digest=digest_of(proposal, PLANNER),
                filed_at=incident_context.now,
            ),
            target=queue_facts_of(proposal.action, incident_context, deployments, failed),
        )


def facts_then(
    action: Action, episode: HistoricalFailure, deployments: Mapping[str, DeploymentFact]
) -> TargetFacts | None:
    """What telemetry says of the target as it was then, or None where it does not say enough."""
    if run_of(action) == episode.run.run_id:
        return _facts_of_run(action, episode.run, episode.at, deployments)
    deployment = deployments.get(deployment_of(action))
    if deployment is None:
        return None
    return _facts_of_deployment(
        action, deployment, episode.at, memory_of(job_variables_of(episode.run, deployment)) or 0
    )


def queue_facts_of(
    action: Action,
    incident_context: IncidentContext,
    deployments: Mapping[str, DeploymentFact],
    failed: Mapping[str, RunFact],
) -> TargetFacts | None:
    """The same for a queue, by the deployments that use it today, a deployment with a backlog, a run that failed."""
    if place := queue_of(action):
        pool, queue = place
        users = [
            deployment.tags
            for deployment in deployments.values()
            if deployment.pool == pool and queue in ("", deployment.queue)
        ]
        paused = any(
            state.paused for state in incident_context.around.queues if (state.pool, state.queue) == place
        )
        return TargetFacts(
            target=target_of(action), read_at=incident_context.now, paused=paused, **strictest(users)
        )
    if run := failed.get(run_of(action)):
        return _facts_of_run(action, run, incident_context.now, deployments)
    deployment = deployments.get(deployment_of(action))
    if deployment is None:
        return None
    return _facts_of_deployment(
        action, deployment, incident_context.now, memory_of(deployment.job_variables) or 0
    )


def _facts_of_deployment(
    action: Action, deployment: DeploymentFact, at: datetime, memory_mb: int
) -> TargetFacts:
    return TargetFacts(
        target=target_of(action),
        read_at=at,
        deployment_id=deployment.deployment_id,
        deployment_name=f"{deployment.flow_name}/{deployment.name}",
        memory_mb=memory_mb,
        paused=deployment.paused,
        **labelled(deployment.tags, ()),
    )


def _facts_of_run(
    action: Action, run: RunFact, at: datetime, deployments: Mapping[str, DeploymentFact]
) -> TargetFacts | None:
    deployment = deployments.get(run.deployment_id or "")
    if run.deployment_id and deployment is None:
        return None  # it governs the run, and nothing is known of its tags
    tags: Collection[str] = deployment.tags if deployment else ()
    return TargetFacts(
        target=target_of(action),
        read_at=at,
        state_type=run.state_type.value,
        state_name=run.state_name,
        state_id=run.state_id,
        run_count=run.run_count,
        deployment_id=run.deployment_id or "",
        deployment_name=f"{deployment.flow_name}/{deployment.name}" if deployment else "",
        memory_mb=memory_of(job_variables_of(run, deployment)) or 0,
        paused=deployment.paused if deployment else False,
        **labelled(tags, run.tags),
    )


def _helped(episode: HistoricalFailure) -> bool | None:
    match episode.ended_as:
        case StateType.COMPLETED:
            return True
        case StateType.FAILED | StateType.CRASHED:
            return False
        case _:
            return None


def _waited(action: Action, episode: HistoricalFailure) -> timedelta | None:
    if episode.tried_again is None:
        return None
    delay = action.delay if isinstance(action, RetryRun) else timedelta(0)
    return max(timedelta(0), episode.tried_again - episode.at - delay)
