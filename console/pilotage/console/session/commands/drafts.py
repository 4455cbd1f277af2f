"""Drafts of a conversation: what a model or rules wrote down, and the command by which the person sends it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pilotage.console.session.blocks import Block, card, text
from pilotage.console.session.command import Setting
from pilotage.flows.api.client import ApiRejection
from pilotage.flows.notify.describe import action_in_words
from pilotage.planner.actions.types import ACTION, target_of

DRAFT_ID = re.compile(r"d-[0-9a-f]{12}")
STALE = timedelta(hours=4)
"""After which a draft is asked for again; a proposal lives as long."""
LOOKED_AT = 200
"""Drafts of one conversation among which one is looked for, the newest first."""


def drafted(draft: Mapping[str, Any], turn: int, person: str) -> dict[str, Any]:
    """The payload of a draft's event: what is drafted, in words that name every argument, and who may send it."""
    action = dict(draft["action"])
    target = target_of(ACTION.validate_python(action, strict=False))
    words = f"{action_in_words(action)} ({target})"
    return {"turn": turn, "draft": dict(draft), "words": words, "for": person}


def send(s: Setting, rest: str) -> list[Block]:
    """Hands in the draft that was shown to the caller in this conversation, if nothing it is about has changed."""
    wanted = rest.strip().lower()
    if not DRAFT_ID.fullmatch(wanted):
        raise ApiRejection(
            "invalid", f"Reading /send {rest}: name the draft that you were shown, as /send d-…."
        )
    shown = next(
        (
            event
            for event in s.log.newest(s.thread, "draft", limit=LOOKED_AT)
            if event.payload["draft"]["draft_id"] == wanted and event.payload["for"] == s.user.name
        ),
        None,
    )
    if shown is None:
        raise ApiRejection("invalid", f"Sending {wanted}: you were shown no such draft in this conversation.")
    if s.clock() - shown.at > STALE:
        raise ApiRejection("invalid", f"Sending {wanted}: it is older than four hours. Ask for it again.")
    draft = shown.payload["draft"]
    result = s.toolbox.send(draft["action"], draft["digest"])
    if "proposal_id" not in result:
        raise ApiRejection("refused", f"Sending {wanted}: {result['error']}.")
    return [text(f"Handed in as {result['proposal_id']}."), card(s.card(result["proposal_id"]))]
