"""The actions on a concurrency limit, whosever it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pilotage.planner.actions.base import (
    EXAMPLE_ID,
    LimitAction,
    LimitScope,
    Span,
    canonical_uuid,
    seconds,
)


class SetLimit(LimitAction):
    """Change a concurrency limit; the old one is restored after `hold`."""

    kind: Literal["set_limit"] = "set_limit"
    example: ClassVar[Mapping[str, Any]] = {
        "scope": LimitScope.QUEUE,
        "pool": "p",
        "name": "a",
        "limit": 10_000,
        "hold": timedelta(minutes=1),
    }
    pool: Annotated[str, Field(max_length=255)] = ""
    """The pool of a queue; empty for all else."""
    limit: Annotated[int, Field(ge=1, le=10_000)]
    """Never 0, which would fail tasks."""
    hold: Span

    @model_validator(mode="after")
    def _names_what_it_says(self) -> Self:
        if bool(self.pool) != (self.scope is LimitScope.QUEUE):
            raise ValueError("`pool` goes with the limit of a queue, and with no other")
        if self.scope is LimitScope.DEPLOYMENT and canonical_uuid(self.name) != self.name:
            raise ValueError("a deployment is named by its id")
        if self.scope is LimitScope.GLOBAL and self.name.startswith(("tag:", "deployment:")):
            raise ValueError("the limits of tags and deployments have scopes of their own")
        return self

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"limit": self.limit, "hold": seconds(self.hold)}


class ReleaseSlot(LimitAction):
    """Give back the slots of a concurrency limit that are held for work which is dead by two signs."""

    kind: Literal["release_slot"] = "release_slot"
    example: ClassVar[Mapping[str, Any]] = {"scope": LimitScope.DEPLOYMENT, "name": EXAMPLE_ID}

    @model_validator(mode="after")
    def _names_what_it_says(self) -> Self:
        if self.scope in (LimitScope.POOL, LimitScope.QUEUE):
            raise ValueError("pools and queues count the runs that are under way; no slot of theirs is lost")
        if self.scope is LimitScope.DEPLOYMENT and canonical_uuid(self.name) != self.name:
            raise ValueError("a deployment is named by its id")
        return self

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"scope": self.scope.value}
