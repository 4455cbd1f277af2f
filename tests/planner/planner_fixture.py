"""A planner on a real store and an API in memory, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pilotage.planner.actions.types import KINDS, ActionKind
from pilotage.planner.checkpoints import SqliteCheckpoints
from pilotage.planner.detect.reasoning import EXAMPLES
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.loop.planner import Planner
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.telemetry.errors import ApiError
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.duckdb import DuckDBStore

ALL: tuple[ActionKind, ...] = KINDS


class NoApi:
    """Offers nothing."""

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        return ()


class AcceptingApi:
    """Takes whatever is handed in, with one outcome for what is filed and one for what is only considered."""

    def __init__(self, *, filed: str, considered: str) -> None:
        self.filed: list[Proposal] = []
        self._filed, self._considered = filed, considered

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        return ("retry_run", "cancel_run")

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        self.filed.append(proposal)
        return {"proposal_id": proposal.id, "outcome": self._filed}

    def consider(self, action: Mapping[str, Any]) -> dict[str, Any]:
        return {"outcome": self._considered}


class MemoryApi:
    """Keeps what is filed and answers as the real one does: the same proposal twice is filed once."""

    def __init__(self, permitted_kinds: tuple[ActionKind, ...] = ALL) -> None:
        self.kinds = permitted_kinds
        self.filed: dict[str, tuple[Proposal, CaseFile]] = {}
        self.calls = 0
        self.refusals = 0
        self.refuses = ""
        self.transient = True

    def refusing(self, proposal: Proposal) -> bool:
        return self.refusals > 0 and self.refuses in proposal.action.kind

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        return self.kinds

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        self.calls += 1
        if self.refusing(proposal):
            self.refusals -= 1
            raise ApiError("Filing a proposal: found nobody. Start it.", transient=self.transient)
        if self.filed.setdefault(proposal.id, (proposal, case))[0] != proposal:
            raise ApiError(f"Filing {proposal.id}: found another text under this id. Use another id.")
        return {"proposal_id": proposal.id, "outcome": "allow", "policy_ids": ["p"], "reasons": []}

    @property
    def actions(self) -> list[dict[str, Any]]:
        return [json.loads(p.model_dump_json())["action"] for p, _ in self.filed.values()]

    @property
    def kinds_filed(self) -> list[str]:
        return [action["kind"] for action in self.actions]


class FixedForecaster:
    """The same chance for every run."""

    def __init__(self, now: datetime, p_fail: Any = 0.2, muted: str = "") -> None:
        self.now, self.p_fail, self.muted = now, p_fail, muted

    def forecast(self, run_ids: Sequence[str]) -> tuple[Forecast, ...]:
        return tuple(
            Forecast(
                run_id=r, made_at=self.now, p_fail=self.p_fail, model="ewma", trained_on=9, muted=self.muted
            )
            for r in run_ids
        )


class PlannerFixture:
    def __init__(self, path: Path, now: datetime) -> None:
        self.path, self.now = path, now
        self.store = DuckDBStore(path / "telemetry.duckdb")
        self.control_api = MemoryApi()
        self.forecaster: Any = FixedForecaster(now)
        self.model: OpenAIModel | None = None
        self.parameters = PlaybookParameters()
        self.book = EXAMPLES
        self.clock: Callable[[], datetime] = lambda: self.now

    def planner(self) -> Planner:
        return Planner(
            store=self.store,
            forecaster=self.forecaster,
            control_api=self.control_api,
            checkpoints=SqliteCheckpoints(self.path / "thoughts.sqlite"),
            parameters=self.parameters,
            model=self.model,
            since=self.now - timedelta(hours=1),
            clock=self.clock,
            book=self.book,
        )

    def ticks(self, times: int = 1) -> list[list[dict[str, Any]]]:
        async def go() -> list[list[dict[str, Any]]]:
            async with self.planner() as planner:
                return [await planner.tick(self.now) for _ in range(times)]

        return asyncio.run(go())
