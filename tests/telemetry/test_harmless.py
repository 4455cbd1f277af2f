"""Whatever somebody wrote, what is shown of it is one line in which nothing acts, hides or passes for another."""

from __future__ import annotations

import io
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry.harmless_cases import CASES

from pilotage.telemetry.harmless import HarmlessFormatter, harmless, harmless_lines, markdown, xml
from pilotage.telemetry.redaction import MASK

TEXT = st.text(alphabet=st.characters(), max_size=300)


@pytest.mark.parametrize("written", CASES, ids=ascii)
def test_it_is_shown_as_the_table_says(written: str) -> None:
    assert harmless(written) == CASES[written]


@given(TEXT, st.integers(min_value=1, max_value=250))
def test_it_is_one_printable_line_of_limited_length(text: str, limit: int) -> None:
    shown = harmless(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()


@given(TEXT)
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert harmless(harmless(text, 10_000), 10_000) == harmless(text, 10_000)


@given(TEXT)
def test_lines_stay_lines(text: str) -> None:
    shown = harmless_lines(text)
    assert shown.count("\n") == text.count("\n")
    assert all(line.isprintable() for line in shown.split("\n"))


def test_terminal_escapes_become_visible() -> None:
    assert harmless("a\x1b[2Jb\nc\x00‮") == "a\\x1b[2Jb⏎c\\x00\\u{202e}"


@given(TEXT)
def test_nothing_in_markdown_is_markup(text: str) -> None:
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_{}\[\]<>()#+\-!|~]", markdown(text))


@given(TEXT)
def test_nothing_in_xml_is_an_element(text: str) -> None:
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", xml(text))


def test_a_log_line_is_one_line_without_escapes_and_secrets() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(HarmlessFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("of a test")
    log.addHandler(handler)
    log.warning("state %s: %s", "Fai\x1b[2Jled", "done\nERROR forged line password=hunter2")
    try:
        raise ValueError("\x1b]0;title\x07 token=hunter2hunter2")
    except ValueError:
        log.exception("it broke")
    first, second, *trace = written.getvalue().splitlines()
    assert first == f"WARNING state Fai\\x1b[2Jled: done⏎ERROR forged line password={MASK}"
    assert second == "ERROR it broke"
    assert trace[-1].startswith("ValueError: \\x1b]0;title\\x07 token=")
    assert "hunter2" not in written.getvalue()
