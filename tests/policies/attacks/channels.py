"""Every way by which a stranger's text gets in, through the code by which it gets in.

A channel writes the text into what Prefect or a model sends. From there on nothing is made up: the collector's
records, diagnosis, the playbook, and the controller's own reading of the target over HTTP. What comes out is
what an obedient planner has in its hands when it does what the text says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from pydantic import ValidationError
from tests.policies.attacks.obedient import DEPLOYMENT, NOW, PILOT, RUN, Deed

from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.planner.actions.types import KINDS, target_of
from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.findings import Finding
from pilotage.planner.llm.prompts import ModelDiagnosis, class_of
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks.plan import plan_for
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.planner.remediation import Background, IncidentContext
from pilotage.policies.digests import digest_of
from pilotage.policies.types import FiledProposal, TargetFacts
from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.prefect.models import event_fact, log_line, run_fact

FLOW = "33333333-3333-4333-8333-333333333333"
STATE = "44444444-4444-4444-8444-444444444444"


@dataclass(slots=True, kw_only=True)
class World:
    """What Prefect and a model send, as JSON."""

    run: dict[str, Any]
    deployment: dict[str, Any]
    flow: dict[str, Any]
    logs: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    reply: str = ""
    """Of a model that was asked what class of failure this is."""


def cedar_context(deed: Deed) -> World:
    """A world in which the deed could be done, without any stranger's text."""
    state = str(deed.facts.get("state_type") or "FAILED")
    tier = deed.facts.get("tier")
    return World(
        run={
            "id": RUN,
            "name": "brave-otter",
            "flow_id": FLOW,
            "deployment_id": DEPLOYMENT,
            "state": {
                "id": STATE,
                "type": state,
                "name": state.title(),
                "message": "ConnectionError: reset by peer",
                "timestamp": NOW.isoformat(),
            },
            "run_count": 1,
            "created": NOW.isoformat(),
            "updated": NOW.isoformat(),
            "end_time": NOW.isoformat(),
            "work_pool_name": "p",
            "work_queue_name": "a",
            "tags": [],
            "parameters": {"day": "2027-03-01"},
            "job_variables": {"memory_mb": 256},
        },
        deployment={
            "id": DEPLOYMENT,
            "name": "nightly",
            "flow_id": FLOW,
            "tags": [*deed.tags, *([f"tier:{tier}"] if tier is not None else [])],
            "work_pool_name": "p",
            "work_queue_name": "a",
        },
        flow={"name": "etl"},
    )


def _log_lines(world: World, text: str) -> None:
    line = {"id": "l-1", "flow_run_id": RUN, "timestamp": NOW.isoformat(), "level": 40, "message": text}
    world.logs.append(line)


def _state_messages(world: World, text: str) -> None:
    world.run["state"]["message"] = text


def _state_names(world: World, text: str) -> None:
    world.run["state"]["name"] = text


def _parameters(world: World, text: str) -> None:
    world.run["parameters"] = {"batch": text, text[:40]: [text]}
    world.run["job_variables"] = {**world.run["job_variables"], "note": text}


def _run_names(world: World, text: str) -> None:
    world.run["name"] = text


def _deployment_names(world: World, text: str) -> None:
    world.deployment["name"] = world.flow["name"] = text


def _tags(world: World, text: str) -> None:
    world.run["tags"] = [text]


def _artifact_text(world: World, text: str) -> None:
    world.events.append(
        {
            "id": "e-1",
            "occurred": NOW.isoformat(),
            "event": "prefect.artifact.created",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{RUN}"},
            "payload": {"key": "report", "data": text, "description": text},
        }
    )


def _model_replies(world: World, text: str) -> None:
    # what no rule knows is asked of a model, and this is what it says
    world.run["state"]["message"] = "something broke"
    world.reply = text


CHANNELS: Mapping[str, Callable[[World, str], None]] = {
    "log lines": _log_lines,
    "state messages": _state_messages,
    "state names": _state_names,
    "parameters": _parameters,
    "run names": _run_names,
    "deployment names": _deployment_names,
    "tags": _tags,
    "artifact text": _artifact_text,
    "model replies": _model_replies,
}
"""Tool results stand in `test_channels`: there a model reads what a tool quotes, and hands in what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """What the planner's own code made of a world."""

    finding: Finding
    run: RunFact
    evidence: tuple[str, ...]
    """Every reference that a planner can name for what it read."""
    own: tuple[Proposal, ...]
    """What our planner proposes of it."""


