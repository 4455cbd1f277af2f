"""How look-ups write things down: moments in ISO 8601, spans in seconds, somebody else's text redacted and quoted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.harmless import harmless
from pilotage.telemetry.redaction import redact

SHOWN = 20
"""Rows of one result."""


def said(value: Any, limit: int = 200) -> str:
    """Return somebody else's text, safe to show and to prompt with."""
    return harmless(redact(str(value)), limit)


def at(moment: datetime | None) -> str | None:
    """Return the moment in ISO 8601, or None."""
    return moment.isoformat() if moment else None


def seconds(span: timedelta | None) -> float | None:
    """Return the span in seconds, or None."""
    return round(span.total_seconds(), 1) if span is not None else None


def left_out(total: int, what: str, shown: int = SHOWN) -> list[str]:
    """Return the gap to tell of when not all are shown."""
    return [f"{total - shown} more {what} are left out"] if total > shown else []


def run_in_short(run: RunFact) -> dict[str, Any]:
    """Return a run in a few fields: who it is, where it stands, and when."""
    return {
        "run_id": run.run_id,
        "name": said(run.name, 80),
        "flow": said(run.flow_name, 80),
        "deployment_id": run.deployment_id or "",
        "state": f"{run.state_type} ({said(run.state_name, 60)})",
        "attempts": run.run_count,
        "due": at(run.expected_start),
        "started": at(run.started),
        "ended": at(run.ended),
    }
