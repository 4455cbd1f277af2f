"""What can be said with a slash, as one table. Each command asks the desk or telemetry and gives blocks back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.console.engine.blocks import Block, link, pairs, story, table, text
from pilotage.console.engine.callers import Asks, Caller
from pilotage.console.shown import joined, when, where_of
from pilotage.flows.telling import told


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a command may use."""

    caller: Caller
    desk: Asks
    looks: Any
    """The caller's Toolbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One row of the table."""

    usage: str
    help: str
    run: Callable[[Setting, str], list[Block]]


def _status(s: Setting, rest: str) -> list[Block]:
    found = s.desk.call("status")
    return [
        pairs(
            "pilotage",
            {
                "mode": found["mode"],
                "stopped": found["stopped"] or "no",
                **{f"collector {key}": value for key, value in (found.get("collector") or {}).items()},
                **{f"proposals {key}": value for key, value in (found.get("proposals") or {}).items()},
                "policies": found.get("bundle"),
            },
        )
    ]


def _inbox(s: Setting, rest: str) -> list[Block]:
    return [
        table(
            "Waiting for a person",
            ("filed", "proposal", "action", "on", "target", "missing", "expires"),
            (
                (
                    when(row["filed_at"]),
                    link(row["proposal_id"], "proposal", row["proposal_id"]),
                    row["kind"],
                    where_of(row),
                    link(row["target"], "run", row["run_id"]) if row.get("run_id") else row["target"],
                    joined(row["verdict"].get("requirements")),
                    when(row["expires_at"]),
                )
                for row in s.desk.call("proposals", status="needs_approval", limit=50)
            ),
            empty="Nothing waits for a person.",
        )
    ]


def _incidents(s: Setting, rest: str) -> list[Block]:
    return [
        table(
            "Incidents",
            ("since", "incident", "subject", "class", "actions", "status"),
            (
                (
                    when(row["first_at"]),
                    link(row["incident_id"], "incident", row["incident_id"]),
                    link(row["subject"], "run", row["run_id"]) if row.get("run_id") else row["subject"],
                    row["failure_class"],
                    joined(each["kind"] for each in row["proposals"]),
                    row["status"],
                )
                for row in s.desk.call("incidents", limit=20)
            ),
            empty="No incident on record.",
        )
    ]


def _why(s: Setting, rest: str) -> list[Block]:
    steps = s.desk.call("why", subject=rest)
    return [story(f"Why {rest}", [_told(step) for step in steps])]


def _told(step: Mapping[str, Any]) -> dict[str, Any]:
    return {"at": step["at"], "step": step["step"], "actor": step["actor"], "words": told(step)}


def _undo(s: Setting, rest: str) -> list[Block]:
    found = s.desk.call("undo", proposal_id=rest, reason="asked in the chat")
    return [text(f"{found['proposal_id']}: {found['effect']} {found['reason']}".strip())]


def _stop(s: Setting, rest: str) -> list[Block]:
    return [text(f"stopped: {s.desk.call('stop', reason=rest)['stopped']}")]


def _resume(s: Setting, rest: str) -> list[Block]:
    missing = s.desk.call("resume")["votes_missing"]
    return [text("running again" if not missing else f"still stopped: {missing} more must ask")]


def _whoami(s: Setting, rest: str) -> list[Block]:
    return [pairs("you", s.desk.call("whoami"))]


def _vote(decision: str) -> Callable[[Setting, str], list[Block]]:
    def vote(s: Setting, rest: str) -> list[Block]:
        proposal_id, _, reason = rest.partition(" ")
        seen = s.desk.call("proposal", proposal_id=proposal_id)
        now = s.desk.call(
            "vote", proposal_id=proposal_id, digest=seen["digest"], decision=decision, reason=reason.strip()
        )
        missing = joined(now["verdict"].get("requirements")) or "nothing"
        return [text(f"{decision} {proposal_id}: now {now['status']}, still missing: {missing}")]

    return vote


def _help(s: Setting, rest: str) -> list[Block]:
    return [
        table(
            "Commands", ("command", "what it does"), ((c.usage, c.help) for c in COMMANDS.values()), empty=""
        )
    ]


COMMANDS: Mapping[str, Command] = {
    "status": Command(usage="/status", help="mode, kill switch, collector, counts", run=_status),
    "inbox": Command(usage="/inbox", help="what waits for a person", run=_inbox),
    "incidents": Command(
        usage="/incidents", help="what went wrong lately, and how it stands", run=_incidents
    ),
    "why": Command(usage="/why ID", help="the story of a run, proposal or incident", run=_why),
    "approve": Command(usage="/approve ID [REASON]", help="vote for a proposal", run=_vote("approve")),
    "reject": Command(usage="/reject ID REASON", help="veto it", run=_vote("reject")),
    "undo": Command(usage="/undo ID", help="take back what it changed", run=_undo),
    "stop": Command(usage="/stop [REASON]", help="the kill switch: nothing more is injected", run=_stop),
    "resume": Command(usage="/resume", help="vote to start again", run=_resume),
    "whoami": Command(usage="/whoami", help="who your token says you are", run=_whoami),
    "help": Command(usage="/help", help="this list", run=_help),
}
"""What can be said with a slash."""
