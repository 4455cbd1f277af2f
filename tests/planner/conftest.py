"""Facts to plan about, with everything a test does not care for filled in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.planner.planner_fixture import PlannerFixture

from pilotage.planner.findings import FailureClass, Finding
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.remediation import Background, IncidentContext
from pilotage.telemetry.facts import LogLine, QueueFact, RunFact, StateType
from pilotage.telemetry.forecasts import Forecast

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RUN = "11111111-1111-4111-8111-111111111111"
DEPLOYMENT = "22222222-2222-4222-8222-222222222222"


class Maker:
    """Makes facts; keywords change what is named."""

    now = NOW
    run_id = RUN
    deployment_id = DEPLOYMENT

    def run(self, **changes: Any) -> RunFact:
        run = RunFact(
            run_id=RUN,
            name="brisk-otter",
            flow_name="etl",
            state_type=StateType.FAILED,
            state_name="Failed",
            state_id="33333333-3333-4333-8333-333333333333",
            state_message="Flow run encountered an exception: ConnectError: All connection attempts failed",
            deployment_id=DEPLOYMENT,
            deployment_name="etl/nightly",
            pool="pool",
            queue="default",
            run_count=1,
            created=NOW - timedelta(minutes=5),
            started=NOW - timedelta(minutes=4),
            ended=NOW - timedelta(minutes=1),
            updated=NOW - timedelta(minutes=1),
        )
        return replace(run, **changes)

    def upcoming(self, seconds: float, **changes: Any) -> RunFact:
        start = NOW + timedelta(seconds=seconds)
        scheduled: dict[str, Any] = {
            "state_type": StateType.SCHEDULED,
            "state_name": "Scheduled" if seconds > 0 else "Late",
            "state_message": "",
            "run_count": 0,
            "started": None,
            "ended": None,
            "expected_start": start,
            "next_start": start,
        }
        return self.run(**(scheduled | changes))

    def log(self, message: str, *, level: int = 40, log_id: str = "log-1", run_id: str = RUN) -> LogLine:
        return LogLine(
            log_id=log_id, run_id=run_id, at=NOW - timedelta(minutes=2), level=level, message=message
        )

    def queue(self, queue: str, rank: int, **changes: Any) -> QueueFact:
        return replace(QueueFact(at=NOW, pool="pool", queue=queue, priority=rank, pool_limit=2), **changes)

    def forecast(self, p_fail: float, run_id: str = RUN) -> Forecast:
        return Forecast(
            run_id=run_id, made_at=NOW, p_fail=p_fail, model="ewma", trained_on=50, reasons=("a reason",)
        )

    def finding(self, failure_class: FailureClass, **changes: Any) -> Finding:
        finding = Finding(
            incident_id="i-0123456789ab",
            subject=f"run:{RUN}",
            failure_class=failure_class,
            found_at=NOW,
            by="rule",
            fingerprint="f" * 16,
        )
        return replace(finding, **changes)

    def incident_context(
        self, failure_class: FailureClass, *, p_fail: float | None = None, **changes: Any
    ) -> IncidentContext:
        around = changes.pop("around", Background())
        run = changes.pop("run", self.run())
        parameters = changes.pop("parameters", PlaybookParameters())
        return IncidentContext(
            finding=self.finding(failure_class, **changes),
            run=run,
            forecast=None if p_fail is None else self.forecast(p_fail),
            around=around,
            now=NOW,
            parameters=parameters,
        )


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def planner_fixture(tmp_path: Path, make: Any) -> Iterator[PlannerFixture]:
    made = PlannerFixture(tmp_path, make.now)
    yield made
    made.store.close()
