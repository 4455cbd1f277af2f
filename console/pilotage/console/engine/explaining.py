"""Commands that say why it stands so, and what would become of something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pilotage.console.engine.blocks import Block, link, pairs, story, table, text
from pilotage.console.engine.editing import action_in
from pilotage.console.engine.setting import Setting
from pilotage.console.shown import joined, when
from pilotage.flows.desk_client import DeskRefusal
from pilotage.flows.telling import action_in_words, label, readable, told


def audit(s: Setting, rest: str) -> list[Block]:
    """Whether the log is whole, and its last entries."""
    most = int(rest) if rest.strip().isdecimal() and 0 < int(rest) <= 200 else 20
    found = s.desk.call("audit_verify")
    rows = s.desk.call("entries", after=max(0, int(found["length"]) - most), limit=most)
    whole = "yes" if found["ok"] else f"NO: broken at row {found.get('first_bad')}: {found.get('why')}"
    return [
        pairs("Audit", {"whole": whole, "rows": found["length"], "head": str(found.get("head") or "")[:32]}),
        table(
            f"The last {len(rows)} entries",
            ("no", "at", "step", "who", "proposal", "what"),
            (
                (
                    row["seq"],
                    when(row["at"]),
                    label(row),
                    row["actor"],
                    link(row["proposal_id"], "proposal", row["proposal_id"]) if row["proposal_id"] else "",
                    told(row),
                )
                for row in rows
            ),
            empty="The log is empty.",
        ),
    ]


def why(s: Setting, rest: str) -> list[Block]:
    """The story of a subject; of a proposal also what else was thought of."""
    subject = _subject(rest, "/why")
    steps = s.desk.call("why", subject=subject)
    found = [story(f"Why {subject}", [_told(step, times) for step, times in readable(steps)])]
    return [*found, _reasons(s.card(subject))] if subject.startswith("p-") else found


def _told(step: Mapping[str, Any], times: int) -> dict[str, Any]:
    again = f" (said {times} times)" if times > 1 else ""
    return {
        "at": step["at"],
        "step": label(step),
        "actor": step["actor"],
        "words": told(step) + again,
        "proposal_id": step["proposal_id"],
    }


def _reasons(card: Mapping[str, Any]) -> Block:
    return pairs(
        "Why this and not another",
        {
            "rule": card["found_by"] or "none: a person asked",
            "features": _lines(card["forecast_reasons"]) or "none",
            "policies": _lines([*card["policies"], *card["reasons"]]) or "none",
            "what would change it": _lines(card["would_change"]) or "nothing",
            "considered and not taken": _lines(card["alternatives"]) or "nothing else",
        },
    )


def _lines(values: Iterable[Any]) -> str:
    return "; ".join(str(each) for each in values)


def evidence(s: Setting, rest: str) -> list[Block]:
    """What a proposal rests on: references, what they say, and the facts that the gate saw."""
    row = s.desk.call("proposal", proposal_id=_subject(rest, "/evidence"))
    card = s.card(row)
    return [
        pairs(
            f"Evidence of {card['proposal_id']}",
            {
                "run": link(card["run_id"], "run", card["run_id"]) if card["run_id"] else "",
                "class": f"{card['failure_class']} by {card['found_by'] or 'nobody'}",
                "chance of failing": (
                    f"{card['p_fail']:.0%}, says {card['forecast_model']}"
                    if card["p_fail"] is not None
                    else "no forecast"
                ),
                "because": _lines(card["forecast_reasons"]),
            },
        ),
        table("References", ("reference",), ((ref,) for ref in card["evidence"]), empty="It names none."),
        table(
            "What they say (quoted)",
            ("note",),
            ((note,) for note in card["notes"]),
            empty="Nothing is noted.",
        ),
        pairs("Facts when it was judged", row.get("target_facts") or {"facts": "none were looked up"}),
    ]


def simulate(s: Setting, rest: str) -> list[Block]:
    """What would become of a proposal or an action now; nothing is handed in."""
    words = rest.strip()
    if words.startswith("p-"):
        card = s.card(words.split()[0])
        action, known = card["action"], card
    else:
        action = action_in(words, s.clock())
        known = {}
    lever = s.desk.call("levers").get(action["kind"], {})
    verdict = s.looks.what_if(action)
    if "error" in verdict:
        raise DeskRefusal("refused", f"Trying {action['kind']}: {verdict['error']}")
    found = [
        pairs(
            f"If {action['kind']} were proposed now",
            {
                "it would": action_in_words(action),
                "verdict": verdict.get("outcome"),
                "policies": _lines(verdict.get("policy_ids") or ()),
                "because": _lines(verdict.get("reasons") or ()),
                "missing": joined(verdict.get("requirements") or {}) or "nothing",
                "what would change it": _lines(verdict.get("would_change") or ()) or "nothing",
                "does": lever.get("does", ""),
                "taken back": lever.get("undo", ""),
                "checked within": lever.get("within", ""),
            },
        )
    ]
    if known:
        found.append(
            table(
                "Before and after",
                ("what", "before", "after"),
                ((one["what"], one["before"], one["after"]) for one in known["changes"]),
                empty="",
            )
        )
    return [*found, text("Nothing was handed in.")]


def policy(s: Setting, rest: str) -> list[Block]:
    """`test KIND field=value`: the verdict on an action in words."""
    word, _, action = rest.strip().partition(" ")
    if word != "test" or not action.strip():
        raise DeskRefusal("invalid", f"Reading /policy {rest}: say /policy test KIND field=value …")
    return simulate(s, action)


def _subject(rest: str, command: str) -> str:
    subject = rest.strip().split(" ")[0]
    if not subject:
        raise DeskRefusal(
            "invalid", f"Reading {command}: give the id of a run, a proposal (p-…) or an incident (i-…)."
        )
    return subject
