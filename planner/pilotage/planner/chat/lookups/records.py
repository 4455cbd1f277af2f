"""Who decided what: votes, proposals that wait, what was done, and what came of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from pilotage.planner.chat.lookups.shapes import SHOWN, at, left_out, said
from pilotage.telemetry.errors import ApiError
from pilotage.telemetry.facts import DecisionFact
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

READABLE = frozenset(
    {"why", "proposals", "proposal", "status", "whoami", "permissions", "incidents", "incident"}
)
"""Operations of the API that a conversation may ask; all of them read."""
NOT_ASKED = "the ledger cannot be asked here, so this is from telemetry's copy of it"
TOLD = frozenset({"notify_owner", "resolve_alert"})


@runtime_checkable
class RecordsApi(Protocol):
    """An API that also answers what is in the ledger."""

    def read(self, op: str, **arguments: Any) -> Any:
        """The result of one operation of `READABLE` in the caller's own name. Raises ApiError."""
        ...


def who_decided(api: object, store: Store, subject: str) -> dict[str, Any]:
    """Return every step about a run, proposal or incident with who took it: `{subject, steps, gaps}`, oldest first."""
    if isinstance(api, RecordsApi):
        try:
            steps = api.read("why", subject=subject)
            return {
                "subject": said(subject, 80),
                "steps": [
                    {"at": step.get("at"), "step": said(step.get("step", ""), 40), "by": said(step.get("actor", ""), 80),
                     "proposal_id": str(step.get("proposal_id") or ""), "words": said(_words(step), 300)}
                    for step in steps[-SHOWN:]
                ],
                "gaps": left_out(len(steps), "older steps"),
            }  # fmt: skip
        except ApiError as error:
            gap = str(error)
    else:
        gap = NOT_ASKED
    rows = store.rows(
        "SELECT * FROM decisions WHERE run_id = ? OR proposal_id = ? OR incident_id = ? "
        'ORDER BY "at" DESC, decision_id DESC LIMIT ?',
        [subject, subject, subject, SHOWN],
    )
    return {
        "subject": said(subject, 80),
        "steps": [_step(fact) for fact in facts_from_rows(DecisionFact, rows)[::-1]],
        "gaps": [said(gap, 300)],
    }


def _words(step: dict[str, Any]) -> str:
    told = step.get("words") or (step.get("detail") or {}).get("reason") or step.get("outcome") or ""
    return str(told)


def _step(fact: DecisionFact) -> dict[str, Any]:
    return {
        "at": at(fact.at),
        "step": fact.step,
        "by": said(fact.actor, 80),
        "proposal_id": fact.proposal_id,
        "run_id": fact.run_id or "",
        "words": f"{fact.action} {fact.outcome}".strip(),
        "policies": list(fact.policy_ids),
    }


def decided_about_deployment(store: Store, deployment_id: str) -> dict[str, Any]:
    """Return the newest steps about any run of a deployment, or about the deployment itself, with who took them."""
    rows = store.rows(
        "SELECT d.* FROM decisions d LEFT JOIN runs r USING (run_id) WHERE r.deployment_id = ? "
        'OR contains(CAST(d.detail AS VARCHAR), ?) ORDER BY d."at" DESC, d.decision_id DESC LIMIT ?',
        [deployment_id, deployment_id, SHOWN],
    )
    steps = [_step(fact) for fact in facts_from_rows(DecisionFact, rows)[::-1]]
    gaps = (
        []
        if steps
        else ["nothing was decided about it by pilotage; what people do in Prefect has no author there"]
    )
    return {"deployment_id": deployment_id, "steps": steps, "gaps": gaps}


def done(store: Store, since: datetime, until: datetime) -> dict[str, Any]:
    """Return what was changed in Prefect between two moments and what came of it: `{count, changes, told, gaps}`."""
    rows = store.rows(
        """
        SELECT proposal_id, any_value(run_id) AS run_id, any_value(action) FILTER (action <> '') AS action,
            min("at") FILTER (step = 'injected') AS injected,
            arg_max(step, decision_id) AS step, arg_max(outcome, decision_id) AS outcome,
            max(actor) FILTER (step IN ('approved', 'voted')) AS approved_by
        FROM decisions WHERE proposal_id IN (
            SELECT proposal_id FROM decisions WHERE step = 'injected' AND coalesce(outcome, '') <> 'refused'
            AND "at" BETWEEN ? AND ?)
        GROUP BY proposal_id ORDER BY injected DESC
        """,
        [since, until],
    )
    changed = [row for row in rows if row["action"] not in TOLD]
    return {
        "since": at(since),
        "until": at(until),
        "count": len(changed),
        "changes": [
            {"at": at(row["injected"]), "proposal_id": row["proposal_id"], "run_id": row["run_id"] or "",
             "action": row["action"] or "", "stands": f"{row['step']} {row['outcome'] or ''}".strip(),
             "approved_by": said(row["approved_by"] or "nobody needed to", 80)}
            for row in changed[:SHOWN]
        ],
        "told": len(rows) - len(changed),
        "gaps": left_out(len(changed), "changes"),
    }  # fmt: skip


def waits_for_people(api: object) -> dict[str, Any]:
    """Return the proposals that wait for a person, soonest expiry first, and who the caller is: `{you, count, waiting}`."""
    if not isinstance(api, RecordsApi):
        return {"error": "the ledger cannot be asked here; see /inbox", "gaps": ["what waits is not known"]}
    try:
        me, rows = api.read("whoami"), api.read("proposals", status="needs_approval", limit=50)
    except ApiError as error:
        return {"error": said(error, 300), "gaps": ["what waits is not known"]}
    rows.sort(key=lambda row: str(row.get("expires_at")))
    return {
        "you": said(me["name"], 80),
        "roles": list(me["roles"]),
        "count": len(rows),
        "waiting": [
            {"proposal_id": row["proposal_id"], "action": row["kind"], "target": said(row["target"], 120),
             "run_id": str(row.get("run_id") or ""), "expires": row.get("expires_at"),
             "yours_to_decide": "approver" in me["roles"] or "admin" in me["roles"],
             "missing": [said(each, 60) for each in (row.get("verdict") or {}).get("requirements") or ()]}
            for row in rows[:SHOWN]
        ],
        "gaps": left_out(len(rows), "proposals")
        + (["there may be more: the newest 50 were read"] if len(rows) == 50 else []),
    }  # fmt: skip
