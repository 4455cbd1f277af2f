"""Log lines as templates with counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.conftest import NOW

from pilotage.planner.log_templates import mined
from pilotage.telemetry.facts import LogLine


def lines(*messages: str, level: int = 20) -> list[LogLine]:
    return [
        LogLine(log_id=f"l-{i:04d}", run_id="r", at=NOW + timedelta(seconds=i), level=level, message=m)
        for i, m in enumerate(messages)
    ]


def test_lines_that_differ_in_their_values_are_one_template_with_its_count() -> None:
    found = mined(lines(*(f"read {n} rows from table orders in 0.{n} s" for n in range(7)), "done"))
    assert [(one.text, one.count) for one in found] == [
        ("read <n> rows from table orders in <n> s", 7),
        ("done", 1),
    ]
    assert (found[0].first_log_id, found[0].last_log_id) == ("l-0000", "l-0006")
    assert found[0].example == "read 6 rows from table orders in 0.6 s"


def test_words_that_differ_become_a_gap() -> None:
    [found] = mined(lines("connected to host alpha at port 1", "connected to host beta at port 2"))
    assert found.text == "connected to host <*> at port <n>"


def test_lines_that_begin_otherwise_or_are_longer_stay_apart() -> None:
    found = mined(lines("load of orders failed", "save of orders failed", "load of orders failed again"))
    assert [one.count for one in found] == [1, 1, 1]


def test_the_highest_level_is_kept() -> None:
    [found] = mined([*lines("disk at 1", level=40), *lines("disk at 2", level=20)])
    assert (found.level, found.count) == (40, 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=40))
def test_every_line_is_counted_once_whatever_it_says(messages: list[str]) -> None:
    assert sum(one.count for one in mined(lines(*messages))) == len(messages)


def test_a_thousand_lines_take_no_time_to_speak_of(make: Any) -> None:
    import time

    said = lines(*(f"step {chr(97 + n % 26)} of {n} took {n} ms and gave {n * 7}" for n in range(1000)))
    began = time.process_time()
    mined(said)
    assert time.process_time() - began < 5