def heard(world: World) -> TurnResult:
    """Collected, diagnosed and planned by the code that does so."""
    run = run_fact(world.run, flow_name=world.flow["name"], deployment_name=world.deployment["name"])
    logs = [line for each in world.logs if (line := log_line(each)) is not None]
    events = [event_fact(each) for each in world.events]
    finding = diagnose_run(run, logs, NOW)
    if world.reply and (answered := _answered(world.reply)) is not None:
        finding = replace(finding, failure_class=class_of(answered), by="model")
    around = Background(memory_mb=256, newest_failure=True)
    incident_context = IncidentContext(
        finding=finding, run=run, forecast=None, around=around, now=NOW, parameters=PlaybookParameters()
    )
    plan = plan_for(incident_context, KINDS)
    refs = (
        *(one.ref for one in finding.evidence),
        *(f"event:{one.event_id}" for one in events),
        *(["model:scripted"] if world.reply else []),
    )
    return TurnResult(
        finding=finding, run=run, evidence=refs, own=tuple(proposal for proposal, _ in plan.proposals)
    )


def _answered(reply: str) -> ModelDiagnosis | None:
    try:
        return ModelDiagnosis.model_validate_json(reply)
    except ValidationError:
        return None


def obeyed(deed: Deed, world: World, what: TurnResult) -> FiledProposal:
    """What the obedient planner files: the deed, with the case and the evidence that its own code made of the text."""
    finding = what.finding
    proposal = Proposal(
        id="p-000000000001",
        incident_id="i-000000000001",
        action=deed.action,
        evidence=tuple(ref[:300] for ref in what.evidence),
        playbook="obedient",
        expires_at=NOW.replace(minute=10),
    )
    case = CaseFile(
        subject=target_of(deed.action),
        failure_class=finding.failure_class.value,
        found_by=finding.by,
        rule_id=finding.rule_id,
        fingerprint=finding.fingerprint,
        notes=tuple(one.note for one in finding.evidence),
        explanation=world.reply[:2000],
    )
    return FiledProposal(
        proposal=proposal, case=case, proposer=PILOT, digest=digest_of(proposal, PILOT), filed_at=NOW
    )


class Prefect:
    """A Prefect that answers over HTTP with one world after the other."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.api = PrefectApi("http://prefect.test/api", transport=httpx.MockTransport(self._answer))

    async def facts(self, deed: Deed, world: World) -> TargetFacts:
        """What the controller finds out about the deed's target, as if it were the suite's noon."""
        self.world = world
        target = await PrefectFacts(self.api).target(deed.action)
        return replace(target, read_at=NOW, seconds_to_start=0)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        world, path = self.world, request.url.path.removeprefix("/api")
        assert world is not None
        match request.method, path.strip("/").split("/"):
            case "POST", ["flow_runs", "filter"]:  # its deployment has this run and no other
                return _json([world.run])
            case "GET", ["flow_runs", _]:
                return _json(world.run)
            case "GET", ["deployments", _]:
                return _json(world.deployment)
            case "GET", ["flows", _]:
                return _json(world.flow)
            case "GET", ["work_pools", name]:
                template = {
                    "variables": {"properties": {"memory_mb": {"type": "integer"}}},
                    "job_configuration": {"memory": "{{ memory_mb }}"},
                }
                return _json({"name": name, "type": "process", "base_job_template": template})
            case "POST", ["work_pools", _, "queues", "filter"]:
                return _json([{"name": name, "priority": 1} for name in ("a", "b")])
            case "POST", ["deployments", "filter"]:
                return _json([world.deployment])
            case "POST", ["logs", "filter"]:
                return _json(world.logs)
            case "POST", ["task_runs", "filter"]:
                return _json([])
            case other:
                raise AssertionError(f"nobody answers {other}")


def _json(value: object) -> httpx.Response:
    return httpx.Response(200, content=json.dumps(value), headers={"content-type": "application/json"})
