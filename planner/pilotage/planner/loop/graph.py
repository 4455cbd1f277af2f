"""One trouble thought through: observe, diagnose, investigate where that is not settled, forecast, propose, as a LangGraph
graph that changes nothing.

The graph returns proposals; whoever runs it files them. LangGraph runs a node at least once, so no node has an
effect. The state is plain JSON, because that is what a checkpoint can keep; typed values are made and unmade at
the nodes' edges. A model is optional: it may name a class where the rules know none, investigate with look-ups, choose
among what playbooks offer, and add prose.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import TypeAdapter

from pilotage.planner.actions.types import ActionKind
from pilotage.planner.detect.context import background_of
from pilotage.planner.detect.failures import diagnose_run, opinion_on
from pilotage.planner.detect.reasoning import EXAMPLES
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.findings import NOT_A_FAILURE, Evidence, FailureClass, Finding
from pilotage.planner.investigate.eliminate import with_clues
from pilotage.planner.investigate.offers import did_not_help
from pilotage.planner.investigate.types import as_json
from pilotage.planner.llm.budget import attribute_cost
from pilotage.planner.llm.prompts import ModelDiagnosis, class_of, diagnosis_prompt, explanation_prompt
from pilotage.planner.llm.protocol import LanguageModel
from pilotage.planner.loop.allowance import Allowance
from pilotage.planner.loop.investigation import investigation
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.playbooks.plan import Plan, plan_for
from pilotage.planner.proposals import LONGEST_EXPLANATION, CaseFile, Proposal
from pilotage.planner.remediation import Background, IncidentContext
from pilotage.planner.similar_incidents import past_incidents, remembered_class, similar_incident
from pilotage.telemetry.errors import ModelError, StoreError
from pilotage.telemetry.facts import LogLine, RunFact, StateType
from pilotage.telemetry.forecast.retry_texts import ERROR, log_tail
from pilotage.telemetry.forecasts import Forecast, Forecaster, RetryForecast, RetryForecaster
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.store.protocol import Store

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

log = logging.getLogger(__name__)

REMEMBERED_CONFIDENCE = 0.8
"""How sure a class counts that the same fault had before."""
MODEL_CONFIDENCE = 0.7
"""How sure a language model's class counts."""

RUN = TypeAdapter(RunFact)
LOGS = TypeAdapter(list[LogLine])
FINDING = TypeAdapter(Finding)
FORECAST = TypeAdapter(Forecast)
RETRY = TypeAdapter(RetryForecast)
FAILED = (StateType.FAILED, StateType.CRASHED)
AROUND = TypeAdapter(Background)
PROPOSALS = TypeAdapter(list[tuple[Proposal, CaseFile]])


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDeps:
    """What the nodes work with; given to each run of the graph and never checkpointed."""

    store: Store
    forecaster: Forecaster
    parameters: PlaybookParameters
    clock: Callable[[], datetime]
    permitted_kinds: tuple[ActionKind, ...]
    model: LanguageModel | None = None
    book: Rulebook = EXAMPLES
    retries: RetryForecaster | None = None
    investigations: Allowance = field(default_factory=Allowance)


class GraphState(TypedDict, total=False):
    """The state: plain JSON only."""

    run_id: str
    """Empty where the trouble has no run."""
    finding: dict[str, Any] | None
    """Given where a detector already found it; made by `diagnose` otherwise."""
    run: dict[str, Any] | None
    logs: list[dict[str, Any]]
    around: dict[str, Any]
    forecast: dict[str, Any] | None
    retry: dict[str, Any] | None
    proposals: list[Any]
    alternatives: list[str]
    playbook: str
    conclusion: dict[str, Any] | None
    """Of an investigation; see `pilotage.planner.investigate.types.as_json`."""
    vain: bool
    """Whether something was done about the same fault before and did not help."""
    chosen: list[str] | None
    """Kinds of the investigation's plan, in order; None where there was none."""


