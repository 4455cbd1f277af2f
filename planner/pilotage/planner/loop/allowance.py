"""How many investigations one tick may begin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Allowance:
    """What is left of one tick's investigations: a storm of unknown failures is not investigated one by one."""

    left: int = 5

    def taken(self) -> bool:
        """Take one, and return whether there was one."""
        self.left -= 1
        return self.left >= 0
