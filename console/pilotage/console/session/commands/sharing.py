"""Commands that say who else may read a conversation and write into it."""

from __future__ import annotations

import re

from pilotage.console.session.blocks import Block, table, text
from pilotage.console.session.command import Setting
from pilotage.console.session.events import Thread
from pilotage.console.session.thread_access import TEAM
from pilotage.flows.api.client import ApiRejection

_NAME = re.compile(rf"({TEAM})?[^\s:/]{{1,100}}")
_READS = "read"


def share(s: Setting, rest: str) -> list[Block]:
    """With whom this conversation is shared, after it was shared with a person or a team."""
    who, _, how = rest.strip().partition(" ")
    thread = _own(s) if who else _here(s)
    if who:
        if not _NAME.fullmatch(who) or how.strip() not in ("", _READS):
            raise ApiRejection(
                "bad-request",
                f"Sharing with {rest.strip()!r}: say /share NAME, or /share {TEAM}NAME, and `read`.",
            )
        s.log.share(thread.id, who, s.user.name, writes=not how.strip())
    return _shown(_here(s))


def unshare(s: Setting, rest: str) -> list[Block]:
    """With whom it is still shared."""
    thread, who = _own(s), rest.strip()
    if not s.log.unshare(thread.id, who):
        return [text(f"It was not shared with {who or 'nobody'}."), *_shown(thread)]
    return _shown(_here(s))


def _here(s: Setting) -> Thread:
    thread = s.log.thread(s.thread)
    if thread is None:
        raise ApiRejection("unknown-thread", f"Looking for thread {s.thread}: there is none. See /history.")
    return thread


def _own(s: Setting) -> Thread:
    thread = _here(s)
    if thread.by != s.user.name:
        raise ApiRejection(
            "not-shared", f"Sharing conversation {thread.id}: it is {thread.by}'s, who alone may share it."
        )
    return thread


def _shown(thread: Thread) -> list[Block]:
    rows = [(thread.by, "reads and writes", "its owner")]
    rows += [
        (
            name.removeprefix(TEAM),
            "reads and writes" if writes else "reads",
            "team" if name.startswith(TEAM) else "",
        )
        for name, writes in sorted(thread.shares.items())
    ]
    return [table("Who may take part in this conversation", ("who", "may", ""), rows, empty="")]