async def observe(state: GraphState, runtime: Runtime[GraphDeps]) -> GraphState:
    """The run, its newest logs and what stands around it, read from the store."""
    graph_deps = runtime.context
    given = FINDING.validate_python(state["finding"]) if state.get("finding") else None

    def read() -> tuple[RunFact | None, list[LogLine], Background]:
        run = run_queries.run(graph_deps.store, state["run_id"]) if state["run_id"] else None
        logs = (
            run_queries.logs_of(graph_deps.store, run.run_id, graph_deps.parameters.logs_read) if run else []
        )
        around = background_of(graph_deps.store, run, given, graph_deps.clock(), graph_deps.parameters)
        return run, logs, around

    run, logs, around = await asyncio.to_thread(read)
    return {
        "run": RUN.dump_python(run, mode="json") if run else None,
        "logs": LOGS.dump_python(logs, mode="json"),
        "around": AROUND.dump_python(around, mode="json"),
    }


async def diagnose(state: GraphState, runtime: Runtime[GraphDeps]) -> GraphState:
    """The finding: as given, by rule, from memory, by the classifier, or by the model where none of them knows."""
    if state.get("finding") or not state["run"]:
        return {}
    run, logs = RUN.validate_python(state["run"]), LOGS.validate_python(state["logs"])
    finding = diagnose_run(run, logs, runtime.context.clock(), runtime.context.book)
    if finding.failure_class is FailureClass.UNKNOWN:
        finding = await asyncio.to_thread(_as_its_child, runtime.context, state, finding)
    past = await asyncio.to_thread(past_incidents, runtime.context.store, finding)
    known = remembered_class(past) if finding.failure_class is FailureClass.UNKNOWN else None
    model = runtime.context.model
    if known is not None:
        note = Evidence(
            ref=f"incident:{past[0].incident_id}", note=f"the same fault was read as {known} before"
        )
        finding = replace(
            finding,
            failure_class=known,
            by="memory",
            confidence=REMEMBERED_CONFIDENCE,
            cure=None,
            evidence=(*finding.evidence, note),
        )
    elif finding.failure_class is FailureClass.UNKNOWN and (
        second := await asyncio.to_thread(opinion_on, run, logs)
    ):
        note = Evidence(ref=f"classifier:{second.failure_class}", note=second.because)
        finding = replace(
            finding,
            failure_class=second.failure_class,
            by="classifier",
            confidence=second.confidence,
            cure=second.cure,
            evidence=(*finding.evidence, note),
        )
    elif finding.failure_class is FailureClass.UNKNOWN and model is not None:
        try:
            with attribute_cost(finding.incident_id):
                answer = await model.ask_typed(ModelDiagnosis, diagnosis_prompt(run, logs))
        except ModelError as error:
            log.warning("Diagnosing %s without the model: %s", finding.subject, error)
        else:
            failure_class = class_of(answer)
            if failure_class is not FailureClass.UNKNOWN:
                note = Evidence(
                    ref=f"model:{model.name}"[:300], note=f"a language model reads it as {failure_class}"
                )
                finding = replace(
                    finding,
                    failure_class=failure_class,
                    by="model",
                    confidence=MODEL_CONFIDENCE,
                    cure=None,
                    evidence=(*finding.evidence, note),
                )
    if (incident := similar_incident(past)) is not None:
        finding = replace(finding, evidence=(*finding.evidence, incident))
    return {"finding": FINDING.dump_python(finding, mode="json"), "vain": bool(did_not_help(past))}


def _as_its_child(deps: GraphDeps, state: GraphState, finding: Finding) -> Finding:
    """The finding of a run that failed because of a run that it had started, with what is known of that one."""
    for child_id in AROUND.validate_python(state["around"]).failed_children:
        child = run_queries.run(deps.store, child_id)
        if child is None:
            continue
        logs = run_queries.logs_of(deps.store, child_id, deps.parameters.logs_read)
        known = diagnose_run(child, logs, deps.clock(), deps.book)
        if known.failure_class is not FailureClass.UNKNOWN:
            because = Evidence(
                ref=f"run:{child_id}", note=f"a run that it started failed: {known.failure_class}"
            )
            return replace(
                finding,
                failure_class=known.failure_class,
                rule_id=known.rule_id,
                confidence=known.confidence,
                cure=known.cure,
                wait_seconds=known.wait_seconds,
                evidence=(*finding.evidence, because),
            )
    return finding


