"""Commands by which a person decides. Everything goes to the API in the caller's own name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pilotage.console.render.text import joined, where_of
from pilotage.console.session.blocks import Block, card, link, moment, pairs, table, text
from pilotage.console.session.command import Setting
from pilotage.console.session.commands.incidents import SHORT_INCIDENT, decide_incident
from pilotage.console.session.commands.status import INBOX
from pilotage.console.session.forms import edited, span
from pilotage.console.session.resolve import SHORT_PROPOSAL, proposal_meant
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.notify.describe import action_in_words
from pilotage.telemetry import times
from pilotage.telemetry.errors import ApiError

INJECTED = ("delivered", "verified", "failed")
"""Standings of what has changed something in Prefect and was not taken back."""
TOLD = frozenset({"notify_owner", "resolve_alert"})
"""Kinds that change nothing in Prefect."""
MODES = ("observe", "shadow", "approve", "auto")


def approve(s: Setting, rest: str) -> list[Block]:
    """Votes for one or several, each for itself."""
    return _vote(s, rest, "approve")


def reject(s: Setting, rest: str) -> list[Block]:
    """Vetoes one or several, with a reason."""
    return _vote(s, rest, "reject")


def _vote(s: Setting, rest: str, decision: Literal["approve", "reject"]) -> list[Block]:
    if SHORT_INCIDENT.fullmatch(rest.split(maxsplit=1)[0] if rest.strip() else ""):
        return decide_incident(s, rest, decision)
    wanted, reason = _chosen(s, rest, decision)
    if decision == "reject" and not reason:
        raise ApiRejection("invalid", "Rejecting: say why, as /reject p-… not during the close.")
    if len(wanted) == 1:
        ((proposal_id, digest),) = wanted.items()
        row = vote(s, proposal_id, decision, reason, digest)
        missing = joined(row["verdict"].get("requirements")) or "nothing"
        return [
            text(f"{decision} {proposal_id}: now {row['status']}, still missing: {missing}"),
            card(s.card(row)),
        ]
    results = [
        (proposal_id, *_outcome(partial(vote, s, proposal_id, decision, reason, digest)))
        for proposal_id, digest in wanted.items()
    ]
    return [
        table(
            f"{decision}: {len(wanted)} decided, {sum(ok for _, ok, _ in results)} counted",
            ("proposal", "counted", "what became of it"),
            (
                (link(proposal_id, "proposal", proposal_id), "yes" if ok else "no", words)
                for proposal_id, ok, words in results
            ),
            empty="",
        )
    ]


def vote(s: Setting, proposal_id: str, decision: str, reason: str, digest: str = "") -> Any:
    """The API's row after the vote on the text with this digest.

    Without one, on the text that was shown in this conversation, or on what the API has now.
    """
    proposal_id = proposal_meant(s, proposal_id)
    if not digest:
        shown = s.log.last_card(s.thread, proposal_id) or s.control_api.call(
            "proposal", proposal_id=proposal_id
        )
        digest = shown["digest"]
    return s.control_api.call(
        "vote", proposal_id=proposal_id, digest=digest, decision=decision, reason=reason
    )


def _outcome(act: Callable[[], Any]) -> tuple[bool, str]:
    try:
        row = act()
    except ApiError as exc:
        return False, str(exc)
    missing = joined(row["verdict"].get("requirements"))
    return True, f"now {row['status']}" + (f", still missing: {missing}" if missing else "")


def _chosen(s: Setting, rest: str, decision: str) -> tuple[dict[str, str], str]:
    """The proposals that are meant, each with the digest that its voter saw, or empty; and the reason."""
    words = rest.split()
    if words[:1] == ["all"]:
        words = words[1:]
        out: list[str] = []
        if words[:1] == ["but"]:
            named, words = _leading(words[1:])
            out = [proposal_meant(s, each) for each in named]
        wanted = {each: digest for each, digest in _seen(s).items() if each not in out}
        if not wanted:
            raise ApiRejection(
                "invalid",
                "Deciding on all: nothing is left. Say /inbox first: only what you saw can be decided.",
            )
    else:
        named, words = _leading(words)
        wanted = dict.fromkeys(named, "")
    if not wanted:
        raise ApiRejection("invalid", f"Reading /{decision} {rest}: name a proposal (p-…); see /inbox.")
    return wanted, " ".join(words)


def _leading(words: list[str]) -> tuple[list[str], list[str]]:
    count = next(
        (n for n, word in enumerate(words) if not SHORT_PROPOSAL.fullmatch(word.rstrip(","))), len(words)
    )
    return list(dict.fromkeys(word.rstrip(",") for word in words[:count])), words[count:]


def _seen(s: Setting) -> dict[str, str]:
    """The proposals of the inbox that this person was shown last in this conversation, with their digests."""
    for event in s.log.newest(s.thread, "block", limit=200):
        block = event.payload.get("block") or {}
        if (
            block.get("kind") == "table"
            and block.get("title") == INBOX
            and event.payload.get("for") == s.user.name
        ):
            return dict(block.get("digests") or {})
    return {}


def edit(s: Setting, rest: str) -> list[Block]:
    """Hands in the changed action as the caller's own proposal, judged from nothing."""
    (given, *_), _ = _one(rest, "/edit ID field=value")
    old = s.control_api.call("proposal", proposal_id=given)
    proposal_id = old["proposal_id"]
    action = edited(old["action"], rest.strip().removeprefix(given), s.clock())
    row = s.control_api.call("amend", proposal_id=proposal_id, action=action)
    words = (
        f"{row['proposal_id']} is yours and takes the place of {proposal_id}. It is judged from nothing: "
        f"{row['status']}."
    )
    return [text(words), card(s.card(row))]


