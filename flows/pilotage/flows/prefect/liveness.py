"""Tells a dead run from a slow one: by two independent signs, never by silence alone.

The first sign is the run's own silence: its process sends a heartbeat from a thread of its own, whatever its flow
is busy with, so three of them missing is more than slowness. The second is about whatever carried it: its worker is
not heard either, or its process is not there any more. A worker's death alone says nothing: the processes that it
started go on without it (seen with SIGKILL). Nor does a run's silence: the server may have been away, so something
else must have been heard in each of the three intervals.

Whether its process is there can be seen only where it runs. An owner says so with the tag `pilotage:this-host` on
the deployment; without it, a process that is found here alive still counts, one that is not found says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import EventView, RunView
from pilotage.policies.types import Liveness
from pilotage.telemetry.facts import StateType

THIS_HOST = "pilotage:this-host"
"""The tag by which an owner says that a deployment's processes run on the host that pilotage runs on."""
HEARTBEAT = "prefect.flow-run.heartbeat"
MISSED = 3
"""Heartbeats in a row that a dead run has missed."""
SLACK = timedelta(seconds=30)
"""Prefect writes events in batches, seconds late; a busy machine later."""
UNMEASURED = timedelta(minutes=20)
"""Taken for the interval of a run that sent fewer than two heartbeats: Prefect's default is 3 min, a site may say
more, and nobody is told."""
SHORTEST = timedelta(seconds=30)
"""Prefect sends heartbeats no more often."""
WORKER_MISSED = 3
"""Heartbeats after which Prefect itself calls a worker offline."""

Process = Literal["alive", "gone", "unknown"]
Probe = Callable[[str, str], Process]
"""Whether the process of a run is here, given the run's id and its pid as its worker told it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessEvidence:
    """What can be seen of a RUNNING run that may be dead."""

    heard: datetime | None
    """When its process was last heard: a heartbeat, a task, a line of its log. None when it never was."""
    every: timedelta
    """From one of its heartbeats to the next."""
    worker: Literal["online", "gone", "unknown"]
    process: Process
    here: bool
    """Whether its process, if there were one, would be on this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessJudgement:
    """What the signs amount to."""

    by: Liveness
    """What bears the silence out; empty when nothing is proven."""
    why: str


def judge_liveness(signs: LivenessEvidence, now: datetime) -> LivenessJudgement:
    """What the signs prove, in words."""
    if signs.process == "alive":
        return LivenessJudgement(by="", why="its process is alive on this host")
    if signs.heard is None:
        return LivenessJudgement(by="", why="it was never heard, so its silence says nothing")
    silent, needed = now - signs.heard, MISSED * signs.every + SLACK
    if silent <= needed:
        return LivenessJudgement(
            by="", why=f"it was heard {_s(silent)} ago; a dead run is silent for {_s(needed)}"
        )
    reason = f"it has been silent for {_s(silent)}"
    if signs.here and signs.process == "gone":
        return LivenessJudgement(by="process", why=f"{reason}, and its process is gone from this host")
    match signs.worker:
        case "gone":
            return LivenessJudgement(by="worker", why=f"{reason}, and so has the worker that took it")
        case "online":
            return LivenessJudgement(
                by="", why=f"{reason}, but its worker is heard: it may be slow, or the worker was restarted"
            )
        case "unknown":
            return LivenessJudgement(
                by="", why=f"{reason}, but nothing is known of a worker or a process of it"
            )


async def signs_of(
    api: PrefectApi, run: RunView, tags: Sequence[str], probe: Probe, now: datetime
) -> LivenessEvidence:
    """The signs, looked up now. `tags` are its deployment's."""
    # a run that is being cancelled was heard, if at all, before somebody asked for that
    began = (
        min(run.state.at, run.started or run.state.at)
        if run.state.type is StateType.CANCELLING
        else run.state.at
    )
    since = began - timedelta(minutes=1)
    about = await api.events_about(run.id, since)
    beats = await api.events_about(run.id, since, names=[HEARTBEAT], most=MISSED)
    logged = await api.last_log(run.id)
    heard = [event.at for event in about] + ([logged] if logged else [])
    return LivenessEvidence(
        # a run that says Running said it itself, unless it never went on to send a heartbeat
        heard=max(heard, default=None) if beats else None,
        every=interval(beats),
        worker=await _worker(api, run, now),
        process=probe(run.id, run.pid),
        here=THIS_HOST in tags,
    )


def interval(beats: Sequence[EventView]) -> timedelta:
    """From one heartbeat to the next, by the longest gap between the newest ones."""
    times = sorted(beat.at for beat in beats)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return max(max(gaps), SHORTEST) if gaps else UNMEASURED


async def others_heard(api: PrefectApi, every: timedelta, now: datetime) -> bool:
    """Whether Prefect was told of something, by anybody, in each of the intervals that the run was silent in."""
    for number in range(MISSED):
        if not await api.events_between(now - (number + 1) * every, now - number * every):
            return False
    return True


def process_here(run_id: str, pid: str, *, proc: Path = Path("/proc")) -> Process:
    """Whether the process of a run is on this host: Prefect gives it the run's id in its environment."""
    if not proc.is_dir() or not (proc / "self").exists():
        return "unknown"
    ours = f"PREFECT__FLOW_RUN_ID={run_id}".encode()
    for place in proc.glob("[0-9]*"):
        try:
            if ours in (place / "environ").read_bytes().split(b"\0"):
                return "alive"
        except PermissionError:
            # somebody else's process: it may be the one, if it has the pid
            if place.name == pid:
                return "unknown"
        except OSError:  # it ended while it was looked at
            continue
    return "gone" if pid.isdigit() else "unknown"


async def _worker(api: PrefectApi, run: RunView, now: datetime) -> Literal["online", "gone", "unknown"]:
    if not run.worker or not run.pool:
        return "unknown"
    worker = next((each for each in await api.workers(run.pool) if each.name == run.worker), None)
    if worker is None or worker.heard is None:
        return "unknown"
    silent = now - worker.heard
    return "gone" if not worker.online and silent > WORKER_MISSED * worker.every + SLACK else "online"


def _s(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
