"""Commands about an incident: what it is, one answer to its plan, who looks, regrouping, the handover of a shift."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pilotage.console.render.text import joined
from pilotage.console.session.blocks import Block, link, moment, pairs, table, text
from pilotage.console.session.command import Setting
from pilotage.console.session.commands.status import subject_of
from pilotage.console.session.forms import span
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.incidents import plan_seen
from pilotage.flows.notify.describe import action_in_words

SHORT_INCIDENT = re.compile(r"i-[0-9a-f]{4,12}", re.IGNORECASE)
"""An incident's id, whole or cut short."""
_RUN = re.compile(r"[0-9a-f][0-9a-f-]{3,35}", re.IGNORECASE)
ROWS = 50


def incident(s: Setting, rest: str) -> list[Block]:
    """One incident: what is broken, its runs, and its plan with what came of each step."""
    return incident_blocks(_asked(s, _named(rest, "/incident ID")[0]))


def incident_blocks(row: Mapping[str, Any]) -> list[Block]:
    """An incident as blocks."""
    looks = row["acknowledged"]
    took = row.get("seconds_to_recovery")
    about = {
        "status": row["status"],
        "subject": subject_of(row),
        "class": row["failure_class"],
        "error": row["error"],
        "began": moment(row.get("failed_at") or row["first_at"]),
        "recovered in": f"{took:.0f} s" if took is not None else "",
        "resolution": row["resolution"],
        "looked at by": looks.get("by", ""),
        "grouped by": joined(row["causes"][:5]),
        "earlier": "; ".join(
            f"{one['incident_id']}: {one['resolution']}"
            + (f", {one['helped']} helped" if one["helped"] else "")
            for one in row["earlier"][:3]
        ),
    }
    return [
        pairs(f"Incident {row['incident_id']}", {name: value for name, value in about.items() if value}),
        table(
            "Runs",
            ("since", "run", "class", "state", "why"),
            (
                (
                    moment(run["at"]),
                    link(run["run_id"], "run", run["run_id"]) if run["run_id"] else run["subject"],
                    run["failure_class"],
                    run["state"],
                    run["why"],
                )
                for run in row["runs"][:ROWS]
            ),
            empty="It has no runs.",
        ),
        table(
            "Plan",
            ("filed", "proposal", "action", "status", "missing", "outcome"),
            (
                (
                    moment(step["filed_at"]),
                    link(step["proposal_id"], "proposal", step["proposal_id"]),
                    action_in_words(step["action"]),
                    step["status"],
                    joined(step["verdict"].get("requirements")),
                    str(step["outcome"].get("detail") or ""),
                )
                for step in row["proposals"][-ROWS:]
            ),
            empty="Nothing is proposed.",
        ),
    ]


def decide_incident(s: Setting, rest: str, decision: Literal["approve", "reject"]) -> list[Block]:
    """Answers everything of an incident that waits, but for what is about the runs after `but`."""
    incident_id, words = _named(rest, f"/{decision} i-… [but RUN…] [REASON]")
    without: list[str] = []
    if words[:1] == ["but"]:
        without, words = _runs(words[1:])
    reason = " ".join(words)
    if decision == "reject" and not reason:
        raise ApiRejection("invalid", "Rejecting: say why, as /reject i-… not during the close.")
    row = _asked(s, incident_id)
    reply = s.control_api.call(
        "vote_incident",
        incident_id=row["incident_id"],
        seen=plan_seen(row, without),
        decision=decision,
        reason=reason,
    )
    results = reply["results"]
    return [
        table(
            f"{decision} {row['incident_id']}: {sum(one['counted'] for one in results)} of {len(results)} counted",
            ("proposal", "counted", "what became of it"),
            (
                (
                    link(one["proposal_id"], "proposal", one["proposal_id"]),
                    "yes" if one["counted"] else "no",
                    one["words"],
                )
                for one in results
            ),
            empty="",
        )
    ]


