"""The command that shows how it stands for whoever asks."""

from __future__ import annotations

from pilotage.console.session.blocks import Block
from pilotage.console.session.command import Setting
from pilotage.console.session.now import now_blocks


def now(s: Setting, rest: str) -> list[Block]:
    """What is broken, what needs a decision from the caller, what was done meanwhile, what comes next."""
    return now_blocks(s)
