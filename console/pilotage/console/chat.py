"""The chat in the terminal: ask, see proposals, approve or reject them. Works in a pipe as well.

Lines that begin with a slash go to the desk; everything else goes to the chat agent, which answers by rules
when there is no model.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pilotage.console.asking import Asker
from pilotage.console.shown import ERR, OUT, harmless, joined, print_pairs, print_table, when, where_of
from pilotage.console.story import print_story
from pilotage.flows.desk_client import DeskClient, token_for
from pilotage.telemetry.errors import PilotageError

if TYPE_CHECKING:
    from pilotage.planner.chat import ChatAgent

HELP = """\
/inbox                      what waits for a person
/why ID                     the story of a run, proposal or incident
/approve ID [REASON]        vote for a proposal
/reject ID REASON           veto it
/undo ID                    take back what it changed
/status  /incidents         how it stands
/stop [REASON]              the kill switch
/whoami  /help  /exit
Anything else is a question about your runs."""

PREFECT_KEYS = (
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_API_URL",
)
"""A chat needs none of these, so it drops them before a model or a tool could see them."""


def run_chat(caller: Asker, *, config: Path | None) -> None:
    """Talks until the input ends or `/exit`."""
    from pilotage.flows.chat_session import chat_agent  # start-up time: the planner

    for name in PREFECT_KEYS:
        os.environ.pop(name, None)
    desk = DeskClient(caller.where.desk_socket, token_for(caller.where, caller.token_file))
    me = desk.call("whoami")
    agent = chat_agent(caller.where, desk, config=config)
    OUT.print(
        harmless(f"You are {me['name']} ({', '.join(me['roles'])}). /help tells what there is, /exit ends.")
    )
    asyncio.run(_talk(agent, caller, session=f"{me['name']}-{os.getpid()}"))


async def _talk(agent: ChatAgent, caller: Asker, *, session: str) -> None:
    while True:
        line = await asyncio.to_thread(_read)
        if line is None or line.strip() in ("/exit", "/quit", "exit", "quit"):
            return
        text = line.strip()
        if not text:
            continue
        try:
            if text.startswith("/"):
                _command(caller, text)
            else:
                await _answer(agent, text, session)
        except PilotageError as exc:
            OUT.print(Text.assemble(("error: ", "bold red"), harmless(str(exc), limit=2000)))


def _read() -> str | None:
    if sys.stdin.isatty():
        try:
            return input("> ")
        except EOFError:
            return None
    return sys.stdin.readline() or None


async def _answer(agent: ChatAgent, text: str, session: str) -> None:
    streamed = False
    async for part in agent.answer(text, session):
        match part.kind:
            case "token":
                OUT.print(harmless(part.text, limit=4000), end="")
                streamed = True
            case "tool_call":
                OUT.print(
                    Text.assemble(
                        "\n" if streamed else "", ("· ", "dim"), harmless(f"{part.tool} {dict(part.detail)}")
                    )
                )
            case "tool_result":
                pass
            case "proposal":
                _card(part.detail)
            case "error":
                ERR.print(harmless(part.text, limit=1000))
            case "final":
                if not streamed:
                    for row in part.text.splitlines():
                        OUT.print(harmless(row, limit=4000))
                else:
                    OUT.print()


def _card(detail: Mapping[str, Any]) -> None:
    """What was filed, and whether it waits for somebody."""
    verdict = detail.get("verdict") or {}
    print_pairs(
        f"proposal {detail.get('proposal_id', '')}",
        {
            "action": detail.get("kind"),
            "on": where_of(detail),
            "target": detail.get("target"),
            "verdict": verdict.get("outcome"),
            "policies": joined(verdict.get("policy_ids")),
            "because": joined(verdict.get("reasons")),
            "still missing": joined(verdict.get("requirements")) or "nothing",
            "status": detail.get("status"),
        },
    )


def _command(caller: Asker, text: str) -> None:
    name, _, rest = text[1:].partition(" ")
    run = COMMANDS.get(name)
    if run is None:
        OUT.print(harmless(f"There is no /{name}. /help tells what there is."))
        return
    run(caller, rest.strip())


def _inbox(caller: Asker, rest: str) -> None:
    rows = caller.ask("proposals", status="needs_approval", limit=50)
    print_table(
        "Waiting for a person",
        ("filed", "proposal", "action", "on", "target", "missing", "expires"),
        (
            (
                when(row["filed_at"]),
                row["proposal_id"],
                row["kind"],
                where_of(row),
                row["target"],
                joined(row["verdict"].get("requirements")),
                when(row["expires_at"]),
            )
            for row in rows
        ),
        empty="Nothing waits for a person.",
    )


def _vote(decision: str) -> Callable[[Asker, str], None]:
    def vote(caller: Asker, rest: str) -> None:
        proposal_id, _, reason = rest.partition(" ")
        seen = caller.ask("proposal", proposal_id=proposal_id)
        _card(
            caller.ask(
                "vote",
                proposal_id=proposal_id,
                digest=seen["digest"],
                decision=decision,
                reason=reason.strip(),
            )
        )

    return vote


def _status(caller: Asker, rest: str) -> None:
    found = caller.ask("status")
    print_pairs(
        "pilotage", {"mode": found["mode"], "stopped": found["stopped"] or "no", **found["proposals"]}
    )


def _incidents(caller: Asker, rest: str) -> None:
    print_table(
        "Incidents",
        ("since", "incident", "subject", "class", "status"),
        (
            (when(row["first_at"]), row["incident_id"], row["subject"], row["failure_class"], row["status"])
            for row in caller.ask("incidents", limit=20)
        ),
        empty="No incident on record.",
    )


def _undo(caller: Asker, rest: str) -> None:
    found = caller.ask("undo", proposal_id=rest, reason="asked in the chat")
    OUT.print(harmless(f"{found['proposal_id']}: {found['effect']} {found['reason']}".strip()))


def _stop(caller: Asker, rest: str) -> None:
    OUT.print(harmless(f"stopped: {caller.ask('stop', reason=rest)['stopped']}"))


def _whoami(caller: Asker, rest: str) -> None:
    print_pairs("you", caller.ask("whoami"))


COMMANDS: Mapping[str, Callable[[Asker, str], None]] = {
    "inbox": _inbox,
    "why": lambda caller, rest: print_story(caller.ask("why", subject=rest)),
    "approve": _vote("approve"),
    "reject": _vote("reject"),
    "undo": _undo,
    "status": _status,
    "incidents": _incidents,
    "stop": _stop,
    "whoami": _whoami,
    "help": lambda caller, rest: OUT.print(HELP),
}
"""What can be said with a slash."""
