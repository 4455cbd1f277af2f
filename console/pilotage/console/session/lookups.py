"""The look-ups of one answer: numbered as they begin, timed and counted as they end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Calls:
    """Several may be under way at once, and end in another order than they began."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[tuple[int, str, float]] = []

    def begin(self, tool: str, arguments: Mapping[str, Any], now: float) -> dict[str, Any]:
        """`{n, tool, arguments}` of a look-up that begins at `now`, in seconds of any clock."""
        self._count += 1
        self._open.append((self._count, tool, now))
        return {"n": self._count, "tool": tool, "arguments": dict(arguments)}

    def end(self, tool: str, result: Mapping[str, Any], now: float, took: float = 0.0) -> dict[str, Any]:
        """`{n, tool, rows, seconds, result}` of the oldest of that name under way; `took` when it was measured."""
        begun = next((each for each in self._open if each[1] == tool), None)
        if begun is None:
            begun = (self.begin(tool, {}, now)["n"], tool, now)
        self._open.remove(begun)
        seconds = round(took or now - begun[2], 3)
        return {
            "n": begun[0],
            "tool": tool,
            "rows": rows_in(result),
            "seconds": seconds,
            "result": dict(result),
        }


def rows_in(result: Mapping[str, Any]) -> int:
    """How many rows a look-up gave: the length of its longest list, or 1 of a single fact, 0 of an error."""
    if "error" in result:
        return 0
    return max(
        (len(value) for key, value in result.items() if isinstance(value, list) and key != "gaps"), default=1
    )
