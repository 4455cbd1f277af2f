"""What can be said with a slash, as one table. Each command asks the API, telemetry or the log and gives blocks back."""

from __future__ import annotations

from collections.abc import Mapping

from pilotage.console.session.blocks import Block, table
from pilotage.console.session.command import Command, Setting
from pilotage.console.session.commands import (
    decide,
    drafts,
    explain,
    history,
    incidents,
    now,
    sharing,
    status,
)

__all__ = ["COMMANDS", "Command", "Setting"]


def _help(s: Setting, rest: str) -> list[Block]:
    rows = [(c.usage, c.help) for name, c in COMMANDS.items() if rest in ("", name)]
    return [
        table("Commands", ("command", "what it does"), rows, empty=f"There is no /{rest}. Say /help for all.")
    ]


COMMANDS: Mapping[str, Command] = {
    # seeing
    "now": Command(
        usage="/now",
        help="what is broken, what needs you, what was done since you were here, what comes next",
        run=now.now,
        reads=True,
    ),
    "status": Command(
        usage="/status [legend]",
        help="mode, kill switch, what runs, waits and went wrong, counts; legend: every status word",
        run=status.status,
        reads=True,
    ),
    "inbox": Command(
        usage="/inbox [all | WORDS deployment= team= kind= sort=]",
        help="what waits for a person; all: with the snoozed; sort= newest, oldest, expiry, risk or deployment",
        run=status.inbox,
        reads=True,
    ),
    "incidents": Command(
        usage="/incidents [WORDS state= deployment= team=]",
        help="what went wrong lately, and how it stands; state= open or over",
        run=status.incidents,
        reads=True,
    ),
    "incident": Command(
        usage="/incident ID", help="one trouble: its runs and its plan", run=incidents.incident, reads=True
    ),
    "handover": Command(
        usage="/handover [8h]",
        help="what happened on this shift, what is open, who decided what, what comes next",
        run=incidents.handover,
        reads=True,
    ),
    "runs": Command(
        usage="/runs [WORDS state= deployment=]",
        help="the runs that changed last, by name, flow or state",
        run=status.runs,
        reads=True,
    ),
    "run": Command(
        usage="/run ID | NAME", help="one run: states and tasks over time", run=status.run, reads=True
    ),
    "queue": Command(
        usage="/queue", help="queues, slots, limits and who waits", run=status.queue, reads=True
    ),
    "forecast": Command(
        usage="/forecast [RUN]",
        help="the riskiest of the next runs, or one run",
        run=status.forecast,
        reads=True,
    ),
    "kpi": Command(
        usage="/kpi [DAYS] [MINUTES]",
        help="what the work is worth; MINUTES a change by hand is taken to need",
        run=status.kpi,
        reads=True,
    ),
    "audit": Command(
        usage="/audit [N | all] [WORDS incident= person= policy= event=]",
        help="is the log whole, and its last entries; all: with those that changed nothing",
        run=explain.audit,
        reads=True,
    ),
    "why": Command(
        usage="/why ID | NAME",
        help="the story of a run, proposal or incident",
        run=explain.why,
        reads=True,
    ),
    "evidence": Command(
        usage="/evidence ID", help="what a proposal rests on", run=explain.evidence, reads=True
    ),
    "simulate": Command(
        usage="/simulate ID | KIND field=value …",
        help="what would be allowed and changed, without doing it",
        run=explain.simulate,
        reads=True,
    ),
    "policy": Command(
        usage="/policy test KIND field=value …",
        help="what policy would say of an action",
        run=explain.policy,
        reads=True,
    ),
    # deciding
    "send": Command(
        usage="/send d-…",
        help="hand in a draft that you were shown in this conversation, exactly as it stands",
        run=drafts.send,
    ),
    "approve": Command(
        usage="/approve ID… [REASON]",
        help="vote for proposals; `i-… [but RUN…]` takes an incident's plan, `all [but ID…]` the inbox you saw last",
        run=decide.approve,
    ),
    "reject": Command(usage="/reject ID… REASON", help="veto them", run=decide.reject),
    "ack": Command(
        usage="/ack ID [REASON]",
        help="say that you look at an incident: nobody else is asked",
        run=incidents.ack,
    ),
    "waive": Command(
        usage="/waive ID [RUN…] REASON",
        help="give up runs of an incident: they need not be done any more",
        run=incidents.waive,
    ),
    "split": Command(
        usage="/split ID RUN…", help="make runs of an incident one of their own", run=incidents.split
    ),
    "merge": Command(
        usage="/merge ID OTHER…", help="make other incidents part of this one", run=incidents.merge
    ),
    "edit": Command(
        usage="/edit ID field=value …", help="hand in a changed one, judged from nothing", run=decide.edit
    ),
    "ask": Command(usage="/ask ID QUESTION", help="ask about a proposal", asks=decide.ask),
    "snooze": Command(
        usage="/snooze ID [2h]", help="out of your inbox until then; it goes on expiring", run=decide.snooze
    ),
    "delegate": Command(
        usage="/delegate NAME 8h REASON", help="lend your right to approve", run=decide.delegate
    ),
    "undo": Command(
        usage="/undo [ID]",
        help="take back what it changed; alone: what can be",
        run=decide.undo,
    ),
    "stop": Command(
        usage="/stop [REASON]", help="the kill switch: nothing more is injected", run=decide.stop
    ),
    "resume": Command(usage="/resume", help="vote to start again", run=decide.resume),
    "mode": Command(
        usage="/mode [MODE REASON]", help="how far the loop may go, or another mode", run=decide.mode
    ),
    # recalling
    "show": Command(
        usage="/show N | ID",
        help="the raw result of look-up N of this conversation, or a proposal's card",
        run=history.show,
        reads=True,
    ),
    "last": Command(usage="/last", help="what the last answer rests on", run=history.last, reads=True),
    "history": Command(
        usage="/history [WORDS]",
        help="conversations, or those with these words",
        run=history.history,
        reads=True,
    ),
    "share": Command(
        usage="/share [NAME | team:NAME] [read]",
        help="let others take part in this conversation, or read it only; alone: who may",
        run=sharing.share,
    ),
    "unshare": Command(usage="/unshare NAME | team:NAME", help="end that", run=sharing.unshare),
    "context": Command(
        usage="/context",
        help="model, tokens and cost of this conversation",
        run=history.context,
        reads=True,
    ),
    "whoami": Command(usage="/whoami", help="who your token says you are", run=history.whoami, reads=True),
    "permissions": Command(
        usage="/permissions", help="what you and the agent may do", run=history.permissions, reads=True
    ),
    "tools": Command(
        usage="/tools", help="what the agent can look up and draft", run=history.tools, reads=True
    ),
    "help": Command(usage="/help [NAME]", help="this list", run=_help, reads=True),
    "clear": Command(usage="/clear", help="an empty screen; the conversation stays"),
    "exit": Command(usage="/exit", help="leave; the conversation stays"),
}
"""What can be said with a slash. The last two are done by the frontend."""
