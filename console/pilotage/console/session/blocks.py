"""What a command shows, as values that every frontend draws in its own way.

A block is plain JSON: `{"kind": "text"|"pairs"|"table"|"story"|"chart"|"timeline"|"lines"|"raw", …}`.
A cell is a string, a number, `{"text", "ref"}` where `ref` is `run:ID`, `deployment:ID`, `queue:POOL/QUEUE`,
`proposal:ID`, `incident:ID` or `thread:ID`, which frontends turn into a link, or `{"text", "at"}`: a moment, `text` local
with its zone, `at` in ISO 8601.
`{"kind": "card", "card"}` is a proposal: the engine writes it down as an event of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilotage.console.render.text import when

Block = dict[str, Any]
Cell = str | int | float | None | dict[str, str]


def text(words: str) -> Block:
    """One paragraph."""
    return {"kind": "text", "text": words}


def lines(title: str, said: Iterable[Mapping[str, Any]], *, empty: str) -> Block:
    """Sentences, or the sentence `empty` where there are none: each `{words, values, refs, at}`.

    `words` is a key of the catalogue with `{name}` in it, `values` what stands there, `refs` where a name leads.
    """
    return {"kind": "lines", "title": title, "lines": [dict(each) for each in said], "empty": empty}


def sentence(words: str, refs: Mapping[str, str] | None = None, **values: Any) -> dict[str, Any]:
    """One line of `lines`; a reference is `run:ID` and the like, or `view:NAME` for a view of the page."""
    return {"words": words, "values": values, "refs": dict(refs or {})}


def raw(title: str, value: Any) -> Block:
    """A value as it is, for whoever wants to see the evidence itself."""
    return {
        "kind": "raw",
        "title": title,
        "text": json.dumps(value, indent=1, default=str, ensure_ascii=False),
    }


def pairs(title: str, values: Mapping[str, Any]) -> Block:
    """A short two-column list."""
    return {"kind": "pairs", "title": title, "pairs": {key: _plain(value) for key, value in values.items()}}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, empty: str) -> Block:
    """A table, or the sentence `empty` where there are no rows."""
    return {
        "kind": "table",
        "title": title,
        "columns": list(columns),
        "rows": [[_plain(cell) for cell in row] for row in rows],
        "empty": empty,
    }


def story(title: str, steps: Sequence[Mapping[str, Any]]) -> Block:
    """The steps of a story in order of time: `{at, step, actor, words}` each."""
    return {"kind": "story", "title": title, "steps": [dict(step) for step in steps]}


def chart(title: str, *, x: Sequence[Any], y: Sequence[float], unit: str = "", style: str = "bar") -> Block:
    """A picture of `y` over `x`, both of one length; `style` is bar or line."""
    return {
        "kind": "chart",
        "title": title,
        "x": list(x),
        "y": [float(v) for v in y],
        "unit": unit,
        "style": style,
    }


def timeline(title: str, lanes: Sequence[Mapping[str, Any]]) -> Block:
    """Spans of time side by side: lanes `{label, spans: [{state, start, end}]}`, times ISO, `end` "" while it lasts."""
    return {"kind": "timeline", "title": title, "lanes": [dict(lane) for lane in lanes]}


def card(value: Mapping[str, Any]) -> Block:
    """A proposal, see `cards.py`."""
    return {"kind": "card", "card": dict(value)}


def link(words: str, kind: str, key: str) -> dict[str, str]:
    """A cell that leads somewhere."""
    return {"text": words, "ref": f"{kind}:{key}"}


def moment(iso: Any) -> Cell:
    """A cell with a moment, or an empty one."""
    return {"text": when(iso), "at": str(iso)} if iso else ""


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return (
            dict(value)
            if "ref" in value or "at" in value
            else ", ".join(f"{count} {name}" for name, count in value.items())
        )
    if isinstance(value, Iterable):
        return ", ".join(str(each) for each in value)
    return str(value)
