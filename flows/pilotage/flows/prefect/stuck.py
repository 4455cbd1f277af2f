"""Tells a run that will never begin, and one that hangs, from runs that are slow: by what Prefect keeps of them now.

A run never began where a worker called it Pending, and neither a worker nor a process of it was heard since. It hangs
where it runs far longer than any of its deployment before and does nothing but send heartbeats, which a thread of its
own sends whatever its code waits for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.liveness import HEARTBEAT
from pilotage.flows.prefect.models import RunView
from pilotage.planner.detect.unusual import longest_of_few, longest_usual
from pilotage.planner.parameters import PlaybookParameters
from pilotage.policies.types import Stuck
from pilotage.telemetry.facts import StateType

BEGUN = ("prefect.worker.submitted-flow-run", HEARTBEAT)
"""Events that say that something was started for a run."""
LATELY = 50
"""Completed runs of a deployment that say how long its runs take."""
EARLY = timedelta(seconds=30)
"""Events of a change are written a little before it is seen, by clocks that differ."""


async def stuck_of(api: PrefectApi, run: RunView, parameters: PlaybookParameters, now: datetime) -> Stuck:
    """Return why a run will not go on, or an empty text where nothing proves that."""
    if run.state.type is StateType.PENDING and not run.run_count:
        return await _never_started(api, run, parameters, now)
    if run.state.type is StateType.RUNNING and run.deployment_id:
        return await _hung(api, run, parameters, now)
    return ""


async def _never_started(
    api: PrefectApi, run: RunView, parameters: PlaybookParameters, now: datetime
) -> Stuck:
    if now - run.state.at < parameters.pending_after or run.pid:
        return ""
    since = run.state.at - EARLY
    logged = await api.last_log(run.id)
    if logged is not None and logged > run.state.at:
        return ""
    begun = await api.events_about(run.id, since, names=BEGUN, most=1)
    tasks = await api.events_about(run.id, since, prefix="prefect.task-run.", most=1)
    return "" if begun or tasks else "never-started"


async def _hung(api: PrefectApi, run: RunView, parameters: PlaybookParameters, now: datetime) -> Stuck:
    done = await api.ended_runs(run.deployment_id, LATELY, (StateType.COMPLETED,))
    took = [
        each.ended - each.started
        for each in done
        if each.started and each.ended and each.run_count == 1 and each.id != run.id
    ]
    bound = longest_usual(took, parameters) or longest_of_few(took, parameters)
    if bound is None or now - run.state.at <= bound:
        return ""
    # what it did last must be as long ago: a run that goes on writing or finishing tasks is slow, and does not hang
    since = max(run.state.at + EARLY, now - bound)
    logged = await api.last_log(run.id)
    if logged is not None and logged > since:
        return ""
    events = await api.events_about(run.id, since, prefix="prefect.", most=LATELY)
    return "" if any(event.name != HEARTBEAT for event in events) else "hung"
