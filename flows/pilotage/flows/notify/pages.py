"""What a page about an incident says, and when it is sent: once, again only when more is wanted of somebody. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from pilotage.flows.config.settings import PageSettings as PageRules
from pilotage.flows.notify.describe import action_in_words, span_of
from pilotage.planner.actions.types import Severity
from pilotage.planner.findings import FORECASTS, NOT_A_FAILURE
from pilotage.telemetry import times
from pilotage.telemetry.harmless import WHOLE, harmless
from pilotage.telemetry.redaction import redact

UNDER_WAY = frozenset({"filed", "held", "allowed", "admitted", "delivered"})
_EXPECTED = frozenset(one.value for one in FORECASTS)
_NO_FAILURES = frozenset(one.value for one in NOT_A_FAILURE)
_LINE = 300
"""Characters of an error that a page quotes."""
NAMED = 5
"""Deployments, steps and runs that a page lists; the others are counted."""


class Phase(IntEnum):
    """What an incident wants of people; more is told again, less is not."""

    OVER = 0
    QUIET = 1
    """Nothing is wanted, and nobody has to know at once."""
    ACTING = 2
    """Pilotage acts; somebody should know when it lasts."""
    OWNER = 3
    """Pilotage does nothing more: its owner is wanted."""
    WAITING = 4
    """A person has to decide."""
    ESCALATED = 5
    """Nobody decided in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page, as it is sent."""

    summary: str
    severity: Severity
    run_id: str
    deployment_id: str
    details: Mapping[str, Any]
    teams: frozenset[str] = frozenset()
    """Owners of its deployments."""


def phase_of(incident: Mapping[str, Any], now: datetime, rules: PageRules) -> Phase:
    """Return what an incident wants of people now."""
    if incident["state"] != "open":
        return Phase.OVER
    proposals: Sequence[Mapping[str, Any]] = incident["proposals"]
    waiting = [row for row in proposals if row["status"] == "needs_approval"]
    if waiting:
        since = min(datetime.fromisoformat(row["filed_at"]) for row in waiting)
        unheard = now - since > rules.escalate_after and not incident.get("acknowledged")
        return Phase.ESCALATED if unheard else Phase.WAITING
    changes = [row for row in proposals if row["kind"] != "notify_owner"]
    if any(row["status"] in UNDER_WAY for row in changes):
        return Phase.QUIET if incident["failure_class"] in _EXPECTED else Phase.ACTING
    if incident["failure_class"] in _NO_FAILURES:
        told = any(row["kind"] == "notify_owner" for row in proposals)
        return Phase.OWNER if told and incident["failure_class"] != "recovered" else Phase.QUIET
    return Phase.OWNER


def is_due(incident: Mapping[str, Any], now: datetime, rules: PageRules) -> bool:
    """Return whether people are to be told now of an open incident: its first page, or more than the last one wanted."""
    phase, told = phase_of(incident, now, rules), Phase(int(incident["told"].get("phase", 0)))
    if phase <= max(told, Phase.QUIET):
        return False
    # between the end of one attempt and the proposal of the next nothing is under way for a moment
    settled = now - max(_moments(incident), default=now) >= SETTLING
    if phase is Phase.OWNER and not settled:
        return False
    if phase is Phase.ACTING and now - datetime.fromisoformat(incident["opened_at"]) < rules.after:
        return False
    return not (can_wait(incident, phase) and _quiet(now, rules))


SETTLING = timedelta(seconds=5)
"""How long nothing more may have come before an incident counts as left to its owner."""


def _moments(incident: Mapping[str, Any]) -> list[datetime]:
    """When something happened to an incident last."""
    said = [row["outcome"].get("at") or row["filed_at"] for row in incident["proposals"]]
    return [datetime.fromisoformat(at) for at in (*said, incident["opened_at"])]


def can_wait(incident: Mapping[str, Any], phase: Phase) -> bool:
    """Return whether an incident may wait for the morning: nothing of production, or nothing wanted."""
    return phase is Phase.ACTING or not _production(incident)


def page_of(incident: Mapping[str, Any], now: datetime, rules: PageRules, *, console_url: str = "") -> Page:
    """Return the page about an incident: what is broken, since when, what is done, what is wanted, how to answer."""
    phase = phase_of(incident, now, rules)
    runs = incident["runs"]
    open_runs = [run for run in runs if run["state"] == "open"]
    what = incident["deployment"] or incident["subject"]
    places = _deployments(incident)
    if len(places) > 1:
        what = f"{len(places)} deployments ({_listed(places)})"
    count = f", {len(runs)} runs" if len(runs) > 1 else ""
    error = _clean(incident["error"])[:_LINE]
    wanted = _wanted(incident, phase)
    summary = f"{what}: {incident['failure_class']}{count}: {error or 'no message'}; {wanted}"
    facts = _facts(incident)
    details = {
        "incident": incident["incident_id"],
        "broken": what,
        "error": error,
        "class": incident["failure_class"],
        "since": incident["opened_at"],
        "runs": f"{len(open_runs)} of {len(runs)} not done yet",
        "waits": facts.get("team") or "its owner",
        "done": _done(incident),
        "next": _next(incident),
        "wanted": wanted,
        "answer": _answer(incident, phase),
        "earlier": [
            f"{one['incident_id']}: {one['resolution']}"
            + (f", {one['helped']} helped" if one["helped"] else "")
            for one in incident["earlier"][:2]
        ],
    }
    if console_url:
        details["card"] = f"{console_url.rstrip('/')}/#/incident/{incident['incident_id']}"
    return Page(
        summary=_clean(summary)[:1024],
        severity=severity_of(incident, phase),
        run_id=incident["run_id"],
        deployment_id=str(facts.get("deployment_id") or ""),
        details={key: value for key, value in details.items() if value},
        teams=frozenset(
            team for row in incident["proposals"] if (team := str(row["target_facts"].get("team") or ""))
        ),
    )


def severity_of(incident: Mapping[str, Any], phase: Phase) -> Severity:
    """Return how urgent a page is: by what is wanted, the environment and the tier."""
    if incident["failure_class"] in _EXPECTED:
        return Severity.WARNING
    facts = _facts(incident)
    if phase in (Phase.ACTING, Phase.OVER):
        return Severity.WARNING if _production(incident) else Severity.INFO
    if not _production(incident):
        return Severity.WARNING
    return Severity.CRITICAL if int(facts.get("tier", 1)) == 0 else Severity.ERROR


def _wanted(incident: Mapping[str, Any], phase: Phase) -> str:
    match phase:
        case Phase.OVER:
            return "nothing is wanted: it is over"
        case Phase.QUIET | Phase.ACTING:
            return f"nothing is wanted yet: {_next(incident) or 'pilotage is at it'}"
        case Phase.OWNER:
            return "pilotage does nothing more: its owner is wanted"
        case Phase.WAITING | Phase.ESCALATED:
            rows = [row for row in incident["proposals"] if row["status"] == "needs_approval"]
            who = sorted({role for row in rows for role in (row["verdict"].get("requirements") or {})})
            nobody = "nobody answered for long; " if phase is Phase.ESCALATED else ""
            acts = list(dict.fromkeys(action_in_words(row["action"]) for row in rows))
            return f"{nobody}{' and '.join(who) or 'a person'} wanted to allow: {_listed(acts)}"


def _answer(incident: Mapping[str, Any], phase: Phase) -> str:
    """Return the commands that answer a page, each as it can be typed."""
    if phase in (Phase.WAITING, Phase.ESCALATED):
        incident_id = incident["incident_id"]
        rows = [row for row in incident["proposals"] if row["status"] == "needs_approval"]
        most = f" (all {len(rows)} that wait; --but RUN leaves one out)" if len(rows) > 1 else ""
        return (
            f"pilotage approve {incident_id}{most}, or pilotage reject {incident_id} --reason WHY; "
            f"pilotage incident ack {incident_id} while you look"
        )
    return f"pilotage incident show {incident['incident_id']}"


def _done(incident: Mapping[str, Any]) -> list[str]:
    """What was done, the newest last, at most `NAMED` lines."""
    lines = []
    for row in incident["proposals"]:
        if row["status"] in ("verified", "undone", "failed", "delivered") and row["kind"] != "notify_owner":
            lines.append(f"{action_in_words(row['action'])}: {row['status']}")
    return lines[-NAMED:]


def _next(incident: Mapping[str, Any]) -> str:
    """What pilotage does next, and when, where it is under way."""
    rows = [
        row for row in incident["proposals"] if row["status"] in UNDER_WAY and row["kind"] != "notify_owner"
    ]
    if not rows:
        return ""
    action = rows[-1]["action"]
    delay = span_of(action.get("delay"))
    at = datetime.fromisoformat(rows[-1]["filed_at"]) + (delay or timedelta(0))
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{action_in_words(action)}{more}, at about {times.local(at.isoformat(), '%H:%M:%S')}"


def _facts(incident: Mapping[str, Any]) -> Mapping[str, Any]:
    known: list[Mapping[str, Any]] = [
        row["target_facts"] for row in incident["proposals"] if row["target_facts"]
    ]
    return known[0] if known else {}


def _production(incident: Mapping[str, Any]) -> bool:
    """Whether any of its deployments counts as production, as an unlabelled one does."""
    envs = {
        str(row["target_facts"].get("env", "prod")) for row in incident["proposals"] if row["target_facts"]
    }
    return not envs or bool(envs - {"dev", "test", "staging", "sandbox", "demo"})


def _deployments(incident: Mapping[str, Any]) -> list[str]:
    names = (
        row["target_facts"].get("deployment_name") or row["case"].get("deployment") or ""
        for row in incident["proposals"]
    )
    return list(dict.fromkeys(name for name in names if name))


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more


def _clean(text: str) -> str:
    """The text without secrets and control characters, on one line."""
    return harmless(redact(" ".join(str(text).split())), WHOLE)


def _quiet(now: datetime, rules: PageRules) -> bool:
    if rules.quiet_from is None:
        return False
    hour = now.astimezone(UTC).hour
    if rules.quiet_from <= rules.quiet_to:
        return rules.quiet_from <= hour < rules.quiet_to
    return hour >= rules.quiet_from or hour < rules.quiet_to


def related_resources(incident: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the flow runs and deployments of an incident as related resources of a Prefect event."""
    runs = [run["run_id"] for run in incident["runs"] if run["run_id"]]
    deployments = dict.fromkeys(
        str(row["target_facts"].get("deployment_id") or "") for row in incident["proposals"]
    )
    return [
        *({"prefect.resource.id": f"prefect.flow-run.{one}", "prefect.resource.role": "flow-run"}
          for one in runs[:50]),
        *({"prefect.resource.id": f"prefect.deployment.{one}", "prefect.resource.role": "deployment"}
          for one in deployments if one),
    ]  # fmt: skip
