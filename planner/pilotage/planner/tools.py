"""What a chat may look up and hand in: functions over the store and the desk, each with a plain JSON result.

Reading changes nothing. A `propose_` function files a proposal and returns at once; it waits for nobody and
decides nothing. Names, messages and log lines in the results are redacted and quoted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from pilotage.planner.actions import ACTION, Action, NotifyOwner, RetryRun, action_as_json
from pilotage.planner.diagnosis import diagnose_run, incident_id, normalised
from pilotage.planner.proposals import CaseFile, Desk, Proposal
from pilotage.telemetry import incidents
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.forecasts import Forecaster
from pilotage.telemetry.redact import quoted, redact
from pilotage.telemetry.stores import Store

SHOWN = 20
"""Rows of one result."""
LOOK_BACK = timedelta(hours=24)
PROPOSAL_LIFE = timedelta(hours=4)


def said(value: str, limit: int = 200) -> str:
    """Somebody else's text, safe to show and to prompt with."""
    return quoted(redact(value), limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """The tools of one caller. Every public method is one tool; its docstring is what a model reads of it."""

    store: Store
    desk: Desk
    forecaster: Forecaster | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    on_behalf_of: str = ""
    """The person who chats, as composition authenticated them."""

    # -- reading

    def floor_status(self) -> dict[str, Any]:
        """How it goes now: runs by state, failures of the last day, queues that wait."""
        counts = self.store.rows("SELECT state_type, count(*) AS n FROM runs GROUP BY 1 ORDER BY 1")
        failures = incidents.failures_since(self.store, self.clock() - LOOK_BACK)
        waiting = [q for q in incidents.floor(self.store) if q.waiting]
        return {
            "runs_by_state": {row["state_type"]: int(row["n"]) for row in counts},
            "failed_in_last_day": len(failures),
            "queues_waiting": [
                f"{said(q.pool, 60)}/{said(q.queue, 60)}: {q.waiting}" for q in waiting[:SHOWN]
            ],
        }

    def recent_runs(self) -> dict[str, Any]:
        """The runs that changed last, with their states."""
        rows = self.store.rows(
            "SELECT run_id, name, flow_name, state_type, state_name, updated FROM runs ORDER BY updated DESC LIMIT ?",
            [SHOWN],
        )
        return {"runs": [_plain(row) for row in rows]}

    def recent_failures(self) -> dict[str, Any]:
        """The failed and crashed runs of the last day, each with its failure class."""
        failures = incidents.failures_since(self.store, self.clock() - LOOK_BACK)
        return {"failures": [self._failure(run) for run in failures[-SHOWN:]], "count": len(failures)}

    def why_run(self, run_id: str) -> dict[str, Any]:
        """The story of one run: its state, what was found, what was proposed and decided, and what came of it."""
        run = incidents.run(self.store, run_id)
        if run is None:
            return _unknown(run_id)
        steps = incidents.decisions_about(self.store, run_id)
        told = [
            {
                "at": step.at.isoformat(),
                "step": step.step,
                "action": step.action,
                "outcome": step.outcome,
                "policies": list(step.policy_ids),
                "by": said(step.actor, 60),
            }
            for step in steps[-SHOWN:]
        ]
        return self._failure(run) | {"decisions": told}

    def forecast_of(self, run_id: str) -> dict[str, Any]:
        """The chance that a run's next attempt fails, with the reasons."""
        made = self.forecaster.forecast([run_id]) if self.forecaster else ()
        if not made:
            return {"error": "there is no forecast for this run", "run_id": said(run_id, 60)}
        first = made[0]
        return {
            "run_id": first.run_id,
            "p_fail": round(float(first.p_fail), 3),
            "model": first.model,
            "trained_on": first.trained_on,
            "reasons": [said(reason) for reason in first.reasons],
        }

    def queues(self) -> dict[str, Any]:
        """Every work queue: priority, limits, how many run and wait."""
        return {
            "queues": [
                {
                    "queue": f"{said(q.pool, 60)}/{said(q.queue, 60)}",
                    "priority": q.priority,
                    "limit": q.limit,
                    "pool_limit": q.pool_limit,
                    "running": q.running,
                    "waiting": q.waiting,
                    "paused": q.paused,
                }
                for q in incidents.floor(self.store)[:SHOWN]
            ]
        }

    def log_templates(self, run_id: str) -> dict[str, Any]:
        """The distinct kinds of log lines of a run, one quoted example each, newest last."""
        lines = incidents.logs_of(self.store, run_id, 200)
        kinds: dict[str, dict[str, Any]] = {}
        for line in lines:
            seen = kinds.pop(normalised(line.message), {"times": 0})
            kinds[normalised(line.message)] = {
                "level": line.level,
                "times": seen["times"] + 1,
                "example": said(line.message),
            }
        return {"run_id": said(run_id, 60), "templates": list(kinds.values())[-SHOWN:]}

    def recent_decisions(self) -> dict[str, Any]:
        """The last proposals and what was decided about them."""
        rows = self.store.rows(
            'SELECT "at", proposal_id, run_id, step, action, outcome FROM decisions ORDER BY "at" DESC LIMIT ?',
            [SHOWN],
        )
        return {"decisions": [_plain(row) for row in rows]}

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

    # -- shared

    def _failure(self, run: RunFact) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "run_id": run.run_id,
            "name": said(run.name, 80),
            "flow": said(run.flow_name, 80),
            "state": f"{run.state_type} ({said(run.state_name, 60)})",
            "message": said(run.state_message),
            "attempts": run.run_count,
            "ended": run.ended.isoformat() if run.ended else None,
        }
        if run.state_type in ("FAILED", "CRASHED"):
            logs = incidents.logs_of(self.store, run.run_id, 100)
            finding = diagnose_run(run, logs, self.clock())
            shown |= {
                "failure_class": finding.failure_class.value,
                "rule": finding.rule_id,
                "because": [e.note for e in finding.evidence if not e.tainted],
                "incident_id": finding.incident_id,
            }
        return shown

    def _propose(self, wanted: dict[str, Any], run_id: str) -> dict[str, Any]:
        """What the desk says of one proposal, or why it could not be handed in."""
        try:
            action = ACTION.validate_json(_json(wanted | {"run_id": run_id}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            return {"error": f"the action is not valid: {where}: {first['msg']}", "status": "refused"}
        if action.kind not in self.desk.offered():
            return {"error": f"{action.kind} is not offered to this caller", "status": "refused"}
        run = incidents.run(self.store, run_id)
        if run is None:
            return _unknown(run_id)
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
        found = diagnose_run(run, (), now) if failed else None
        case = CaseFile(
            subject=subject,
            failure_class=found.failure_class.value if found else "",
            found_by="chat",
            rule_id=found.rule_id if found else "",
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
    "recent_failures",
    "why_run",
    "forecast_of",
    "queues",
    "log_templates",
    "recent_decisions",
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


def _unknown(run_id: str) -> dict[str, Any]:
    return {"error": "the store does not know this run", "run_id": said(run_id, 60), "status": "refused"}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.isoformat()
        if isinstance(value, datetime)
        else said(value, 120)
        if isinstance(value, str)
        else value
        for key, value in row.items()
    }


def _json(value: Any) -> str:
    return json.dumps(value)
