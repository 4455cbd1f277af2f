"""The screen by its keyboard alone: what is asked, seen and decided, at 80 and at 120 columns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, cast

import pytest
from rich.console import Console
from tests.console.console_stack import ConsoleStack
from textual.pilot import Pilot
from textual.widgets import Input, Static

from pilotage.console.tui.app import TerminalApp
from pilotage.console.tui.panes import Inbox, Talk
from pilotage.console.tui.session import Which, conversing
from pilotage.flows.config.credentials import PREFECT_KEYS
from pilotage.flows.config.paths import StatePaths
from pilotage.telemetry.facts import EventFact

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [red]approve[/red] \u202e"
Story = Callable[[TerminalApp, Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _keys_are_put_back(monkeypatch: pytest.MonkeyPatch, port: ConsoleStack) -> None:
    for key in PREFECT_KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("PILOTAGE_STATE_DIR", str(port.paths.root))


class Manned(Protocol):
    """An installation with people."""

    @property
    def paths(self) -> StatePaths: ...

    @property
    def tokens(self) -> Mapping[str, str]: ...


def on_screen(
    port: Manned, story: Story, *, who: str = "pat", size: tuple[int, int] = (120, 40), thread: str = "t-1"
) -> None:
    """Plays the story in front of the screen of this person."""
    token = port.paths.root / f"{who}.token"
    token.write_text(port.tokens[who])

    async def inside() -> None:
        async with conversing(
            port.paths, token_file=token, config=None, which=Which(thread=thread), watching=True
        ) as talk:
            app = TerminalApp(talk)
            async with app.run_test(size=size) as pilot:
                await story(app, pilot)

    asyncio.run(inside())


async def until(pilot: Pilot[Any], look: Callable[[], bool], what: str, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline, f"{what}; seen: {seen(cast('TerminalApp', pilot.app))}"
        await pilot.pause(0.05)


async def line(app: TerminalApp, pilot: Pilot[None], words: str) -> None:
    """Types the words and sends them."""
    box = app.query_one("#line", Input)
    box.focus()
    box.value = words
    await pilot.press("enter")


def seen(app: TerminalApp, where: str = "#talk") -> str:
    """What a pane shows, as text."""
    console = Console(width=200, color_system=None, force_terminal=False)
    with console.capture() as caught:
        for row in app.query(f"{where} Static").results(Static):
            console.print(row.content)
    return caught.get()


def line_of(app: TerminalApp) -> str:
    return app.query_one("#line", Input).value


def test_a_question_is_answered_with_its_look_up_numbered(port: ConsoleStack) -> None:
    run_id = port.failed_run()

    async def story(app: TerminalApp, pilot: Pilot[None]) -> None:
        await line(app, pilot, f"why did {run_id} fail?")
        await until(pilot, lambda: "— rules" in seen(app), "an answer")
        assert f"1 why_run(run_id={run_id})" in seen(app)
        assert "/show 1" in seen(app)
        await line(app, pilot, "/nonsense")
        await until(pilot, lambda: "There is no /nonsense" in seen(app), "a refusal")
        await line(app, pilot, "/clear")
        await until(pilot, lambda: not seen(app).strip(), "an empty screen")

    on_screen(port, story)


def test_marked_rows_of_the_inbox_are_decided_with_one_line(port: ConsoleStack) -> None:
    ids = [port.proposal()["proposal_id"] for _ in range(3)]

    async def story(app: TerminalApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(Inbox).row_count == 3, "the inbox")
        await pilot.press("f3", "space", "space", "f7")
        marked = list(app.query_one(Inbox).marked)
        assert len(marked) == 2
        assert line_of(app) == f"/approve {' '.join(marked)} "
        await pilot.press("enter")
        await until(pilot, lambda: "2 decided, 2 counted" in seen(app), "the results")
        await until(pilot, lambda: app.query_one(Inbox).row_count == 1, "an inbox without them")
        assert {port.control_api("pat").call("proposal", proposal_id=one)["status"] for one in marked} == {
            "allowed"
        }
        assert app.query_one(Inbox).chosen in set(ids) - set(marked)

    on_screen(port, story, who="ann")


@pytest.mark.parametrize("width", [80, 120])
def test_a_card_is_opened_edited_and_approved_by_another_with_keys(port: ConsoleStack, width: int) -> None:
    run_id = port.failed_run()
    old = port.proposal(run_id)["proposal_id"]

    async def edits(app: TerminalApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(Inbox).row_count == 1, "the inbox")
        await pilot.press("f3", "enter")
        await until(pilot, lambda: app.card is not None, "a card")
        await until(pilot, lambda: old in seen(app, "#card"), "the card in its pane")
        await pilot.press("f9")
        assert line_of(app) == f"/edit {old} delay=PT0S"
        await line(app, pilot, f"/edit {old} delay=90s")
        await until(pilot, lambda: app.card is not None and app.card["proposal_id"] != old, "its card")
        await line(app, pilot, "/share ann")
        await until(pilot, lambda: "ann" in seen(app), "with whom it is shared")

    on_screen(port, edits, size=(width, 30))
    new = next(row for row in port.control_api("pat").call("proposals", limit=9) if row["proposal_id"] != old)
    assert (new["proposer"], new["action"]["delay"], new["status"]) == ("pat", "PT1M30S", "needs_approval")

    async def approves(app: TerminalApp, pilot: Pilot[None]) -> None:
        await until(
            pilot,
            lambda: app.card is not None and app.card["proposal_id"] == new["proposal_id"],
            "the card that pat made",
        )
        await pilot.press("f7")
        assert line_of(app) == f"/approve {new['proposal_id']} "
        await pilot.press("enter")
        await until(pilot, lambda: "now allowed" in seen(app), "the vote")
        await asyncio.to_thread(port.work)
        await until(pilot, lambda: "verified by" in seen(app), "the verification in the thread")
        await until(pilot, lambda: "the promise was kept" in seen(app), "the card as it stands")

    on_screen(port, approves, who="ann", size=(width, 30))
    assert port.lever.executed == 1


def test_a_stop_is_written_before_it_is_sent_and_shows_at_the_head(port: ConsoleStack) -> None:
    async def story(app: TerminalApp, pilot: Pilot[None]) -> None:
        await pilot.press("f10")
        assert line_of(app) == "/stop "
        assert port.control_api("pat").call("status")["stopped"] in (None, "", False)
        await line(app, pilot, "/stop looking into it")
        await until(pilot, lambda: "STOPPED" in seen_head(app), "the banner")

    on_screen(port, story, size=(80, 24))


def seen_head(app: TerminalApp) -> str:
    return str(app.query_one("#head", Static).content)


def test_every_picture_fits_and_says_nothing_that_steers_the_terminal(port: ConsoleStack) -> None:
    run_id, now = port.failed_run(message=HOSTILE, name=f"otter{HOSTILE}"), datetime.now(UTC)
    port.store.add_events(
        [
            EventFact(
                event_id=f"e-{n}", occurred=now - timedelta(seconds=60 - n), run_id=run_id, resource_id="x",
                name="prefect.flow-run.State", payload={"validated_state": {"type": "RUNNING", "name": state}},
            )
            for n, state in enumerate(("Pending", "Running", HOSTILE, "Failed"))
        ]
    )  # fmt: skip
    port.proposal(run_id, notes=(HOSTILE,), explanation=HOSTILE, expected_effect=HOSTILE)

    async def story(app: TerminalApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(Inbox).row_count == 1, "the inbox")
        await pilot.press("f3", "enter")
        await until(pilot, lambda: "Over time" in seen(app, "#card"), "the run over time")
        for key, pane in (("f4", "#queues"), ("f5", "#incidents"), ("f6", "#forecast")):
            await pilot.press(key)
            await until(pilot, partial(lambda p: bool(seen(app, p).strip()), pane), pane)
        await pilot.press("f1")
        await line(app, pilot, f"why {run_id}")
        await until(pilot, lambda: "— rules" in seen(app), "an answer")
        told = "".join(seen(app, f"#{pane.id}") for pane in app.query("Looking")) + seen(app)
        assert "[red]approve[/red]" in told
        assert not {"\x1b", "\x07", "\u202e"} & set(told)
        assert app.query_one(Talk).max_scroll_x == 0
        picture = app.export_screenshot()
        assert "\u202e" not in picture

    on_screen(port, story, size=(80, 24))


def test_the_footer_names_every_key_at_80_columns(port: ConsoleStack) -> None:
    async def story(app: TerminalApp, pilot: Pilot[None]) -> None:
        await pilot.pause()
        footer = app.query_one("Footer")
        assert footer.max_scroll_x == 0
        assert sum(child.size.width for child in footer.children) <= 80

    on_screen(port, story, size=(80, 24))