def settled(state: GraphState, runtime: Runtime[GraphDeps]) -> Literal["forecast", "investigate"]:
    """Which way from the diagnosis: on, or into what nobody could tell or whose remedy did not help before."""
    if not state.get("finding") or not state["run"]:
        return "forecast"
    finding = FINDING.validate_python(state["finding"])
    if not finding.subject.startswith("run:") or finding.failure_class in NOT_A_FAILURE:
        return "forecast"
    unsettled = finding.failure_class is FailureClass.UNKNOWN or state.get("vain", False)
    return "investigate" if unsettled and runtime.context.investigations.taken() else "forecast"


async def investigate(state: GraphState, runtime: Runtime[GraphDeps]) -> GraphState:
    """What an investigation adds: a class where none was known, clues, and which of the offers the plan is."""
    deps = runtime.context
    finding = FINDING.validate_python(state["finding"])
    with attribute_cost(finding.incident_id):
        outcome = await investigation(
            deps.store, finding.subject, deps.clock, permitted=deps.permitted_kinds, model=deps.model,
            parameters=deps.parameters,
        )  # fmt: skip
    if outcome is None:
        return {}
    conclusion = outcome.found.conclusion
    known = finding.failure_class is not FailureClass.UNKNOWN
    by_model = conclusion.by != "rules"
    told = (
        conclusion.failure_class not in NOT_A_FAILURE and conclusion.failure_class is not FailureClass.UNKNOWN
    )
    if not known and told and by_model:
        finding = replace(
            finding,
            failure_class=conclusion.failure_class,
            by="model",
            confidence=MODEL_CONFIDENCE,
            cure=None,
        )
    finding = replace(finding, evidence=with_clues(finding.evidence, conclusion))
    return {
        "finding": FINDING.dump_python(finding, mode="json"),
        "conclusion": as_json(conclusion),
        "chosen": [step.action["kind"] for step in outcome.found.steps] if by_model else None,
    }


async def forecast(state: GraphState, runtime: Runtime[GraphDeps]) -> GraphState:
    """What is expected of the run's next attempt, and of a retry where it has failed; None where nobody knows."""
    if not state["run"]:
        return {"forecast": None, "retry": None}
    deps = runtime.context
    [*forecasts] = await asyncio.to_thread(deps.forecaster.forecast, [state["run_id"]])
    retry, finding = await asyncio.to_thread(_retry_forecast, deps, state)
    made: GraphState = {
        # a numpy float would not survive the checkpoint
        "forecast": FORECAST.dump_python(
            replace(forecasts[0], p_fail=float(forecasts[0].p_fail)), mode="json"
        )
        if forecasts
        else None,
        "retry": RETRY.dump_python(retry, mode="json") if retry else None,
    }
    if finding is not None:
        made["finding"] = FINDING.dump_python(finding, mode="json")
    return made


def _retry_forecast(deps: GraphDeps, state: GraphState) -> tuple[RetryForecast | None, Finding | None]:
    """Whether another attempt of a failed run succeeds, and the finding with that in words."""
    run = RUN.validate_python(state["run"])
    if deps.retries is None or not state.get("finding") or run.state_type not in FAILED:
        return None, None
    finding = FINDING.validate_python(state["finding"])
    tail = log_tail([line.message for line in LOGS.validate_python(state["logs"]) if line.level >= ERROR])
    try:
        made = deps.retries.retry(
            run.run_id,
            run.deployment_id or run.flow_name,
            max(run.run_count, 1),
            finding.failure_class.value,
            tail or run.state_message,
        )
    except StoreError as error:
        log.warning("Forecasting a retry of %s: %s", finding.subject, error)
        return None, None
    if made is None:
        return None, None
    note = f"another attempt succeeds with {made.p_success:.0%}, by {made.known} known retries of its like"
    told = Evidence(ref=f"forecast:{run.run_id}", note=note)
    return made, replace(finding, evidence=(*finding.evidence, told))


