"""One row of the log as something to read: what the plain prompt, a pipe and the screen show of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pilotage.console.render.text import COLOURS, harmless
from pilotage.console.session.events import Event
from pilotage.console.tui.drawing import banner, card, drawn, paragraphs
from pilotage.telemetry import times

WHO = {
    "model": "the language model",
    "rules": "rules",
    "memory": "memory of like incidents",
    "pilotage": "pilotage",
}
"""Who answered, in words."""


def shown(
    event: Event, width: int, *, streamed: bool = False, known: frozenset[str] = frozenset()
) -> RenderableType | None:
    """The row drawn in `width` columns, or None when there is nothing to read in it.

    `streamed` says that the text of the answer was shown as it came; of cards in `known` only what changed is told.
    """
    payload = event.payload
    match event.type:
        case "said":
            return Text.assemble((f"{_name(event.by)} › ", "bold"), paragraphs(payload["text"]))
        case "tool_call":
            return Text.assemble((f" {payload['n']} ", "cyan"), call_in_words(payload), (" …", "dim"))
        case "tool_result":
            took = f"{payload.get('rows', 0)} rows, {payload['seconds']:.2f} s"
            return Text.assemble(
                (f" {payload['n']} ", "cyan"),
                harmless(payload["tool"]),
                (f": {took}   /show {payload['n']}", "dim"),
            )
        case "answer":
            return answer(payload, streamed=streamed)
        case "block":
            return drawn(payload["block"], width)
        case "draft":
            return draft(payload)
        case "card":
            return changed(payload["card"]) if card_id(event) in known else card(payload["card"])
        case "step":
            at = times.local(payload["at"], "%H:%M:%S")
            words = f"{at} {payload['step']} by {event.by}: {payload['words']}"
            return Text.assemble(("◆ ", "magenta"), harmless(words, limit=600))
        case "snoozed":
            until = times.clock_time(payload["until"])
            return harmless(f"{event.by} put {payload['proposal_id']} off until {until}")
        case "error":
            return Text.assemble(("error: ", "bold red"), paragraphs(payload["text"]))
        case "notice":
            return banner(str(payload["text"]), bad=bool(payload.get("stopped")))
        case _:
            return None


def card_id(event: Event) -> str:
    """The proposal whose card the row shows, or empty."""
    return str(event.payload["card"]["proposal_id"]) if event.type == "card" else ""


def draft(payload: Mapping[str, Any]) -> RenderableType:
    """An action that nobody has sent, what policy would say of it, and how its person sends it."""
    draft_id, policy = payload["draft"]["draft_id"], payload["draft"].get("policy") or {}
    said = str(policy.get("outcome") or policy.get("error") or "not known")
    return Group(
        Text.assemble(("▌ draft ", "bold yellow"), harmless(f"{draft_id}: {payload['words']}", limit=600)),
        harmless(f"  not handed in; policy would say: {said}", limit=300),
        harmless(f"  only {payload['for']} can send it: /send {draft_id}", limit=200),
    )


def changed(value: Mapping[str, Any]) -> Text:
    """Where a proposal stands now, in one line."""
    words = harmless(f"{value['proposal_id']} {value['status']}: {value.get('standing', '')}", limit=300)
    words.stylize(COLOURS.get(str(value["status"]), ""))
    return Text.assemble(("▌ ", "cyan"), words)


def call_in_words(payload: Mapping[str, Any]) -> Text:
    """A look-up with its arguments."""
    arguments = ", ".join(f"{key}={value}" for key, value in (payload.get("arguments") or {}).items())
    return harmless(f"{payload['tool']}({arguments})")


def answer(payload: Mapping[str, Any], *, streamed: bool) -> RenderableType:
    """The answer, and below it what it rests on and what could not be checked."""
    parts: list[RenderableType] = [] if streamed else [paragraphs(payload["text"])]
    who = WHO.get(str(payload.get("by")), str(payload.get("by")))
    cited = payload.get("citations") or ()
    foot = Text.assemble(("— ", "dim"), harmless(who, limit=60), style="dim")
    if payload.get("mock"):
        foot.append(" [MOCK]", style="bold yellow")
    if payload.get("opinion"):
        foot.append("; opinion: no look-up backs it", style="yellow")
    elif cited:
        foot.append_text(harmless(f"; evidence: {_evidence(cited)}   /last", limit=300))
    parts.append(foot)
    parts += [
        harmless(
            f"run {forecast['run_id'][:8]}: {forecast['p_fail']:.0%} chance of failing, says {forecast['model']}"
        )
        for forecast in payload.get("forecasts") or ()
    ]
    if not payload.get("opinion"):  # else all of it is
        parts += [
            Text.assemble(("opinion, no look-up backs it: ", "yellow"), harmless(claim["text"]))
            for claim in payload.get("claims") or ()
            if claim.get("opinion")
        ]
    parts += [
        Text.assemble(("could not check: ", "yellow"), harmless(gap)) for gap in payload.get("gaps") or ()
    ]
    return Group(*parts)


def _evidence(citations: Any) -> str:
    named = []
    for citation in citations:
        refs = [
            str(ref.get("ref") if isinstance(ref, Mapping) else ref) for ref in citation.get("refs") or ()
        ]
        named.append(
            f"{citation.get('tool', '')} ({', '.join(refs[:3])})" if refs else str(citation.get("tool", ""))
        )
    return "; ".join(named)


def _name(by: str) -> str:
    return harmless(by, limit=40).plain
