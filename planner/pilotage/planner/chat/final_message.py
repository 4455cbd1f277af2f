"""The end of an answer: its words with what they rest on, what they leave open, and the only confidence there is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pilotage.planner.chat.grounding import Checked, Claim, checked
from pilotage.planner.chat.injection_scan import injection_phrase_in
from pilotage.planner.chat.parts import ChatPart
from pilotage.planner.chat.tools import LookedUp

MOST_GAPS = 20


def final_part(
    text: str,
    looked_up: Sequence[LookedUp],
    *,
    by: Literal["model", "rules", "memory"],
    asked: str = "",
    gaps: Iterable[str] = (),
    usage: Mapping[str, Any] | None = None,
) -> ChatPart:
    """The `final` of an answer. A model's words are held against what was looked up; rules quote it only."""
    evidence = {lookup.citation["key"]: lookup.result for lookup in looked_up}
    judged = checked(text, evidence, asked) if by == "model" else _quoted(text, evidence)
    open_ends = [*gaps, *(gap for lookup in looked_up for gap in _gaps_of(lookup)), *judged.gaps]
    return ChatPart(
        kind="final",
        text=text,
        by=by,
        detail={
            "citations": list({lookup.citation["key"]: lookup.citation for lookup in looked_up}.values()),
            "claims": [
                {"text": claim.text, "keys": list(claim.keys), "opinion": claim.opinion}
                for claim in judged.claims
            ],
            "opinion": judged.opinion,
            "gaps": list(dict.fromkeys(open_ends))[:MOST_GAPS],
            "forecasts": list(
                {
                    forecast["run_id"]: forecast
                    for result in evidence.values()
                    for forecast in _forecasts(result)
                }.values()
            ),
            "answered_by": by,
            "usage": dict(usage or {}),
        },
    )


def _quoted(text: str, evidence: Mapping[str, Any]) -> Checked:
    """Words that rules made from the look-ups alone: all of them are backed, or there was none."""
    lines = [line for line in text.splitlines() if line.strip()]
    return Checked(claims=tuple(Claim(text=line, keys=tuple(evidence)) for line in lines), gaps=())


def _gaps_of(lookup: LookedUp) -> Iterable[str]:
    result, tool = lookup.result, lookup.citation["tool"]
    yield from (str(gap) for gap in result.get("gaps", ()))
    if "error" in result:
        yield f"{tool}: {result['error']}"
    if injection_phrase := injection_phrase_in(json.dumps(result, default=str)):
        yield f"{tool} shows run text that reads like an order to a model ({injection_phrase!r}); it is only quoted"


def _forecasts(value: Any) -> Iterable[dict[str, Any]]:
    """Every chance that a calibrated model gave, wherever it stands in a result."""
    match value:
        case {"run_id": str(run_id), "p_fail": float(chance), "model": str(model), **rest}:
            yield {
                "run_id": run_id,
                "p_fail": chance,
                "model": model,
                "trained_on": rest.get("trained_on", 0),
                "reasons": rest.get("reasons", []),
            }
        case Mapping():
            for item in value.values():
                yield from _forecasts(item)
        case list() | tuple():
            for item in value:
                yield from _forecasts(item)
