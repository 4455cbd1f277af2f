"""How pilotage is set up for the bench: settings as the docs say, and numbers for a day's trouble in ten minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pilotage.flows.bench.arms import Deed
from pilotage.flows.config.paths import StatePaths
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.sql_ledger import SqlLedger

SETTINGS = """\
mode = "{mode}"
webhook_url = "{pager}"
guardrails = "{guardrails}"

[loop]
queue_interval = "PT{queue:.0f}S"
tick = "PT{tick:.0f}S"

[pages]
per_hour = 100

[planner]
{planner}
"""
WAITS = {
    "starved_after": timedelta(seconds=60),
    "outage": timedelta(seconds=60),
    "orphan_after": timedelta(seconds=60),
    "dependency_delay": timedelta(seconds=60),
    "capacity_delay": timedelta(seconds=60),
    "rate_limited_delay": timedelta(seconds=30),
    "stands_after": timedelta(seconds=60),
    "pending_after": timedelta(seconds=60),
    "overlong_floor": timedelta(seconds=60),
    "slots_lost_after": timedelta(minutes=6),
}
"""A round lasts minutes, so what counts as long does so sooner than by default. Every other number is the default.

Leases of slots last five minutes and heartbeats come every half a minute here as everywhere: what waits for these does
not do so sooner."""
GUARDRAILS = """\
# The bench brings a day's trouble within ten minutes: what is counted by the hour may be so much more.
max_actions_per_hour: 600
max_actions_per_deployment_per_hour: 20
max_notifications_per_hour: 1200
max_targets_per_hour: 300
max_failed_outcomes_per_hour: 40
max_waiting: 500
"""
CARRIED_OUT = frozenset({"delivered", "verified", "failed", "undone"})
"""Statuses of a proposal that changed something."""


def prepared(
    root: Path,
    *,
    mode: str,
    pager: str,
    scale: float,
    llm_url: str = "",
    tick: float = 1.0,
    queue: float = 5.0,
) -> StatePaths:
    """Return a state directory with people, settings and guardrails, ready for `pilotage up`."""
    paths = StatePaths(root=root)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    book = IdentityBook(paths.users)
    token = book.add("pat", roles=("operator", "admin", "approver"), teams=("data",))
    paths.token.touch(mode=0o600)
    paths.token.write_text(token + "\n")
    guardrails = root / "guardrails.yaml"
    guardrails.write_text(GUARDRAILS)
    waits = "\n".join(f'{key} = "PT{wait.total_seconds() * scale:.0f}S"' for key, wait in WAITS.items())
    text = SETTINGS.format(
        mode=mode, pager=pager, guardrails=guardrails, planner=waits, tick=tick, queue=queue
    )
    if llm_url:
        text += (
            f'\n[llm]\nbase_url = "{llm_url}"\napi_key = "scripted"\nmodel = "scripted"\ntimeout = "PT5S"\n'
        )
    paths.config.write_text(text)
    return paths


def deeds_of(root: Path) -> list[Deed]:
    """Return what pilotage changed, from the ledger of its state directory."""
    ledger = SqlLedger(f"sqlite:///{StatePaths(root=root).ledger}")
    try:
        rows = ledger.proposals(None, 1_000_000)
        changed = [row["proposal_id"] for row in rows if row["status"] in CARRIED_OUT]
        return [_deed(ledger.proposal(each) or {}, ledger.story(each)) for each in changed]
    finally:
        ledger.close()


def _deed(row: dict[str, Any], story: list[dict[str, Any]]) -> Deed:
    injected = [step for step in story if step["step"] == "injected"]
    at = datetime.fromisoformat(str(injected[0]["at"])) if injected else datetime.now(UTC)
    return Deed(
        at=at,
        kind=str(row["action"]["kind"]),
        target=str(row["target"]),
        detail=str(row["status"]),
        asked=bool(row["votes"]),
        undone=row["status"] == "undone",
    )
