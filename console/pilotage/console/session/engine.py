"""The engine: takes what people say, lets commands and the agent answer, and writes every piece down as events.

It decides nothing. Votes and edits go to the API in the caller's own name, and what came of them is read back from
the API, so that a card never shows what somebody only hoped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.console.session.card_context import CardContext
from pilotage.console.session.cards import Card, card_of
from pilotage.console.session.commands.drafts import drafted
from pilotage.console.session.commands.registry import COMMANDS, Setting
from pilotage.console.session.events import ACTIVITY_FEED, Event, EventType, Thread
from pilotage.console.session.log import EventLog
from pilotage.console.session.lookups import Calls
from pilotage.console.session.ports import Services, User
from pilotage.console.session.thread_access import Deed, why_not
from pilotage.flows.api.client import ApiRejection
from pilotage.telemetry.errors import PilotageError, StoreError

log = logging.getLogger("pilotage.console")

LONGEST_MESSAGE = 8000
"""Characters of one message."""
GATHER = 0.08
"""Seconds in which pieces of a streamed answer are gathered into one row."""


Turn = Callable[[User, str, int, str], Awaitable[None]]
"""What answers: called with the caller, the thread, the turn and the words."""


class Engine:
    """One for each process; every frontend in the process talks to it."""

    def __init__(self, *, log: EventLog, services: Services) -> None:
        self.log = log
        self._services = services
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._asked_by: dict[str, str] = {}
        """Whose question a turn answers, by thread."""
        self._busy: dict[str, asyncio.Lock] = {}
        self._levers: Mapping[str, Mapping[str, Any]] | None = None
        self._card_context = CardContext()

    # -- talking

    def open_thread(self, user: User, title: str = "", thread: str = "") -> Thread:
        """A new conversation of the caller, or the one so named. Raises ApiRejection when it may not be read."""
        return _seen(user, self.log.open_thread(user.name, title, thread))

    def threads(self, user: User, limit: int = 100, search: str = "") -> list[Thread]:
        """The conversations that the caller may read, the last active first."""
        return self.log.threads(limit, search, seen=lambda thread: not why_not(user, thread, "read"))

    async def may(self, user: User, thread: str, deed: Deed) -> Thread:
        """The conversation, when the caller may do this there. Raises ApiRejection, which is a row of the audit log."""
        known = await asyncio.to_thread(self.log.thread, thread)
        if known is None:
            raise ApiRejection("unknown-thread", f"Looking for thread {thread}: there is none. See /history.")
        why = why_not(user, known, deed, asked_by=self._asked_by.get(thread, ""))
        if not why:
            return known
        if deed != "read":
            with contextlib.suppress(PilotageError):  # the refusal stands whether it is written down or not
                told = {"request": f"{deed} conversation", "kind": "not-shared", "why": why, "about": thread}
                await self.ask(user, "note_refusal", **told)
        raise ApiRejection("not-shared", why, recorded=True)

    def fork(self, user: User, thread: str) -> Thread:
        """A new conversation of the caller that begins as `thread` is now. Raises StoreError when there is none."""
        old = self.log.thread(thread)
        if old is None:
            raise StoreError(f"Forking thread {thread}: there is none. See /history.")
        _seen(user, old)
        new = self.log.open_thread(user.name, f"{old.title} (from {thread})".strip())
        seq = 0
        while rows := self.log.after(seq, thread):
            self.log.append_all(new.id, [(row.type, row.by, row.payload) for row in rows])
            seq = rows[-1].seq
        return new

    def model(self) -> Mapping[str, Any]:
        """`{name, mock, configured}` of the language model. Raises ConfigError when settings are wrong."""
        return self._services.model()

    async def say(self, user: User, thread: str, words: str) -> Event:
        """Writes the words down and starts the answer; its events follow in the log. See `wait`.

        One line that begins with a slash is a command; text with line breaks was pasted, and is a question.
        """
        given = words.strip()
        command = given.startswith("/") and "\n" not in given
        return await self._start(user, thread, words, self._command if command else self._answer)

    async def ask_agent(self, user: User, thread: str, words: str) -> Event:
        """As `say`, but the words are a question, whatever they begin with."""
        return await self._start(user, thread, words, self._answer)

    async def _start(self, user: User, thread: str, words: str, answer: Turn) -> Event:
        await self.may(user, thread, "write")
        said = await asyncio.to_thread(
            self.log.append, thread, "said", user.name, {"text": words[:LONGEST_MESSAGE]}
        )
        text = words[:LONGEST_MESSAGE].strip()
        task = asyncio.create_task(self._turn(user, thread, said.seq, text, answer))
        self._turns[thread] = task
        self._asked_by[thread] = user.name
        task.add_done_callback(lambda done: self._forget(thread, done))
        return said

    async def wait(self, thread: str) -> None:
        """Returns when the turn that runs in the thread has ended."""
        if (task := self._turns.get(thread)) is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(task)

    async def interrupt(self, user: User, thread: str) -> bool:
        """Stops the answer that is being given. What was proposed in it stays filed. Raises ApiRejection."""
        await self.may(user, thread, "interrupt")
        task = self._turns.get(thread)
        return task.cancel() if task is not None else False

    async def close(self) -> None:
        """Ends every turn and closes the log."""
        tasks = list(self._turns.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._services.close)  # what is left of its traces is sent by the API
        self.log.close()

    # -- deciding

    async def decide(
        self, user: User, proposal_id: str, digest: str, decision: str, reason: str = ""
    ) -> Card:
        """The card after the caller's vote on exactly that digest. Raises ApiRejection when it does not count."""
        control_api = self._services.control_api(user)
        row = await asyncio.to_thread(
            lambda: control_api.call(
                "vote", proposal_id=proposal_id, digest=digest, decision=decision, reason=reason
            )
        )
        return await self._shown_again(user, row)

    async def edit(self, user: User, proposal_id: str, action: Mapping[str, Any], thread: str) -> Card:
        """The card of the new proposal that the edited action became, judged from nothing."""
        await self.may(user, thread, "write")
        control_api = self._services.control_api(user)
        row = await asyncio.to_thread(
            lambda: control_api.call("amend", proposal_id=proposal_id, action=dict(action))
        )
        card = await self.card(user, row)
        await asyncio.to_thread(self.log.append, thread, "card", user.name, {"card": card})
        return card

    async def card(self, user: User, proposal: Mapping[str, Any] | str) -> Card:
        """The card of a proposal as the API tells it now."""
        return await asyncio.to_thread(self._card, user, proposal)

    def _card(self, user: User, proposal: Mapping[str, Any] | str) -> Card:
        control_api = self._services.control_api(user)
        row = control_api.call("proposal", proposal_id=proposal) if isinstance(proposal, str) else proposal
        if self._levers is None:
            self._levers = dict(control_api.call("levers"))
        beside = self._card_context.of(row, lambda: self._services.toolbox(user).store)
        return card_of(row, self._levers.get(row["kind"]), beside)

    async def _shown_again(self, user: User, row: Mapping[str, Any]) -> Card:
        card = await self.card(user, row)
        for thread in await asyncio.to_thread(self.log.threads_showing, card["proposal_id"]):
            await asyncio.to_thread(self.log.append, thread, "card", user.name, {"card": card})
        return card

    # -- looking

    async def ask(self, user: User, op: str, **arguments: Any) -> Any:
        """One operation of the API in the caller's name. Raises ApiRejection, ApiError."""
        control_api = self._services.control_api(user)
        return await asyncio.to_thread(lambda: control_api.call(op, **arguments))

    async def setting(self, user: User, thread: str = ACTIVITY_FEED) -> Setting:
        """What a command of the caller may use, said in a thread. Raises ConfigError when settings are wrong."""
        return Setting(
            user=user,
            control_api=self._services.control_api(user),
            make_toolbox=lambda: self._services.toolbox(user),
            log=self.log,
            thread=thread,
            card=lambda proposal: self._card(user, proposal),
            model=await asyncio.to_thread(self._services.model),
        )

    async def snooze(self, user: User, proposal_id: str, minutes: int) -> Event:
        """Writes down that the caller wants to see a card later; it goes on to expire."""
        row = await self.ask(user, "proposal", proposal_id=proposal_id)  # it must be there
        until = datetime.now(UTC) + timedelta(minutes=minutes)
        said = {"proposal_id": row["proposal_id"], "until": until.isoformat()}
        return await asyncio.to_thread(self.log.append, ACTIVITY_FEED, "snoozed", user.name, said)

    # -- one turn

    async def _turn(self, user: User, thread: str, turn: int, words: str, answer: Turn) -> None:
        lock = self._busy.setdefault(thread, asyncio.Lock())
        async with lock:
            try:
                await answer(user, thread, turn, words)
            except asyncio.CancelledError:
                self.log.append(
                    thread, "answer", "pilotage", {"turn": turn, "text": "Stopped.", "by": "pilotage"}
                )
                raise
            except PilotageError as exc:
                await self._write(thread, "error", {"turn": turn, "text": str(exc), "kind": _kind(exc)})
                await self._write(thread, "done", {"turn": turn, "ok": False})
            except Exception as exc:
                log.exception("answering in %s", thread)
                words = f"Answering: {type(exc).__name__}. The server's output says more."
                await self._write(thread, "error", {"turn": turn, "text": words, "kind": "error"})
                await self._write(thread, "done", {"turn": turn, "ok": False})

    async def _command(self, user: User, thread: str, turn: int, words: str) -> None:
        name, _, rest = words[1:].partition(" ")
        command = COMMANDS.get(name.lower())
        if command is None:
            text = f"There is no /{name}. /help tells what there is."
            await self._write(thread, "error", {"turn": turn, "text": text, "kind": "unknown-command"})
            await self._write(thread, "done", {"turn": turn, "ok": False})
            return
        setting = await self.setting(user, thread)
        if command.asks is not None:
            question = await asyncio.to_thread(command.asks, setting, rest.strip())
            await self._answer(user, thread, turn, question)
            return
        for block in await asyncio.to_thread(command.run, setting, rest.strip()):
            if block["kind"] == "card":
                await self._write(thread, "card", {"turn": turn, "card": block["card"]}, by=user.name)
            else:
                await self._write(thread, "block", {"turn": turn, "block": block, "for": user.name})
        await self._write(thread, "done", {"turn": turn, "ok": True})

    async def _answer(self, user: User, thread: str, turn: int, words: str) -> None:
        agent = await asyncio.to_thread(self._services.agent, user)
        pieces, since = "", 0.0
        calls = Calls()
        async for part in agent.answer(words, thread):
            now = time.monotonic()
            if part.kind == "token":
                pieces, since = pieces + part.text, since or now
                if now - since < GATHER:
                    continue
            if pieces:
                await self._write(thread, "delta", {"turn": turn, "text": pieces}, by=part.by)
                pieces, since = "", 0.0
            match part.kind:
                case "tool_call":
                    call = calls.begin(part.tool, part.detail, now)
                    await self._write(thread, "tool_call", {"turn": turn, **call})
                case "tool_result" | "draft":
                    result = calls.end(part.tool, part.detail, now, part.seconds)
                    await self._write(thread, "tool_result", {"turn": turn, **result})
                    if part.kind == "draft":
                        await self._write(thread, "draft", drafted(part.detail, turn, user.name), by=part.by)
                case "error":
                    await self._write(thread, "error", {"turn": turn, "text": part.text, "kind": "model"})
                case "final":
                    mock = part.by == "model" and bool(
                        (await asyncio.to_thread(self._services.model)).get("mock")
                    )
                    payload = {
                        "turn": turn,
                        "text": part.text,
                        "by": part.by,
                        "mock": mock,
                        **dict(part.detail),
                    }
                    await self._write(thread, "answer", payload, by=part.by)

    async def _write(
        self, thread: str, kind: EventType, payload: Mapping[str, Any], *, by: str = "pilotage"
    ) -> None:
        await asyncio.to_thread(self.log.append, thread, kind, by, payload)

    def _forget(self, thread: str, task: asyncio.Task[None]) -> None:
        if self._turns.get(thread) is task:
            del self._turns[thread], self._asked_by[thread]


def _seen(user: User, thread: Thread) -> Thread:
    if why := why_not(user, thread, "read"):
        raise ApiRejection("not-shared", why)
    return thread


def _kind(exc: PilotageError) -> str:
    return exc.kind if isinstance(exc, ApiRejection) else "error"
