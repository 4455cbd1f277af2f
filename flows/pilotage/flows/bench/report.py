"""The report of a bench: Markdown and HTML with two plots, from the result as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

COLUMNS: tuple[tuple[str, str], ...] = (
    ("arm", "arm"),
    ("recovered", "recovered_share"),
    ("handled", "handled_share"),
    ("wrong", "wrong_share"),
    ("violations", "policy_violations"),
    ("duplicates", "duplicate_effects"),
    ("median recovery", "median_recovery_s"),
    ("wasted attempts", "wasted_attempts"),
    ("actions", "actions"),
    ("pages", "pages"),
    ("pages that ask", "pages_asking"),
    ("requests", "requests"),
)
SHARES = frozenset({"recovered_share", "handled_share", "wrong_share"})
BARS = (
    ("recovered", "recovered_share", "#2a7f62"),
    ("handled", "handled_share", "#4a78b5"),
    ("wrong", "wrong_share", "#b5443c"),
)
GOOD, LEFT, BAD, NONE = "#2a7f62", "#d9dde3", "#b5443c", "#f4f5f7"
"""Colours: as it should be, left lying, something wrong, no such incident."""
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2430}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:1rem 0}"
    "th,td{padding:.25rem .6rem;border-bottom:1px solid #d9dde3;text-align:right}"
    "th:first-child,td:first-child,td.text{text-align:left}svg{max-width:100%;height:auto}"
)


def write_report(found: Mapping[str, Any], directory: Path) -> None:
    """Write `report.md`, `report.html`, `arms.svg` and `classes.svg` into a directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    arms, classes = bars(found["arms"]), matrix(found["arms"])
    (directory / "arms.svg").write_text(arms)
    (directory / "classes.svg").write_text(classes)
    (directory / "report.md").write_text(markdown(found))
    (directory / "report.html").write_text(html(found, arms, classes))


def cell(row: Row, field: str) -> str:
    """Return a value of a row as a table shows it."""
    value = row.get(field)
    if value is None:
        return "–"
    if field in SHARES:
        return f"{value:.0%}"
    if field == "median_recovery_s":
        return f"{value:.0f} s"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: Sequence[Row]) -> str:
    """Return one Markdown row an arm."""
    head = " | ".join(heading for heading, _ in COLUMNS)
    lines = [f"| {head} |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(cell(row, field) for _, field in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def class_table(rows: Sequence[Row]) -> str:
    """Return one Markdown row a class of fault: how each arm did."""
    names = sorted({name for row in rows for name in row["by_class"]})
    lines = [
        "| class | " + " | ".join(str(row["arm"]) for row in rows) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(in_words(row["by_class"].get(name)) for row in rows) + " |")
    return "\n".join(lines)


def in_words(summed: Row | None) -> str:
    """Return how an arm did in a class of fault: recovered or handled, with what was wrong."""
    if summed is None:
        return ""
    said = []
    if summed["remediable"]:
        said.append(f"{summed['recovered']}/{summed['remediable']} recovered")
    else:
        said.append(
            "as it should be" if summed["handled_share"] == 1 else f"{summed['handled_share']:.0%} right"
        )
    if count := sum(summed["wrong"].values()):
        said.append(f"{count} wrong")
    if summed["policy_violations"]:
        said.append(f"{summed['policy_violations']} violations")
    if summed["duplicate_effects"]:
        said.append(f"{summed['duplicate_effects']} duplicates")
    return ", ".join(said)


def wrong_list(rows: Sequence[Row]) -> list[str]:
    """Return each kind of wrong action with its class, its arm and how often."""
    return [
        f"{row['arm']}, {name}: {text} ({count})"
        for row in rows
        if row["arm"] not in ("nothing", "oracle")
        for name, each in row["by_class"].items()
        for text, count in each["wrong"].items()
    ]


def _about(found: Mapping[str, Any]) -> str:
    where = (
        "on a fake server in simulated time"
        if found["simulated"]
        else f"on a real Prefect server with {found['about'].get('database', 'its database')}"
    )
    arms = found["arms"]
    classes = len(arms[0]["by_class"]) if arms else 0
    each = arms[0]["incidents"] if arms else 0
    return f"{classes} classes, {each} incidents an arm, {where}."


def markdown(found: Mapping[str, Any]) -> str:
    """Return the report in Markdown."""
    parts = [
        "# What was done about the same faults",
        _about(found),
        table(found["arms"]),
        "![recovered, handled and wrong by arm](arms.svg)",
        "## By class of fault",
        class_table(found["arms"]),
        "![each class under each arm](classes.svg)",
    ]
    if found["untagged"]:
        parts += ["## The same without any tags", table(found["untagged"])]
    if wrong := wrong_list(found["arms"]):
        parts += ["## What was wrong", "\n".join(f"- {each}" for each in wrong)]
    return "\n\n".join(parts) + "\n"


def html(found: Mapping[str, Any], arms: str, classes: str) -> str:
    """Return the report as one page that needs nothing else."""
    wrong = "".join(f"<li>{escape(each)}</li>" for each in wrong_list(found["arms"]))
    bare = f"<h2>The same without any tags</h2>{_html_table(found['untagged'])}" if found["untagged"] else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Fault bench</title>'
        f"<style>{STYLE}</style><h1>What was done about the same faults</h1><p>{escape(_about(found))}</p>"
        f"{_html_table(found['arms'])}{arms}<h2>By class of fault</h2>{classes}{bare}"
        + (f"<h2>What was wrong</h2><ul>{wrong}</ul>" if wrong else "")
        + "</html>\n"
    )


