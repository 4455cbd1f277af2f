"""What somebody sees first, a sentence each: what is broken, what needs them, what was done meanwhile, what comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pilotage.console.session.blocks import Block, lines, sentence
from pilotage.console.session.command import Setting
from pilotage.console.session.lists import cause_in_words
from pilotage.flows.notify.describe import action_in_words, label, told
from pilotage.telemetry import times
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.forecast.upcoming import riskiest
from pilotage.telemetry.queries import runs as runs_known

SHOWN = 6
"""Sentences of one part; what is left out is counted by the last."""
READ = 200
"""Proposals and entries that are looked through for sentences; counts come from the lists themselves."""
DAY, SOON = timedelta(days=1), timedelta(hours=2)
RISKY = 0.3
"""From this chance of failing on a coming run is told of."""
RESULTS: Mapping[str, str] = {
    "incident_resolved": "{count} incidents were over.",
    "verified": "{count} changes kept their promise.",
    "undone": "{count} changes were taken back.",
    "failed": "{count} changes did not work.",
    "refused": "{count} changes were refused at the last moment.",
    "approved": "{count} approvals were given.",
    "rejected": "{count} proposals were rejected.",
    "replaced": "{count} proposals were edited.",
    "expired": "{count} proposals expired before anybody decided.",
}
"""Steps that are counted since somebody was last here, the most telling first."""
SINGLE: Mapping[str, str] = {
    "incident_resolved": "One incident was over.",
    "verified": "One change kept its promise.",
    "undone": "One change was taken back.",
    "failed": "One change did not work.",
    "refused": "One change was refused at the last moment.",
    "approved": "One approval was given.",
    "rejected": "One proposal was rejected.",
    "replaced": "One proposal was edited.",
    "expired": "One proposal expired before anybody decided.",
}
TOLD_IN_WORDS = frozenset(
    {"mode_set", "stopped", "resumed", "policy_published", "delegated", "glass_broken", "gave_up"}
)
"""Steps so rare and so telling that each is told."""
TITLES = ("Broken now", "Needs a decision from you", "Done since you were last here", "What comes next")


def now_blocks(s: Setting) -> list[Block]:
    """Return the four parts, each a block of sentences."""
    now = s.clock()
    status = s.control_api.call("status")
    since, done = _done(s, now)
    title = TITLES[2] if since is not None else "Done in the last day"
    return [
        lines(TITLES[0], _broken(s, status, now), empty="Nothing is broken."),
        lines(TITLES[1], _decisions(s, now), empty="Nothing needs a decision from you."),
        lines(title, done, empty="Nothing was done."),
        lines(TITLES[3], _next(s, now), empty="Nothing is expected soon."),
    ]


def line_in_words(line: Mapping[str, Any]) -> str:
    """Return a sentence with its values, and the ids that it leads to where they are not in it."""
    values = {key: _value(value) for key, value in line["values"].items()}
    said = str(line["words"]).format(**values)
    ids = [ref.partition(":")[2] for ref in line["refs"].values() if ref[:5] in ("propo", "incid")]
    left = [each for each in dict.fromkeys(ids) if each not in said]
    return f"{said} ({', '.join(left)})" if left else said


def _value(value: Any) -> Any:
    return times.local(value["at"]) if isinstance(value, Mapping) else value


def _at(moment: Any) -> dict[str, str]:
    """A value that is a moment: every reader sees it in their own zone."""
    return {"at": moment.isoformat() if isinstance(moment, datetime) else str(moment)}


def _broken(s: Setting, status: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    said = []
    if status["stopped"]:
        said.append(
            sentence("Everything is stopped: {why}.", {"why": "view:audit"}, why=str(status["stopped"]))
        )
    if not (status.get("collector") or {}).get("connected"):
        said.append(sentence("Prefect does not answer: what is shown here is as it was last seen."))
    page = s.control_api.call("incident_page", state="open", limit=SHOWN)
    for row in page["rows"]:
        words = "{what}, since {since}; nobody looks at it."
        if row["waiting"]:
            words = "{what}, since {since}; {count} proposals wait for a person."
            if row["waiting"] == 1:
                words = "{what}, since {since}; one proposal waits for a person."
        elif row["status"] == "open":
            words = "{what}, since {since}; pilotage is at it."
        elif row["status"] == "told":
            words = "{what}, since {since}; its owner was told."
        said.append(
            sentence(
                words,
                {"what": f"incident:{row['incident_id']}"},
                what=cause_in_words(row)[:240],
                since=_at(row["opened_at"]),
                count=row["waiting"],
            )
        )
    if page["count"] > len(page["rows"]):
        left = page["count"] - len(page["rows"])
        said.append(sentence("{count} more incidents are open.", {"count": "view:incidents"}, count=left))
    return said + _late(s, now)


def _late(s: Setting, now: datetime) -> list[dict[str, Any]]:
    try:
        late = runs_known.waiting_runs(s.toolbox.store, now - timedelta(minutes=1))
    except PilotageError as exc:
        return [sentence("What runs and waits is not known: {why}", why=str(exc))]
    if not late:
        return []
    words = (
        "{count} runs are late, the longest since {since}."
        if len(late) > 1
        else "One run is late, since {since}."
    )
    key = "count" if len(late) > 1 else "since"
    return [sentence(words, {key: "view:queues"}, count=len(late), since=_at(late[0].next_start))]


def _decisions(s: Setting, now: datetime) -> list[dict[str, Any]]:
    later = [key for key, until in s.log.snoozed(s.user.name).items() if until > now]
    asked: dict[str, Any] = {"status": "needs_approval", "mine": True, "without": later, "sort": "expiry"}
    page = s.control_api.call("proposal_page", **asked, limit=READ)
    of: dict[str, list[Mapping[str, Any]]] = {}
    for row in page["rows"]:
        of.setdefault(row["part_of"], []).append(row)
    said = [_decision(incident, rows) for incident, rows in list(of.items())[:SHOWN]]
    shown = sum(len(rows) for rows in list(of.values())[:SHOWN])
    if page["count"] > shown:
        left = page["count"] - shown
        said.append(sentence("{count} more wait for you.", {"count": "view:inbox"}, count=left))
    others = s.control_api.call("proposal_page", status="needs_approval", limit=1)["count"] - page["count"]
    if others - len(later) > 0:
        words = (
            "{count} wait for somebody else." if others - len(later) > 1 else "One waits for somebody else."
        )
        key = "count" if others - len(later) > 1 else "one"
        said.append(sentence(words, {key: "view:inbox"}, count=others - len(later)))
    return said


def _decision(incident: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    about = first["target_facts"].get("deployment_name") or first["case"].get("deployment") or first["target"]
    values = {"what": action_in_words(first["action"]), "where": about, "until": _at(first["expires_at"])}
    if len(rows) == 1:
        refs = {"what": f"proposal:{first['proposal_id']}"}
        return sentence("{what}, for {where}; decide until {until}.", refs, **values)
    return sentence(
        "{count} proposals for {where}, the first: {what}; decide until {until}.",
        {"count": f"incident:{incident}", "what": f"proposal:{first['proposal_id']}"},
        count=len(rows),
        **values,
    )


def _done(s: Setting, now: datetime) -> tuple[int | None, list[dict[str, Any]]]:
    """From which entry on, or None where somebody was never here, and what was done since in sentences."""
    page = s.control_api.call("audit_page", changes=True, limit=READ)
    head = page["rows"][0]["seq"] if page["rows"] else 0
    since = s.log.visit(s.user.name, head, now)
    day_ago = now - DAY
    fresh = [
        row
        for row in page["rows"]
        if (row["seq"] > since if since >= 0 else datetime.fromisoformat(row["at"]) > day_ago)
    ]
    said = [
        sentence(
            "{step} by {who} at {at}: {what}",
            {"step": "view:audit"},
            step=label(row),
            who=row["actor"],
            at=_at(row["at"]),
            what=told(row)[:200],
        )
        for row in fresh
        if row["step"] in TOLD_IN_WORDS
    ][:SHOWN]
    for step, words in RESULTS.items():
        rows = [row for row in fresh if row["step"] == step and _worked(row)]
        if not rows:
            continue
        if len(rows) == 1:
            what = rows[0]["proposal_id"] or rows[0]["incident_id"]
            kind = "proposal" if rows[0]["proposal_id"] else "incident"
            said.append({**sentence(SINGLE[step]), "refs": {"": f"{kind}:{what}"} if what else {}})
        else:
            view = "incidents" if step == "incident_resolved" else "audit"
            said.append(sentence(words, {"count": f"view:{view}"}, count=len(rows)))
    return (since if since >= 0 else None), said


def _worked(row: Mapping[str, Any]) -> bool:
    """Whether a check of a change found its promise kept; of other steps always."""
    return row["step"] != "verified" or row["detail"].get("judgement") in (None, "verified")


def _next(s: Setting, now: datetime) -> list[dict[str, Any]]:
    said = []
    for held in s.control_api.call("holds")[:SHOWN]:
        said.append(
            sentence(
                "{what} ({where}) ends at {until}.",
                {"what": f"proposal:{held['proposal_id']}"},
                what=action_in_words(held["action"]),
                where=held["deployment"],
                until=_at(held["undo_at"]),
            )
        )
    try:
        store = s.toolbox.store
        risks = [risk for risk in riskiest(store, now, SHOWN) if risk.forecast.p_fail >= RISKY]
        coming = runs_known.upcoming_runs(store, now, SOON)
    except PilotageError as exc:
        return [*said, sentence("What is due is not known: {why}", why=str(exc))]
    for risk in risks:
        said.append(
            sentence(
                "{run} of {flow} starts at {at} and fails with a chance of {chance}.",
                {"run": f"run:{risk.run.run_id}"},
                run=risk.run.name,
                flow=risk.run.flow_name,
                at=_at(risk.run.next_start or now),
                chance=f"{risk.forecast.p_fail:.0%}",
            )
        )
    if coming:
        words = (
            "{count} runs start within two hours."
            if len(coming) > 1
            else "One run starts within two hours, at {at}."
        )
        key = "count" if len(coming) > 1 else "at"
        said.append(
            sentence(words, {key: "view:forecast"}, count=len(coming), at=_at(coming[0].next_start or now))
        )
    return said
