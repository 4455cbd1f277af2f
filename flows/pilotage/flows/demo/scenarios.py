"""The eight incidents of the demo: what each is about, and when it ended as it should. Pure: facts in, rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pilotage.flows.notify.describe import action_in_words, told


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One incident that must be seen."""

    case: int
    title: str
    subject: Literal["run", "queue", "deployment"]
    """What the proposal is about."""
    action: str
    """The action kind that must be proposed."""
    verdict: Literal["allow", "needs_approval", "deny"]
    """The first verdict that it must get."""
    statuses: frozenset[str]
    """Where the proposal must end."""
    never: frozenset[str] = frozenset()
    """Action kinds that must not have been injected for the same run."""
    run_must_end: str = ""
    """State type that Prefect must show for the run at the end, or empty."""
    run_key: str = ""
    """Which of the stage's runs this is about."""


DONE = frozenset({"verified", "undone"})

ACTS: tuple[Act, ...] = (
    Act(
        case=1,
        title="a transient failure",
        subject="run",
        action="retry_run",
        verdict="allow",
        statuses=DONE,
        run_must_end="COMPLETED",
        run_key="transient",
    ),
    Act(
        case=2,
        title="a killed process",
        subject="run",
        action="retry_run",
        verdict="allow",
        statuses=DONE,
        run_must_end="COMPLETED",
        run_key="killed",
    ),
    Act(
        case=3,
        title="bad credentials",
        subject="run",
        action="notify_owner",
        verdict="allow",
        statuses=DONE,
        never=frozenset({"retry_run", "resize_run"}),
        run_must_end="FAILED",
        run_key="credentials",
    ),
    Act(
        case=4,
        title="too little memory",
        subject="run",
        action="resize_run",
        verdict="allow",
        statuses=DONE,
        run_must_end="COMPLETED",
        run_key="memory",
    ),
    Act(
        case=5,
        title="a starved queue",
        subject="queue",
        action="reserve_slot",
        verdict="allow",
        statuses=frozenset({"undone"}),
        run_key="deadline",
    ),
    Act(
        case=5,
        title="a near deadline",
        subject="run",
        action="reschedule_run",
        verdict="allow",
        statuses=DONE,
        run_must_end="COMPLETED",
        run_key="deadline",
    ),
    Act(
        case=6,
        title="production needs a person",
        subject="run",
        action="retry_run",
        verdict="needs_approval",
        statuses=DONE,
        run_must_end="COMPLETED",
        run_key="production",
    ),
    Act(
        case=7,
        title="never, whoever approves",
        subject="deployment",
        action="pause_deployment",
        verdict="deny",
        statuses=frozenset({"denied"}),
        run_key="tier0",
    ),
    Act(
        case=8,
        title="forecast to fail",
        subject="run",
        action="reschedule_run",
        verdict="allow",
        statuses=DONE,
        run_must_end="COMPLETED",
        run_key="at_risk",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One proposal that belongs to an act, with its story."""

    detail: Mapping[str, Any]
    """As the API's operation `proposal` answers."""
    story: Sequence[Mapping[str, Any]]
    """As the API's operation `why` answers for the proposal."""


def belongs(act: Act, detail: Mapping[str, Any], *, run_id: str, deployment_id: str) -> bool:
    """Whether a proposal is the one the act waits for."""
    if detail["action"]["kind"] != act.action:
        return False
    match act.subject:
        case "run":
            return bool(detail["target"] == f"run:{run_id}")
        case "deployment":
            return bool(detail["target"] == f"deployment:{deployment_id}")
        case "queue":
            return str(detail["target"]).startswith("queue:")


def first_verdict(story: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The verdict that the proposal got when it was filed, or an empty mapping."""
    return next((step["detail"]["verdict"] for step in story if step["step"] == "judged"), {})


def settled_at(story: Sequence[Mapping[str, Any]], *, deny: bool) -> datetime | None:
    """When the matter was closed: verified, or denied for good."""
    wanted = "judged" if deny else "verified"
    steps = [step for step in story if step["step"] == wanted]
    return datetime.fromisoformat(str(steps[0]["at"])) if steps else None


def row_of(
    act: Act,
    observation: Observation | None,
    *,
    run: Mapping[str, Any],
    ui_url: str,
    injected: frozenset[str],
) -> dict[str, Any]:
    """One row of the result, and whether it is as it should be."""
    run_id = str(run.get("id", ""))
    row: dict[str, Any] = {
        "case": act.case,
        "title": act.title,
        "run_id": run_id,
        "run_url": f"{ui_url}/runs/flow-run/{run_id}" if run_id else "",
        "run_state": run.get("state_name", ""),
        "failure_class": "",
        "evidence": [],
        "forecast": None,
        "action": act.action,
        "verdict": "",
        "policy_ids": [],
        "reasons": [],
        "approved_by": [],
        "injected": "",
        "outcome": "never proposed",
        "seconds_to_recovery": None,
        "waits_for": "",
        "ok": False,
    }
    if observation is None:
        row["waits_for"] = waits_for(act, None, run=run)
        return row
    detail, story = observation.detail, observation.story
    case = detail["case"]
    first = first_verdict(story)
    ends = [step for step in story if step["step"] in ("verified", "undone", "refused")]
    injected_step = next((step for step in story if step["step"] == "injected"), None)
    closed = settled_at(story, deny=act.verdict == "deny")
    began = datetime.fromisoformat(case["failed_at"]) if case.get("failed_at") else None
    row |= {
        "proposal_id": detail["proposal_id"],
        "incident_id": detail["incident_id"],
        "failure_class": case["failure_class"],
        "evidence": list(case["notes"])[:3],
        "forecast": case["p_fail"],
        "verdict": first.get("outcome", ""),
        "policy_ids": list(first.get("policy_ids", ())),
        "reasons": list(first.get("reasons", ())),
        "approved_by": [str(step["actor"]) for step in story if step["step"] == "approved"],
        "injected": f"{action_in_words(detail['action'])}: {told(injected_step)}"
        if injected_step
        else "nothing",
        "outcome": "; then ".join(told(step) for step in ends) if ends else detail["status"],
        "seconds_to_recovery": round((closed - began).total_seconds(), 1) if closed and began else None,
    }
    kept = any(step["step"] == "verified" and step["detail"]["judgement"] == "verified" for step in story)
    row["ok"] = (
        row["verdict"] == act.verdict
        and (kept or act.verdict == "deny")
        and detail["status"] in act.statuses
        and not (injected & act.never)
        and (not act.run_must_end or run.get("state_type") == act.run_must_end)
        and (act.verdict != "needs_approval" or bool(row["approved_by"]))
    )
    if not row["ok"]:
        row["waits_for"] = waits_for(act, observation, run=run)
    return row


NEXT: Mapping[str, str] = {
    "filed": "the verdict on {action}",
    "needs_approval": "a person's approval of {action}",
    "allowed": "{action} to be admitted",
    "admitted": "{action} to be delivered to Prefect",
    "delivered": "{action} to be verified",
    "verified": "{action} to be taken back, once nothing waits for it any more",
}
"""What comes next for a proposal by its status."""


def waits_for(act: Act, observation: Observation | None, *, run: Mapping[str, Any]) -> str:
    """Return what an act that has not ended as it should waits for, or what went wrong with it."""
    where = f"its run is {run['state_name']}" if run.get("state_name") else "its run is not there yet"
    if not run:
        return "the first attempts of the other runs to end, after which its own run is started"
    if observation is None:
        return f"a proposal of {act.action}; {where}"
    verdict, status = first_verdict(observation.story).get("outcome", ""), str(observation.detail["status"])
    if verdict and verdict != act.verdict:
        return f"nothing: the verdict on {act.action} was {verdict}, not {act.verdict}"
    if status in act.statuses:
        return f"its run to end {act.run_must_end}; {where}" if act.run_must_end else "nothing: see its story"
    if status in NEXT:
        return f"{NEXT[status].format(action=act.action)}; {where}"
    return f"nothing: {act.action} ended {status}"
