"""The investigation as a graph that branches: a model looks things up within a budget, or rules eliminate; then a plan.

    begin ─┬─ no model ────────────────────────────▶ eliminate ─▶ plan
           └─▶ think ─┬─ a look-up ─▶ look ─▶ think
                      ├─ a conclusion ─▶ check ─┬─ holds ─▶ plan
                      └─ budget, or no answer ──┴─────────▶ eliminate

What runs and people wrote is quoted in `think` alone. `plan` sees typed findings and numbered offers of playbooks; it picks
numbers, so no target and no value is a model's own. Nothing here has an effect.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypedDict

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from pilotage.planner.actions.preconditions import AGAIN
from pilotage.planner.actions.types import ActionKind
from pilotage.planner.chat.tool_calls import LONGEST_RESULT
from pilotage.planner.chat.tools import Toolbox, looked_up
from pilotage.planner.findings import FailureClass
from pilotage.planner.investigate.investigation import Investigated, investigate
from pilotage.planner.investigate.offers import NO_RETRY, plan_for_failure
from pilotage.planner.investigate.types import Clue, Conclusion, Hypothesis, Origin
from pilotage.planner.llm.investigating import (
    PLANNING,
    Chosen,
    Conclude,
    Look,
    Thought,
    instructions,
)
from pilotage.planner.llm.protocol import CHARS_PER_TOKEN, LanguageModel
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.similar_incidents import PastIncident
from pilotage.telemetry.errors import AdapterError, ModelError
from pilotage.telemetry.store.protocol import Store

log = logging.getLogger(__name__)

LOOK_UPS = (
    *(
        "run_timeline",
        "log_lines",
        "why_run",
        "why_it_waits",
        "what_waits",
        "run_durations",
        "how_often",
        "what_changed",
    ),
    *(
        "compare_runs",
        "schedules",
        "upcoming_load",
        "limits",
        "workers",
        "automations",
        "queues",
        "find_runs",
    ),
    *("recent_failures", "similar_incidents", "decided_about", "what_was_done"),
)
"""What may be looked up: all of it reads, and none of it asks the ledger or runs SQL."""


OF_WAITS = frozenset({Origin.WAITS, Origin.DEAD_HOLDER, Origin.NONE, Origin.UNKNOWN})
"""What can be said of what has not failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one investigation may take. Whatever is used up first, rules conclude from there."""

    calls: int = 10
    """Calls of the model, the choice of the plan among them."""
    tokens: int = 40_000
    """Of what the model is shown, estimated."""
    seconds: float = 90.0


@dataclass(slots=True, kw_only=True)
class Deps:
    """What the nodes work with in one investigation."""

    store: Store
    clock: Callable[[], datetime]
    parameters: PlaybookParameters
    permitted: tuple[ActionKind, ...]
    model: LanguageModel | None
    budget: Budget
    subject: str
    found: Investigated
    """What rules found: the facts to begin with, and what is concluded when the model cannot."""
    shown: list[BaseMessage] = field(default_factory=list)
    evidence: dict[str, set[str]] = field(default_factory=dict)
    """By key of a look-up, what it names; `facts` are those that were given at the beginning."""
    calls: int = 0
    characters: int = 0
    ends: float = 0.0

    def spent(self) -> bool:
        """Whether nothing more may be asked but the plan."""
        tokens = self.characters / CHARS_PER_TOKEN
        return (
            self.calls >= self.budget.calls - 1
            or tokens >= self.budget.tokens
            or time.monotonic() >= self.ends
        )


class InvestigationState(TypedDict, total=False):
    """The state: which way is next, and what was concluded, in plain JSON."""

    way: Literal["think", "look", "check", "eliminate", "plan"]
    look: dict[str, Any]
    said: dict[str, Any]
    origin: str
    by: str
    order: list[int]
    gaps: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an investigation gave, with what it took."""

    found: Investigated
    calls: int
    tokens: int
    gaps: tuple[str, ...] = ()


