"""The bench on a real Prefect server: PostgreSQL below it where there is one, real workers, real processes."""

from __future__ import annotations

import contextlib
import heapq
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from pilotage.flows.api.client import ApiClient
from pilotage.flows.bench.arms import HEARTBEAT, SILENT_FOR, TICKING, ZOMBIE, ArmName, Deed, patiently
from pilotage.flows.bench.outside import Outside, OutsideServer
from pilotage.flows.bench.pilot import deeds_of, prepared
from pilotage.flows.bench.round import Played, Round
from pilotage.flows.bench.scene import ENTRYPOINT, POOL, Machine, PlayedScene, checked, template
from pilotage.flows.bench.score import Score, scores_of
from pilotage.flows.bench.world import Act, Json, Scene, Worker, World
from pilotage.flows.dev import fork_server
from pilotage.flows.dev.embedded import Child, EmbeddedPrefect
from pilotage.telemetry.errors import ApiError, OrchestratorError
from pilotage.telemetry.times import utc_now

PREFECT = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
    "PREFECT_CLIENT_MAX_RETRIES": "20",
    "PREFECT_SERVER_SERVICES_TRIGGERED_AUTOMATIONS_ENABLED": "true",
}
"""Settings of the server, the workers and the flows of every arm."""
WORKER = {"PREFECT_WORKER_QUERY_SECONDS": "2"}
IDLE_RUN = 4.0
"""Seconds from starting a run that does nothing to its end, on two idle cores with forked processes."""
TICK = 2.0
"""Seconds between two ticks of an arm."""
QUIET = 60.0
"""Seconds, stretched, without anything new after which a round is over of an arm that never waits longer."""
UP_WITHIN = 240.0
TRIES = 8