def _one(rest: str, usage: str) -> tuple[list[str], list[str]]:
    proposal_ids, words = _leading(rest.split())
    if len(proposal_ids) != 1:
        raise ApiRejection("invalid", f"Reading {rest!r}: say {usage}, with one proposal (p-…); see /inbox.")
    return proposal_ids, words


def ask(s: Setting, rest: str) -> str:
    """The question about a proposal that goes to the agent.

    It names ids only: the agent drafts what a person's own words name, and the proposal's words are not theirs.
    """
    (given, *_), words = _one(rest, "/ask ID QUESTION")
    row = s.control_api.call("proposal", proposal_id=given)
    proposal_id = row["proposal_id"]
    about = f"run {row['run_id']}" if row.get("run_id") else f"incident {row['incident_id']}"
    return f"{' '.join(words) or 'why?'} (about {proposal_id}, {about})"


def snooze(s: Setting, rest: str) -> list[Block]:
    """Puts a proposal out of the caller's inbox for a while."""
    (given, *_), words = _one(rest, "/snooze ID 2h")
    row = s.control_api.call("proposal", proposal_id=given)
    proposal_id = row["proposal_id"]
    until = s.clock() + span(words[0] if words else "1h")
    s.log.append(s.thread, "snoozed", s.user.name, {"proposal_id": proposal_id, "until": until.isoformat()})
    return [
        text(
            f"{proposal_id} is out of your inbox until {times.local(until, '%H:%M')}. It expires all the same at "
            f"{times.local(row['expires_at'], '%H:%M')}, and others still see it."
        )
    ]


def delegate(s: Setting, rest: str) -> list[Block]:
    """Lends the caller's right to approve."""
    words = rest.split(maxsplit=2)
    if len(words) < 3:
        raise ApiRejection("invalid", "Lending: say /delegate NAME 8h REASON.")
    hours = max(1, round(span(words[1]).total_seconds() / 3600))
    lent = s.control_api.call("delegate", to=words[0], hours=hours, reason=words[2])
    return [pairs("Lent", {"from": lent["giver"], "to": lent["taker"], "until": moment(lent["until"])})]


def undo(s: Setting, rest: str) -> list[Block]:
    """Takes back what a proposal changed, and says what could not be; without an id, what can be taken back and how far."""
    if not rest.strip():
        return _undoable(s)
    (proposal_id, *_), words = _one(rest, "/undo ID")
    reply = s.control_api.call("undo", proposal_id=proposal_id, reason=" ".join(words) or "asked in the chat")
    done = text(f"{reply['proposal_id']}: {reply['effect']} {reply['reason']}".strip())
    return [done, card(s.card(reply["proposal_id"]))]


def _undoable(s: Setting) -> list[Block]:
    levers = s.control_api.call("levers")
    rows = [row for status in INJECTED for row in s.control_api.call("proposals", status=status, limit=100)]
    rows = [row for row in rows if row["kind"] not in TOLD]
    rows.sort(key=lambda row: str(row["filed_at"]), reverse=True)
    return [
        table(
            "Injected lately; say /undo ID",
            ("proposal", "filed", "did", "on", "status", "way back"),
            (
                (
                    link(row["proposal_id"], "proposal", row["proposal_id"]),
                    moment(row["filed_at"]),
                    action_in_words(row["action"]),
                    where_of(row) or row["target"],
                    row["status"],
                    (levers.get(row["kind"]) or {}).get("undo", "nothing: this kind is not known here"),
                )
                for row in rows[:20]
            ),
            empty="Nothing was injected that could be taken back.",
        )
    ]


def stop(s: Setting, rest: str) -> list[Block]:
    """Pulls the kill switch."""
    return [text(f"stopped: {s.control_api.call('stop', reason=rest)['stopped']}")]


def resume(s: Setting, rest: str) -> list[Block]:
    """Votes to start again."""
    missing = s.control_api.call("resume")["votes_missing"]
    return [text("running again" if not missing else f"still stopped: {missing} more must ask")]


def mode(s: Setting, rest: str) -> list[Block]:
    """Tells the mode, or asks for another."""
    to, _, reason = rest.strip().partition(" ")
    if not to:
        return [pairs("mode", {"now": s.control_api.call("status")["mode"], "there are": ", ".join(MODES)})]
    reply = s.control_api.call("set_mode", mode=to.lower(), reason=reason.strip())
    lapsed = f"; {reply['lapsed']} open proposals lapsed" if reply.get("lapsed") else ""
    return [text(f"mode {reply['mode']}, before it was {reply['before']}{lapsed}")]