def _html_table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading, _ in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(row, field))}</td>" for _, field in COLUMNS) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui,sans-serif" font-size="13" role="img">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", fill: str = "#1c2430", more: str = ""
) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{more}>{escape(words)}</text>'


def bars(rows: Sequence[Row]) -> str:
    """Return the plot of recovered, handled and wrong shares by arm."""
    left, band, bar, wide = 110, 66, 16, 520
    parts = []
    for number, (heading, _, colour) in enumerate(BARS):
        x = left + 130 * number
        parts.append(f'<rect x="{x}" y="10" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 18, 21, heading))
    for number, row in enumerate(rows):
        top = 38 + band * number
        parts.append(_text(left - 10, top + 1.5 * bar + 5, str(row["arm"]), anchor="end"))
        for place, (_, field, colour) in enumerate(BARS):
            share = row[field] or 0.0
            y = top + place * (bar + 1)
            length = max(share * wide, 1.0)
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colour}"/>')
            parts.append(_text(left + length + 6, y + 13, cell(row, field)))
    return _svg(left + wide + 60, 44 + band * len(rows), parts)


def matrix(rows: Sequence[Row]) -> str:
    """Return the plot of classes against arms: as it should be, left lying, or something wrong."""
    names = sorted({name for row in rows for name in row["by_class"]})
    left, top, wide, high = 170, 62, 110, 22
    parts = []
    for place, (words, colour) in enumerate(
        (("as it should be", GOOD), ("left lying", LEFT), ("something wrong", BAD))
    ):
        parts.append(f'<rect x="{left + 150 * place}" y="8" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(left + 150 * place + 18, 19, words))
    for column, row in enumerate(rows):
        parts.append(_text(left + wide * (column + 0.5), top - 10, str(row["arm"]), anchor="middle"))
    for line, name in enumerate(names):
        y = top + high * line
        parts.append(_text(left - 10, y + 15, name, anchor="end"))
        for column, row in enumerate(rows):
            parts += _square(row["by_class"].get(name), left + wide * column, y, wide - 2, high - 2)
    return _svg(left + wide * len(rows) + 10, top + high * len(names) + 10, parts)


def _square(summed: Row | None, x: int, y: int, wide: int, high: int) -> list[str]:
    if summed is None:
        return [f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" fill="{NONE}"/>']
    bad = summed["wrong"] or summed["policy_violations"] or summed["duplicate_effects"]
    share = summed["handled_share"] or 0.0
    colour = BAD if bad else GOOD if share == 1 else LEFT
    parts = [f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" fill="{colour}"/>']
    if 0 < share < 1 and not bad:
        parts.append(f'<rect x="{x}" y="{y}" width="{wide * share:.1f}" height="{high}" fill="{GOOD}"/>')
    words = f"{summed['recovered']}/{summed['remediable']}" if summed["remediable"] else f"{share:.0%}"
    light = "#fff" if colour != LEFT or share > 0.5 else "#1c2430"
    return [*parts, _text(x + wide / 2, y + 14, words, anchor="middle", fill=light)]
