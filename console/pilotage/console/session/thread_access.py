"""Who may read a conversation, write into it, and interrupt an answer in it: one table, asked by every frontend.

| conversation | read | write | interrupt |
|---|---|---|---|
| one's own | yes | yes | yes |
| shared for reading, with the person or a team of theirs | yes | no | no |
| shared for writing | yes | yes | one's own question |
| the activity feed | yes | yes | one's own question |
| anybody else's | admins | no | admins |
"""

from __future__ import annotations

from typing import Literal

from pilotage.console.session.events import ACTIVITY_FEED, Thread
from pilotage.console.session.ports import User
from pilotage.policies.roles import Role, expanded

Deed = Literal["read", "write", "interrupt"]
_IN_WORDS = {"read": "Reading", "write": "Writing into", "interrupt": "Interrupting an answer in"}
TEAM = "team:"
"""Begins the name of a team among those with whom a conversation is shared."""


def why_not(user: User, thread: Thread, deed: Deed, *, asked_by: str = "") -> str:
    """Why this person may not do it there, in words; or an empty text.

    `asked_by` is whose question is being answered, for interruptions.
    """
    if user.name == thread.by or _allowed(user, thread, deed, asked_by):
        return ""
    return (
        f"{_IN_WORDS[deed]} conversation {thread.id}: it is {thread.by}'s. Ask {thread.by} to say "
        f"`/share {user.name}` in it, or begin one of your own."
    )


def _allowed(user: User, thread: Thread, deed: Deed, asked_by: str) -> bool:
    shared = {user.name, *(f"{TEAM}{team}" for team in user.teams)} & thread.shares.keys()
    writes = thread.id == ACTIVITY_FEED or any(thread.shares[each] for each in shared)
    admin = Role.ADMIN in expanded(user.roles)
    match deed:
        case "read":
            return admin or writes or bool(shared)
        case "write":
            return writes
        case "interrupt":
            return admin or (writes and asked_by == user.name)
