"""Tell and change the memory of one run in the job variables of its work pool, for the levers that resize runs.

What a run had before is kept as a label of the run, so that a repeated delivery and an undo start from it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import PoolView, RunView
from pilotage.telemetry.pool_memory import (
    SITE_VARIABLE,
    MemoryChange,
    change_memory,
    effective,
    memory_of,
)

_UNSET = 0
"""The label of an earlier version for a run that had no size of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMemory:
    """One run's pool and deployment, as far as they bear on its memory."""

    pool: PoolView | None
    deployment: Mapping[str, Any] = field(default_factory=dict)
    """The deployment's job variables."""
    label: str
    """Under which the run keeps what it had."""

    @classmethod
    async def read(cls, api: PrefectApi, run: RunView, label: str) -> RunMemory:
        """Look a run's pool and deployment up. Raises OrchestratorError."""

        async def pool() -> PoolView | None:
            return await api.pool(run.pool) if run.pool else None

        async def deployment() -> Mapping[str, Any]:
            return (await api.deployment(run.deployment_id)).job_variables if run.deployment_id else {}

        of_pool, of_deployment = await asyncio.gather(pool(), deployment())
        return cls(pool=of_pool, deployment=of_deployment, label=label)

    def change(self, run: RunView, memory_mb: int) -> MemoryChange | str:
        """Return the variables that give the run this size, or why there are none.

        The same before and after they are set: it starts from what the run had.
        """
        if self.pool is None:
            return "the run has no work pool, so nothing reads its job variables"
        present = effective(self.pool.variables, self.deployment, self.original(run))
        change = change_memory(self.pool.type, self.pool.variables, self.pool.used, present, memory_mb)
        return (
            f"the job template of work pool {self.pool.name!r} {change}"
            if isinstance(change, str)
            else change
        )

    def original(self, run: RunView) -> dict[str, Any]:
        """Return the run's job variables without our change."""
        old = self._kept(run)
        own = {name: value for name, value in run.job_variables.items() if name not in old}
        return own | {name: value for name, value in old.items() if value is not None}

    def keeps(self, run: RunView) -> bool:
        """Return whether the run carries what it had."""
        return self.label in run.labels

    def to_keep(self, run: RunView, change: MemoryChange) -> str:
        """Return the label's value: the run's own values of what is changed, null where it has none."""
        return json.dumps({name: run.job_variables.get(name) for name in change.variables})

    def of_deployment(self) -> int | None:
        """Return the MiB that the deployment itself gives."""
        known = self.pool.variables if self.pool else {}
        return self._size({name: value for name, value in self.deployment.items() if name in known})

    def size(self, run: RunView) -> int | None:
        """Return the MiB that the run's own job variables give."""
        return self._size(run.job_variables)

    def before(self, run: RunView) -> dict[str, Any]:
        """Return what a receipt says of the run before the change."""
        return self._told(self.original(run), tuple(self._kept(run)))

    def after(self, run: RunView, change: MemoryChange) -> dict[str, Any]:
        """Return what a receipt says of the run after it."""
        return self._told(run.job_variables, tuple(change.variables))

    def _kept(self, run: RunView) -> dict[str, Any]:
        kept = run.labels.get(self.label)
        if kept is None:
            return {}
        if isinstance(kept, str):
            old: dict[str, Any] = json.loads(kept)
            return old
        return {SITE_VARIABLE: kept if kept != _UNSET else None}

    def _told(self, variables: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        shown: dict[str, Any] = {SITE_VARIABLE: self._size(variables)}
        if names and names != (SITE_VARIABLE,):
            shown["job_variables"] = {name: variables.get(name) for name in names}
        return shown

    def _size(self, variables: Mapping[str, Any]) -> int | None:
        return memory_of(variables, self.pool.type if self.pool else "")


def is_set(run: RunView, change: MemoryChange) -> bool:
    """Return whether the run's job variables are those of the change."""
    return all(run.job_variables.get(name) == value for name, value in change.variables.items())


def not_set(memory: RunMemory, run: RunView, change: MemoryChange) -> str:
    """Return in words what the run has instead of the change."""
    has = ", ".join(f"{name}={run.job_variables.get(name)!r}" for name in change.variables)
    return f"the run has {has} ({memory.size(run)} MiB), not {change.memory_mb} MiB"
