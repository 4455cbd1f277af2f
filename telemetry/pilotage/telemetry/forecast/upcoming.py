"""The runs that start next, with what was forecast of them last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

HORIZON = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """One scheduled run and the chance that it fails."""

    run: RunFact
    forecast: Forecast


def last_forecast(store: Store, run_id: str) -> Forecast | None:
    """What was forecast of a run last, or None."""
    sql = "SELECT * FROM forecasts WHERE run_id = ? ORDER BY made_at DESC LIMIT 1"
    return next(iter(facts_from_rows(Forecast, store.rows(sql, [run_id]))), None)


def forecasts_of(store: Store, run_id: str, limit: int = 200) -> list[Forecast]:
    """What was forecast of a run, oldest first; of many the last `limit`."""
    sql = "SELECT * FROM forecasts WHERE run_id = ? ORDER BY made_at DESC LIMIT ?"
    return facts_from_rows(Forecast, store.rows(sql, [run_id, limit]))[::-1]


def riskiest(store: Store, now: datetime, limit: int = 20) -> list[Risk]:
    """The SCHEDULED runs due within HORIZON or overdue that were forecast, the most likely to fail first."""
    runs = facts_from_rows(
        RunFact,
        store.rows("SELECT * FROM runs WHERE state_type = 'SCHEDULED' AND next_start <= ?", [now + HORIZON]),
    )
    forecasts = {
        forecast.run_id: forecast
        for forecast in facts_from_rows(
            Forecast,
            store.rows(
                "SELECT f.* FROM forecasts f JOIN runs r USING (run_id) "
                "WHERE r.state_type = 'SCHEDULED' AND r.next_start <= ? "
                "QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY made_at DESC) = 1",
                [now + HORIZON],
            ),
        )
    }
    risks = [
        Risk(run=run, forecast=forecasts[run.run_id]) for run in runs if forecasts.get(run.run_id) is not None
    ]
    return sorted(risks, key=lambda risk: (-risk.forecast.p_fail, risk.run.run_id))[:limit]
