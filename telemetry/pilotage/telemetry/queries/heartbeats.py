"""The questions about what is not heard any more: runs gone silent, slots that nobody seems to hold, closed trouble."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from pilotage.telemetry.facts import RunFact
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

HEARTBEAT = "prefect.flow-run.heartbeat"
MISSED = 4
"""Heartbeats in a row that a run has missed before it is asked about: one more than what proves its death, so that
the proof is there when it is looked for."""
SHORTEST = timedelta(seconds=30)
"""Prefect sends heartbeats no more often."""
SLACK = timedelta(minutes=1)
"""Events are written and collected in batches, seconds late."""
_BEATS = 3
"""The newest heartbeats of a run, between which its interval is measured."""
_MOST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """When a RUNNING run was heard."""

    run: RunFact
    heard: datetime
    """Its newest event or line of its log."""
    every: timedelta
    """From one of its heartbeats to the next: the longest gap between the newest ones."""


def heartbeats(store: Store, heard_before: datetime) -> list[Heartbeat]:
    """The RUNNING runs of deployments that sent two heartbeats at least and nothing since a moment, by run.

    And those that are being cancelled, though they changed their state since: what somebody else asked says nothing.
    """
    sql = (
        "SELECT * FROM runs WHERE deployment_id IS NOT NULL "
        "AND ((state_type = 'RUNNING' AND updated < ?) OR state_type = 'CANCELLING') ORDER BY run_id LIMIT ?"
    )
    runs_by_id = {run.run_id: run for run in facts_from_rows(RunFact, store.rows(sql, [heard_before, _MOST]))}
    if not runs_by_id:
        return []
    marks = ", ".join("?" for _ in runs_by_id)
    spoke = (
        f"SELECT run_id, max(moment) AS heard FROM (SELECT run_id, occurred AS moment FROM events "  # noqa: S608
        "WHERE name <> 'prefect.flow-run.Cancelling' AND NOT starts_with(name, 'pilotage.') "
        f'UNION ALL SELECT run_id, "at" FROM logs) WHERE run_id IN ({marks}) '
        "GROUP BY run_id HAVING max(moment) < ? ORDER BY run_id"
    )
    silent = {row["run_id"]: row["heard"] for row in store.rows(spoke, [*runs_by_id, heard_before])}
    stuck = []
    for run_id, heard in silent.items():
        beats = store.rows(
            "SELECT occurred FROM events WHERE run_id = ? AND name = ? ORDER BY occurred DESC LIMIT ?",
            [run_id, HEARTBEAT, _BEATS],
        )
        gaps = [newer["occurred"] - older["occurred"] for newer, older in pairwise(beats)]
        if gaps:
            stuck.append(Heartbeat(run=runs_by_id[run_id], heard=heard, every=max(gaps)))
    return stuck


def silence_of(heartbeat: Heartbeat) -> timedelta:
    """For how long a run must be silent before it is asked about."""
    return MISSED * max(heartbeat.every, SHORTEST) + SLACK


def silent(store: Store, now: datetime) -> list[Heartbeat]:
    """The RUNNING runs that are silent for longer than a living one is, while others were heard, by run."""
    return [
        heartbeat
        for heartbeat in heartbeats(store, now - MISSED * SHORTEST - SLACK)
        if now - heartbeat.heard > (silence := silence_of(heartbeat))
        # silence says something only while others were heard; on a quiet site, while the server answered. Then it is
        # only a suspicion: before it is acted on, an event of our own must have come through in each interval
        and (
            heard_throughout(store, now - silence, now, max(heartbeat.every, SHORTEST))
            or answered_throughout(store, now)
        )
    ]


def answered_throughout(store: Store, now: datetime) -> bool:
    """Whether the server has answered each of our requests of the last minutes, the newest just now."""
    rows = store.rows("SELECT \"at\", requests, failures FROM asked WHERE kind = 'api'")
    return any(
        row["at"] is not None and now - row["at"] < SLACK and row["requests"] and not row["failures"]
        for row in rows
    )


def heard_throughout(store: Store, since: datetime, until: datetime, every: timedelta) -> bool:
    """Whether an event of anybody's came in each interval between two moments: then silence was not the server's."""
    wanted = int((until - since) / every)
    sql = (
        "SELECT count(DISTINCT floor(epoch(occurred - ?) / ?)) AS intervals FROM events "
        "WHERE occurred >= ? AND occurred < ?"
    )
    row = store.rows(sql, [since, every.total_seconds(), since, since + wanted * every])[0]
    return int(row["intervals"]) >= wanted > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakedSlots:
    """A deployment whose runs wait for slots of its limit although none of its runs is under way."""

    deployment_id: str
    waiting: int
    since: datetime
    """When the longest waiting one was due."""
    witness: str
    """The state of that one."""


def stuck_at_their_limit(store: Store, before: datetime) -> list[LeakedSlots]:
    """The deployments whose runs have waited for a slot since a moment, and of which nothing ran since then."""
    sql = """
        SELECT w.deployment_id, count(*) AS waiting, min(w.expected_start) AS since,
               arg_min(w.state_id, w.expected_start) AS witness
        FROM runs w
        WHERE w.state_type = 'SCHEDULED' AND w.state_name = 'AwaitingConcurrencySlot' AND w.deployment_id IS NOT NULL
        AND NOT EXISTS (
            SELECT 1 FROM runs o WHERE o.deployment_id = w.deployment_id AND (
                o.state_type IN ('PENDING', 'RUNNING', 'CANCELLING', 'PAUSED') OR o.state_name = 'AwaitingRetry'
                OR o.ended > ?))
        GROUP BY w.deployment_id HAVING min(w.expected_start) < ? ORDER BY w.deployment_id LIMIT ?
    """
    return [LeakedSlots(**row) for row in store.rows(sql, [before, before, _MOST])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedAlert:
    """A run that completed after its owner had been told of trouble with it, and not that it is over."""

    run: RunFact
    told: datetime


def told_and_completed(store: Store, since: datetime) -> list[ResolvedAlert]:
    """The runs whose owners were told since a moment, and which completed after that, by run."""
    sql = """
        SELECT d.run_id, max(d."at") AS told FROM decisions d JOIN runs r USING (run_id)
        WHERE d.action = 'notify_owner' AND d.step = 'injected' AND coalesce(d.outcome, '') <> 'refused'
        AND d."at" > ? AND r.state_type = 'COMPLETED' AND r.ended > d."at"
        AND NOT EXISTS (SELECT 1 FROM decisions x WHERE x.run_id = d.run_id AND x.action = 'resolve_alert'
                        AND x.step = 'proposed' AND x."at" > d."at")
        GROUP BY d.run_id ORDER BY d.run_id LIMIT ?
    """
    alerts = {row["run_id"]: row["told"] for row in store.rows(sql, [since, _MOST])}
    if not alerts:
        return []
    marks = ", ".join("?" for _ in alerts)
    rows = store.rows(f"SELECT * FROM runs WHERE run_id IN ({marks}) ORDER BY run_id", [*alerts])  # noqa: S608
    return [ResolvedAlert(run=run, told=alerts[run.run_id]) for run in facts_from_rows(RunFact, rows)]


MISSED_BEATS = 3
"""Heartbeats in a row that a dead process has missed."""
LATE_BY = timedelta(seconds=30)
"""Prefect writes events in batches, seconds late."""
UNMEASURED = timedelta(minutes=20)
"""Taken for the interval of a run that sent one heartbeat only; Prefect's default is 3 min, and a site may say more."""
_CARRIER_ENDED = (
    "prefect.worker.executed-flow-run",
    "prefect.kubernetes.pod.failed",
    "prefect.kubernetes.pod.succeeded",
    "prefect.kubernetes.pod.evicted",
    "prefect.kubernetes.pod.deleted",
    "prefect.ecs.task.stopped",
    "prefect.docker.container.died",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeathSigns:
    """What the collected rows say of the process of a run that is called ended, each sign in words or empty."""

    silent: str = ""
    """That the process itself is not heard any more, while others are."""
    carrier: str = ""
    """That what carried it has ended: its worker, pod or task says so."""
    heard_after: datetime | None = None
    """When its process was heard although it was called ended."""
    may_come: bool = False
    """Whether waiting can bring a sign: it sent heartbeats, so its silence will say something."""

    @property
    def proven(self) -> bool:
        """Whether both signs are there and nothing speaks against them."""
        return bool(self.silent and self.carrier) and self.heard_after is None


def signs_of_death(store: Store, run: RunFact, now: datetime) -> DeathSigns:
    """Return the signs that the process of an ended run is dead, from its heartbeats, tasks and infrastructure."""
    ended = run.ended or run.updated
    voice = store.rows(
        "SELECT name, occurred FROM events WHERE run_id = ? AND (name = ? OR name LIKE 'prefect.task-run.%') "
        "ORDER BY occurred DESC LIMIT 50",
        [run.run_id, HEARTBEAT],
    )
    beats = [row["occurred"] for row in voice if row["name"] == HEARTBEAT][:_BEATS]
    heard = voice[0]["occurred"] if voice else None
    gaps = [newer - older for newer, older in pairwise(beats)]
    every = max(gaps) if gaps else UNMEASURED
    silent, needed = "", MISSED_BEATS * every + LATE_BY
    if (
        beats
        and heard is not None
        and now - heard > needed
        and heard_throughout(store, now - needed, now, every)
    ):
        silent = f"its process has been silent for {(now - heard).total_seconds():.0f} s, with others heard"
    began = run.started or ended
    names = ", ".join("?" for _ in _CARRIER_ENDED)
    carriers = store.rows(
        f"SELECT name FROM events WHERE run_id = ? AND occurred >= ? AND name IN ({names}) "  # noqa: S608
        "ORDER BY occurred DESC LIMIT 1",
        [run.run_id, began, *_CARRIER_ENDED],
    )
    alive = heard is not None and heard > ended + LATE_BY and bool(beats) and not silent
    return DeathSigns(
        silent=silent,
        carrier=f"its infrastructure has ended ({carriers[0]['name']})" if carriers else "",
        heard_after=heard if alive else None,
        may_come=bool(beats) and not alive,
    )
