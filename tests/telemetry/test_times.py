"""Times are local with their zone for people, and ISO 8601 with the offset for programs; one module says so."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.telemetry import times

ROOT = Path(__file__).parents[2]
AT = "2026-07-29T20:15:30+00:00"


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in a zone that is half an hour off."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("kolkata")
def test_people_read_their_own_clock_with_its_zone() -> None:
    assert times.local(AT) == "2026-07-30 01:45:30 IST"
    assert times.short(datetime.fromisoformat(AT)) == "07-30 01:45:30 IST"
    assert times.clock_time("2026-07-29T20:15:00Z") == "01:45 IST"


def test_programs_read_the_offset() -> None:
    assert times.iso(datetime(2026, 7, 29, 20, 15, tzinfo=UTC)) == "2026-07-29T20:15:00+00:00"
    assert times.iso(datetime(2026, 7, 29, 20, 15)) == "2026-07-29T20:15:00+00:00"  # noqa: DTZ001 - the case


def test_what_is_no_moment_stays_as_it_is() -> None:
    assert [times.local(value) for value in (None, "", "soon")] == ["", "", "soon"]


@given(st.timedeltas(timedelta(0), timedelta(days=400)), st.timedeltas(timedelta(0), timedelta(days=400)))
def test_different_spans_have_different_words(one: timedelta, other: timedelta) -> None:
    assert (times.span(one) == times.span(other)) == (one == other)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (1, "1 s"),
        (300, "5 min"),
        (5430, "1 h 30 min 30 s"),
        (90_000, "1 d 1 h"),
        (0.25, "0.25 s"),
    ],
)
def test_a_span_is_told_in_its_units(seconds: float, words: str) -> None:
    assert times.span(timedelta(seconds=seconds)) == words


BY_HAND = re.compile(r"""%H:%M|\[11:1[69]\]|\[:1[69]\]\s*\.replace|'T',\s*' '|"T",\s*" "|} UTC""")


def test_nothing_else_writes_a_time_for_people() -> None:
    """Sources that format a moment themselves; drawings use the zone that the reader's browser names."""
    sources = [
        file
        for package in ("telemetry", "planner", "policies", "flows", "console")
        for file in (ROOT / package / "pilotage").rglob("*.py")
        if file.name not in ("times.py", "drawings.py", "charts.py")
    ]
    by_hand = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sources
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if BY_HAND.search(line) and "times." not in line
    ]
    assert by_hand == []
