"""The actions on a queue or a whole pool."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pilotage.planner.actions.base import (
    Name,
    QueueAction,
    Span,
    seconds,
)


class ReserveSlot(QueueAction):
    """Cap a busy queue so that a starved one of the same pool gets a slot; lifted after `hold`."""

    kind: Literal["reserve_slot"] = "reserve_slot"
    example: ClassVar[Mapping[str, Any]] = {
        "busy_queue": "a",
        "starved_queue": "b",
        "limit": 1,
        "hold": timedelta(minutes=1),
    }
    busy_queue: Name
    """The queue that is capped."""
    starved_queue: Name
    limit: Annotated[int, Field(ge=1, le=10_000)]
    """The cap; never 0, which would fail tasks."""
    hold: Span
    """How long the reservation stands before it is undone."""

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"limit": self.limit, "hold": seconds(self.hold)}

    def queue_changed(self) -> tuple[str, str]:
        """Return the pool and the queue that is capped."""
        return self.pool, self.busy_queue


class SetPriority(QueueAction):
    """Give a queue another rank in its pool; all ranks are restored after `hold`."""

    kind: Literal["set_priority"] = "set_priority"
    example: ClassVar[Mapping[str, Any]] = {"queue": "a", "priority": 1, "hold": timedelta(minutes=1)}
    queue: Name
    priority: Annotated[int, Field(ge=1, le=10_000)]
    """1 is served first."""
    hold: Span

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"hold": seconds(self.hold)}


class HoldQueue(QueueAction):
    """Hold a queue or a whole pool: nothing more is handed out until `hold` has passed or it is released."""

    kind: Literal["hold_queue"] = "hold_queue"
    example: ClassVar[Mapping[str, Any]] = {"queue": "a", "hold": timedelta(minutes=1)}
    queue: Annotated[str, Field(max_length=255)] = ""
    """Empty for the whole pool."""
    hold: Span

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"hold": seconds(self.hold)}


class ReleaseQueue(QueueAction):
    """Let a queue or a whole pool that is paused hand out runs again."""

    kind: Literal["release_queue"] = "release_queue"
    example: ClassVar[Mapping[str, Any]] = {"queue": "a"}
    queue: Annotated[str, Field(max_length=255)] = ""
    """Empty for the whole pool."""
