"""What the pages of one incident and one run show beside their rows: log lines, forecasts over time, the hand-over note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pilotage.console.session.command import Setting
from pilotage.console.session.lists import cause_in_words
from pilotage.flows.notify.handover import note_of
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.forecast.upcoming import forecasts_of
from pilotage.telemetry.queries import runs as runs_known

FIRST_LINES = 12
"""Log lines of an incident that are shown first."""
READ_RUNS = 5
"""Runs of an incident whose log is looked at for its first lines."""
ERROR = 40
"""Python's level from which a line is an error."""


def incident_page_of(s: Setting, incident: Mapping[str, Any]) -> dict[str, Any]:
    """Return an incident with `says`, its cause in a sentence, `lines` of its runs' logs, `names` of runs and `note`."""
    run_ids = [run["run_id"] for run in incident["runs"] if run["run_id"]]
    return {
        **incident,
        "says": cause_in_words(incident),
        "lines": first_lines(s, run_ids),
        "names": _names(s, run_ids),
        "note": note_of(incident, s.clock()),
    }


def first_lines(s: Setting, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lines that say most about why these runs failed: errors of the first of them that logged any."""
    for run_id in run_ids[:READ_RUNS]:
        found = log_lines(s, run_id, 200)
        errors = [line for line in found if line["level"] >= ERROR]
        if errors:
            return errors[-FIRST_LINES:]
    return log_lines(s, run_ids[0], FIRST_LINES) if run_ids else []


def log_lines(s: Setting, run_id: str, limit: int) -> list[dict[str, Any]]:
    """Return the last kept lines of a run's log, oldest first: `{run_id, at, level, message}`; none without telemetry."""
    try:
        found = runs_known.logs_of(s.toolbox.store, run_id, limit)
    except PilotageError:
        return []
    return [
        {"run_id": run_id, "at": line.at, "level": line.level, "message": line.message[:2000]}
        for line in found
    ]


def forecasts_over_time(s: Setting, run_id: str) -> list[dict[str, Any]]:
    """Return what was forecast of a run, oldest first: `{made_at, p_fail, low, high, model, reasons}`."""
    try:
        found = forecasts_of(s.toolbox.store, run_id)
    except PilotageError:
        return []
    return [
        {
            "made_at": each.made_at,
            "p_fail": each.p_fail,
            "low": each.low,
            "high": each.high,
            "model": each.model,
            "reasons": list(each.reasons),
        }
        for each in found
    ]


def moments_of(incident: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[tuple[datetime, str]]:
    """Return what happened to an incident at which moment: proposals, votes, effects and the end, in words of statuses."""
    told = {
        "proposed": "proposed",
        "approved": "approved",
        "rejected": "rejected",
        "replaced": "edited",
        "injected": "injected",
        "verified": "verified",
        "undone": "undone",
        "incident_acknowledged": "looked at",
        "incident_resolved": "over",
    }
    return [
        (datetime.fromisoformat(step["at"]), told[step["step"]]) for step in steps if step["step"] in told
    ]


def _names(s: Setting, run_ids: Sequence[str]) -> dict[str, str]:
    try:
        return {key: run.name for key, run in runs_known.runs_of(s.toolbox.store, run_ids).items()}
    except PilotageError:
        return {}
