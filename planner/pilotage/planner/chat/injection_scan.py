"""Text of runs that reads like an order to a language model: found so that people are told, not so that it is safe.

What keeps such text harmless stands elsewhere: it is quoted, a model may only draft, a person sends, and policy
judges. This list only lets an answer say that somebody tried.
"""

from __future__ import annotations

import re

_ORDERS = re.compile(
    r"(?:ignore|disregard|forget|override)\s+(?:\w+\s+){0,4}(?:instructions?|prompts?|rules?|polic(?:y|ies)|above)"
    r"|you\s+are\s+(?:now|no\s+longer)\b"
    r"|(?:system|developer|assistant)\s*(?:prompt|message|override|:)"
    r"|<\|?(?:im_start|system|assistant|endoftext|/?facts)\|?>"
    r"|\b(?:call|use)\s+`?(?:propose|draft)\b|\b(?:propose|draft)(?:_\w+|\s*\()"
    r"|(?:call|use|invoke|run)\s+the\s+\w+\s+tool\b"
    r"|(?:as|dear)\s+an?\s+(?:ai|language\s+model)\b",
    re.IGNORECASE,
)


def injection_phrase_in(text: str) -> str:
    """The words that read like an order to a model, at most 80 characters, or an empty string."""
    match = _ORDERS.search(text)
    return " ".join(match.group(0).split())[:80] if match else ""
