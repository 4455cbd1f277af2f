"""What one shift tells the next: what happened, what is open, what was decided by whom, and what comes next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pilotage.flows.config.settings import PageSettings
from pilotage.flows.notify.describe import label, told
from pilotage.flows.notify.pages import page_of

DECIDED = 100
"""Decisions that are listed, the newest; the others are counted."""


def handover_of(
    incidents: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    *,
    since: datetime,
    now: datetime,
) -> dict[str, Any]:
    """Return the handover of a shift: `{since, until, counts, open, over, decided}`.

    `incidents` as the ledger tells of them, oldest first; `steps` what people said meanwhile. The open ones come with
    what is done about them, what comes next and what is wanted of whom.
    """
    open_ones = [_line(one, now) for one in incidents if one["state"] == "open"]
    over = [_line(one, now) for one in incidents if one["state"] == "resolved"]
    decided = [
        {
            "at": step["at"],
            "who": step["actor"],
            "step": label(step),
            "about": step["proposal_id"] or step["incident_id"],
            "words": told(step),
        }
        for step in steps
    ]
    return {
        "since": since.isoformat(),
        "until": now.isoformat(),
        "counts": {
            "opened": sum(datetime.fromisoformat(one["opened_at"]) >= since for one in incidents),
            "open": len(open_ones),
            "over": len(over),
            "decided": len(decided),
        },
        "open": open_ones,
        "over": over,
        "decided": decided[-DECIDED:],
    }


def note_of(incident: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return what one shift tells the next of one incident: what is broken, done, next and wanted."""
    return _line(incident, now)


def _line(incident: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    details = page_of(incident, now, PageSettings()).details
    return {
        "incident_id": incident["incident_id"],
        "status": incident["status"],
        "broken": details["broken"],
        "class": incident["failure_class"],
        "error": details.get("error", ""),
        "runs": details.get("runs", ""),
        "since": incident["opened_at"],
        "over_at": incident["resolved_at"],
        "resolution": incident["resolution"],
        "done": list(details.get("done", ())),
        "next": details.get("next", ""),
        "wanted": details.get("wanted", "") if incident["state"] == "open" else "",
        "answer": details.get("answer", "") if incident["state"] == "open" else "",
        "looked_at_by": (incident.get("acknowledged") or {}).get("by", ""),
    }
