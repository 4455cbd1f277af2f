"""What the terminal draws fits its width, keeps every word, and is nothing but text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from pilotage.console.session import blocks
from pilotage.console.session.cards import card_of
from pilotage.console.session.events import Event, EventType
from pilotage.console.tui.drawing import drawn
from pilotage.console.tui.feed import shown

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x9b31m [red]approve[/red] \u202e\u2066 [link=http://x]y[/link]\r\n# heading"
)
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
WIDTHS = (40, 80, 120, 200)


def printed(what: Any, width: int) -> str:
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as caught:
        console.print(what)
    return caught.get()


def proposal(words: str) -> dict[str, Any]:
    return {
        "proposal_id": "p-0123456789ab", "digest": "d", "kind": "resize_run", "status": "needs_approval",
        "action": {"kind": "resize_run", "run_id": "r", "memory_mb": 256}, "target": f"run:{words}",
        "target_facts": {"memory_mb": 128, "deployment_name": words, "env": words, "tier": 1, "team": "ops"},
        "case": {"expected_effect": words, "notes": [words], "p_fail": 0.4, "forecast_model": "ewma"},
        "verdict": {"outcome": "needs_approval", "requirements": {"owner": 1}, "reasons": [words]},
        "proposer": "pat", "expires_at": NOW.isoformat(), "filed_at": NOW.isoformat(),
    }  # fmt: skip


def samples(words: str) -> list[blocks.Block]:
    span = {"state": words, "start": NOW.isoformat(), "end": (NOW + timedelta(minutes=3)).isoformat()}
    cells: list[blocks.Cell] = [words, blocks.link(words, "run", "r-1"), 3, None, words]
    return [
        blocks.text(words),
        blocks.raw(words, {"a": words, "b": [words] * 300}),
        blocks.pairs(words, {words: words, "n": 1.5, "none": None}),
        blocks.table(words, ("a", "b", "n", "none", words), [cells, cells], empty="none"),
        blocks.table("few", ("a", "b"), [("x", "y")], empty="none"),
        blocks.table(words, ("a",), [], empty=words),
        blocks.story(words, [{"at": NOW.isoformat(), "step": words, "actor": words, "words": words}]),
        blocks.chart(words, x=[words, "b"], y=[0.2, 5.0]),
        blocks.timeline(words, [{"label": words, "spans": [span]}, {"label": "t", "spans": []}]),
        blocks.timeline("none", []),
        blocks.card(card_of(proposal(words))),
    ]


def events(words: str) -> list[Event]:
    turn = {"turn": 1}
    payloads: list[tuple[EventType, dict[str, Any]]] = [
        ("said", {"text": words}),
        ("tool_call", {**turn, "n": 1, "tool": words, "arguments": {words: words}}),
        ("tool_result", {**turn, "n": 1, "tool": words, "rows": 2, "seconds": 0.1, "result": {}}),
        (
            "answer",
            {
                **turn, "text": words, "by": words, "mock": True, "gaps": [words],
                "claims": [{"text": words, "opinion": True}],
                "forecasts": [{"run_id": words, "p_fail": 0.4, "model": words}],
                "citations": [{"tool": words, "refs": [{"ref": f"run:{words}"}]}],
            },
        ),
        ("error", {**turn, "text": words, "kind": "model"}),
        ("step", {"at": NOW.isoformat(), "step": words, "words": words, "proposal_id": "p"}),
        ("snoozed", {"proposal_id": "p-1", "until": NOW.isoformat()}),
        ("notice", {"text": words, "stopped": words, "mode": "auto"}),
        ("done", {**turn, "ok": True}),
    ]  # fmt: skip
    return [
        Event(seq=n, thread="t", type=kind, by=words, at=NOW, payload=payload)
        for n, (kind, payload) in enumerate(payloads)
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    for block in samples("a fairly long run of words, and-one-word-that-cannot-be-broken-" + "x" * 90):
        lines = printed(drawn(block, width), width).splitlines()
        assert max(len(line.rstrip()) for line in lines) <= width, block["kind"]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_in_it_is_more_than_text(width: int) -> None:
    told = "".join(printed(drawn(block, width), width) for block in samples(HOSTILE))
    told += "".join(
        printed(what, width) for event in events(HOSTILE) if (what := shown(event, width)) is not None
    )
    assert {sign for sign in told if not sign.isprintable()} == {"\n"}
    assert "[red]approve[/red]" in told


def test_a_wide_table_becomes_records_where_there_is_no_room() -> None:
    block = blocks.table("T", tuple("abcdef"), [["sixteen letters!"] * 6], empty="")
    assert len(printed(drawn(block, 120), 120).splitlines()) <= 4
    narrow = printed(drawn(block, 80), 80)
    assert [line.split()[0] for line in narrow.splitlines()[1:7]] == list("abcdef")


def test_prose_gets_the_room_to_be_read_or_stands_below_the_rest() -> None:
    block = blocks.table(
        "T", ("run", "flow", "starts", "because"), [["x" * 18, "y" * 14, "in 10m", "so " * 30]], empty=""
    )
    assert "so so so so so so so so" in printed(drawn(block, 90), 90)
    assert "because so so" in printed(drawn(block, 60), 60)


def test_moments_say_which_clock_they_are_on() -> None:
    at = blocks.moment(NOW.isoformat())
    rows: list[list[blocks.Cell]] = [[at, "x"], ["", "y"]]
    told = printed(drawn(blocks.table("T", ("since", "what"), rows, empty=""), 80), 80)
    assert "since" in told
    assert "11-02 12:00:00" in told
    assert "UTC" in printed(drawn(blocks.pairs("T", {"made": at}), 80), 80)


def test_an_answer_tells_the_measured_chance_and_which_sentences_nothing_backs() -> None:
    answer = {
        "text": "It ran out of memory. It may do so again.", "by": "model", "turn": 1,
        "claims": [{"text": "It ran out of memory.", "opinion": False}, {"text": "It may do so again.", "opinion": True}],
        "forecasts": [{"run_id": "0123456789ab", "p_fail": 0.42, "model": "ewma"}],
    }  # fmt: skip
    told = printed(
        shown(Event(seq=1, thread="t", type="answer", by="model", at=NOW, payload=answer), 100), 100
    )
    assert "run 01234567: 42% chance of failing, says ewma" in told
    assert told.count("opinion") == 1
    assert "opinion, no look-up backs it: It may do so again." in told


def test_a_card_has_what_a_person_decides_on() -> None:
    told = printed(drawn(blocks.card(card_of(proposal("etl/nightly"))), 100), 100)
    known = {
        "touches": {"runs": [{"run_id": "r", "name": "otter", "becomes": "waits"}], "more": 4},
        "takes": "long",
    }
    told += printed(drawn(blocks.card(card_of(proposal("etl/nightly"), None, known)), 100), 100)
    for part in ("otter waits; and 4 more", "takes    long", "memory: 128 MiB → 256 MiB", "40%, says ewma",
                 "needs_approval", "1 more owner, an approver of team ops",
                 "not pat", "waits for a person"):  # fmt: skip
        assert part in told


def test_a_run_over_time_takes_the_width_there_is_and_names_its_signs() -> None:
    states = [("Pending", 0, 10), ("Running", 10, 90), ("Failed", 90, 90)]
    spans = [
        {
            "state": state,
            "start": (NOW + timedelta(seconds=start)).isoformat(),
            "end": (NOW + timedelta(seconds=end)).isoformat(),
        }
        for state, start, end in states
    ]
    for width in WIDTHS:
        lane = printed(
            drawn(blocks.timeline("T", [{"label": "run", "spans": spans}]), width), width
        ).splitlines()[1]
        assert len(lane.rstrip()) in (width - 2, width - 1)
        assert lane.rstrip()[-1] == "x"
        assert lane.count("=") > lane.count("-")
