"""One person in one conversation of an engine in this process: opening it, following it, knowing when a turn has ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pilotage.console.session.engine import Engine
from pilotage.console.session.events import Event
from pilotage.console.session.follower import Watcher
from pilotage.console.session.ports import User
from pilotage.console.session.services import engine_for, user_with
from pilotage.flows.api.client import ApiClient, token_for
from pilotage.flows.config.paths import StatePaths
from pilotage.telemetry.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which conversation is meant: a new one unless one of these says otherwise."""

    thread: str = ""
    """This one; it is made when there is none so named."""
    newest: bool = False
    """The one in which the caller was last."""
    fork: str = ""
    """A new one that begins as this one is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A person, a thread, and the engine that answers in it."""

    engine: Engine
    user: User
    thread: str
    mock: bool
    """Whether the model is the scripted one."""

    async def say(self, words: str) -> int:
        """The number of the row with these words; what follows belongs to its turn."""
        return (await self.engine.say(self.user, self.thread, words)).seq

    async def ask(self, words: str) -> int:
        """The number of the row with these words, which are a question whatever they begin with."""
        return (await self.engine.ask_agent(self.user, self.thread, words)).seq

    async def turn(self, seq: int) -> AsyncIterator[Event]:
        """The rows that follow `seq` in the thread, until its turn has ended. Rows of others come along."""
        async for batch in self.engine.log.follow(seq, self.thread):
            for event in batch:
                yield event
                if ends(event, seq):
                    return


def ends(event: Event, turn: int) -> bool:
    """Whether the row is the last of that turn."""
    return event.type in ("answer", "done") and event.payload.get("turn") == turn


@asynccontextmanager
async def conversing(
    where: StatePaths, *, token_file: Path | None, config: Path | None, which: Which, watching: bool
) -> AsyncIterator[Conversation]:
    """A conversation in the name of the token's owner; with `watching`, what the ledger records is posted to it.

    Raises ApiRejection when nobody has the token, ApiError when no API is there, ConfigError for a wrong `which`.
    """
    token = token_for(where, token_file)
    user = await asyncio.to_thread(user_with, where, token)
    engine = engine_for(where, config=config)
    stop, watch = asyncio.Event(), None
    try:
        thread = await asyncio.to_thread(_chosen, engine, user, which)
        model = await asyncio.to_thread(engine.model)
        if watching:
            watcher = Watcher(engine, user, ApiClient(where.api_socket, token))
            watch = asyncio.create_task(watcher.run(stop))
        yield Conversation(engine=engine, user=user, thread=thread, mock=bool(model.get("mock")))
    finally:
        stop.set()
        if watch is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        await engine.close()


def _chosen(engine: Engine, user: User, which: Which) -> str:
    if sum(map(bool, (which.thread, which.newest, which.fork))) > 1:
        raise ConfigError(
            "Choosing a conversation: --thread, --continue and --fork exclude each other. Give one."
        )
    if which.fork:
        return engine.fork(user, which.fork).id
    if which.newest:
        mine = next((each for each in engine.log.threads(200) if each.by == user.name), None)
        if mine is not None:
            return mine.id
    return engine.open_thread(user, "", which.thread).id


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
