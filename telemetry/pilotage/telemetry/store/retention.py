"""How long what happened is kept. A deleted row's space is used again; the file does not shrink."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Ages after which rows go. Runs, deployments and decisions stay: they are small and worth most."""

    payload: timedelta = timedelta(days=7)
    """Bodies of events, counted from when they occurred; Prefect itself keeps events for 7 days."""
    events: timedelta = timedelta(days=90)
    """The events' own columns."""
    logs: timedelta = timedelta(days=30)
    """Log lines."""
    task_runs: timedelta = timedelta(days=395)
    """Task runs, thirteen months since their last update: a month can be held beside last year's."""
    queues: timedelta = timedelta(days=90)
    """Snapshots of queues."""
    forecasts: timedelta = timedelta(days=395)
    """Forecasts."""
    agent_spans: timedelta = timedelta(days=90)
    """Steps of the agent."""
