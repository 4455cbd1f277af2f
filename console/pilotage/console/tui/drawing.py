"""Blocks, cards and answers as rich renderables. Pure: it prints nothing, and makes harmless whatever came from runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pilotage.console.render.text import COLOURS, harmless, table_of, when
from pilotage.console.render.timelines import drawn as drawn_timeline
from pilotage.console.session.cards import Card
from pilotage.console.session.now import line_in_words
from pilotage.telemetry import times

LONGEST = 4000
"""Characters of one paragraph."""
RAW_LINES = 200
BARS = 24
"""Columns of the longest bar."""


def drawn(block: Mapping[str, Any], width: int) -> RenderableType:
    """One block in at most `width` columns."""
    match block.get("kind"):
        case "text":
            return paragraphs(block["text"])
        case "pairs":
            return pairs(block["title"], block["pairs"])
        case "table":
            return table(block, width)
        case "story":
            return story(block, width)
        case "chart":
            return chart(block)
        case "timeline":
            return drawn_timeline(block, width)
        case "lines":
            return said_lines(block)
        case "raw":
            lines = str(block["text"]).splitlines()
            more = [f"… {len(lines) - RAW_LINES} more lines"] if len(lines) > RAW_LINES else []
            return Group(_title(block["title"]), *(harmless(line) for line in lines[:RAW_LINES] + more))
        case "card":
            return card(block["card"])
        case kind:
            return harmless(f"(a block of kind {kind} is not drawn here)")


def paragraphs(text: object, style: str = "") -> Text:
    """Somebody's words, line by line, harmless; the marks of Markdown stay as they are."""
    lines = [harmless(line, limit=LONGEST) for line in str(text or "").splitlines()] or [Text()]
    joined = Text("\n").join(lines)
    if style:
        joined.stylize(style)
    return joined


