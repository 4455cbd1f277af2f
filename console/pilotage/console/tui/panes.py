"""The parts of the screen: what was said, what waits, and what is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Static

from pilotage.console.render.text import harmless
from pilotage.console.session.events import Event
from pilotage.console.tui.drawing import paragraphs
from pilotage.console.tui.feed import card_id, shown

MOST_ROWS = 300
"""What was said earlier scrolls away; /history and the log keep it."""
ROOM = 26
"""Columns of one cell of the inbox: what and where are seen side by side, Enter shows the rest."""


class Talk(VerticalScroll, can_focus=True):
    """The conversation: each row of the log below the other, the answer growing as it comes."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._growing: tuple[int, str, Static] | None = None
        self._known: frozenset[str] = frozenset()

    async def tell(self, event: Event) -> None:
        """Shows one row."""
        if event.type == "delta":
            await self._grow(int(event.payload["turn"]), str(event.payload["text"]))
            return
        ended = event.type in ("answer", "done", "tool_call") and self._growing is not None
        streamed = ended and event.type == "answer" and self._growing is not None
        if ended:
            self._growing = None
        drawn_text = shown(event, self.text_width, streamed=streamed, known=self._known)
        self._known |= {card_id(event)} - {""}
        if drawn_text is not None:
            await self._add(Static(drawn_text, classes=event.type))

    async def note(self, words: RenderableType) -> None:
        """Shows something that is not in the log."""
        await self._add(Static(words))

    async def clear(self) -> None:
        """An empty pane; the log keeps everything."""
        self._growing = None
        await self.remove_children()

    @property
    def text_width(self) -> int:
        """Columns to draw in."""
        return max(20, self.size.width - 3)

    async def _grow(self, turn: int, piece: str) -> None:
        if self._growing is None or self._growing[0] != turn:
            row = Static(classes="delta")
            self._growing = (turn, "", row)
            await self._add(row)
        _, text, row = self._growing
        self._growing = (turn, text + piece, row)
        row.update(paragraphs(text + piece))
        self.scroll_end(animate=False)

    async def _add(self, row: Static) -> None:
        await self.mount(row)
        if len(self.children) > MOST_ROWS:
            await self.children[0].remove()
        self.scroll_end(animate=False)


class Inbox(DataTable[Text]):
    """What waits for a person. Enter opens a card, space marks it for one decision over several."""

    BINDINGS = [Binding("space", "mark", "Mark", show=False)]  # noqa: RUF012 - Textual wants a list

    class Opened(Message):
        """A card is wanted."""

        def __init__(self, proposal_id: str) -> None:
            super().__init__()
            self.proposal_id = proposal_id

    def __init__(self, **more: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True, **more)
        self.marked: dict[str, None] = {}
        self._ids: list[str] = []

    def on_mount(self) -> None:
        """Its columns."""
        self.add_columns("spc", "proposal", "action", "on", "expires", "age", "run", "cause", "missing")

    def fill(self, rows: Sequence[Sequence[Any]]) -> None:
        """Shows the rows of the inbox block, with the cursor where it was."""
        before = self.cursor_row
        self.clear()
        self._ids = [str(row[0]["ref"]).removeprefix("proposal:") for row in rows]
        self.marked = {each: None for each in self.marked if each in self._ids}
        for proposal_id, row in zip(self._ids, rows, strict=True):
            mark = "×" if proposal_id in self.marked else " "
            _, age, action, place, run, cause, missing, expires = row
            name = run["text"] if isinstance(run, Mapping) else run
            cells = (mark, proposal_id, action, place, expires, age, name, cause, missing)
            self.add_row(*(harmless(each, limit=ROOM) for each in cells))
        if self._ids:
            self.move_cursor(row=min(before, len(self._ids) - 1))

    @property
    def chosen(self) -> str:
        """The proposal under the cursor, or empty."""
        return self._ids[self.cursor_row] if 0 <= self.cursor_row < len(self._ids) else ""

    def action_mark(self) -> None:
        """Marks the row, or takes the mark away."""
        if not self.chosen:
            return
        if self.chosen in self.marked:
            del self.marked[self.chosen]
        else:
            self.marked[self.chosen] = None
        self.update_cell_at(
            self.cursor_coordinate._replace(column=0), harmless("×" if self.chosen in self.marked else " ")
        )
        self.action_cursor_down()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter."""
        event.stop()
        if self.chosen:
            self.post_message(self.Opened(self.chosen))


class Looking(VerticalScroll, can_focus=True):
    """A picture of something: a card with its run, the queue state, incidents, the forecast."""

    def compose(self) -> Any:
        """One drawing."""
        yield Static(id="drawing")

    def draw(self, parts: Sequence[RenderableType]) -> None:
        """Replaces the picture."""
        spaced: list[RenderableType] = []
        for part in parts:
            spaced += [part, Text()]
        self.query_one("#drawing", Static).update(Group(*spaced))

    @property
    def text_width(self) -> int:
        """Columns to draw in."""
        return max(20, self.size.width - 3)


def head_line(
    me: str, roles: Sequence[str], status: Mapping[str, Any], model: str, *, mock: bool, width: int
) -> Text:
    """Who, how far the loop may go, who answers; a stop is never cut off."""
    stopped = str(status.get("stopped") or "")
    parts: list[Any] = []
    if stopped:
        parts += [(" STOPPED ", "bold white on red"), " ", harmless(stopped, limit=40), " · "]
    parts += [
        ("pilotage", "bold"), " · ", harmless(f"{me} ({', '.join(roles)})", limit=40), " · mode ",
        (str(status.get("mode", "?")), "bold"),
    ]  # fmt: skip
    parts += [" · ", ("[MOCK] " if mock else "", "bold yellow"), harmless(model, limit=30)]
    line = Text.assemble(*parts, no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line
