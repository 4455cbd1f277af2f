"""Reads what is measured, each time somebody asks for it: counts by index, and of the audit log what is new."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pilotage.flows.api.measures import Readings, Requests, StepCounts, samples_of
from pilotage.flows.api.server import READERS, Operation
from pilotage.flows.api.store_status import sizes
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.controller.loop_times import LoopTimes
from pilotage.flows.controller.processes import usage_by_process
from pilotage.planner.llm.budget import LlmBudget, Spent
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ModelError
from pilotage.telemetry.forecast.registry import ModelRegistry
from pilotage.telemetry.prefect.answers import AnswerTimes
from pilotage.telemetry.prefect.collector import PrefectCollector
from pilotage.telemetry.queries.measures import (
    failures_by_deployment,
    forecast_quality,
    unfinished_runs,
    waiting_by_queue,
)
from pilotage.telemetry.store.protocol import Store

BATCH = 500
"""Entries of the audit log that are counted at a time."""


@dataclass(kw_only=True)
class MeasureReader:
    """Answers `measures` from what the controller has."""

    ledger: Ledger
    store: Store
    collector: PrefectCollector
    levers: AnswerTimes
    """Of the requests that levers and look-ups make."""
    loop: LoopTimes
    defects: Callable[[], Sequence[str]]
    """What cannot be verified or taken back at the moment, in words."""
    paths: StatePaths
    mode: Callable[[], str]
    bundle: Callable[[], str]
    stopped: Callable[[], str]
    clock: Callable[[], datetime]
    _steps: StepCounts | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def table(self) -> dict[str, Operation]:
        """The operation by name."""
        return {"measures": Operation(run=self.measures, roles=READERS)}

    async def measures(self, caller: Identity) -> list[dict[str, Any]]:
        """Every value as `{name, labels, value}`; `pilotage.flows.api.measures.MEASURES` describes them."""
        samples = await asyncio.to_thread(lambda: samples_of(self._read()))
        return [{"name": each.name, "labels": dict(each.labels), "value": each.value} for each in samples]

    def begin(self) -> None:
        """Count audited steps from now on. Raises LedgerError."""
        self._steps = StepCounts(seq=self.ledger.backlog()["audit_seq"])

    def _read(self) -> Readings:
        now = self.clock()
        with self._lock:
            steps = self._counted()
            backlog = self.ledger.backlog()
            quality = forecast_quality(self.store, now)
            open_runs = sorted({row["run_id"] for row in self.ledger.open_incident_runs() if row["run_id"]})
            models = ModelRegistry(self.paths.forecast_models).models()
            spent, prompt, completion = self._spent_on_models()
            return Readings(
                now=now,
                mode=self.mode(),
                bundle=self.bundle()[:12],
                stopped=bool(self.stopped()),
                broken_glass=len(self.ledger.active_grants(now)["glass"]),
                incidents_open=backlog["incidents_open"],
                unresolved=failures_by_deployment(self.store, open_runs),
                proposals=self.ledger.counts(),
                steps=steps,
                outbox_waiting=backlog["outbox_waiting"],
                outbox_oldest=backlog["outbox_oldest"],
                connected=self.collector.connected,
                last_event=self.collector.last_event,
                watermark=self.collector.watermark,
                set_aside=len(self.collector.set_aside),
                defects=len(self.defects()),
                requests={"collector": _asked(self.collector.answers), "levers": _asked(self.levers)},
                turns=self.loop.turns,
                last_turn_seconds=self.loop.last_turn_seconds,
                step_seconds=dict(self.loop.seconds),
                step_failures=dict(self.loop.failures),
                queues=[
                    (row.pool, row.queue, row.due, row.late_seconds)
                    for row in waiting_by_queue(self.store, now)
                ],
                unfinished=unfinished_runs(self.store),
                forecast_at=quality.newest,
                model_at=next(
                    (datetime.fromisoformat(str(m.card["made_at"])) for m in models if m.serving), None
                ),
                scored=quality.scored,
                brier=quality.brier,
                calibration_error=quality.calibration_error,
                llm_calls=spent.calls,
                llm_prompt=prompt,
                llm_completion=completion,
                llm_cost=spent.cost,
                files=dict(sizes(self.paths)),
                processes=usage_by_process(),
            )

    def _counted(self) -> StepCounts:
        if self._steps is None:
            self.begin()
        steps = self._steps
        assert steps is not None  # noqa: S101  # begun above
        while entries := self.ledger.entries(steps.seq, BATCH):
            steps.add(entries)
        return steps

    def _spent_on_models(self) -> tuple[Spent, int, int]:
        if not self.paths.model_book.exists():
            return Spent(), 0, 0
        try:
            return LlmBudget(self.paths.model_book).ever()
        except ModelError:
            return Spent(), 0, 0


def _asked(answers: AnswerTimes) -> Requests:
    return Requests(asked=answers.asked, failed=answers.failed, seconds=answers.seconds)


def collector_health(
    collector: PrefectCollector, now: datetime, defects: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Return how collecting goes, as `status` tells it, and which deliveries are set aside."""
    return {
        "connected": collector.connected,
        "last_event": collector.last_event.isoformat() if collector.last_event else "",
        "last_error": collector.last_error,
        "read_until": collector.watermark.isoformat() if collector.watermark else "",
        "stands_still": collector.stands_still(now),
        "set_aside": [f"{row.row_id} of {row.route}" for row in collector.set_aside],
        "defects": list(defects),
        **collector.pace.in_words(),
    }
