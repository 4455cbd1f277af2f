"""Drawings as SVG text, made of values alone: spans of time, chances of failing, charts.

A drawing names classes and holds no colours, for the page's sheet gives those; every state has a sign as well. All words
in it are somebody else's: they are cut, made printable and escaped here, once. Times are shown with `offset`, the
minutes that the reader's clock is behind UTC, as JavaScript's `getTimezoneOffset` tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pilotage.telemetry.harmless import harmless, xml

SIGNS: Mapping[str, tuple[str, str]] = {
    "COMPLETED": ("✓", "good"),
    "FAILED": ("✕", "bad"),
    "CRASHED": ("!", "bad"),
    "RUNNING": ("▶", "plain"),
    "PENDING": ("…", "plain"),
    "SCHEDULED": ("◷", "wait"),
    "PAUSED": ("‖", "wait"),
    "CANCELLED": ("⊘", "bad"),
    "CANCELLING": ("⊘", "bad"),
}
"""State type to its sign and its class."""
ROW = 20
BAR = 15
"""Pixels; a bar is at least as wide as it is high, so that its sign fits in."""
LETTER = 7.3
"""Pixels of one letter of 12 px, on the safe side."""
ROWS = 60
"""A drawing has no more; what is left out is said."""
STEPS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 604800)
"""Seconds between two ticks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that was in one state for a time."""

    state: str
    """A state type; any other word is drawn without a sign."""
    start: datetime
    end: datetime | None = None
    """None while it lasts."""
    words: str = ""
    """What is told of it."""
    ref: str = ""
    """`run:ID` and the like: where it leads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Spans beside one label; those that overlap are drawn below each other."""

    label: str
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at one moment."""

    at: datetime
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """The chance that one thing happens."""

    label: str
    p: float
    """In [0, 1]."""
    words: str = ""
    ref: str = ""


def timeline(
    title: str,
    lanes: Sequence[Lane],
    *,
    now: datetime,
    width: int,
    offset: int = 0,
    marks: Sequence[Mark] = (),
    since: datetime | None = None,
) -> str:
    """Lanes over one axis of time, from `since` or the first start to the last end; marks stand below."""
    spans = [span for lane in lanes for span in lane.spans]
    if not spans and not marks:
        return _svg(title, width, 44, [_text(12, 27, "Nothing to draw yet.", "faint")])
    moments = [
        *(span.start for span in spans),
        *(span.end or now for span in spans),
        *(mark.at for mark in marks),
    ]
    first = max(since, min(moments)) if since else min(moments)
    last = max(*moments, first + timedelta(seconds=1))
    left = min(170.0, max([40.0, *(len(lane.label) * LETTER + 14 for lane in lanes)]), width * 0.36)
    scale = _Scale(first=first, seconds=(last - first).total_seconds(), left=left, right=width - 30.0)
    parts: list[str] = []
    y, left_out = 30.0, 0
    for lane in lanes:
        rows = _rows(sorted(lane.spans, key=lambda span: span.start), scale, now)
        room = max(0, ROWS - int((y - 30) / ROW))
        left_out += sum(len(row) for row in rows[room:])
        if not rows[:room]:
            continue
        parts.append(_text(8, y + 13, _cut(lane.label, left - 10)))
        for row in rows[:room]:
            parts += [_bar(span, scale, y, now) for span in row]
            y += ROW
        y += 4
    for placed in _marked(marks, scale):
        parts += [_mark(x, y, mark, where, offset) for x, mark, where in placed]
        y += ROW
    if left_out:
        parts.append(_text(8, y + 13, f"{left_out} more are not drawn.", "faint"))
        y += ROW
    legend, below = _legend({span.state for span in spans}, y, width)
    return _svg(title, width, below + 8, [*_axis(scale, y, offset), *parts, *_now(scale, now, y), *legend])


def chances(title: str, rows: Sequence[Chance], *, width: int) -> str:
    """One bar for each chance on a scale from 0 to 100 %, in the order given."""
    if not rows:
        return _svg(title, width, 44, [_text(12, 27, "No scheduled run has a forecast yet.", "faint")])
    left, right = width * 0.46, width - 52.0
    bottom = 30.0 + len(rows[:ROWS]) * ROW
    quarters = [left + (right - left) * k / 4 for k in range(5)]
    parts = [_line(x, 24, x, bottom) for x in quarters]
    parts += [
        _text(x, 17, f"{25 * k} %", "faint", anchor="middle")
        for k, x in enumerate(quarters)
        if width >= 600 or k % 2 == 0
    ]
    for n, row in enumerate(rows[:ROWS]):
        y, p = 30.0 + n * ROW, min(1.0, max(0.0, row.p))
        tone = "bad" if p >= 2 / 3 else "wait" if p >= 1 / 3 else "good"
        bar = _rect(left, y, (right - left) * p, tone)
        parts.append(_linked(row.ref, _text(8, y + 13, _cut(row.label, left - 14))))
        parts.append(f"<g><title>{xml(row.words or row.label)}</title>{bar}</g>")
        parts.append(_text(left + (right - left) * p + 6, y + 12, f"{p:.0%}"))
    return _svg(title, width, bottom + 10, parts)


