"""What a conversation is made of: rows of one append-only log that every frontend reads in the same order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

EventType = Literal[
    "said",  # a person's words: {text}
    "delta",  # the next piece of a streamed answer: {turn, text}
    "tool_call",  # a look-up begins: {turn, n, tool, arguments}
    "tool_result",  # and ends: {turn, n, tool, rows, seconds, result}
    "answer",  # the whole answer, ends a turn: {turn, text, by, citations, gaps, …}
    "block",  # what a command shows: {turn, block, for}, see blocks.py; `for` is who asked for it
    "done",  # a command has shown everything, ends a turn: {turn, ok}
    "draft",  # an action that nobody has sent: {turn, draft, words, for}; `for` alone may send it
    "card",  # a proposal as it stands now: {turn?, card}, see cards.py; a later one replaces it
    "step",  # something happened to a proposal: {step, proposal_id, incident_id, run_id, detail}
    "snoozed",  # a person wants to see a card later: {proposal_id, until}
    "error",  # what went wrong, in words: {turn?, text, kind}
    "notice",  # a banner for everybody: {text, stopped, mode}
]

ACTIVITY_FEED = "floor"
"""The thread of what nobody asked for: new proposals, decisions, verifications, banners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row. `seq` grows over all threads, so one number says how far a reader has come."""

    seq: int
    thread: str
    type: EventType
    by: str
    """The person, or `pilotage`, `model`, `rules`."""
    at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON. Words in it are untrusted: each frontend escapes them."""

    def as_json(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(
            {
                "seq": self.seq,
                "thread": self.thread,
                "type": self.type,
                "by": self.by,
                "at": self.at.isoformat(),
                "payload": dict(self.payload),
            },
            default=str,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """One conversation."""

    id: str
    title: str
    """As it was given, else the first words that were said in it."""
    by: str
    at: datetime
    last_seq: int = 0
    shares: Mapping[str, bool] = field(default_factory=dict)
    """With whom it is shared, people by name and teams as `team:NAME`; and whether they may write."""