@dataclass(slots=True)
class RealWorker:
    """As `Worker`, a process."""

    child: Child

    def kill(self) -> None:
        """As `Worker`."""
        for pid in (self.child.process.pid, *_below(self.child.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.process.wait()

    def stop(self) -> None:
        """As `Worker`."""
        self.child.process.terminate()


def _below(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and theirs. Linux only."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), ()):
            yield child
            waiting.append(child)


class RealMachine(Machine):
    """Worker processes, and a heap of what is to happen."""

    def __init__(self, prefect: EmbeddedPrefect) -> None:
        self._prefect = prefect
        self._heap: list[tuple[datetime, int, Act]] = []
        self._number = count()

    def hire(self, pool: str, name: str) -> Worker:
        """As `Machine`."""
        return RealWorker(self._prefect.launch_worker(pool, name=name, settings=WORKER))

    def at(self, moment: datetime, act: Act) -> None:
        """As `Machine`."""
        heapq.heappush(self._heap, (moment, next(self._number), act))

    def due(self, now: datetime) -> Iterator[Act]:
        """Yield what is due, once."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    @property
    def pending(self) -> bool:
        """Whether something is still to happen."""
        return bool(self._heap)

    def pool_template(self) -> Json:
        """As `Machine`: processes are forked from one that has imported Prefect."""
        made = template()
        command = self._prefect.command("prefect.engine")
        made["variables"]["properties"]["command"]["default"] = " ".join(command)
        return made


class RealStage:
    """A real server with the worlds of a round on it."""

    plays_automations = False

    def __init__(
        self, played: Round, arm: ArmName, prefect: EmbeddedPrefect, outside: Outside, url: str
    ) -> None:
        self.round = played
        self.arm = arm
        self.outside = outside
        self.scenes: list[tuple[World, Scene]] = []
        self.scale = 1.0
        self.machine = RealMachine(prefect)
        self._url = url
        self._prefect = prefect
        user, _, password = prefect.auth_string.partition(":")
        self._client = httpx.Client(base_url=prefect.api_url, auth=(user, password), timeout=60)

    def now(self) -> datetime:
        """As `Stage`."""
        return utc_now()

    def seconds(self, seconds: float) -> timedelta:
        """As `Stage`."""
        return timedelta(seconds=seconds * self.scale)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """As `Stage`. A busy server is asked again."""
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(0.2 * 2**attempt, 5.0))
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TransportError as exc:
                problem = repr(exc)
                continue
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                problem = answer.text[:200]
                continue
            return checked(answer.status_code, method, path, answer.json() if answer.content else None)
        raise OrchestratorError(
            f"{method} {path}: no answer from our own Prefect ({problem})", transient=True
        )

    def set_up(self) -> None:
        """Make the bench's own pool, measure how long a run takes here, and set every scene up."""
        body = {"name": POOL, "type": "process", "base_job_template": self.machine.pool_template()}
        self.ask("POST", "/work_pools/", body)
        worker = self._prefect.launch_worker(POOL, name="bench-worker", settings=WORKER)
        self._prefect.await_worker(worker, POOL)
        self.scale = self._measured()
        if self.arm == "automations":
            self.ask("POST", "/automations/", _zombie(self.scale))
        for incident in self.round.incidents:
            world = incident.make()
            scene = PlayedScene(
                key=incident.key,
                world=world,
                seed=incident.seed,
                tagged=incident.tagged,
                retries=self.arm == "automations",
                clock=utc_now,
                scale=self.scale,
                prefect=self.ask,
                outside=self.outside,
                url=self._url,
                machine=self.machine,
                source=incident.source,
            )
            world.setup(scene)
            self.scenes.append((world, scene))

    def _measured(self) -> float:
        """Return by how much a run that does nothing takes longer than on two idle cores, at least 1."""
        flow = self.ask("POST", "/flows/", {"name": "warm-up"})
        body = {
            "name": "bench",
            "flow_id": flow["id"],
            "work_pool_name": POOL,
            "entrypoint": ENTRYPOINT,
            "tags": ["env:staging"],
            "job_variables": {"bench": "{}"},
            "enforce_parameter_schema": False,
        }
        deployment = self.ask("POST", "/deployments/", body)
        took = 0.0
        for _ in range(2):
            began = time.monotonic()
            run = self.ask(
                "POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
            )
            while (state := self.ask("GET", f"/flow_runs/{run['id']}")["state"])["type"] != "COMPLETED":
                if state["type"] in ("FAILED", "CRASHED") or time.monotonic() - began > UP_WITHIN:
                    raise OrchestratorError(
                        f"Running a flow that does nothing: it is {state['name']} ({state['message']}). "
                        f"See the logs in {self._prefect.log_directory}."
                    )
                time.sleep(0.2)
            took = time.monotonic() - began
        return round(max(1.0, took / IDLE_RUN), 2)

    def drive(self) -> None:
        """Let every world begin."""
        for world, scene in self.scenes:
            if isinstance(scene, PlayedScene):
                scene.began = utc_now()
            world.drive(scene)

    def watch(self, tick: Callable[[], None], alive: Callable[[], None], *, until_quiet: bool) -> None:
        """Let time pass until the round is over: acts when they are due, ticks of the arm in between."""
        ends = time.monotonic() + self.round.horizon.total_seconds() * self.scale
        next_tick = changed = time.monotonic()
        before: object = None
        while (now := time.monotonic()) < ends:
            for act in self.machine.due(utc_now()):
                patiently(lambda act=act: act() and None)  # type: ignore[misc]
                changed = now
            if now >= next_tick:
                next_tick = now + TICK
                alive()
                patiently(tick)
                if until_quiet and int(now) % 5 == 0:
                    state = self._standing()
                    changed, before = (now, state) if state != before else (changed, before)
            if until_quiet and not self.machine.pending and now - changed > QUIET * self.scale:
                return
            time.sleep(0.2)

    def _standing(self) -> object:
        """Return what must not change while a round is quiet; what a schedule makes, or waits, does not count."""
        from pilotage.flows.bench.arms import deployments_of, every_run

        deployments = [each for _, scene in self.scenes for each in deployments_of(scene)]
        runs = every_run(self.ask, deployments)
        return frozenset(
            (run["id"], run["state_id"])
            for run in runs
            if not run["auto_scheduled"] and run["state_name"] != "AwaitingConcurrencySlot"
        )


def _zombie(scale: float) -> Json:
    """Return the automation that Prefect's documentation advises against dead runs."""
    run = {"prefect.resource.id": "prefect.flow-run.*"}
    ended = [f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")]
    return {
        "name": "Crash zombie flows",
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "after": ["prefect.flow-run.heartbeat"],
            "expect": ["prefect.flow-run.heartbeat", *ended],
            "match": run,
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": round(SILENT_FOR * scale),
        },
        "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "message": ZOMBIE}],
    }


def play(
    played: Round, arm: ArmName, *, database: str, say: Callable[[str], None]
) -> tuple[list[Score], float, dict[str, Any]]:
    """Return the scores of one round under one arm, the seconds that it took, and what the stage was like."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-bench-")))
        outside = Outside(utc_now)
        server = stack.enter_context(OutsideServer(outside))
        prefect = EmbeddedPrefect(
            root / "prefect",
            settings=PREFECT,
            preload=fork_server.available(root / "prefect" / "fork.sock"),
            preloaded=("pilotage.flows.bench.flow",),
            database=database,
        )
        stack.enter_context(prefect)
        stage = RealStage(played, arm, prefect, outside, server.url)
        stage.set_up()
        say(f"{arm}: a run takes {stage.scale:.1f} times as long as on two idle cores")
        if arm in TICKING:
            acting = TICKING[arm](stage)
            stage.drive()
            stage.watch(acting.tick, lambda: None, until_quiet=True)
            deeds: list[Deed] = list(acting.deeds)
        else:
            with _pilotage(stage, prefect, root / "state", f"{server.url}/pager", arm) as alive:
                stage.drive()
                stage.watch(lambda: None, alive, until_quiet=False)
            deeds = deeds_of(root / "state")
        scores = scores_of(Played(stage=stage, outside=outside, deeds=tuple(deeds), requests=None), arm)
        return scores, time.monotonic() - began, {"scale": stage.scale}


@contextlib.contextmanager
def _pilotage(
    stage: RealStage, prefect: EmbeddedPrefect, root: Path, pager: str, arm: ArmName
) -> Iterator[Callable[[], None]]:
    """Run `pilotage up` as a user does. Yields what raises OrchestratorError when it has ended."""
    with contextlib.ExitStack() as stack:
        llm_url = ""
        if arm == "pilotage_llm":
            from pilotage.planner.llm.scripted.demo_replies import demo_script
            from pilotage.planner.llm.scripted.server import ScriptedLLM

            llm_url = stack.enter_context(ScriptedLLM(demo_script)).base_url
        paths = prepared(root, mode=stage.round.mode, pager=pager, scale=stage.scale, llm_url=llm_url)
        log = stack.enter_context((root / "up.log").open("ab"))
        up = subprocess.Popen(
            [
                *(sys.executable, "-m", "pilotage.flows.dev.supervised_child", str(os.getpid())),
                *("pilotage.console", "up"),
            ],
            env={**prefect.env, "PILOTAGE_STATE_DIR": str(root), "PILOTAGE_CONFIG": str(paths.config)},
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def alive() -> None:
            if up.poll() is not None:
                tail = (root / "up.log").read_text(errors="replace")[-2000:]
                raise OrchestratorError(
                    f"Watching `pilotage up`: it ended with code {up.returncode}:\n{tail}"
                )

        try:
            client = ApiClient(paths.api_socket, paths.token.read_text().strip())
            deadline = time.monotonic() + UP_WITHIN
            while True:
                alive()
                with contextlib.suppress(ApiError):
                    if client.call("status")["collector"].get("connected"):
                        break
                if time.monotonic() > deadline:
                    raise OrchestratorError("Starting `pilotage up`: the collector did not connect in time.")
                time.sleep(0.3)
            yield alive
        finally:
            if up.poll() is None:
                up.send_signal(signal.SIGTERM)
                try:
                    up.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(up.pid, signal.SIGKILL)
                    up.wait()