def pairs(title: str, values: Mapping[str, Any]) -> RenderableType:
    """A two-column list under its title."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="bold", no_wrap=True, max_width=28)
    grid.add_column(overflow="fold")
    for key, value in values.items():
        grid.add_row(harmless(key), cell(value))
    return Group(_title(title), grid)


def table(block: Mapping[str, Any], width: int) -> RenderableType:
    """A table; one record below the other where the columns would have less package than their words need."""
    rows = block["rows"]
    if not rows:
        return Group(_title(block["title"]), harmless(block.get("empty", "")))
    columns = [str(name) for name in block["columns"]]
    return table_of(_title(block["title"]), columns, [[cell(value) for value in row] for row in rows], width)


def said_lines(block: Mapping[str, Any]) -> RenderableType:
    """Sentences under their title, each with the ids to look it up by."""
    said = [harmless(f"- {line_in_words(line)}", limit=1200) for line in block["lines"]]
    return Group(_title(block["title"]), *(said or [harmless(block["empty"])]))


def cell(value: Any) -> Text:
    """A cell; of a link or a moment its words."""
    if isinstance(value, Mapping):
        return harmless(value.get("text", ""))
    return harmless(value, limit=1200)


def story(block: Mapping[str, Any], width: int) -> RenderableType:
    """Steps in order of time."""
    rows = [
        [
            harmless(times.local(step["at"], "%H:%M:%S")),
            _bold(harmless(step["step"], limit=20)),
            harmless(step["actor"], limit=30),
            harmless(step["words"], limit=1200),
        ]
        for step in block["steps"]
    ]
    if not rows:
        return _title(block["title"])
    return table_of(_title(block["title"]), ("at", "step", "who", "what"), rows, width)


def chart(block: Mapping[str, Any]) -> RenderableType:
    """Bars with their numbers beside them."""
    top = max([*(abs(float(y)) for y in block["y"]), 1e-9])
    grid = Table.grid(padding=(0, 1))
    grid.add_column(overflow="fold", max_width=30)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    for x, y in zip(block["x"], block["y"], strict=False):
        amount = f"{y:.0%}" if block.get("unit") == "share" else f"{y:g} {block.get('unit', '')}".strip()
        scale = 1.0 if block.get("unit") == "share" else top
        grid.add_row(
            harmless(x), Text("█" * max(1, round(BARS * abs(y) / scale)), style="cyan"), harmless(amount)
        )
    return Group(_title(block["title"]), grid)


def card(value: Card) -> RenderableType:
    """A proposal with all that a person decides on."""
    head = harmless(f"{value['proposal_id']}  {value['words']}", limit=LONGEST)
    head.stylize("bold")
    changes = [f"{change['what']}: {change['before']} → {change['after']}" for change in value["changes"]]
    chance = (
        f"{value['p_fail']:.0%}, says {value['forecast_model'] or 'the forecast'}"
        if value["p_fail"] is not None
        else ""
    )
    rows: list[tuple[str, object]] = [
        ("on", _where(value)),
        ("target", value["target"]),
        ("changes", "; ".join(changes)),
        ("does", value["does"]),
        ("concerns", _concerned(value.get("touches") or {})),
        ("claimed", value["proposer_says"]),
        ("takes", value.get("takes", "")),
        ("found", " by ".join(part for part in (value["failure_class"], value["found_by"]) if part)),
        ("p(fail)", "; ".join([chance, *value["forecast_reasons"]]) if chance else "no forecast"),
        ("verdict", f"{value['verdict']} by {', '.join(value['policies']) or 'no rule'}"),
        ("because", "; ".join(value["reasons"])),
        ("to change", "; ".join(value["would_change"])),
        ("who may", "; ".join(value.get("who_may") or ())),
        (
            "votes",
            "; ".join(
                f"{vote['voter']} {vote['decision']} {vote['reason']}".strip() for vote in value["votes"]
            ),
        ),
        ("undo", value["undo"]),
        ("checked", f"within {value['within']}" if value["within"] else ""),
        (
            "proposed",
            f"by {value['proposer']}" + (f" for {value['on_behalf_of']}" if value["on_behalf_of"] else ""),
        ),
        ("expires", when(value["expires_at"]) if value["open"] else ""),
        ("edit of", value.get("replaces", "")),
        ("not taken", "; ".join(value["alternatives"])),
        ("stands", f"{value['status']}: {value.get('standing', '')}"),
        ("outcome", _outcome(value["outcome"])),
    ]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, told in rows:
        if told:
            grid.add_row(
                name, _coloured(harmless(told, limit=LONGEST if name == "changes" else 900), value, name)
            )
    return Group(Text.assemble(("▌ ", "cyan"), head), Padding(grid, (0, 0, 0, 2)))


def _concerned(touches: Mapping[str, Any]) -> str:
    if not touches:
        return ""
    lines = [f"{run['name']} {run['becomes']}" for run in touches["runs"]]
    more = [f"and {touches['more']} more"] if touches["more"] else []
    return "; ".join(lines + more) or "no run, as it is now"


def _coloured(text: Text, value: Card, name: str) -> Text:
    key = {"verdict": value["verdict"], "stands": value["status"]}.get(name, "")
    text.stylize(COLOURS.get(str(key), ""))
    return text


def _where(value: Card) -> str:
    place = f"{value['env']}, tier {value['tier']}" if value["env"] else ""
    team = f", team {value['team']}" if value["team"] else ""
    return (
        f"{value['deployment']} ({place}{team})"
        if value["deployment"] and place
        else place or value["deployment"]
    )


def _outcome(outcome: Mapping[str, Any]) -> str:
    return (
        f"{outcome.get('judgement', '')}: {outcome.get('detail') or outcome.get('text') or ''}"
        if outcome
        else ""
    )


def banner(words: str, *, bad: bool) -> RenderableType:
    """A line across."""
    return Rule(harmless(words), style="red" if bad else "dim")


def _bold(text: Text) -> Text:
    text.stylize("bold")
    return text


def _title(words: object) -> Text:
    text = harmless(words)
    text.stylize("bold cyan")
    return text