async def propose(state: GraphState, runtime: Runtime[GraphDeps]) -> GraphState:
    """The plan of the class's playbook, with a model's prose where there is one."""
    graph_deps = runtime.context
    if not state.get("finding"):
        return {"proposals": [], "alternatives": ["nothing: the run is not in the store"], "playbook": ""}
    finding = FINDING.validate_python(state["finding"])
    forecast = FORECAST.validate_python(state["forecast"]) if state.get("forecast") else None
    incident_context = IncidentContext(
        finding=finding,
        run=RUN.validate_python(state["run"]) if state["run"] else None,
        forecast=forecast,
        around=AROUND.validate_python(state["around"]),
        now=graph_deps.clock(),
        parameters=graph_deps.parameters,
        retry=RETRY.validate_python(state["retry"]) if state.get("retry") else None,
    )
    plan = as_chosen(plan_for(incident_context, graph_deps.permitted_kinds), state.get("chosen"))
    # what the fault's own history tells needs no prose
    recalled = any(item.ref.startswith("incident:") for item in finding.evidence)
    kinds = [] if recalled else [p.action.kind for p, _ in plan.proposals]
    prose = await _explanation(graph_deps.model, finding, forecast, kinds)
    explained = [
        (p, case.model_copy(update={"explanation": prose[:LONGEST_EXPLANATION]}))
        for p, case in plan.proposals
    ]
    return {
        "proposals": PROPOSALS.dump_python(explained, mode="json"),
        "alternatives": list(plan.alternatives),
        "playbook": plan.playbook,
    }


def as_chosen(plan: Plan, chosen: Sequence[str] | None) -> Plan:
    """The plan in the order of an investigation, without what that left out; its owner is told where nothing is left."""
    if chosen is None:
        return plan
    kept = [pair for kind in chosen for pair in plan.proposals if pair[0].action.kind == kind]
    kept = kept or [pair for pair in plan.proposals if pair[0].action.kind == "notify_owner"]
    left = tuple(
        f"{p.action.kind}: the investigation leaves it out" for p, _ in plan.proposals if (p, _) not in kept
    )
    return replace(plan, proposals=tuple(kept), alternatives=(*plan.alternatives, *left))


async def _explanation(
    model: LanguageModel | None, finding: Finding, made: Forecast | None, kinds: Sequence[str]
) -> str:
    """A model's prose, or nothing: its failure changes nothing else."""
    if model is None or model.down or not kinds:
        return ""
    try:
        with attribute_cost(finding.incident_id):
            said = await model.ask_text(explanation_prompt(finding, made.p_fail if made else None, kinds))
    except ModelError as error:
        log.warning("Explaining %s without the model: %s", finding.subject, error)
        return ""
    return said[:2000]


def build(
    checkpointer: BaseCheckpointSaver[Any] | None,
) -> CompiledStateGraph[GraphState, GraphDeps, GraphState, GraphState]:
    """The compiled graph. Run it with `durability="sync"` and the incident's id as its thread."""
    graph = StateGraph(GraphState, context_schema=GraphDeps)
    graph.add_node("observe", observe)
    graph.add_node("diagnose", diagnose)
    graph.add_node("forecast", forecast)
    graph.add_node("propose", propose)
    graph.add_edge(START, "observe")
    graph.add_edge("observe", "diagnose")
    graph.add_node("investigate", investigate)
    graph.add_conditional_edges("diagnose", settled, ["forecast", "investigate"])
    graph.add_edge("investigate", "forecast")
    graph.add_edge("forecast", "propose")
    graph.add_edge("propose", END)
    return graph.compile(checkpointer=checkpointer, name="planner")


def proposals_in(state: Mapping[str, Any]) -> list[tuple[Proposal, CaseFile]]:
    """The proposals of a finished thought, typed again."""
    return PROPOSALS.validate_json(json.dumps(state.get("proposals", [])))
