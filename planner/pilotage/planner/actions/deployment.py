"""The actions on a deployment or on many of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pilotage.planner.actions.base import (
    EXAMPLE_TIME,
    DeploymentAction,
    Moment,
    Span,
    seconds,
)


class PauseDeployment(DeploymentAction):
    """Quarantine a deployment: no scheduled run starts until `hold` has passed or a person resumes it."""

    kind: Literal["pause_deployment"] = "pause_deployment"
    example: ClassVar[Mapping[str, Any]] = {"hold": timedelta(minutes=1)}
    hold: Span

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"hold": seconds(self.hold)}


class SpreadRuns(DeploymentAction):
    """Park the waiting runs of a deployment and release them in waves; what is beyond `most` is left alone."""

    kind: Literal["spread_runs"] = "spread_runs"
    example: ClassVar[Mapping[str, Any]] = {
        "first": EXAMPLE_TIME + timedelta(minutes=1),
        "wave": 1,
        "every": timedelta(minutes=1),
    }
    first: Moment
    """When the first wave is due: then, or when it is carried out where that is later."""
    wave: Annotated[int, Field(ge=1, le=200)]
    """Runs in one wave."""
    every: Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(hours=6))]
    """From one wave to the next."""
    most: Annotated[int, Field(ge=1, le=1000)] = 1000

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"ahead": seconds(self.first - filed_at)}


class CatchUp(DeploymentAction):
    """After an outage: of a deployment's overdue runs keep the newest, cancel the superseded, release in waves."""

    kind: Literal["catch_up"] = "catch_up"
    example: ClassVar[Mapping[str, Any]] = {
        "keep": 1,
        "first": EXAMPLE_TIME + timedelta(minutes=1),
        "wave": 1,
        "every": timedelta(minutes=1),
    }
    keep: Annotated[int, Field(ge=1, le=1000)]
    """How many of the newest are run."""
    first: Moment
    """When the first wave is due: then, or when it is carried out where that is later."""
    wave: Annotated[int, Field(ge=1, le=200)]
    every: Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(hours=6))]

    def policy_arguments(self, *, filed_at: datetime, starts_at: datetime) -> dict[str, Any]:
        """Return the arguments that the Cedar schema names."""
        return {"ahead": seconds(self.first - filed_at), "keep": self.keep}