async def begin(state: InvestigationState, runtime: Runtime[Deps]) -> InvestigationState:
    """The facts to begin with, typed, and which way: a model thinks, or rules eliminate."""
    deps = runtime.context
    if deps.model is None or deps.model.down:
        return {"way": "eliminate", "gaps": []}
    conclusion, facts = deps.found.conclusion, deps.found.facts
    given = {
        "subject": deps.subject,
        "now": deps.clock().isoformat(),
        "by_rules": {
            "failure_class": conclusion.failure_class.value,
            "origin": conclusion.origin.value,
            "waits_for": conclusion.cause,
            "hypotheses": [
                {
                    "origin": each.origin.value,
                    "for": [c.ref for c in each.supports],
                    "against": [c.ref for c in each.against],
                }
                for each in conclusion.hypotheses
            ],
        },
        "same_fault_before": [_past(each) for each in (facts.past if facts else ())],
    }
    deps.evidence["facts"] = {
        *conclusion.citations,
        *(clue.ref for each in conclusion.hypotheses for clue in (*each.supports, *each.against)),
    }
    tools = {name: " ".join((getattr(Toolbox, name).__doc__ or "").split()) for name in LOOK_UPS}
    deps.shown += [SystemMessage(instructions(tools)), HumanMessage(f"<facts>{json.dumps(given)}</facts>")]
    deps.characters += sum(len(str(message.content)) for message in deps.shown)
    return {"way": "think", "gaps": []}


def _past(incident: PastIncident) -> dict[str, Any]:
    """What came of an earlier plan for the same fault, typed."""
    return {
        "failure_class": incident.failure_class,
        "likeness": incident.likeness,
        "plan": [
            {"action": a.action, "step": a.step, "outcome": a.outcome, "helped": a.helped}
            for a in incident.actions
        ],
    }


async def think(state: InvestigationState, runtime: Runtime[Deps]) -> InvestigationState:
    """The model's next step: a look-up or its conclusion; rules take over when it has none or the budget is used up."""
    deps = runtime.context
    if deps.model is None or deps.spent():
        return {
            "way": "eliminate",
            "gaps": [*state.get("gaps", []), "the budget of the investigation was used up"],
        }
    deps.calls += 1
    deps.characters += sum(len(str(message.content)) for message in deps.shown[-2:])
    try:
        async with asyncio.timeout(max(0.1, deps.ends - time.monotonic())):
            thought = await deps.model.ask_typed(Thought, deps.shown)
    except (ModelError, TimeoutError) as error:
        log.warning("Investigating %s without the model: %s", deps.subject, error)
        return {"way": "eliminate", "gaps": [*state.get("gaps", []), "the language model gave no answer"]}
    match thought.step:
        case Look() as look:
            return {"way": "look", "look": look.model_dump()}
        case Conclude() as conclude:
            return {"way": "check", "said": conclude.model_dump()}


async def look(state: InvestigationState, runtime: Runtime[Deps]) -> InvestigationState:
    """One look-up, quoted for the model; one that does not exist or breaks is told so."""
    deps, wanted = runtime.context, state["look"]
    name, arguments = str(wanted["tool"]), dict(wanted["arguments"])
    if name not in LOOK_UPS:
        told, key = {"error": f"there is no look-up {name[:60]!r}"}, ""
    else:
        try:
            lookup = await asyncio.to_thread(looked_up, _toolbox(deps), name, arguments)
            told, key = lookup.result, str(lookup.citation["key"])
            deps.evidence[key] = {str(ref["ref"]) for ref in lookup.citation["refs"]}
        except (AdapterError, TypeError, ValueError) as error:
            told, key = {"error": str(error)[:300]}, ""
    quoted = json.dumps({"cite": key, **told}, default=str)[:LONGEST_RESULT]
    deps.shown += [
        HumanMessage(json.dumps({"looked_up": name, "arguments": arguments}, default=str)),
        HumanMessage(f"<result>{quoted}</result>"),
    ]
    return {"way": "think"}


