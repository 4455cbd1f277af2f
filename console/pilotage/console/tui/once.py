"""`pilotage ask`: one question, its answer on standard output, and an exit code. Needs no terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from pilotage.console.render.text import ERR, OUT, harmless
from pilotage.console.session.events import Event
from pilotage.console.tui.feed import card_id, shown
from pilotage.console.tui.session import Conversation, Which, conversing, ends
from pilotage.flows.config.paths import StatePaths
from pilotage.telemetry.errors import ConfigError

ANSWERED, FAILED, USAGE, REFUSED = 0, 1, 2, 3
_USAGE = frozenset({"invalid", "bad-request", "unknown-command"})
_FAILED = frozenset({"error", "model"})
LONGEST = 8000
"""Characters of a question."""


def question_of(words: str) -> str:
    """The question: the words given, or standard input for `-`. Raises ConfigError when there is none."""
    text = sys.stdin.read(LONGEST + 1) if words == "-" else words
    if not text.strip() or len(text) > LONGEST:
        fault = "nothing" if not text.strip() else f"more than {LONGEST} characters"
        raise ConfigError(
            f"Reading the question: found {fault}. Say it in a sentence, or pipe it in with `-`."
        )
    return text.strip()


def run_ask(
    where: StatePaths,
    words: str,
    *,
    token_file: Path | None,
    config: Path | None,
    which: Which,
    wait: float,
    as_json: bool,
    commands: bool = False,
) -> int:
    """The exit code, after everything was printed: 0 answered, 1 failed, 2 not understood, 3 refused.

    What is read from standard input is a question, whatever it begins with, unless `commands` says otherwise.
    """
    tell = _as_json if as_json else Printer().tell
    question = question_of(words)

    async def inside() -> int:
        async with conversing(
            where, token_file=token_file, config=config, which=which, watching=wait > 0
        ) as talk:
            seq = await (talk.say if words != "-" or commands else talk.ask)(question)
            code, open_cards = ANSWERED, set[str]()
            last = seq
            async for event in talk.turn(seq):
                tell(event)
                code, last = _worse(code, event), event.seq
                _follow(event, open_cards)
            if wait > 0 and open_cards and not await _settle(talk, last, open_cards, wait, tell):
                ERR.print(harmless(f"still open after {wait:g} s: {', '.join(sorted(open_cards))}"))
                code = code or FAILED
            if not as_json:
                ERR.print(harmless(f"conversation {talk.thread}"))
            return code

    return asyncio.run(inside())


async def _settle(
    talk: Conversation, seq: int, open_cards: set[str], wait: float, tell: Callable[[Event], None]
) -> bool:
    """Whether every proposal that was shown has come to its end in time; what happens to them is told."""

    async def until_settled() -> None:
        async for batch in talk.engine.log.follow(seq, talk.thread):
            for event in batch:
                tell(event)
                _follow(event, open_cards)
            if not open_cards:
                return

    try:
        await asyncio.wait_for(until_settled(), wait)
    except TimeoutError:
        return False
    return True


def _follow(event: Event, open_cards: set[str]) -> None:
    if event.type == "card":
        card = event.payload["card"]
        (open_cards.discard if card["settled"] else open_cards.add)(card["proposal_id"])


def _worse(code: int, event: Event) -> int:
    if event.type == "answer":  # rules took over from whatever failed before
        return USAGE if event.payload.get("understood") is False else ANSWERED
    if event.type != "error":
        return code
    kind = str(event.payload.get("kind"))
    return USAGE if kind in _USAGE else FAILED if kind in _FAILED else REFUSED


def _as_json(event: Event) -> None:
    sys.stdout.write(event.as_json() + "\n")
    sys.stdout.flush()


class Printer:
    """Prints rows as they come: pieces of an answer without a break, everything else below each other."""

    def __init__(self) -> None:
        self._streaming = 0
        self._known: frozenset[str] = frozenset()

    def tell(self, event: Event) -> None:
        """Prints one row, if there is anything to read in it."""
        if event.type == "said":
            return  # whoever asked knows
        if event.type == "delta":
            self._streaming = int(event.payload["turn"])
            for n, line in enumerate(str(event.payload["text"]).split("\n")):
                OUT.print("" if n else harmless(""), end="\n" if n else "")
                OUT.print(harmless(line, limit=LONGEST), end="", soft_wrap=True)
            return
        streamed = self._streaming == event.payload.get("turn", -1)
        if streamed:
            OUT.print()
            self._streaming = 0
        whole = streamed and ends(event, int(event.payload.get("turn", -1)))
        drawn_text = shown(event, OUT.width, streamed=whole, known=self._known)
        self._known |= {card_id(event)} - {""}
        if drawn_text is not None:
            OUT.print(drawn_text)
