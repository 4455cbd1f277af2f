"""The end of a failed attempt's log, made the same way when it is learned from and when it is asked about."""

from __future__ import annotations

from collections.abc import Sequence

ERROR = 40
"""Python's logging level from which a line tells of a failure."""
LINES = 20
CHARS = 3_000


def log_tail(messages: Sequence[str]) -> str:
    """Return the newest error lines of one attempt, oldest first, as one text; empty where there are none."""
    return "\n".join(messages[-LINES:])[-CHARS:]