class _NoApi:
    """An API that offers nothing: look-ups of an investigation only read."""

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        return ()

    def file(self, proposal: Any, case: Any) -> dict[str, Any]:
        raise NotImplementedError("an investigation hands nothing in")

    def consider(self, action: Any) -> dict[str, Any]:
        return {"error": "policy is not asked in an investigation"}


def _toolbox(deps: Deps) -> Toolbox:
    return Toolbox(store=deps.store, control_api=_NoApi(), clock=deps.clock, parameters=deps.parameters)


async def check(state: InvestigationState, runtime: Runtime[Deps]) -> InvestigationState:
    """Whether a conclusion holds: it cites look-ups that were made; a class that the run's own end denies is put right."""
    deps, said = runtime.context, Conclude.model_validate(state["said"])
    gaps = list(state.get("gaps", []))
    cited = [key for key in said.citations if key in deps.evidence]
    if unknown := [key for key in said.citations if key not in deps.evidence]:
        gaps.append(f"it cites {len(unknown)} look-ups that were not made")
    if not cited:
        return {
            "way": "eliminate",
            "gaps": [*gaps, "the language model's conclusion rests on nothing that was looked up"],
        }
    if deps.found.facts is None and said.origin not in OF_WAITS:
        return {
            "way": "eliminate",
            "gaps": [*gaps, f"the language model reads what only waits as {said.origin}"],
        }
    known = deps.found.conclusion.failure_class
    rule = deps.found.facts.finding.rule_id if deps.found.facts else ""
    if rule and known not in (FailureClass.UNKNOWN, FailureClass(said.failure_class)):
        gaps.append(
            f"the language model reads it as {said.failure_class}, and the run's own end says {known}"
        )
        said = said.model_copy(update={"failure_class": known.value})
    return {
        "way": "plan",
        "said": said.model_dump(),
        "by": f"model:{deps.model.name if deps.model else ''}",
        "gaps": gaps,
    }


async def eliminate(state: InvestigationState, runtime: Runtime[Deps]) -> InvestigationState:
    """What rules concluded stands."""
    return {"way": "plan", "by": "rules"}


async def plan(state: InvestigationState, runtime: Runtime[Deps]) -> InvestigationState:
    """The order of the offers: a model's numbers where it concluded, and the playbook's own order otherwise."""
    deps = runtime.context
    found = concluded(deps, state)
    offers = found.steps
    if state.get("by") == "rules" or deps.model is None or len(offers) < 2:
        return {"order": list(range(len(offers)))}
    deps.calls += 1
    shown = {
        "failure_class": found.conclusion.failure_class.value,
        "origin": found.conclusion.origin.value,
        "waits_for": found.conclusion.cause,
        "offers": [{"number": n, "kind": s.action["kind"], "shows": s.shows} for n, s in enumerate(offers)],
        "same_fault_before": [_past(each) for each in (found.facts.past if found.facts else ())],
    }
    asked = [SystemMessage(PLANNING), HumanMessage(f"<facts>{json.dumps(shown)}</facts>")]
    deps.characters += sum(len(str(message.content)) for message in asked)
    try:
        chosen = await deps.model.ask_typed(Chosen, asked)
    except ModelError as error:
        log.warning("Planning %s without the model: %s", deps.subject, error)
        return {"order": list(range(len(offers)))}
    return {"order": list(dict.fromkeys(n for n in chosen.steps if 0 <= n < len(offers)))}


