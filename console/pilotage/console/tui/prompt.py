"""The plain line prompt: what `pilotage chat` is in a pipe, or where Textual is not installed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pilotage.console.render.text import OUT, harmless
from pilotage.console.tui.once import Printer
from pilotage.console.tui.session import Which, conversing
from pilotage.flows.config.paths import StatePaths

LEAVING = frozenset({"/exit", "/quit", "exit", "quit"})


def run_prompt(where: StatePaths, *, token_file: Path | None, config: Path | None, which: Which) -> None:
    """Talks until the input ends or `/exit`."""

    async def inside() -> None:
        async with conversing(
            where, token_file=token_file, config=config, which=which, watching=True
        ) as talk:
            roles = ", ".join(sorted(talk.user.roles))
            mock = " [MOCK: a scripted model answers]" if talk.mock else ""
            OUT.print(
                harmless(
                    f"You are {talk.user.name} ({roles}).{mock} Ask, or say /inbox, /approve ID, /help; /exit ends."
                )
            )
            printer, read = Printer(), talk.engine.log.last_seq()
            while (line := await asyncio.to_thread(_read)) is not None and line.strip() not in LEAVING:
                for event in talk.engine.log.after(read, talk.thread):  # what happened meanwhile
                    printer.tell(event)
                    read = event.seq
                if line.strip() == "/clear":
                    OUT.clear()
                elif line.strip():
                    seq = await talk.say(line.strip())
                    async for event in talk.turn(seq):
                        printer.tell(event)
                        read = event.seq

    asyncio.run(inside())


def _read() -> str | None:
    if sys.stdin.isatty():
        try:
            return input("> ")
        except EOFError:
            return None
    return sys.stdin.readline() or None
