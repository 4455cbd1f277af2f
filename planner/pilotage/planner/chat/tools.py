"""The tools of one caller in a chat: what may be looked up, what may be drafted and sent, and the evidence of each.

Reading changes nothing, and neither does drafting: a model may `draft` and no more. `send` is the act of the person to
whom the draft was shown, bound to its digest. `propose` is for agents of others, whose model nobody here can hold to
that: what it files says so, and rests on a model's word whatever was looked up. Both file a proposal and return at once;
they wait for nobody and decide nothing.
`looked_up` calls a tool by its name and says what its result is evidence of.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from pilotage.planner.actions.base import BaseAction
from pilotage.planner.actions.forms import fields_of, signature
from pilotage.planner.actions.resolve import resolve_targets
from pilotage.planner.actions.types import (
    ACTION,
    ACTIONS,
    Action,
    RetryRun,
    action_as_json,
    run_of,
    target_of,
)
from pilotage.planner.chat.citations import NotingStore, citation
from pilotage.planner.chat.drafts import digest_of, draft_of
from pilotage.planner.chat.more_lookups import MoreLookUps
from pilotage.planner.chat.queries import ChatApi as ChatApi
from pilotage.planner.chat.queries import first_fault, said
from pilotage.planner.detect.failures import diagnose_run, incident_id
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.telemetry.errors import AdapterError, StoreError
from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.queries import runs as run_queries

PROPOSAL_LIFE = timedelta(hours=4)
SAME_DESIRED_ACTION = timedelta(minutes=10)
"""The same request about a queue, a limit or a deployment within this time is one proposal."""
A_MODELS_WORD = "model:agent"
"""Evidence of what an agent over MCP hands in: a model said so, and it may have read text of runs."""
WHATEVER_THE_STATE = frozenset({"notify_owner", "resolve_alert"})
"""Kinds that tell somebody of a run, and are right also when it has moved on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox(MoreLookUps):
    """The tools of one caller. Every public method is one tool; its docstring is what a model reads of it."""

    on_behalf_of: str = ""
    """The person who chats, as composition authenticated them."""

    # -- drafting and proposing

    def draft(self, kind: str, target: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write down one action on one target for the person to look at. It is not handed in: only they can send it."""
        wanted = self._wanted(kind, target, arguments)
        if not isinstance(wanted, BaseAction):
            return wanted
        return draft_of(self._paper(wanted)[0]) | {"policy": self.what_if(action_as_json(wanted))}

    def send(self, action: Mapping[str, Any], digest: str) -> dict[str, Any]:
        """Hand in what was drafted, for the person who was shown it. Refused when it is about another state by now."""
        try:
            wanted = ACTION.validate_json(_json(dict(action)))
            proposal, case = self._paper(wanted)
        except ValidationError as error:
            return {"error": f"the draft is not valid: {first_fault(error)}", "status": "refused"}
        except StoreError as error:
            return {"error": str(error), "status": "not filed"}
        if not hmac.compare_digest(digest_of(proposal), digest):
            gone = "what it is about has changed since it was drafted; ask for it again"
            return {"error": gone, "status": "refused"}
        return self._filed(proposal, case)

    def propose(self, kind: str, target: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Hand in the proposal of one action on one target. Policy and people decide on it; nothing changes yet."""
        wanted = self._wanted(kind, target, arguments)
        if not isinstance(wanted, BaseAction):
            return wanted
        return self._filed(*_by_a_model(*self._paper(wanted)))

    def _wanted(self, kind: str, target: str, arguments: dict[str, Any] | None) -> Action | dict[str, Any]:
        """The typed action, or why there is none."""
        if kind not in ACTIONS or kind not in self.control_api.permitted_kinds():
            return {
                "error": f"{said(kind, 60)} is not offered to this caller; see `actions`",
                "status": "refused",
            }
        try:
            wanted, why = resolve_targets(
                self.store, kind, fields_of(kind, target, arguments or {}, self.clock())
            )
            if why:
                return {"error": why, "target": said(target, 80), "status": "refused"}
            return ACTION.validate_json(_json(wanted))
        except ValidationError as error:
            takes = signature(kind)
            return {
                "error": f"the action is not valid: {first_fault(error)}; it is {takes}",
                "status": "refused",
            }
        except StoreError as error:
            return {"error": str(error), "status": "not filed"}

    def _filed(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        try:
            answer = self.control_api.file(proposal, case)
        except AdapterError as error:
            return {"error": str(error), "status": "not filed"}
        return {"proposal_id": proposal.id, "action": action_as_json(proposal.action)} | answer

    def _paper(self, action: Action) -> tuple[Proposal, CaseFile]:
        now, subject = self.clock(), target_of(action)
        run = run_queries.run(self.store, run_of(action)) if run_of(action) else None
        # what is no run has no state of its own: asked for again after a while, it is wanted again
        episode = run.state_id if run else str(int(now.timestamp() // SAME_DESIRED_ACTION.total_seconds()))
        incident = incident_id(subject, episode)
        # the same request of the same person about the same state is one proposal
        seed = _json([incident, action_as_json(action), episode, self.on_behalf_of])
        proposal = Proposal(
            id="p-" + hashlib.sha256(seed.encode()).hexdigest()[:12],
            incident_id=incident,
            action=action,
            expected_state_id=run.state_id if run and action.kind not in WHATEVER_THE_STATE else "",
            evidence=(f"state:{run.state_id}",) if run else (),
            playbook="person" if self.on_behalf_of else "model",
            expires_at=now + PROPOSAL_LIFE,
            on_behalf_of=self.on_behalf_of,
        )
        return proposal, self._case(subject, run, action, now)

    def _case(self, subject: str, run: RunFact | None, action: Action, now: datetime) -> CaseFile:
        if run is None:
            return CaseFile(
                subject=subject,
                failure_class="",
                found_by="chat",
                expected_effect="what the person asked for",
            )
        failed = run.state_type in ("FAILED", "CRASHED")
        diagnosed = (
            diagnose_run(run, run_queries.logs_of(self.store, run.run_id, 100), now) if failed else None
        )
        [*forecasts] = self.forecaster.forecast([run.run_id]) if self.forecaster else ()
        return CaseFile(
            subject=subject,
            failure_class=diagnosed.failure_class.value if diagnosed else "",
            found_by="chat",
            rule_id=diagnosed.rule_id if diagnosed else "",
            fingerprint=diagnosed.fingerprint if diagnosed else "",
            p_fail=float(forecasts[0].p_fail) if forecasts else None,
            forecast_model=forecasts[0].model if forecasts else "",
            forecast_reasons=forecasts[0].reasons if forecasts else (),
            notes=(said(run.state_message),) if run.state_message else (),
            expected_effect="what the person asked for"
            if not isinstance(action, RetryRun)
            else "the same run, tried again, completes",
            failed_at=run.ended if failed else None,
        )


def _by_a_model(proposal: Proposal, case: CaseFile) -> tuple[Proposal, CaseFile]:
    """The same, handed in by a model whose person may not have seen it: never the proposal that the person sends."""
    own = "p-" + hashlib.sha256(f"model {proposal.id}".encode()).hexdigest()[:12]
    asked = {"id": own, "evidence": (*proposal.evidence, A_MODELS_WORD), "playbook": "model"}
    found = {"found_by": "agent", "expected_effect": "what an agent asked for in the person's name"}
    return proposal.model_copy(update=asked), case.model_copy(update=found)


READING = (
    "cluster_status",
    "recent_runs",
    "find_runs",
    "recent_failures",
    "why_run",
    "why_it_waits",
    "what_waits",
    "investigate",
    "run_timeline",
    "log_lines",
    "run_durations",
    "how_often",
    "what_changed",
    "compare_runs",
    "schedules",
    "upcoming_load",
    "limits",
    "workers",
    "automations",
    "who_decided",
    "decided_about",
    "what_was_done",
    "waits_for_people",
    "log_templates",
    "forecast_of",
    "riskiest_runs",
    "queues",
    "incidents",
    "similar_incidents",
    "recent_decisions",
    "kpis",
    "agent_costs",
    "actions",
    "what_if",
    "sql",
    "chart",
)
DRAFTING = ("draft",)
"""What a model may do beside reading."""
PROPOSING = ("propose",)
"""What hands in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp:
    """The result of one tool with its evidence."""

    result: dict[str, Any]
    citation: dict[str, Any]
    """`{key, tool, arguments, sql, refs}`; see `pilotage.planner.chat.citations.citation`."""


def looked_up(toolbox: Toolbox, name: str, arguments: Mapping[str, Any]) -> LookedUp:
    """What the tool of this name says to these arguments. Raises what the tool raises."""
    noting = NotingStore(toolbox.store)
    result: dict[str, Any] = getattr(replace(toolbox, store=noting), name)(**arguments)
    return LookedUp(result=result, citation=citation(name, arguments, result, noting.statements))


def _json(value: Any) -> str:
    return json.dumps(value)
