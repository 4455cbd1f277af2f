"""What an answer in a chat is made of, whoever shows it: the typed parts, in the order they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PartKind = Literal["token", "tool_call", "tool_result", "draft", "final", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPart:
    """One part. `token` pieces add up to the `final` text; every answer ends with exactly one `final`."""

    kind: PartKind
    text: str = ""
    """Words for people: untrusted when a tool or a model wrote them, so escape them."""
    tool: str = ""
    """Which tool, for `tool_call`, `tool_result` and `draft`."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of a call, a result as JSON, or a draft: see `pilotage.planner.chat.drafts.draft_of`.

    Of a `final`: `citations` (each `{key, tool, arguments, sql, refs}`, a ref being `{ref, page}`), `claims` (each
    `{text, keys, opinion}`), `opinion` (nothing backs any of it), `gaps` (what could not be checked, in words),
    `forecasts` (the calibrated chances that were looked up, the only confidence there is), `answered_by` and `usage`
    (see `pilotage.planner.llm.usage.usage`; empty when no model was asked). `understood` is there and false when
    rules did not know what was asked.
    """
    by: Literal["model", "rules", "memory", "tool"] = "rules"
    """Who said it."""
    citation: Mapping[str, Any] = field(default_factory=dict)
    """What a `tool_result` or `draft` is evidence of, in the shape of the `final`'s citations."""
    seconds: float = 0.0
    """How long a tool took, for `tool_result` and `draft`."""
