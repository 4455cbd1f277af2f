"""How long the loop takes, step by step, and which of its steps fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class LoopTimes:
    """Counts since the start. One loop writes, others read."""

    turns: int = 0
    last_turn_seconds: float = 0.0
    seconds: Counter[str] = field(default_factory=Counter)
    """By step; a float for each."""
    failures: Counter[str] = field(default_factory=Counter)
    """Steps that ended in an error and are tried again."""

    def step(self, name: str, seconds: float, *, failed: bool) -> None:
        """Note one step."""
        self.seconds[name] += seconds  # type: ignore[assignment]  # a Counter adds up floats as well
        self.failures[name] += failed

    def turn(self, seconds: float) -> None:
        """Note one whole turn."""
        self.turns += 1
        self.last_turn_seconds = seconds
