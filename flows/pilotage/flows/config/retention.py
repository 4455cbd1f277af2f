"""How long each kind of record is kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from pilotage.telemetry.store.retention import FOR_EVER, Retention

SHORTEST = timedelta(days=1)


def _a_life(value: timedelta) -> timedelta:
    if value != FOR_EVER and value < SHORTEST:
        raise ValueError("it must be P1D or longer, or P0D to keep it for ever")
    return value


Life = Annotated[timedelta, AfterValidator(_a_life)]
_DEFAULT = Retention()


class RetentionSettings(BaseModel):
    """Lives: after them rows are deleted once an hour. What an open incident or proposal needs stays whatever its age."""

    model_config = ConfigDict(extra="forbid")

    payloads: Life = _DEFAULT.payload
    """Bodies of events; P0D, here and below, keeps for ever."""
    events: Life = _DEFAULT.events
    """Events themselves."""
    logs: Life = _DEFAULT.logs
    """Log lines."""
    runs: Life = _DEFAULT.runs
    """Runs, since they ended. Hours and days of each deployment stay for ever in the table `rollups`."""
    task_runs: Life = _DEFAULT.task_runs
    """Task runs."""
    queues: Life = _DEFAULT.queues
    """Snapshots of queues."""
    forecasts: Life = _DEFAULT.forecasts
    """Forecasts and how they went."""
    spans: Life = _DEFAULT.agent_spans
    """Steps of the agent (tokens, cost, times)."""
    decisions: Life = _DEFAULT.decisions
    """Steps of proposals as telemetry has them, from which the planner learns."""
    conversations: Life = timedelta(days=180)
    """Conversations, since something was last said in them."""
    ledger: Life = timedelta(days=1095)
    """Proposals with verdicts, votes and outcomes, and their incidents, since they ended. Trust counts kept outcomes."""
    audit: Life = timedelta(days=2555)
    """Entries of the audit log. They are cut behind a signed checkpoint only (`checkpoints`), and not before `ledger`."""
    archive: Path | None = None
    """A directory where rows are written as Parquet before they are deleted; empty for none."""

    @property
    def telemetry(self) -> Retention:
        """The lives of what is in the telemetry store."""
        return Retention(
            payload=self.payloads,
            events=self.events,
            logs=self.logs,
            runs=self.runs,
            task_runs=self.task_runs,
            queues=self.queues,
            forecasts=self.forecasts,
            agent_spans=self.spans,
            decisions=self.decisions,
        )
