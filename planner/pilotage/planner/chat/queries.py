"""What a chat may look up: functions over the store and the API, each with a plain JSON result.

Reading changes nothing. Names, messages and log lines in the results are redacted and quoted. A result that could not
tell all says what it could not under `gaps`. Longer than most modules: it is the one list of everything that can be asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from pilotage.planner.actions.forms import in_full, signature
from pilotage.planner.actions.types import ACTION, ACTIONS
from pilotage.planner.detect.failures import diagnose_run
from pilotage.planner.detect.why import why_it_waits
from pilotage.planner.findings import Evidence, FailureClass, Finding
from pilotage.planner.log_templates import mined
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.proposals import ProposalApi
from pilotage.planner.similar_incidents import past_incidents
from pilotage.telemetry.errors import AdapterError, StoreError
from pilotage.telemetry.facts import TERMINAL, RunFact
from pilotage.telemetry.forecasts import Forecaster
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.redaction import redact
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.rows import rows_of

SHOWN = 20
"""Rows of one result."""
SQL_ROWS = 50
"""Rows of a statement that a model is shown; a person may open them all."""
POINTS = 200
"""Points of one series of a chart."""
LOOK_BACK = timedelta(hours=24)
AGED = timedelta(minutes=2)
"""The store hears of the queues every few seconds; when the newest is older, something stands still."""


class ChatApi(ProposalApi, Protocol):
    """A API that can also be asked what it would say."""

    def consider(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """The verdict on an action if it were proposed now: `{outcome, policy_ids, reasons, …}`. Nothing is filed.

        Raises ApiError when the API cannot be reached or refuses the caller.
        """
        ...


def said(value: str, limit: int = 200) -> str:
    """Somebody else's text, safe to show and to prompt with."""
    return harmless(redact(value), limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUps:
    """The reading tools of one caller. Every public method is one tool; its docstring is what a model reads of it."""

    store: Store
    control_api: ChatApi
    forecaster: Forecaster | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    parameters: PlaybookParameters = field(default_factory=PlaybookParameters)
    zone: tzinfo | None = None
    """Of the person, for words such as yesterday; None for the zone of this machine."""

    # -- the queue state

    def cluster_status(self) -> dict[str, Any]:
        """How it goes now: runs by state, failures of the last day, queues that wait."""
        counts = self.store.rows("SELECT state_type, count(*) AS n FROM runs GROUP BY 1 ORDER BY 1")
        failures = run_queries.failures_since(self.store, self.clock() - LOOK_BACK)
        waiting = [q for q in run_queries.queue_snapshots(self.store) if q.waiting]
        return {
            "runs_by_state": {row["state_type"]: int(row["n"]) for row in counts},
            "failed_in_last_day": len(failures),
            "queues_waiting": [
                f"{said(q.pool, 60)}/{said(q.queue, 60)}: {q.waiting}" for q in waiting[:SHOWN]
            ],
            "gaps": self._standing_still(),
        }

    def queues(self) -> dict[str, Any]:
        """Every work queue with its limits: priority, slots, how many run and wait, since when the oldest waits."""
        return {
            "queues": [
                {
                    "queue": f"{said(q.pool, 60)}/{said(q.queue, 60)}",
                    "priority": q.priority,
                    "limit": q.limit,
                    "pool_limit": q.pool_limit,
                    "running": q.running,
                    "waiting": q.waiting,
                    "oldest_due": q.oldest_due.isoformat() if q.oldest_due else None,
                    "paused": q.paused,
                }
                for q in run_queries.queue_snapshots(self.store)[:SHOWN]
            ],
            "gaps": self._standing_still(),
        }

    def kpis(self, days: int = 7) -> dict[str, Any]:
        """How well it went lately: success rate, proposals, remediations that held, time to recovery in seconds."""
        measures = run_queries.kpis(self.store, self.clock() - timedelta(days=max(1, min(days, 3650))))
        p50, p95 = measures.recovery_p50, measures.recovery_p95
        return {
            "days": days,
            "ended": measures.ended,
            "success_rate": None if measures.success_rate is None else round(measures.success_rate, 4),
            "proposed": measures.proposed,
            "injected": measures.injected,
            "verified": measures.verified,
            "recovered": measures.recovered,
            "recovery_seconds": {
                "p50": p50.total_seconds() if p50 else None,
                "p95": p95.total_seconds() if p95 else None,
            },
            "gaps": [] if measures.ended else ["no run ended in this time"],
        }

    # -- runs

    def recent_runs(self) -> dict[str, Any]:
        """The runs that changed last, with their states."""
        rows = self.store.rows(
            "SELECT run_id, name, flow_name, state_type, state_name, updated FROM runs ORDER BY updated DESC LIMIT ?",
            [SHOWN],
        )
        return {"runs": [_plain(row) for row in rows]}

    def find_runs(
        self, words: str = "", state: str = "", hours: float = 24, deployment_id: str = ""
    ) -> dict[str, Any]:
        """Runs whose name, flow, deployment, queue or tag contains all the words, in a state type such as FAILED
        or in any, of one deployment or of all, that changed within so many hours; newest first."""
        conditions, parameters = (
            ["updated > ?"],
            [self.clock() - timedelta(hours=max(1, min(hours, 24 * 400)))],
        )
        values: list[Any] = list(parameters)
        for word in words.split()[:8]:
            conditions.append(
                "contains(lower(concat_ws(' ', name, flow_name, deployment_name, pool, queue, tags)), lower(?))"
            )
            values.append(word)
        if state:
            conditions.append("state_type = upper(?)")
            values.append(state)
        if deployment_id:
            conditions.append("deployment_id = ?")
            values.append(deployment_id)
        rows = self.store.rows(
            "SELECT run_id, name, flow_name, deployment_id, deployment_name, "  # noqa: S608
            "state_type, state_name, expected_start, started, ended "
            f"FROM runs WHERE {' AND '.join(conditions)} ORDER BY updated DESC LIMIT ?",
            [*values, SHOWN + 1],
        )
        return {
            "runs": [_plain(row) for row in rows[:SHOWN]],
            "gaps": [f"more than {SHOWN} runs fit; only the newest are here"] if len(rows) > SHOWN else [],
        }

    def recent_failures(self, hours: float = 24, until_hours_ago: float = 0) -> dict[str, Any]:
        """The failed and crashed runs of the last hours, each with its failure class; `until_hours_ago` leaves the newest
        hours out."""
        now = self.clock()
        since = now - timedelta(hours=max(0.1, min(hours, 24 * 400)))
        until = now - timedelta(hours=max(0.0, until_hours_ago))
        failures = [
            run for run in run_queries.failures_since(self.store, since) if run.ended and run.ended <= until
        ]
        return {
            "failures": [self._failure(run) for run in failures[-SHOWN:]],
            "count": len(failures),
            "gaps": [
                *([f"only the newest {SHOWN} are here"] if len(failures) > SHOWN else []),
                *self._standing_still(),
            ],
        }

    def why_run(self, run_id: str) -> dict[str, Any]:
        """The story of one run: its state, what was found, what was proposed and decided, and what came of it."""
        run = run_queries.run(self.store, run_id)
        if run is None:
            return unknown_run(run_id)
        steps = run_queries.decisions_about(self.store, run_id)
        story = [
            {
                "at": step.at.isoformat(),
                "proposal_id": step.proposal_id,
                "step": step.step,
                "action": step.action,
                "outcome": step.outcome,
                "policies": list(step.policy_ids),
                "by": said(step.actor, 60),
            }
            for step in steps[-SHOWN:]
        ]
        shown = self._failure(run) | {
            "deployment": said(run.deployment_name or "", 80),
            "deployment_id": run.deployment_id or "",
            "queue": f"{said(run.pool or '', 60)}/{said(run.queue or '', 60)}",
            "expected_start": run.expected_start.isoformat() if run.expected_start else None,
            "started": run.started.isoformat() if run.started else None,
            "decisions": story,
        }
        if run.state_type not in TERMINAL:
            waits = why_it_waits(self.store, run_id, self.clock(), self.parameters)
            shown["waits"] = waits["words"] if waits else ""
        no_logs = not run_queries.logs_of(self.store, run_id, 1)
        return shown | {"gaps": ["no log line of this run is kept"] if no_logs else []}

    def why_it_waits(self, name: str) -> dict[str, Any]:
        """Why a run has not begun or does not go on, or why a deployment has no run: the first thing in its way (its
        schedule, a pause, no worker, an unserved queue, a full limit and who holds it, a wrong time zone, Prefect itself).
        `name` is an id or a name of a run or a deployment."""
        found = why_it_waits(self.store, name, self.clock(), self.parameters)
        if found is None:
            return {
                "error": "no run and no deployment of that name is known",
                "name": said(name, 80),
                "status": "refused",
            }
        return found | {"gaps": [*found["doubts"], *self._standing_still()]}

    def log_templates(self, run_id: str) -> dict[str, Any]:
        """What a run logged, as templates with counts, one quoted example each; the newest last."""
        lines = run_queries.logs_of(self.store, run_id, 1000)
        templates = mined(lines)
        gaps = [] if lines else ["no log line of this run is kept"]
        if len(lines) == 1000:
            gaps.append("only the newest 1000 lines were read")
        if len(templates) > SHOWN:
            gaps.append(f"{len(templates) - SHOWN} older templates are left out")
        return {
            "run_id": said(run_id, 60),
            "templates": [
                {
                    "template": said(template.text),
                    "level": template.level,
                    "times": template.count,
                    "first_log_id": template.first_log_id,
                    "last_log_id": template.last_log_id,
                    "last_at": template.last_at.isoformat(),
                    "example": said(template.example),
                }
                for template in templates[-SHOWN:]
            ],
            "gaps": gaps,
        }

    # -- what is expected

    def forecast_of(self, run_id: str) -> dict[str, Any]:
        """The chance that a run's next attempt fails, with the reasons."""
        forecasts = self.forecaster.forecast([run_id]) if self.forecaster else ()
        if not forecasts:
            return {"error": "there is no forecast for this run", "run_id": said(run_id, 60)}
        first = forecasts[0]
        return {
            "run_id": first.run_id,
            "p_fail": round(float(first.p_fail), 3),
            "model": first.model,
            "trained_on": first.trained_on,
            "reasons": [said(reason) for reason in first.reasons],
        }

    def riskiest_runs(self, hours: int = 24) -> dict[str, Any]:
        """The scheduled runs of the next hours that are likeliest to fail, with the reasons."""
        now = self.clock()
        soon = run_queries.upcoming_runs(self.store, now, timedelta(hours=max(1, min(hours, 24 * 30))))
        if self.forecaster is None:
            return {"error": "there is no forecaster"}
        forecasts = (
            {forecast.run_id: forecast for forecast in self.forecaster.forecast([run.run_id for run in soon])}
            if soon
            else {}
        )
        ranked = sorted(
            (run for run in soon if run.run_id in forecasts), key=lambda r: -forecasts[r.run_id].p_fail
        )
        return {
            "runs": [
                {
                    "run_id": run.run_id,
                    "name": said(run.name, 80),
                    "flow": said(run.flow_name, 80),
                    "deployment_id": run.deployment_id or "",
                    "start": run.next_start.isoformat() if run.next_start else None,
                    "p_fail": round(float(forecasts[run.run_id].p_fail), 3),
                    "model": forecasts[run.run_id].model,
                    "trained_on": forecasts[run.run_id].trained_on,
                    "reasons": [said(reason) for reason in forecasts[run.run_id].reasons],
                }
                for run in ranked[:SHOWN]
            ],
            "upcoming": len(soon),
            "gaps": [] if soon else ["no run is scheduled in this time"],
        }

    # -- incidents and memory

    def incidents(self, hours: int = 24) -> dict[str, Any]:
        """The troubles of the last hours: which run, what class, how far their proposals came; newest first."""
        rows = self.store.rows(
            """
            SELECT incident_id, min("at") AS since, any_value(run_id) AS run_id,
                max(json_extract_string(detail, '$.failure_class')) AS failure_class,
                arg_max(step, decision_id) AS step, arg_max(action, decision_id) AS action,
                arg_max(outcome, decision_id) AS outcome, count(DISTINCT proposal_id) AS proposals
            FROM decisions WHERE incident_id <> '' GROUP BY incident_id HAVING max("at") > ?
            ORDER BY since DESC LIMIT ?
            """,
            [self.clock() - timedelta(hours=max(1, min(hours, 24 * 400))), SHOWN],
        )
        return {"incidents": [_plain(row) for row in rows]}

    def similar_incidents(self, run_id: str) -> dict[str, Any]:
        """Earlier troubles like that of this run: what was done about them and what came of it."""
        finding = self._finding(run_id)
        if finding is None:
            return unknown_run(run_id)
        past = past_incidents(self.store, finding)
        return {
            "run_id": said(run_id, 60),
            "failure_class": finding.failure_class.value,
            "similar": [
                {
                    "incident_id": incident.incident_id,
                    "run_id": incident.run_id,
                    "at": incident.at.isoformat(),
                    "failure_class": said(incident.failure_class, 40),
                    "likeness": incident.likeness,
                    "done": [
                        {
                            "proposal_id": a.proposal_id,
                            "action": a.action,
                            "step": a.step,
                            "outcome": a.outcome,
                        }
                        for a in incident.actions
                    ],
                }
                for incident in past
            ],
            "gaps": [] if past else ["nothing like it is on record"],
        }

    def recent_decisions(self) -> dict[str, Any]:
        """The last proposals and what was decided about them."""
        rows = self.store.rows(
            'SELECT "at", proposal_id, run_id, step, action, outcome FROM decisions ORDER BY "at" DESC LIMIT ?',
            [SHOWN],
        )
        return {"decisions": [_plain(row) for row in rows]}

    def actions(self, kind: str = "") -> dict[str, Any]:
        """What can be proposed: every kind with its target and arguments, or one kind with what each may hold."""
        permitted_kinds = self.control_api.permitted_kinds()
        if kind:
            known = kind in ACTIONS
            return (
                in_full(kind) | {"offered": kind in permitted_kinds}
                if known
                else {"error": "there is no such kind"}
            )
        return {
            "kinds": [{"kind": kind, "takes": signature(kind)} for kind in ACTIONS if kind in permitted_kinds]
        }

    def what_if(self, action: dict[str, Any]) -> dict[str, Any]:
        """What policy would say of an action now, without proposing it. The action is an object such as
        {"kind": "retry_run", "run_id": "…", "delay": "PT60S"} or {"kind": "cancel_run", "run_id": "…"}."""
        try:
            ACTION.validate_json(json.dumps(action))
        except ValidationError as error:
            return {"error": f"the action is not valid: {first_fault(error)}"}
        try:
            return self.control_api.consider(action)
        except AdapterError as error:
            return {"error": str(error), "gaps": ["policy could not be asked"]}

    def agent_costs(self, days: int = 7) -> dict[str, Any]:
        """What the language model cost by day, and whole answers by agent: calls, tokens, cost, failures, how long."""
        since = self.clock() - timedelta(days=max(1, min(days, 400)))
        rows = self.store.rows(
            """
            SELECT CAST(date_trunc('day', "at") AS DATE)::VARCHAR AS day, model, count(*) AS calls,
                count(*) FILTER (error <> '') AS failed, sum(input_tokens)::BIGINT AS input_tokens,
                sum(output_tokens)::BIGINT AS output_tokens, sum(cost) AS cost,
                quantile_cont(ms, 0.5) AS ms_p50, quantile_cont(ms, 0.95) AS ms_p95
            FROM agent_spans WHERE operation = 'chat' AND "at" > ? GROUP BY ALL ORDER BY day DESC, model
            """,
            [since],
        )
        turns = self.store.rows(
            """
            SELECT turn.agent, count(*) AS answers, count(*) FILTER (turn.error <> '') AS failed,
                sum(asked.tokens)::BIGINT AS model_tokens, sum(asked.cost) AS cost,
                quantile_cont(turn.ms, 0.5) AS ms_p50, quantile_cont(turn.ms, 0.95) AS ms_p95
            FROM agent_spans turn LEFT JOIN (
                SELECT trace_id, sum(input_tokens + output_tokens) AS tokens, sum(cost) AS cost
                FROM agent_spans WHERE operation = 'chat' GROUP BY trace_id
            ) asked USING (trace_id)
            WHERE turn.operation = 'invoke_agent' AND turn."at" > ? GROUP BY ALL ORDER BY turn.agent
            """,
            [since],
        )
        gap = "no call of a model is on record: tracing needs the extra `pilotage[otel]`"
        return {
            "days": [_plain(row) for row in rows],
            "agents": [_plain(row) for row in turns],
            "gaps": [] if rows else [gap],
        }

    # -- anything else

    def sql(self, query: str) -> dict[str, Any]:
        """The rows of one read-only SELECT, in DuckDB's SQL, over the telemetry tables."""
        try:
            table, cut = self.store.ad_hoc(query)
        except StoreError as error:
            return {"error": said(str(error), 600)}
        rows = rows_of(table.slice(0, SQL_ROWS))
        more = cut or table.num_rows > SQL_ROWS
        return {
            "columns": list(table.column_names),
            "rows": [_plain(row) for row in rows],
            "gaps": [f"only the first {SQL_ROWS} rows are here"] if more else [],
        }

    def chart(
        self, title: str, query: str, x: str, y: list[str], kind: Literal["line", "bar", "points"] = "line"
    ) -> dict[str, Any]:
        """Draws a chart for the person from one read-only SELECT: column x against the columns y."""
        try:
            table, cut = self.store.ad_hoc(query)
        except StoreError as error:
            return {"error": said(str(error), 600)}
        if lacking := [name for name in (x, *y) if name not in table.column_names]:
            return {
                "error": f"the rows have no column {said(lacking[0], 60)}; they have {table.column_names}"
            }
        rows = [_plain(row) for row in rows_of(table.slice(0, POINTS))]
        if strange := [name for name in y if any(not _is_number(row[name]) for row in rows)]:
            return {"error": f"column {said(strange[0], 60)} does not hold numbers"}
        return {
            "title": said(title, 120),
            "kind": kind,
            "x": {"name": said(x, 60), "values": [row[x] for row in rows]},
            "series": [{"name": said(name, 60), "values": [row[name] for row in rows]} for name in y],
            "gaps": [f"only the first {POINTS} points are drawn"] if cut or table.num_rows > POINTS else [],
        }

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
            finding = diagnose_run(run, run_queries.logs_of(self.store, run.run_id, 100), self.clock())
            logs = [e.ref.removeprefix("log:") for e in finding.evidence if e.ref.startswith("log:")]
            shown |= {
                "failure_class": finding.failure_class.value,
                "rule": finding.rule_id,
                "because": [e.note for e in finding.evidence if not e.tainted],
                "incident_id": finding.incident_id,
            }
            if logs:
                shown["log_id"] = logs[0]
        return shown

    def _finding(self, run_id: str) -> Finding | None:
        """What is wrong with the run, or was when something was last proposed about it."""
        run = run_queries.run(self.store, run_id)
        if run is None:
            return None
        if run.state_type in ("FAILED", "CRASHED"):
            return diagnose_run(run, run_queries.logs_of(self.store, run_id, 100), self.clock())
        proposed = [
            step for step in run_queries.decisions_about(self.store, run_id) if step.step == "proposed"
        ]
        last = dict(proposed[-1].detail) if proposed else {}
        known = str(last.get("failure_class", ""))
        return Finding(
            incident_id=proposed[-1].incident_id if proposed else "",
            subject=f"run:{run_id}",
            failure_class=FailureClass(known) if known in set(FailureClass) else FailureClass.UNKNOWN,
            found_at=self.clock(),
            by="memory",
            fingerprint=str(last.get("fingerprint", "")),
            evidence=(Evidence(ref="", note=str(last.get("note", "")), tainted=True),),
        )

    def _standing_still(self) -> list[str]:
        """The gap to tell of when the store has heard nothing lately."""
        (row,) = self.store.rows('SELECT max("at") AS newest FROM queues')
        newest = row["newest"]
        if newest is None:
            return ["no queue was seen yet, so what waits is not known"]
        age = self.clock() - newest
        return [f"the newest snapshot is {age.total_seconds() / 60:.0f} minutes old"] if age > AGED else []


def unknown_run(run_id: str) -> dict[str, Any]:
    """What is said of a run that the store does not know."""
    return {"error": "the store does not know this run", "run_id": said(run_id, 60), "status": "refused"}


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with an action, in words."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _cell(value) for key, value in row.items()}


def _cell(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case _:
            return said(str(value), 200)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
