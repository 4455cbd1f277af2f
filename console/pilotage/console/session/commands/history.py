"""Commands about the conversation itself: what was looked up, what it cost, who is talking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.console.render.text import joined
from pilotage.console.session.blocks import Block, card, link, moment, pairs, raw, table, text
from pilotage.console.session.command import Setting
from pilotage.console.session.commands.status import model_in_words
from pilotage.console.session.resolve import proposal_meant
from pilotage.console.session.thread_access import why_not
from pilotage.flows.api.client import ApiRejection


def show(s: Setting, rest: str) -> list[Block]:
    """The raw result of the newest look-up with that number, or the card of a proposal."""
    wanted = rest.strip()
    if wanted.startswith("p-"):
        return [card(s.card(proposal_meant(s, wanted)))]
    for event in s.log.newest(s.thread, "tool_result", limit=500):
        if str(event.payload.get("n")) == wanted:
            shown = {key: event.payload.get(key) for key in ("tool", "seconds", "result")}
            return [raw(f"Look-up {wanted}: {shown['tool']}, {shown['seconds']} s", shown["result"])]
    raise ApiRejection(
        "unknown",
        f"Looking for look-up {wanted!r}: this conversation has none. Ask something first, or /last.",
    )


def last(s: Setting, rest: str) -> list[Block]:
    """What the newest answer rests on: its look-ups, its citations, and what could not be checked."""
    answers = s.log.newest(s.thread, "answer", limit=1)
    if not answers:
        return [text("Nothing was answered in this conversation yet.")]
    payload, turn = answers[0].payload, answers[0].payload.get("turn")
    calls = [
        event.payload
        for event in reversed(s.log.newest(s.thread, "tool_result", limit=100))
        if event.payload.get("turn") == turn
    ]
    return [
        table(
            "Look-ups of the last answer",
            ("no", "look-up", "rows", "seconds"),
            ((c["n"], c["tool"], c.get("rows", ""), c.get("seconds", "")) for c in calls),
            empty="It looked nothing up.",
        ),
        table(
            "Evidence",
            ("look-up", "reference", "SQL"),
            (_citation(citation) for citation in payload.get("citations") or ()),
            empty="It cites nothing: take it for an opinion.",
        ),
        table(
            "Could not be checked",
            ("gap",),
            ((gap,) for gap in payload.get("gaps") or ()),
            empty="Nothing was left unchecked.",
        ),
    ]


def _citation(citation: Mapping[str, Any]) -> tuple[Any, ...]:
    refs = [
        str(ref.get("ref", "")) if isinstance(ref, Mapping) else str(ref)
        for ref in citation.get("refs") or ()
    ]
    run = next((ref for ref in refs if ref.startswith("run:")), "")
    shown = ", ".join(refs[:6])
    return (
        str(citation.get("tool", "")),
        link(shown, "run", run.removeprefix("run:")) if run else shown,
        str(citation.get("sql") or ""),
    )


def history(s: Setting, rest: str) -> list[Block]:
    """Conversations that the caller may read, the last active first."""
    return [
        table(
            "Conversations",
            ("begun", "conversation", "by", "id"),
            (
                (
                    moment(each.at.isoformat()),
                    link(each.title or "(nothing was said)", "thread", each.id),
                    each.by,
                    each.id,
                )
                for each in s.log.threads(
                    30, rest.strip(), seen=lambda thread: not why_not(s.user, thread, "read")
                )
                if not rest.strip() or each.id != s.thread  # where it was asked has the words, too
            ),
            empty="No conversation has these words." if rest.strip() else "There is no conversation yet.",
        )
    ]


def context(s: Setting, rest: str) -> list[Block]:
    """Model, tokens, cost and what is left of the day's budget, as the answers of this conversation told them."""
    answers = s.log.newest(s.thread, "answer", limit=500)
    usages = [usage for event in answers if (usage := event.payload.get("usage"))]
    by = {who: sum(event.by == who for event in answers) for who in dict.fromkeys(e.by for e in answers)}
    return [
        pairs(
            "Context",
            {
                "model": model_in_words(s.model),
                "answers": joined(by) or "none yet",
                **_spent(usages),
                "conversation": s.thread,
            },
        )
    ]


def _spent(usages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What answers cost together, the newest first, in words."""
    if not usages:
        return {"tokens": "none: no model was asked"}

    def total(key: str) -> float:
        return sum(float(usage.get(key, 0)) for usage in usages)

    totals = {
        "calls of the model": f"{total('calls'):g}",
        "tokens in": f"{total('input_tokens'):g}",
        "tokens out": f"{total('output_tokens'):g}",
        "cost": f"{total('cost'):g}"
        if any("cost" in usage for usage in usages)
        else "not known: no price is set (llm.budget.prompt_price, llm.budget.completion_price)",
    }
    if any("budget_share" in usage for usage in usages):
        totals["of a day's budget"] = f"{total('budget_share'):.2%}"
    if (today := next((usage["today"] for usage in usages if "today" in usage), None)) is not None:
        totals["of the day's budget, all conversations, after the last answer"] = f"{today:.2%}"
    return totals


def whoami(s: Setting, rest: str) -> list[Block]:
    """Who the token says the caller is."""
    return [pairs("you", s.control_api.call("whoami"))]


def permissions(s: Setting, rest: str) -> list[Block]:
    """What the caller and the agent may do at all; together they may only what both may."""
    reply = s.control_api.call("permissions")
    you, agent = reply["you"], reply["agent"]
    commands = [
        (name, _may(you["commands"][name]), _may(agent["commands"][name])) for name in you["commands"]
    ]
    kinds = [
        (
            kind,
            _may(kind in you["proposes"]),
            _may(kind in agent["proposes"]),
            _may(kind in you["proposes"] and kind in agent["proposes"]),
        )
        for kind in dict.fromkeys([*agent["proposes"], *you["proposes"]])
    ]
    return [
        table("Commands", ("command", f"you ({joined(you['roles'])})", "the agent"), commands, empty=""),
        table(
            "Actions that may be proposed; each is judged for itself",
            ("action", "you", "the agent", "the agent for you"),
            kinds,
            empty="Neither you nor the agent may propose anything.",
        ),
        *_lent(s.control_api.call("grants")),
    ]


def _lent(grants: Mapping[str, Any]) -> list[Block]:
    """Who votes for whom now, and whose glass is broken: rights that no role tells of."""
    rows = [
        *((grant["taker"], f"approves for {grant['giver']}", grant) for grant in grants["delegations"]),
        *(
            (grant["holder"], f"broke the glass for {joined(grant['kinds'])}", grant)
            for grant in grants["glass"]
        ),
    ]
    return [
        table(
            "Lent for a time",
            ("who", "may what", "until", "because"),
            ((who, what, moment(grant["until"]), grant["reason"]) for who, what, grant in rows),
            empty="Nobody votes for anybody else, and no glass is broken.",
        )
    ]


def _may(yes: bool) -> str:
    return "yes" if yes else "no"


def tools(s: Setting, rest: str) -> list[Block]:
    """What the agent can call, each with the first line of what it does."""
    from pilotage.planner.chat.tools import DRAFTING, READING  # start-up time: the planner

    rows = [
        (name, "drafts" if name in DRAFTING else "looks up", doc.strip().split("\n")[0])
        for name in (*READING, *DRAFTING)
        if (doc := getattr(type(s.toolbox), name).__doc__ or "")
    ]
    return [
        table("Tools", ("tool", "kind", "what it does"), sorted(rows, key=lambda r: (r[1], r[0])), empty="")
    ]