def chart(
    title: str, x: Sequence[str], y: Sequence[float], *, unit: str, style: Literal["bar", "line"], width: int
) -> str:
    """Bars lying on their side, or one line over the places of `x`. Both of one length; below zero counts as zero."""
    if not y:
        return _svg(title, width, 44, [_text(12, 27, "No numbers.", "faint")])
    top = max(*y, 0.0) or 1.0
    if style == "bar":
        left, right = width * 0.36, width - 90.0
        parts = []
        for n, (name, value) in enumerate(zip(x[:ROWS], y[:ROWS], strict=False)):
            at = 10.0 + n * ROW
            long = (right - left) * max(value, 0.0) / top
            parts.append(_text(8, at + 13, _cut(name, left - 14)))
            parts.append(_rect(left, at, long, "good"))
            parts.append(_text(left + long + 6, at + 12, _number(value, unit)))
        return _svg(title, width, 20 + len(y[:ROWS]) * ROW, parts)
    left, right, low, high = 66.0, width - 16.0, 150.0, 16.0
    steps = max(1, len(y) - 1)
    points = [
        (left + (right - left) * n / steps, low - (low - high) * max(v, 0.0) / top) for n, v in enumerate(y)
    ]
    parts = [_line(left, low, right, low), _line(left, high, right, high)]
    parts += [
        _text(left - 6, high + 4, _number(top, unit), "faint", anchor="end"),
        _text(left - 6, low + 4, "0", "faint", anchor="end"),
    ]
    parts.append(
        '<polyline class="stroke" points="' + " ".join(f"{px:.1f},{py:.1f}" for px, py in points) + '"/>'
    )
    parts += [f'<circle class="good" cx="{px:.1f}" cy="{py:.1f}" r="2.5"/>' for px, py in points]
    parts.append(_text(left, low + 18, _cut(x[0], (right - left) / 2), "faint"))
    parts.append(_text(right, low + 18, _cut(x[-1], (right - left) / 2), "faint", anchor="end"))
    return _svg(title, width, 178, parts)


# -- time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    first: datetime
    seconds: float
    left: float
    right: float

    def x(self, at: datetime) -> float:
        """Where a moment is; what is outside is at the edge."""
        part = (at - self.first).total_seconds() / self.seconds
        return self.left + (self.right - self.left) * min(1.0, max(0.0, part))


def _place(span: Span, scale: _Scale, now: datetime) -> tuple[float, float]:
    begin = scale.x(span.start)
    return begin, max(BAR, scale.x(span.end or now) - begin)


def _rows(spans: Sequence[Span], scale: _Scale, now: datetime) -> list[list[Span]]:
    """The spans in as few rows as it takes for none to lie on another."""
    rows: list[list[Span]] = []
    ends: list[float] = []
    for span in spans:
        begin, long = _place(span, scale, now)
        free = next((n for n, end in enumerate(ends) if end <= begin), len(rows))
        if free == len(rows):
            rows.append([])
            ends.append(0.0)
        rows[free].append(span)
        ends[free] = begin + long + 1
    return rows


def _bar(span: Span, scale: _Scale, y: float, now: datetime) -> str:
    sign, tone = SIGNS.get(span.state, ("", "plain"))
    begin, long = _place(span, scale, now)
    title = xml(f"{span.words} {span.state}, {_span((span.end or now) - span.start)}".strip())
    drawn = (
        f"<title>{title}</title>{_rect(begin, y, long, tone)}"
        f'<text class="mark on" x="{begin + BAR / 2:.1f}" y="{y + 11.5:.1f}" text-anchor="middle">{sign}</text>'
    )
    return _linked(span.ref, f"<g>{drawn}</g>")


Where = Literal["start", "end"]


