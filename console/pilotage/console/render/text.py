"""What people see: tables and timelines. Everything that came from runs is made harmless here, once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pilotage.telemetry import times
from pilotage.telemetry.harmless import harmless as one_line
from pilotage.telemetry.harmless import harmless_lines

PIPE_WIDTH = 124
"""Columns where there is no terminal to ask: wide enough for a table in a log or a README."""


class HarmlessConsole(Console):
    """A terminal on which a plain string is never markup and sends no control characters, whoever wrote it."""

    def print(self, *objects: Any, **more: Any) -> None:
        """As rich's, but for strings."""
        super().print(
            *(Text(harmless_lines(each)) if isinstance(each, str) else each for each in objects), **more
        )


def _console(*, stderr: bool) -> Console:
    console = HarmlessConsole(stderr=stderr, highlight=False)
    return (
        console if console.is_terminal else HarmlessConsole(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    )


OUT = _console(stderr=False)
ERR = _console(stderr=True)

COLOURS = {
    "allow": "green",
    "verified": "green",
    "recovered": "green",
    "needs_approval": "yellow",
    "open": "yellow",
    "deny": "red",
    "denied": "red",
    "failed": "red",
    "refused": "red",
    "unknown": "red",
}
"""Words carry the meaning; the colour only helps to find them."""


def harmless(value: object, *, limit: int = 400, style: str = "") -> Text:
    """The value as plain text: no markup, no terminal escapes, no line breaks, at most `limit` characters."""
    return Text(one_line(value, limit), style=style or COLOURS.get(str(value), ""))


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=_plain, ensure_ascii=True)
    sys.stdout.write("\n")


def _plain(value: object) -> str:
    return times.iso(value) if isinstance(value, datetime) else str(value)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table, or the sentence `empty` when there is nothing to show."""
    cells = [[cell if isinstance(cell, Text) else harmless(cell) for cell in row] for row in rows]
    if cells:
        OUT.print(table_of(Text(one_line(title), style="bold"), columns, cells, OUT.width))
    else:
        OUT.print(harmless(empty))


SHOWN_ASIDE = 5
"""Rows that Prefect cannot send which `status` names."""
WORD = 44
"""Columns of the longest word that a table never breaks: `deployment:` and an id of Prefect fit."""
NARROW, LONG, PROSE = 12, 40, 26
"""Columns below which a cell is not wrapped; from which it is prose, which wants so many."""


def table_of(
    title: Text, columns: Sequence[str], rows: Sequence[Sequence[Text]], width: int
) -> RenderableType:
    """Return a table of at most `width` columns, or one record below the other where it would be too narrow.

    No word of up to WORD columns is broken, so that ids can be copied.
    """
    at_least = [
        max(_longest_word(name), *(_longest_word(row[at].plain) for row in rows))
        for at, name in enumerate(columns)
    ]
    longest = [max(cell_len(name), *(row[at].cell_len for row in rows)) for at, name in enumerate(columns)]
    wanted = [
        max(least, min(most, PROSE if most > LONG else NARROW))
        for least, most in zip(at_least, longest, strict=True)
    ]
    if sum(wanted) + 2 * len(columns) > width:
        return Group(title, *(_record(columns, row, width) for row in rows))
    table = Table(title=title, title_justify="left", header_style="bold", box=None, padding=(0, 1))
    for name, least in zip(columns, at_least, strict=True):
        table.add_column(harmless(name), overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*row)
    return table


def _record(columns: Sequence[str], row: Sequence[Text], width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True, max_width=max(8, min(18, width - WORD - 2)))
    grid.add_column(overflow="fold")
    for name, value in zip(columns, row, strict=True):
        if value.plain:
            grid.add_row(harmless(name), value)
    return Padding(grid, (0, 0, 1, 1))


def _longest_word(text: str) -> int:
    return min(WORD, max((cell_len(word) for word in text.split()), default=0))


def print_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """A short two-column list."""
    rows = [(harmless(key), harmless(value)) for key, value in pairs.items()]
    longest_key, longest_value = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    room_for_keys = max(8, OUT.width - min(longest_value, WORD) - 4)
    table = Table(title=harmless(title), title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", overflow="fold", width=min(longest_key, room_for_keys))
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    OUT.print(table)


def joined(values: object) -> str:
    """A list as one text."""
    if isinstance(values, Mapping):
        return ", ".join(f"{count} {role}" for role, count in values.items())
    if isinstance(values, Iterable) and not isinstance(values, str):
        return ", ".join(str(each) for each in values)
    return str(values or "")


def fail(message: str, *, kind: str, as_json: bool) -> None:
    """Says what went wrong, to a person or, in one line of JSON on standard output, to a program."""
    if as_json:
        json.dump({"ok": False, "error": {"kind": kind, "message": message}}, sys.stdout)
        sys.stdout.write("\n")
    else:
        first, *rest = message.splitlines() or [""]
        ERR.print(Text.assemble(("error: ", "bold red"), harmless(first, limit=2000)))
        for line in rest:
            ERR.print(harmless(line))


def when(text: Any) -> str:
    """Return day and time of an ISO timestamp to the second, local with its zone; empty for none."""
    return times.short(text or None)


def set_aside_in_words(rows: Sequence[str]) -> dict[str, str]:
    """Return what `status` says of the rows that Prefect has and cannot send; nothing where there are none."""
    if not rows:
        return {}
    more = f" and {len(rows) - SHOWN_ASIDE} more" if len(rows) > SHOWN_ASIDE else ""
    shown = ", ".join(rows[:SHOWN_ASIDE])
    return {"not collected": f"{shown}{more}: Prefect cannot send it (HTTP 500); the rest is collected"}


def collection_in_words(collector: Mapping[str, Any]) -> dict[str, str]:
    """Return what `status` says of collecting that does not keep up, and of what is set aside; nothing otherwise."""
    behind = str(collector.get("stands_still") or "")
    defects = [str(each) for each in collector.get("defects") or ()]
    more = f" and {len(defects) - SHOWN_ASIDE} more" if len(defects) > SHOWN_ASIDE else ""
    return {
        **({"NOT verified": f"{'; '.join(defects[:SHOWN_ASIDE])}{more}"} if defects else {}),
        **({"NOT keeping up": behind} if behind else {}),
        **set_aside_in_words(collector.get("set_aside") or ()),
    }


def where_of(proposal: Mapping[str, Any]) -> str:
    """Deployment, environment and tier of a proposal's target, as the gate saw them last."""
    facts = proposal.get("target_facts") or {}
    name = facts.get("deployment_name") or ""
    assumed = (
        facts.get("env") == "prod"
        and "tags" in facts
        and not any(str(tag).startswith("env:") for tag in facts["tags"] or ())
    )
    env = (
        f"{facts.get('env')} for want of an env: tag"
        if assumed and facts.get("deployment_id")
        else facts.get("env")
    )
    return f"{name} ({env}, tier {facts['tier']})".strip() if facts.get("env") else str(name)


def standing_of(proposal: Mapping[str, Any]) -> str:
    """Where a proposal stands, in words that promise nothing which its mode does not do."""
    status, mode = str(proposal.get("status", "")), proposal.get("mode")
    if status == "allowed" and mode in ("observe", "shadow"):
        return f"would be allowed ({mode}: nothing is injected)"
    if status == "replaced" and proposal.get("replaced_by"):
        return f"replaced by {proposal['replaced_by']}"
    return status
