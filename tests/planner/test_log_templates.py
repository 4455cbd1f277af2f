"""Log lines as templates with counts."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bench.bench_log_templates import grouping_accuracy, groups_of
from tests.planner.conftest import NOW

from pilotage.planner.log_templates import masked, mined
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


@pytest.mark.parametrize(
    ("line", "template"),
    [
        ("HTTP 429 Too Many Requests after 3 tries", "HTTP 429 Too Many Requests after <n> tries"),
        ("exit code 137", "exit code 137"),
        ("[Errno 111] Connection refused", "[Errno 111] Connection refused"),
        ("read 12 rows from s3://lake/a.parquet", "read <n> rows from <url>"),
        ("connection to db.prod.internal:5432 refused", "connection to <host> refused"),
        ("10.0.0.7:50010 is slow", "<host> is slow"),
        ('File "/usr/lib/python3.12/site.py", line 12', 'File "<path>", line <n>'),
        (r"C:\Windows\core.dll loaded", "<path> loaded"),
        ("deleting blk_-38865049064139660 0xdeadbeef", "deleting <id> <hex>"),
        ("asked to delete blk_1 blk_2 blk_3", "asked to delete <id>"),
        ("5.2 KB of 93 bytes", "<n> of <n>"),
        ("lookup of () failed", "lookup of <text> failed"),
    ],
)
def test_what_is_a_value_is_masked_and_what_says_what_happened_is_not(line: str, template: str) -> None:
    assert " ".join(masked(line)) == template


def test_a_value_is_told_by_its_place_and_an_action_is_not() -> None:
    users = [f"session opened for user {name}" for name in ("ann", "bob")]
    verbs = [f"[id 1] VM {verb} (event)" for verb in ("Started", "Paused", "Resumed", "Stopped")]
    asked = [f"took 3 seconds to {verb} it" for verb in ("build", "destroy")]
    assert len(set(groups_of(users))) == 1
    assert len(set(groups_of(verbs))) == 4
    assert len(set(groups_of(asked))) == 2


def test_lines_of_a_service_are_grouped_as_their_author_wrote_them() -> None:
    """What each line was printed with is known here, so the accuracy is exact."""
    names = ["orders", "stock", "users", "carts", "bills"]
    said = [
        *((f"Created task run '{n}-{i}' for task '{n}'", "created") for i, n in enumerate(names)),
        *((f"Loaded {i * 37} rows into table {n} in {i}.{i} s", "loaded") for i, n in enumerate(names)),
        *((f"GET https://api.example/{n}/{i} answered 200", "answered") for i, n in enumerate(names)),
        *(
            (f"Retrying {n}.internal:80{i}0: HTTP 503 Service Unavailable", "unavailable")
            for i, n in enumerate(names)
        ),
        *(
            (f"Retrying {n}.internal:80{i}0: HTTP 429 Too Many Requests", "limited")
            for i, n in enumerate(names)
        ),
        *((f"worker {i} wrote /data/{n}/part-{i:05}.parquet", "wrote") for i, n in enumerate(names)),
        ("Worker is ready", "ready"),
        ("Worker is stopping", "stopping"),
    ]
    assert grouping_accuracy([label for _, label in said], groups_of([line for line, _ in said])) == 1.0


def _invented(seed: int) -> tuple[list[str], list[int]]:
    """Return lines of a system that nobody has seen, each with the number of its template.

    Its words are made of letters at random; its values are those that every system logs.
    """
    chance = random.Random(seed)

    def word() -> str:
        return "".join(
            chance.choice("bcdfghklmnprst") + chance.choice("aeiou") for _ in range(chance.randint(2, 4))
        )

    values = (
        lambda: f"/{word()}/{word()}/{chance.randint(1, 99)}.{word()}",
        lambda: f"10.{chance.randint(0, 255)}.0.{chance.randint(1, 255)}:{chance.randint(1024, 65_000)}",
        lambda: f"{word()}-{chance.randint(1, 99)}.{word()}.example:{chance.randint(1024, 9999)}",
        lambda: f"blk_-{chance.getrandbits(60)}",
        lambda: f"0x{chance.getrandbits(48):x}",
        lambda: f"{chance.getrandbits(64):016x}",
        lambda: str(UUID(int=chance.getrandbits(128))),
        lambda: str(chance.randint(0, 10**6)),
        lambda: f"{chance.randint(1, 900)} ms",
        lambda: (
            f"2026-11-{chance.randint(1, 28):02} 10:{chance.randint(10, 59)}:07,{chance.randint(100, 999)}"
        ),
    )
    templates = [
        [
            chance.choice(values) if place and chance.random() < 0.3 else word()
            for place in range(chance.randint(4, 10))
        ]
        for _ in range(60)
    ]
    told = [
        (number, template) for number, template in enumerate(templates) for _ in range(chance.randint(1, 30))
    ]
    chance.shuffle(told)
    said = [" ".join(part if isinstance(part, str) else part() for part in template) for _, template in told]
    return said, [number for number, _ in told]


@pytest.mark.parametrize("seed", range(5))
def test_lines_of_a_system_that_nobody_has_seen_are_put_into_its_templates(seed: int) -> None:
    """No word of these lines stands in any list: what groups them holds for systems that nothing was written for."""
    told, labels = _invented(seed)
    assert grouping_accuracy(labels, groups_of(told)) >= 0.97
