"""The tools of one caller in a chat: what may be looked up, what may be handed in, and the evidence of each.

Reading changes nothing. A `propose_` function files a proposal and returns at once; it waits for nobody and
decides nothing. `looked_up` calls a tool by its name and says what its result is evidence of.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from pilotage.planner.actions import ACTION, Action, NotifyOwner, RetryRun, action_as_json
from pilotage.planner.diagnosis import diagnose_run, incident_id
from pilotage.planner.evidence import NotingStore, citation
from pilotage.planner.look_ups import ChatDesk as ChatDesk
from pilotage.planner.look_ups import LookUps, first_fault, said, unknown_run
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.telemetry import incidents
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.facts import RunFact

PROPOSAL_LIFE = timedelta(hours=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox(LookUps):
    """The tools of one caller. Every public method is one tool; its docstring is what a model reads of it."""

    on_behalf_of: str = ""
    """The person who chats, as composition authenticated them."""

    # -- proposing

    def propose_retry(self, run_id: str, delay_seconds: int = 0) -> dict[str, Any]:
        """Hand in the proposal to run a failed run again in place. Policy and people decide on it."""
        return self._propose({"kind": "retry_run", "delay": f"PT{delay_seconds}S"}, run_id)

    def propose_resize(self, run_id: str, memory_mb: int) -> dict[str, Any]:
        """Hand in the proposal to give a failed run more memory, in MiB, and run it again."""
        return self._propose({"kind": "resize_run", "memory_mb": memory_mb}, run_id)

    def propose_reschedule(self, run_id: str, start: str) -> dict[str, Any]:
        """Hand in the proposal to move a scheduled run to another start, an ISO time with its offset."""
        return self._propose({"kind": "reschedule_run", "start": start}, run_id)

    def propose_cancel(self, run_id: str) -> dict[str, Any]:
        """Hand in the proposal to cancel a run that has not ended."""
        return self._propose({"kind": "cancel_run"}, run_id)

    def propose_notify(self, run_id: str) -> dict[str, Any]:
        """Hand in the proposal to tell the owner of a run."""
        return self._propose({"kind": "notify_owner"}, run_id)

    def _propose(self, wanted: dict[str, Any], run_id: str) -> dict[str, Any]:
        """What the desk says of one proposal, or why it could not be handed in."""
        try:
            action = ACTION.validate_json(_json(wanted | {"run_id": run_id}))
        except ValidationError as error:
            return {"error": f"the action is not valid: {first_fault(error)}", "status": "refused"}
        if action.kind not in self.desk.offered():
            return {"error": f"{action.kind} is not offered to this caller", "status": "refused"}
        run = incidents.run(self.store, run_id)
        if run is None:
            return unknown_run(run_id)
        proposal, case = self._paper(action, run)
        try:
            answer = self.desk.file(proposal, case)
        except AdapterError as error:
            return {"error": str(error), "status": "not filed"}
        return {"proposal_id": proposal.id, "action": action_as_json(action)} | answer

    def _paper(self, action: Action, run: RunFact) -> tuple[Proposal, CaseFile]:
        now = self.clock()
        subject = f"run:{run.run_id}"
        failed = run.state_type in ("FAILED", "CRASHED")
        incident = incident_id(subject, run.state_id)
        # the same wish of the same person about the same state is one proposal
        seed = _json([incident, action_as_json(action), run.state_id, self.on_behalf_of])
        proposal = Proposal(
            id="p-" + hashlib.sha256(seed.encode()).hexdigest()[:12],
            incident_id=incident,
            action=action,
            expected_state_id="" if isinstance(action, NotifyOwner) else run.state_id,
            evidence=(f"state:{run.state_id}",),
            playbook="person" if self.on_behalf_of else "model",
            expires_at=now + PROPOSAL_LIFE,
            on_behalf_of=self.on_behalf_of,
        )
        found = diagnose_run(run, incidents.logs_of(self.store, run.run_id, 100), now) if failed else None
        [*made] = self.forecaster.forecast([run.run_id]) if self.forecaster else ()
        case = CaseFile(
            subject=subject,
            failure_class=found.failure_class.value if found else "",
            found_by="chat",
            rule_id=found.rule_id if found else "",
            fingerprint=found.fingerprint if found else "",
            p_fail=float(made[0].p_fail) if made else None,
            forecast_model=made[0].model if made else "",
            forecast_reasons=made[0].reasons if made else (),
            notes=(said(run.state_message),) if run.state_message else (),
            expected_effect="what the person asked for"
            if not isinstance(action, RetryRun)
            else "the same run, tried again, completes",
            failed_at=run.ended if failed else None,
        )
        return proposal, case


READING = (
    "floor_status",
    "recent_runs",
    "find_runs",
    "recent_failures",
    "why_run",
    "log_templates",
    "forecast_of",
    "riskiest_runs",
    "queues",
    "incidents",
    "similar_incidents",
    "recent_decisions",
    "kpis",
    "agent_costs",
    "what_if",
    "sql",
    "chart",
)
PROPOSING = {
    "propose_retry": "retry_run",
    "propose_resize": "resize_run",
    "propose_reschedule": "reschedule_run",
    "propose_cancel": "cancel_run",
    "propose_notify": "notify_owner",
}
"""Tool and the kind of action that it hands in."""
ASKS = {
    "propose_retry": re.compile(r"retr(?:y|ied)|\bagain\b|re-?run", re.IGNORECASE),
    "propose_resize": re.compile(r"memory|resize|\b(?:mib|mb|gib|gb)\b|bigger", re.IGNORECASE),
    "propose_reschedule": re.compile(r"resched|\bmove\b|delay|later|earlier|boost|postpone", re.IGNORECASE),
    "propose_cancel": re.compile(r"cancel|stop|kill|abort", re.IGNORECASE),
    "propose_notify": re.compile(r"notif|tell|inform|alert", re.IGNORECASE),
}
"""The words with which a person asks for each proposal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp:
    """The result of one tool with its evidence."""

    result: dict[str, Any]
    citation: dict[str, Any]
    """`{key, tool, arguments, sql, refs}`; see `pilotage.planner.evidence.citation`."""


def looked_up(toolbox: Toolbox, name: str, arguments: Mapping[str, Any]) -> LookedUp:
    """What the tool of this name says to these arguments. Raises what the tool raises."""
    noting = NotingStore(toolbox.store)
    result: dict[str, Any] = getattr(replace(toolbox, store=noting), name)(**arguments)
    return LookedUp(result=result, citation=citation(name, arguments, result, noting.statements))


def _json(value: Any) -> str:
    return json.dumps(value)