def ack(s: Setting, rest: str) -> list[Block]:
    """Says that the caller looks at an incident."""
    incident_id, words = _named(rest, "/ack ID [REASON]")
    row = s.control_api.call("acknowledge", incident_id=incident_id, reason=" ".join(words))
    return [text(f"{row['incident_id']} is looked at by {row['acknowledged']['by']}; nobody else is asked.")]


def waive(s: Setting, rest: str) -> list[Block]:
    """Gives up runs of an incident: all, or those named before the reason."""
    incident_id, words = _named(rest, "/waive ID [RUN…] REASON")
    runs, words = _runs(words)
    row = s.control_api.call("waive", incident_id=incident_id, run_ids=runs, reason=" ".join(words))
    return incident_blocks(row)


def split(s: Setting, rest: str) -> list[Block]:
    """Makes some runs of an incident an incident of their own."""
    incident_id, words = _named(rest, "/split ID RUN…")
    return incident_blocks(s.control_api.call("split", incident_id=incident_id, run_ids=words))


def merge(s: Setting, rest: str) -> list[Block]:
    """Makes other incidents part of the first."""
    incident_id, words = _named(rest, "/merge ID OTHER…")
    return incident_blocks(s.control_api.call("merge", incident_id=incident_id, others=words))


def handover(s: Setting, rest: str) -> list[Block]:
    """What happened on this shift, what is open, what was decided by whom, what comes next."""
    words = rest.split()
    hours = span(words[0]).total_seconds() / 3600 if words else 8.0
    reply = s.control_api.call("handover", hours=hours)
    counts = reply["counts"]
    return [
        pairs(
            "Handover",
            {
                "from": moment(reply["since"]),
                "to": moment(reply["until"]),
                "opened": counts["opened"],
                "over": counts["over"],
                "open": counts["open"],
                "decisions of people": counts["decided"],
            },
        ),
        table(
            "Open",
            ("since", "incident", "broken", "error", "runs", "done", "next", "wanted", "looked at by"),
            (
                (
                    moment(row["since"]),
                    link(row["incident_id"], "incident", row["incident_id"]),
                    row["broken"],
                    row["error"],
                    row["runs"],
                    "; ".join(row["done"]),
                    row["next"],
                    row["wanted"],
                    row["looked_at_by"],
                )
                for row in reply["open"]
            ),
            empty="Nothing is open.",
        ),
        table(
            "Over",
            ("over", "incident", "broken", "class", "how it ended", "done"),
            (
                (
                    moment(row["over_at"]),
                    link(row["incident_id"], "incident", row["incident_id"]),
                    row["broken"],
                    row["class"],
                    row["resolution"],
                    "; ".join(row["done"]),
                )
                for row in reply["over"]
            ),
            empty="Nothing ended.",
        ),
        table(
            "Decided",
            ("at", "who", "did", "about", "words"),
            (
                (moment(row["at"]), row["who"], row["step"], row["about"], row["words"])
                for row in reply["decided"]
            ),
            empty="Nobody decided anything.",
        ),
    ]


def _asked(s: Setting, incident_id: str) -> dict[str, Any]:
    return dict(s.control_api.call("incident", incident_id=incident_id))


def _named(rest: str, usage: str) -> tuple[str, list[str]]:
    words = rest.split()
    if not words or not SHORT_INCIDENT.fullmatch(words[0]):
        raise ApiRejection(
            "invalid", f"Reading {rest!r}: say {usage}, with an incident (i-…); see /incidents."
        )
    return words[0], words[1:]


def _runs(words: list[str]) -> tuple[list[str], list[str]]:
    """The ids of runs that the words begin with, each with a digit in it, and the words after them."""
    count = next(
        (
            n
            for n, word in enumerate(words)
            if not (_RUN.fullmatch(word) and any(sign.isdigit() for sign in word))
        ),
        len(words),
    )
    return words[:count], words[count:]
