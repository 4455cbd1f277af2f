"""The action `label_run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pilotage.planner.actions.base import Name, RunAction


class LabelRun(RunAction):
    """Put a label on a run, by which people find it."""

    kind: Literal["label_run"] = "label_run"
    example_state: ClassVar[str] = "RUNNING"
    example: ClassVar[Mapping[str, Any]] = {"label": "unowned"}
    label: Name
