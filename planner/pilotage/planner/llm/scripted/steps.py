"""Scripted replies: what a test or the demo lets the scripted server answer, and each way it can fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One scripted reply."""

    content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None
    """A body sent as it is: malformed JSON, a proxy's login page."""
    content_type: str = JSON
    delay: float = 0.0
    """Seconds before the first byte."""
    pace: float = 0.0
    """Seconds between two streamed pieces."""
    counts: bool = True
    """Whether tokens are counted; many servers do not."""
    cut_after: int | None = None
    """End the stream after so many pieces …"""
    cut_cleanly: bool = False
    """… by a well-formed end without a finish reason (True), or by a reset connection (False)."""
    finish: str | None = None
    """Another finish reason than the natural one, such as `length`."""
    expects: Callable[[dict[str, Any]], bool] | None = None
    """A condition on the request; when it is false the test fails."""
    usage: tuple[int, int] = (11, 7)
    """Prompt and completion tokens."""


Script = Sequence[Step] | Callable[[dict[str, Any]], Step]


def text(content: str, **more: Any) -> Step:
    """A plain answer."""
    return Step(content=content, **more)


def tool(name: str, arguments: dict[str, Any] | str, **more: Any) -> Step:
    """A tool call; arguments given as text are sent as they are, broken or not."""
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
    call = {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": raw}}
    return Step(tool_calls=(call,), **more)


def status(code: int, message: str = "scripted error", *, retry_after: float | None = None) -> Step:
    """An HTTP error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "scripted", "code": None}}
    headers = () if retry_after is None else (("retry-after", str(retry_after)),)
    return Step(status=code, raw=json.dumps(body).encode(), headers=headers)


def malformed() -> Step:
    """A body that breaks off in the middle of its JSON."""
    return Step(raw=b'{"id": "x", "choices": [')


def html() -> Step:
    """A proxy's login page, with status 200."""
    return Step(raw=b"<html><body>Please log in</body></html>", content_type="text/html")


def events(*payloads: str) -> Step:
    """A stream of exactly these `data:` payloads and nothing more, whatever they are."""
    body = "".join(f"data: {payload}\n\n" for payload in payloads)
    return Step(raw=body.encode(), content_type="text/event-stream")


def tools(*calls: tuple[str, dict[str, Any]], same_id: bool = False) -> Step:
    """Several tool calls in one reply."""
    tool_calls = [
        {
            "id": "call_same" if same_id else f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(calls)
    ]
    return Step(tool_calls=tuple(tool_calls))


def hang(seconds: float) -> Step:
    """An answer that comes too late."""
    return Step(content="late", delay=seconds)


def cut(content: str, *, after: int = 2, cleanly: bool = False) -> Step:
    """A stream that ends early: reset, or politely and without a finish reason."""
    return Step(content=content, cut_after=after, cut_cleanly=cleanly)
