"""The drawings: whatever the values, well-formed SVG of a few harmless elements, inside its frame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.console.web.charts import SIGNS, Chance, Lane, Mark, Span, chances, chart, timeline
from pilotage.telemetry.facts import StateType

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HARMLESS = {"svg", "g", "title", "rect", "line", "path", "circle", "polyline", "text", "a"}
ATTACK = '</text><script>alert(1)</script><a href="javascript:alert(1)" onclick="x()">\x1b[2J\u202e&amp;]]>'

words = st.text(max_size=60) | st.just(ATTACK)
moments = st.integers(-(10**6), 10**5).map(lambda seconds: NOW + timedelta(seconds=seconds))
spans = st.builds(
    lambda state, start, long, told, ref: Span(
        state=state,
        start=start,
        end=None if long is None else start + timedelta(seconds=long),
        words=told,
        ref=ref,
    ),
    st.sampled_from([*SIGNS, "other"]),
    moments,
    st.none() | st.integers(0, 10**6),
    words,
    st.just("") | words.map(lambda key: f"run:{key}"),
)
lanes = st.lists(st.builds(Lane, label=words, spans=st.lists(spans, max_size=8)), max_size=5)
marks = st.lists(st.builds(Mark, at=moments, words=words), max_size=12)


def parsed(svg: str) -> ElementTree.Element:
    """The drawing; fails the test when it is not well-formed, holds anything else, or leaves its frame."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own text is what is tested
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    for element in root.iter():
        assert element.tag.removeprefix("{http://www.w3.org/2000/svg}") in HARMLESS
        assert not [name for name in element.attrib if name.startswith("on") or name == "style"]
        assert element.attrib.get("href", "#/").startswith("#/")
        assert (element.text or "").isprintable()
        if element.tag.endswith("rect"):
            assert float(element.attrib["x"]) >= 0
            assert float(element.attrib["x"]) + float(element.attrib["width"]) <= width + 0.2
            assert float(element.attrib["y"]) + float(element.attrib["height"]) <= height
    return root


@given(lanes=lanes, marks=marks, width=st.integers(200, 2000), offset=st.integers(-840, 840))
@settings(max_examples=150, deadline=None)
def test_a_timeline_of_anything_is_harmless_and_inside_its_frame(
    lanes: list[Lane], marks: list[Mark], width: int, offset: int
) -> None:
    parsed(timeline(ATTACK, lanes, now=NOW, width=width, offset=offset, marks=marks))


@given(
    rows=st.lists(st.builds(Chance, label=words, p=st.floats(-1, 2), words=words, ref=words), max_size=80),
    width=st.integers(200, 2000),
)
@settings(max_examples=60, deadline=None)
def test_chances_of_anything_are_harmless_and_inside_their_frame(rows: list[Chance], width: int) -> None:
    parsed(chances(ATTACK, rows, width=width))


@given(
    points=st.lists(st.tuples(words, st.floats(-1e9, 1e12)), max_size=80),
    style=st.sampled_from(["bar", "line"]),
    width=st.integers(200, 2000),
)
@settings(max_examples=60, deadline=None)
def test_a_chart_of_anything_is_harmless_and_inside_its_frame(
    points: list[tuple[str, float]], style: str, width: int
) -> None:
    x, y = [name for name, _ in points], [value for _, value in points]
    parsed(chart(ATTACK, x, y, unit=ATTACK, style="line" if style == "line" else "bar", width=width))


def test_every_state_has_a_sign_of_its_own_class() -> None:
    assert set(SIGNS) == set(StateType)


def rects(svg: str) -> list[ElementTree.Element]:
    return [element for element in parsed(svg).iter() if element.tag.endswith("rect")]


def test_runs_that_overlap_are_drawn_below_each_other_and_others_share_a_row() -> None:
    def span(start: int, end: int) -> Span:
        minutes = [NOW + timedelta(minutes=minute) for minute in (start, end)]
        return Span(state="COMPLETED", start=minutes[0], end=minutes[1])

    lane = Lane(label="etl", spans=[span(0, 30), span(10, 40), span(45, 60)])
    first, second, third = sorted(
        rects(timeline("", [lane], now=NOW + timedelta(hours=1), width=900)),
        key=lambda bar: float(bar.attrib["x"]),
    )
    assert first.attrib["y"] == third.attrib["y"] != second.attrib["y"]


def test_a_bar_is_as_long_as_the_run_took() -> None:
    hour = [NOW - timedelta(hours=2), NOW - timedelta(hours=1)]
    spans = [
        Span(state="COMPLETED", start=hour[0], end=hour[1]),
        Span(state="FAILED", start=hour[1], end=hour[1] + timedelta(minutes=30)),
    ]
    long, short = rects(timeline("", [Lane(label="a", spans=spans)], now=NOW, width=1000))
    assert float(long.attrib["width"]) == pytest.approx(2 * float(short.attrib["width"]), rel=0.01)


def test_the_axis_is_in_the_readers_own_time() -> None:
    spans = [Span(state="RUNNING", start=NOW - timedelta(hours=1), end=NOW)]

    def ticks(offset: int) -> list[str]:
        svg = timeline("", [Lane(label="a", spans=spans)], now=NOW, width=900, offset=offset)
        return [str(each.text) for each in parsed(svg).iter() if each.attrib.get("class") == "faint"]

    assert ticks(0)[0] == "11:00"
    assert ticks(-60)[0] == "12:00"
    assert ticks(330)[0] == "05:30"


@pytest.mark.parametrize("width", [200, 900])
def test_the_signs_that_were_drawn_are_explained_below(width: int) -> None:
    spans = [Span(state=state, start=NOW - timedelta(hours=1), end=NOW) for state in SIGNS]
    svg = parsed(timeline("", [Lane(label="a", spans=spans[:3])], now=NOW, width=width))
    told = [str(each.text) for each in svg.iter() if str(each.text)[1:2] == " "]
    assert told == [f"{SIGNS[span.state][0]} {span.state.lower()}" for span in spans[:3]]
    assert max(float(each.attrib["y"]) for each in svg.iter() if "y" in each.attrib) < float(
        svg.attrib["height"]
    )


def test_what_leads_somewhere_can_be_reached_by_who_listens() -> None:
    spans = [Span(state="RUNNING", start=NOW - timedelta(hours=1), ref="run:r-1")]
    assert parsed(timeline("", [Lane(label="a", spans=spans)], now=NOW, width=900)).attrib["role"] == "group"
    assert parsed(timeline("", [], now=NOW, width=900)).attrib["role"] == "img"


def test_what_does_not_fit_is_counted_and_not_dropped_in_silence() -> None:
    spans = [Span(state="RUNNING", start=NOW - timedelta(hours=1)) for _ in range(75)]
    svg = timeline("", [Lane(label="backlog", spans=spans)], now=NOW, width=900)
    assert len(rects(svg)) == 60
    assert "15 more are not drawn." in svg


def test_a_chance_is_a_bar_of_that_part_of_the_scale_with_its_number() -> None:
    svg = chances("", [Chance(label="etl", p=0.5), Chance(label="load", p=0.25)], width=1000)
    half, quarter = rects(svg)
    assert float(half.attrib["width"]) == pytest.approx(2 * float(quarter.attrib["width"]), rel=0.01)
    assert "50%" in svg
    assert "25%" in svg