def _marked(marks: Sequence[Mark], scale: _Scale) -> list[list[tuple[float, Mark, Where]]]:
    """The marks in rows in which no words overlap, each with its place and the side of it that has package."""
    rows: list[list[tuple[float, Mark, Where]]] = []
    taken: list[list[tuple[float, float]]] = []
    for mark in sorted(marks, key=lambda mark: mark.at)[:ROWS]:
        x, long = scale.x(mark.at), len(_short(mark.words)) * LETTER + 16
        where: Where = "start" if x + long <= scale.right + 30 else "end"
        begin, end = (x - 6, x + long) if where == "start" else (x - long, x + 6)
        free = next(
            (n for n, row in enumerate(taken) if all(end < a or begin > b for a, b in row)), len(rows)
        )
        if free == len(rows):
            rows.append([])
            taken.append([])
        rows[free].append((x, mark, where))
        taken[free].append((begin, end))
    return rows


def _mark(x: float, y: float, mark: Mark, where: Where, offset: int) -> str:
    sign = f"M{x:.1f} {y + 3:.1f} l5 5 l-5 5 l-5 -5 Z"
    title = f"<title>{xml(f'{_clock(mark.at, offset)} {mark.words}')}</title>"
    words = _text(x + (9 if where == "start" else -9), y + 12, _short(mark.words), anchor=where)
    return f'<g>{title}<path class="plain" d="{sign}"/>{words}</g>'


def _short(words: str) -> str:
    return words if len(words) <= 34 else words[:33] + "…"


def _legend(states: set[str], y: float, width: float) -> tuple[list[str], float]:
    """What the signs that were drawn mean, in as many rows as it takes, and where they end."""
    parts: list[str] = []
    x = 8.0
    for state in (each for each in SIGNS if each in states):
        words = f"{SIGNS[state][0]} {state.lower()}"
        long = len(words) * LETTER + 14
        if x > 8.0 and x + long > width:
            x, y = 8.0, y + ROW
        parts.append(_text(x, y + 15, words, "faint"))
        x += long
    return parts, y + ROW if parts else y


def _axis(scale: _Scale, bottom: float, offset: int) -> Iterator[str]:
    most = max(2, int((scale.right - scale.left) / 90))
    step = next((step for step in STEPS if scale.seconds / step <= most), scale.seconds / most)
    shift = timedelta(minutes=offset)
    local = (scale.first - shift).timestamp()
    tick = -(-local // step) * step
    while tick <= local + scale.seconds:
        at = datetime.fromtimestamp(tick, UTC) + shift
        x = scale.x(at)
        yield _line(x, 24, x, bottom)
        yield _text(x, 17, _clock(at, offset, seconds=step < 60, day=step >= 43200), "faint", anchor="middle")
        tick += step


def _now(scale: _Scale, now: datetime, bottom: float) -> Iterator[str]:
    if scale.first <= now <= scale.first + timedelta(seconds=scale.seconds):
        x = scale.x(now)
        yield f'<line class="now" x1="{x:.1f}" y1="22" x2="{x:.1f}" y2="{bottom:.1f}"/>'


def _clock(at: datetime, offset: int, *, seconds: bool = True, day: bool = False) -> str:
    local = at.astimezone(UTC) - timedelta(minutes=offset)
    return f"{local:%b %d}" if day else f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"


def _span(long: timedelta) -> str:
    seconds = long.total_seconds()
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# -- SVG


def _svg(title: str, width: float, height: float, parts: Iterable[str]) -> str:
    drawn = "".join(parts)
    role = "group" if "<a " in drawn else "img"  # what is inside an img cannot be reached by those who listen
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="{role}" aria-label={quoteattr(harmless(title))}>{drawn}</svg>'
    )


def _text(x: float, y: float, words: str, tone: str = "", *, anchor: str = "start") -> str:
    kind = f' class="{tone}"' if tone else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{xml(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="axis" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rect(x: float, y: float, width: float, tone: str) -> str:
    return (
        f'<rect class="{tone}" x="{x:.1f}" y="{y:.1f}" width="{max(1.0, width):.1f}" height="{BAR}" rx="2"/>'
    )


def _linked(ref: str, drawn: str) -> str:
    kind, _, key = ref.partition(":")
    if kind not in ("run", "proposal", "incident") or not key:
        return drawn
    return f'<a href="#/{kind}/{quote(key, safe="")}">{drawn}</a>'


def _cut(words: str, pixels: float) -> str:
    most = max(3, int(pixels / LETTER))
    if len(words) <= most:
        return words
    end = (most - 1) // 2  # both ends of a name tell it from its neighbours
    return f"{words[: most - 1 - end]}…{words[len(words) - end :]}"


def _number(value: float, unit: str) -> str:
    shown = f"{value:.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.3g}"
    return f"{shown} {unit}".strip()
