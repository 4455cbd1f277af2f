"""Commands that say why it stands so, and what would become of something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from pilotage.console.render.text import joined
from pilotage.console.session.blocks import Block, link, moment, pairs, story, table, text
from pilotage.console.session.card_context import card_context_of
from pilotage.console.session.changes import Change, changes_of
from pilotage.console.session.command import Setting
from pilotage.console.session.commands.incidents import incident_blocks
from pilotage.console.session.commands.status import run_facts
from pilotage.console.session.forms import action_in
from pilotage.console.session.lists import AUDIT, asked_of, audit_page, read_on
from pilotage.console.session.resolve import (
    deployment_meant,
    proposal_meant,
    run_meant,
    subject_meant,
)
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.notify.describe import action_in_words, label, readable, told
from pilotage.planner.detect.why import why_it_waits
from pilotage.telemetry.errors import PilotageError
from pilotage.telemetry.queries import runs as runs_known


def audit(s: Setting, rest: str) -> list[Block]:
    """The last entries of the log, or those that are asked for, without what changed nothing; alone also whether it
    is whole."""
    given = rest.strip()
    most = {"limit": int(given)} if given.isdecimal() and 0 < int(given) <= 200 else {}
    asked = {} if most else asked_of(given.removeprefix("all"), AUDIT)
    every = given.split()[:1] == ["all"]
    page = audit_page(s, {"limit": 20, **most, **asked, "changes": not every})
    folded = (
        f"{page['folded']} that changed nothing are folded; /audit all shows them." if page["folded"] else ""
    )
    notes = [read_on("audit", "" if most else given, page), folded]
    whole = [] if asked else [_whole(s)]
    return [
        *whole,
        table(
            f"The last {len(page['rows'])} entries" if not asked else "Entries",
            ("no", "at", "step", "who", "about", "what"),
            (
                (row["seq"], moment(row["at"]), label(row), row["actor"], _about(row), told(row))
                for row in page["rows"]
            ),
            empty="The log is empty." if not asked else "No entry fits.",
        ),
        *(text(note) for note in notes if note),
    ]


def _whole(s: Setting) -> Block:
    reply = s.control_api.call("audit_verify")
    whole = "yes" if reply["ok"] else f"NO: broken at row {reply.get('first_bad')}: {reply.get('why')}"
    return pairs(
        "Audit", {"whole": whole, "rows": reply["length"], "head": str(reply.get("head") or "")[:32]}
    )


def _about(row: Mapping[str, Any]) -> Any:
    for kind in ("proposal", "incident"):
        if key := row[f"{kind}_id"]:
            return link(key, kind, key)
    return ""


def why(s: Setting, rest: str) -> list[Block]:
    """The story of a subject; of a proposal also what else was thought of."""
    _subject(rest, "/why")
    try:
        subject = subject_meant(s, rest.strip())
        steps = s.control_api.call("why", subject=subject)
    except ApiRejection as refusal:
        found = why_it_waits(s.toolbox.store, rest.strip(), s.clock(), s.toolbox.parameters)
        if refusal.kind != "unknown-subject" or found is None:
            raise
        run = runs_known.run(s.toolbox.store, found["subject"].removeprefix("run:"))
        facts = [run_facts(s, run)] if run else []
        if found["cause"] == "ended":
            return [*facts, text("Nothing was found to be wrong with it, and nothing was proposed.")]
        return [*facts, _wait(found), text("Nothing was proposed about it.")]
    blocks = [story(f"Why {subject}", [_told(step, times) for step, times in readable(steps)])]
    if subject.startswith("p-"):
        return [*blocks, _reasons(s.card(subject))]
    return [*(_incident(s, subject) if subject.startswith("i-") else _waits(s, subject)), *blocks]


def _waits(s: Setting, words: str) -> list[Block]:
    """The first thing in the way of a run or a deployment; nothing for what has ended or is not known."""
    found = why_it_waits(s.toolbox.store, words, s.clock(), s.toolbox.parameters)
    return [_wait(found)] if found and found["cause"] != "ended" else []


def _wait(found: Mapping[str, Any]) -> Block:
    about = {
        "state": found["state"],
        "in its way": found["words"] if found["trouble"] else "",
        "now": "" if found["trouble"] else found["words"],
        "by": found["by"],
        "since": moment(found["since"]) if found["since"] else "",
        "to do": found["todo"],
        "not certain": "; ".join(found["doubts"]),
        "would prove it wrong": found["disproof"] if found["trouble"] else "",
    }
    return pairs(f"Why {found['name']} waits", {name: value for name, value in about.items() if value})


def _incident(s: Setting, incident_id: str) -> list[Block]:
    """What an incident is and how it stands."""
    try:
        return incident_blocks(s.control_api.call("incident", incident_id=incident_id))
    except ApiRejection as refusal:
        # what a person asked for without a finding is of no incident
        if refusal.kind != "unknown-incident":
            raise
        return []


def _told(step: Mapping[str, Any], times: int) -> dict[str, Any]:
    repeated = f" (said {times} times)" if times > 1 else ""
    return {
        "at": step["at"],
        "step": label(step),
        "actor": step["actor"],
        "words": told(step) + repeated,
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
    row = s.control_api.call("proposal", proposal_id=proposal_meant(s, _subject(rest, "/evidence")))
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
        action = s.card(proposal_meant(s, words.split()[0]))["action"]
    else:
        action = action_in(
            words, s.clock(), {"run_id": partial(run_meant, s), "deployment_id": partial(deployment_meant, s)}
        )
    lever = s.control_api.call("levers").get(action["kind"], {})
    verdict = s.toolbox.what_if(action)
    if "error" in verdict:
        raise ApiRejection("refused", f"Trying {action['kind']}: {verdict['error']}")
    changes, beside = _as_it_is_now(s, action, verdict.get("facts") or {})
    return [
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
                "takes": beside.get("takes") or "nothing that runs",
            },
        ),
        table(
            "Before and after",
            ("what", "before", "after"),
            ((change["what"], change["before"], change["after"]) for change in changes),
            empty="It changes nothing in Prefect's own state.",
        ),
        *_concerned(beside.get("touches") or {}),
        text("Nothing was handed in."),
    ]


def _as_it_is_now(
    s: Setting, action: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[list[Change], Mapping[str, Any]]:
    try:
        beside = card_context_of(s.toolbox.store, action, str(facts.get("deployment_id") or ""))
    except PilotageError:
        beside = {}
    return changes_of(action, facts, beside.get("before") or {}), beside


def _concerned(touches: Mapping[str, Any]) -> list[Block]:
    if not touches:
        return []
    more = f", the first {len(touches['runs'])} of {len(touches['runs']) + touches['more']}"
    rows = (
        (link(touched["name"], "run", touched["run_id"]), touched["becomes"]) for touched in touches["runs"]
    )
    return [
        table(
            f"Runs that it concerns{more if touches['more'] else ''}",
            ("run", "becomes"),
            rows,
            empty="It concerns no run as it is now.",
        )
    ]


def policy(s: Setting, rest: str) -> list[Block]:
    """`test KIND field=value`: the verdict on an action in words."""
    word, _, action = rest.strip().partition(" ")
    if word != "test" or not action.strip():
        raise ApiRejection("invalid", f"Reading /policy {rest}: say /policy test KIND field=value …")
    return simulate(s, action)


def _subject(rest: str, command: str) -> str:
    subject = rest.strip().split(" ")[0]
    if not subject:
        raise ApiRejection(
            "invalid", f"Reading {command}: give the id of a run, a proposal (p-…) or an incident (i-…)."
        )
    return subject
