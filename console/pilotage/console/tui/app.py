"""`pilotage chat` on a terminal: talk on the left, what is looked at on the right. Every act is a line that one can read
before Enter sends it; keys only write such lines, so nothing is decided by a slip of a finger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.console import RenderableType
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.css.query import NoMatches
from textual.events import Resize
from textual.widgets import ContentSwitcher, Footer, Input, Static

from pilotage.console.render.text import harmless
from pilotage.console.session.changes import FIXED
from pilotage.console.session.commands.registry import COMMANDS
from pilotage.console.session.events import Event
from pilotage.console.tui.drawing import card, drawn
from pilotage.console.tui.panes import Inbox, Looking, Talk, head_line
from pilotage.console.tui.session import Conversation, Which, conversing, ends
from pilotage.flows.config.paths import StatePaths
from pilotage.telemetry.errors import PilotageError

WIDE = 110
"""From this many columns both halves are shown; below, one at a time."""
REFRESH = 3.0
"""Seconds between two looks at what is shown on the right."""
PANES: Mapping[str, tuple[str, ...]] = {
    "queues": ("status", "queue"),
    "incidents": ("incidents",),
    "forecast": ("forecast", "kpi"),
}
"""Pictures that are the blocks of commands."""
READY, BUSY = "Ask, or /help", "answering… Esc stops it"
LEAVING = frozenset({"/exit", "/quit"})


class TerminalApp(App[None]):
    """The screen over one conversation."""

    TITLE = "pilotage"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 1; background: $panel; padding: 0 1; }
    #body { height: 1fr; }
    #talk { width: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    #talk .said { margin-top: 1; }
    #talk .answer, #talk .card, #talk .block { margin-bottom: 1; }
    #side { width: 1fr; border-left: solid $panel; }
    #side Looking { padding: 0 1; scrollbar-size-vertical: 1; }
    #inbox { scrollbar-size: 1 1; }
    .narrow #side { display: none; border: none; }
    .narrow.aside #side { display: block; }
    .narrow.aside #talk { display: none; }
    #line { border: none; height: 1; background: $boost; padding: 0 1; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "talk", "Talk"),
        Binding("f2", "look('card')", "Card"),
        Binding("f3", "look('inbox')", "Inbox"),
        Binding("f4", "look('queues')", "Queues"),
        Binding("f5", "look('incidents')", "Inc"),
        Binding("f6", "look('forecast')", "Risk"),
        Binding("f7", "write('approve')", "Yes"),
        Binding("f8", "write('reject')", "No"),
        Binding("f9", "write('edit')", "Edit"),
        Binding("f10", "write('stop')", "Stop"),
        Binding("escape", "leave_off", "Back", show=False),
        Binding("ctrl+q", "quit", "Quit", show=False),
    ]

    def __init__(self, talk: Conversation) -> None:
        super().__init__()
        self.talking = talk
        self.card: Mapping[str, Any] | None = None
        """The card that keys are about."""
        self.looking = "inbox"
        self._drawing = asyncio.Lock()

    def compose(self) -> ComposeResult:
        """Head, two halves, the line, the keys."""
        yield Static(id="head")
        with Horizontal(id="body"):
            yield Talk(id="talk")
            with ContentSwitcher(id="side", initial="inbox"):
                yield Inbox(id="inbox")
                yield Looking(id="card")
                for name in PANES:
                    yield Looking(id=name)
        yield Input(id="line", placeholder=READY, select_on_focus=False)
        yield Footer(compact=True, show_command_palette=False)

    async def on_mount(self) -> None:
        """Begins to follow the log."""
        self.set_class(self.size.width < WIDE, "narrow")
        self.query_one("#line").focus()
        self.run_worker(self._follow(), name="follow")
        self.set_interval(REFRESH, self._look_again)
        await self._look_again()

    def on_resize(self, event: Resize) -> None:
        """One half or two."""
        self.set_class(event.size.width < WIDE, "narrow")

    # -- saying

    @on(Input.Submitted, "#line")
    async def say(self, event: Input.Submitted) -> None:
        """Enter: the line goes to the engine."""
        words = event.value.strip()
        event.input.value = ""
        if words in LEAVING:
            self.exit()
        elif words == "/clear":
            await self.query_one(Talk).clear()
        elif words:
            self.action_talk()
            try:
                await self.talking.say(words)
            except PilotageError as exc:
                await self.query_one(Talk).note(harmless(f"error: {exc}", limit=600))

    async def _follow(self) -> None:
        log, pane = self.talking.engine.log, self.query_one(Talk)
        turn, busy = 0, False
        try:  # what stands comes first, in front of the conversation
            for block in await self._blocks("now"):
                await pane.note(drawn(block, pane.text_width))
        except PilotageError as exc:
            await pane.note(harmless(str(exc), limit=600))
        async for batch in log.follow(0, self.talking.thread):
            if not self.query("#line"):  # the screen was left
                return
            for event in batch:
                await pane.tell(event)
                self._remember(event)
                if event.type == "said":
                    turn = event.seq
                busy = not ends(event, turn) if event.type in ("said", "answer", "done") else busy
            self.query_one("#line", Input).placeholder = BUSY if busy else READY
            if any(event.type in ("card", "step", "done", "snoozed") for event in batch):
                await self._look_again()

    def _remember(self, event: Event) -> None:
        if event.type != "card":
            return
        card = event.payload["card"]
        other = self.card is not None and self.card["proposal_id"] != card["proposal_id"]
        if (
            not other or event.payload.get("turn") is not None
        ):  # what was asked for now is what keys are about
            self.card = card

    # -- looking

    def action_talk(self) -> None:
        """The conversation, and the line."""
        self.remove_class("aside")
        self.query_one("#line").focus()

    async def action_look(self, what: str) -> None:
        """The other half shows this."""
        self.looking = what
        self.add_class("aside")
        self.query_one("#side", ContentSwitcher).current = what
        self.query_one(f"#{what}").focus()
        await self._look_again()

    async def action_leave_off(self) -> None:
        """Stops an answer that is being given; else back to the line."""
        if not await self.talking.engine.interrupt(self.talking.user, self.talking.thread):
            self.action_talk()

    @on(Inbox.Opened)
    async def open_card(self, event: Inbox.Opened) -> None:
        """A row of the inbox was entered: its card is shown, and written down as seen."""
        await self.talking.say(f"/show {event.proposal_id}")
        await self.action_look("card")

    async def _look_again(self) -> None:
        async with self._drawing:
            try:
                await self._head()
                await self._side()
            except PilotageError as exc:
                self.query_one("#head", Static).update(harmless(f"no API: {exc}", limit=300))
            except NoMatches:  # the screen was left while the API was asked
                return

    async def _head(self) -> None:
        talk = self.talking
        status = await talk.engine.ask(talk.user, "status")
        model = talk.engine.model()
        words = str(model.get("name")) if model.get("configured") else "rules answer"
        roles = sorted(talk.user.roles)
        line = head_line(talk.user.name, roles, status, words, mock=talk.mock, width=self.size.width - 2)
        self.query_one("#head", Static).update(line)

    async def _side(self) -> None:
        match self.looking:
            case "inbox":
                (block, *_) = await self._blocks("inbox")
                self.query_one(Inbox).fill(block["rows"])
            case "card":
                self.query_one("#card", Looking).draw(await self._card_parts())
            case name:
                pane = self.query_one(f"#{name}", Looking)
                parts = [block for command in PANES[name] for block in await self._blocks(command)]
                pane.draw([drawn(block, pane.text_width) for block in parts])

    async def _card_parts(self) -> list[RenderableType]:
        if self.card is None:
            return [harmless("No card was opened. F3 shows the inbox; Enter opens a row.")]
        pane, talk = self.query_one("#card", Looking), self.talking
        self.card = await talk.engine.card(talk.user, self.card["proposal_id"])
        parts = [card(self.card)]
        if self.card["run_id"]:
            try:
                over_time = await self._blocks("run", self.card["run_id"])
                parts += [drawn(block, pane.text_width) for block in over_time]
            except PilotageError as exc:
                parts.append(harmless(str(exc)))
        return parts

    async def _blocks(self, command: str, about: str = "") -> list[dict[str, Any]]:
        setting = await self.talking.engine.setting(self.talking.user, self.talking.thread)
        return await asyncio.to_thread(partial(COMMANDS[command].run, setting, about))

    # -- deciding

    def action_write(self, command: str) -> None:
        """Writes the command about the chosen cards into the line; Enter sends it."""
        line = self.query_one("#line", Input)
        line.value = self._about(command)
        line.focus()
        line.cursor_position = len(line.value)

    def _about(self, command: str) -> str:
        box = self.query_one(Inbox)
        if command == "stop":
            return "/stop "
        if self.looking == "inbox" and self.has_class("aside"):
            ids = list(box.marked) or [box.chosen]
        else:
            ids = [str(self.card["proposal_id"])] if self.card else []
        if command != "edit":
            return f"/{command} {' '.join(ids)} ".replace("  ", " ")
        fields = ""
        if self.card and ids[:1] == [self.card["proposal_id"]]:
            fields = " ".join(f"{k}={v}" for k, v in self.card["action"].items() if k not in FIXED)
        return f"/edit {' '.join(ids[:1])} {fields}"


def run_screen(where: StatePaths, *, token_file: Path | None, config: Path | None, which: Which) -> None:
    """The screen until it is left. Raises as `conversing` does."""

    async def inside() -> None:
        async with conversing(
            where, token_file=token_file, config=config, which=which, watching=True
        ) as talk:
            await TerminalApp(talk).run_async()

    asyncio.run(inside())