def concluded(deps: Deps, state: InvestigationState) -> Investigated:
    """What was found, with the model's conclusion in place of the rules' where it holds, and the plan of that one."""
    if state.get("by") == "rules" or not state.get("said"):
        return deps.found
    said = Conclude.model_validate(state["said"])
    before = deps.found.conclusion
    origin = Origin(said.origin)
    citations = tuple(
        dict.fromkeys(
            (deps.subject, *(ref for key in said.citations for ref in sorted(deps.evidence.get(key, ()))))
        )
    )
    backed = tuple(Clue(ref=ref, words="cited by the language model") for ref in citations[1:6])
    mine = tuple(each for each in before.hypotheses if each.origin is not origin)
    kept = next((each for each in before.hypotheses if each.origin is origin), Hypothesis(origin=origin))
    conclusion = replace(
        before,
        origin=origin,
        failure_class=FailureClass(said.failure_class),
        words=said.because,
        citations=citations,
        unchecked=tuple(said.unchecked),
        hypotheses=(replace(kept, supports=(*kept.supports, *backed)), *mine),
        root=before.root if before.origin is origin else "",
        by=str(state["by"]),
    )
    return planned_anew(deps, conclusion)


def planned_anew(deps: Deps, conclusion: Conclusion) -> Investigated:
    """The same facts under another conclusion, with what playbooks offer for that."""
    facts = deps.found.facts
    if facts is None:
        return replace(deps.found, conclusion=conclusion)
    # what rules hold to be vain stays so, whatever a model that has read strangers' text concludes
    again = AGAIN if deps.found.conclusion.origin in NO_RETRY else frozenset()
    permitted = [kind for kind in deps.permitted if kind not in again]
    offered = plan_for_failure(facts, conclusion, deps.clock(), deps.parameters, permitted)
    return replace(deps.found, conclusion=conclusion, plan=offered)


def _way(state: InvestigationState) -> str:
    return state["way"]


def _graph() -> Any:
    graph = StateGraph(InvestigationState, context_schema=Deps)
    for name, node in (
        ("begin", begin),
        ("think", think),
        ("look", look),
        ("check", check),
        ("eliminate", eliminate),
        ("plan", plan),
    ):
        graph.add_node(name, node)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", _way, ["think", "eliminate"])
    graph.add_conditional_edges("think", _way, ["look", "check", "eliminate"])
    graph.add_edge("look", "think")
    graph.add_conditional_edges("check", _way, ["plan", "eliminate"])
    graph.add_edge("eliminate", "plan")
    graph.add_edge("plan", END)
    return graph.compile(name="investigation")


async def investigation(
    store: Store,
    subject: str,
    clock: Callable[[], datetime],
    *,
    permitted: Sequence[ActionKind],
    model: LanguageModel | None = None,
    parameters: PlaybookParameters | None = None,
    budget: Budget | None = None,
) -> Outcome | None:
    """Return what an investigation of `run:<id>` or `deployment:<id>` found; None where it is not known.

    Raises StoreError. A model that fails, says nothing that holds, or uses up the budget leaves what rules found.
    """
    limits = parameters or PlaybookParameters()
    found = await asyncio.to_thread(
        investigate, store, subject, clock(), parameters=limits, permitted=permitted
    )
    if found is None:
        return None
    given = budget or Budget()
    deps = Deps(
        store=store, clock=clock, parameters=limits, permitted=tuple(permitted), model=model, budget=given,
        subject=subject, found=found, ends=time.monotonic() + given.seconds,
    )  # fmt: skip
    state = await _graph().ainvoke({}, {"recursion_limit": 3 * given.calls + 8}, context=deps)
    final = concluded(deps, state)
    chosen = [final.plan.proposals[n] for n in state["order"]]
    plan = replace(final.plan, proposals=tuple(chosen))
    unchecked = tuple(dict.fromkeys((*final.conclusion.unchecked, *state.get("gaps", []))))
    return Outcome(
        found=replace(final, plan=plan, conclusion=replace(final.conclusion, unchecked=unchecked)),
        calls=deps.calls,
        tokens=deps.characters // CHARS_PER_TOKEN,
        gaps=tuple(state.get("gaps", [])),
    )
