"""The simulated stage: a fake Prefect on a clock, with the worlds of a round, whose processes are played."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NoReturn

import httpx

from pilotage.flows.bench.arms import (
    FLOW_RETRIES,
    FLOW_RETRY_DELAY,
    HEARTBEAT,
    ArmName,
)
from pilotage.flows.bench.outside import ATTEMPT, RUN, Outside, OutsideTransport, address_of
from pilotage.flows.bench.round import Round
from pilotage.flows.bench.scene import MEMORY_MB, POOL, Machine, PlayedScene, checked, template
from pilotage.flows.bench.virtual_loop import as_steps, hand_out
from pilotage.flows.bench.world import Act, Json, Scene, Worker, World
from pilotage.flows.dev.fake_prefect import FakePrefect, FrozenClock
from pilotage.flows.dev.fake_prefect.records import Run
from pilotage.flows.dev.fake_prefect.workers import SimulatedWorker, Step

START = datetime(2027, 3, 1, 12, tzinfo=UTC)
START_UP = timedelta(seconds=2)
"""From taking a run to its process running, as on two idle cores."""
POLL = timedelta(seconds=2)
OUTSIDE = "http://outside"


class _Dies(BaseException):
    """The process ends by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(slots=True, kw_only=True)
class SimulatedJob:
    """As `Job`, for a process that is played."""

    run: Run
    scene: PlayedScene
    stage: SimulatedStage
    http: httpx.Client
    run_id: str = ""
    attempt: int = 1
    parameters: Json = field(default_factory=dict)
    memory_mb: int = MEMORY_MB
    _tasks: int = 0

    def spend(self, seconds: float) -> None:
        """As `Job`."""
        hand_out(Step(after=self.scene.seconds(seconds)))

    def record(self, key: str, *, task: str = "") -> None:
        """As `Job`."""
        if not task:
            self.http.post("/effects", json={"key": key})
            return
        self._tasks += 1
        state = {"type": "RUNNING", "name": "Running"}
        body = {
            "flow_run_id": self.run_id,
            "name": f"{task}-{self._tasks}",
            "task_key": task,
            "dynamic_key": f"{self.attempt}-{self._tasks}",
            "state": state,
        }
        made = self.stage.ask("POST", "/task_runs/", body)
        self.http.post("/effects", json={"key": key})
        done = {"state": {"type": "COMPLETED", "name": "Completed"}}
        self.stage.ask("POST", f"/task_runs/{made['id']}/set_state", done)

    def log(self, text: str, level: Literal["info", "warning", "error"] = "info") -> None:
        """As `Job`."""
        self.stage.write(self.run_id, text, {"info": 20, "warning": 30, "error": 40}[level])

    def end_by_signal(self, number: int = 9) -> NoReturn:
        """As `Job`."""
        raise _Dies(number)

    def hang(self) -> NoReturn:
        """As `Job`."""
        while True:
            hand_out(Step(after=timedelta(days=1)))

    def call(self, deployment: str, name: str) -> str:
        """As `Job`."""
        self._tasks += 1
        body = {
            "flow_run_id": self.run_id,
            "name": f"{deployment}-{self._tasks}",
            "task_key": deployment,
            "dynamic_key": f"{self.attempt}-{self._tasks}",
            "state": {"type": "PENDING", "name": "Pending"},
        }
        link = self.stage.ask("POST", "/task_runs/", body)
        state = {"type": "SCHEDULED", "name": "Scheduled"}
        wanted = {"state": state, "name": f"{self.scene.key}-{name}", "parent_task_run_id": link["id"]}
        deployment_id = self.scene.deployments[deployment]
        child = self.stage.ask("POST", f"/deployments/{deployment_id}/create_flow_run", wanted)
        while True:
            hand_out(Step(after=timedelta(seconds=2)))
            found = self.stage.fake.tables.runs[child["id"]]
            if found.state.ended:
                return found.state.type


@dataclass(slots=True)
class PlayedWorker:
    """As `Worker`."""

    worker: SimulatedWorker

    def kill(self) -> None:
        """As `Worker`."""
        self.worker.kill()

    def stop(self) -> None:
        """As `Worker`."""
        self.worker.stop()


class SimulatedMachine(Machine):
    """Workers and time of the fake server."""

    def __init__(self, stage: SimulatedStage) -> None:
        self._stage = stage

    def hire(self, pool: str, name: str) -> Worker:
        """As `Machine`."""
        return PlayedWorker(
            SimulatedWorker(
                server=self._stage.fake,
                pool=pool,
                script=self._stage.script,
                name=name,
                poll=POLL,
                start_up=self._stage.start_up,
                prefetch=timedelta(seconds=2),
                run_beat=timedelta(seconds=HEARTBEAT),
            )
        )

    def at(self, moment: datetime, act: Act) -> None:
        """As `Machine`."""

        def due(now: datetime) -> None:
            act()

        self._stage.fake.agenda.at(moment, due)


class SimulatedStage:
    """A fake server with the worlds of a round on it."""

    plays_automations = True

    def __init__(self, played: Round, *, arm: ArmName) -> None:
        self.arm = arm
        self.round = played
        self.clock = FrozenClock(START)
        self.fake = FakePrefect(self.clock)
        self.outside = Outside(self.clock.now)
        self.start_up = START_UP
        self.scenes: list[tuple[World, Scene]] = []
        self._by_deployment: dict[str, PlayedScene] = {}
        self._machine = SimulatedMachine(self)
        self.problems: list[str] = []

    def now(self) -> datetime:
        """As `Stage`."""
        return self.clock.now()

    def seconds(self, seconds: float) -> timedelta:
        """As `Stage`."""
        return timedelta(seconds=seconds)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """As `Stage`."""
        reply = self.fake.request(method, path, body)
        return checked(reply.status, method, path, reply.json)

    def write(self, run_id: str, text: str, level: int) -> None:
        """Write a line into a run's log."""
        line = {
            "name": "prefect.flow_runs",
            "level": level,
            "message": text,
            "timestamp": self.now().isoformat(),
            "flow_run_id": run_id,
        }
        self.fake.ask("POST", "/logs/", [line])

    def set_up(self) -> None:
        """Make the bench's own pool with its worker, and every scene."""
        self.ask("POST", "/work_pools/", {"name": POOL, "type": "process", "base_job_template": template()})
        self._machine.hire(POOL, "bench-worker")
        for incident in self.round.incidents:
            world = incident.make()
            scene = PlayedScene(
                key=incident.key,
                world=world,
                seed=incident.seed,
                tagged=incident.tagged,
                retries=self.arm == "automations",
                clock=self.clock.now,
                scale=1.0,
                prefect=self.ask,
                outside=self.outside,
                url=OUTSIDE,
                machine=self._machine,
                source=incident.source,
            )
            world.setup(scene)
            self.scenes.append((world, scene))
            for deployment_id in scene.deployments.values():
                self._by_deployment[deployment_id] = scene

    def drive(self) -> None:
        """Let every world begin."""
        for world, scene in self.scenes:
            assert isinstance(scene, PlayedScene)
            scene.began = self.now()
            world.drive(scene)
            for deployment_id in scene.deployments.values():
                self._by_deployment[deployment_id] = scene

    # -- what processes do

    def script(self, run: Run) -> Iterator[Step]:
        """Yield what the process of a run does."""
        scene = self._by_deployment[str(run.deployment_id)]
        if run.deployment_id in scene.missing:
            deployment = self.fake.tables.deployments[str(run.deployment_id)]
            entrypoint = str(deployment["entrypoint"]).partition(":")[0]
            yield from self._failed(
                FileNotFoundError(2, "No such file or directory", entrypoint), loading=True
            )
            return
        if scene.retries:
            run.policy = run.policy | {"retries": FLOW_RETRIES, "retry_delay": FLOW_RETRY_DELAY}
        client = httpx.Client(
            transport=OutsideTransport(self.outside),
            base_url=address_of(scene.key),
            headers={RUN: run.id, ATTEMPT: str(run.run_count)},
        )
        client.post("/begin")
        job = SimulatedJob(run=run, scene=scene, stage=self, http=client)
        job.run_id, job.attempt = run.id, run.run_count
        job.parameters = dict(run.parameters.get("parameters") or {})
        deployment = self.fake.tables.deployments[str(run.deployment_id)]
        sizes = {**(deployment.get("job_variables") or {}), **(run.job_variables or {})}
        job.memory_mb = int(sizes.get("memory_mb") or MEMORY_MB)
        work = getattr(scene.world.__class__(scene.seed), scene.works[str(run.deployment_id)])
        try:
            yield from as_steps(lambda: work(job))
        except _Dies as death:
            yield Step(after=timedelta(0), exit_code=-death.number)
        except Exception as exc:
            yield from self._failed(exc)
        else:
            yield Step(after=timedelta(0), state="COMPLETED", message="All states completed.")

    @staticmethod
    def _failed(exc: Exception, *, loading: bool = False) -> Iterator[Step]:
        """Yield how Prefect says that a flow raised."""
        said = f"{type(exc).__name__}: {exc}"
        lines = "".join(traceback.format_exception(exc))
        if loading:
            message = f"Flow could not be retrieved from deployment.\n\n{lines}"
            yield Step(after=timedelta(0), state="FAILED", message=message, log=message)
            return
        log = f"Encountered exception during execution: {exc!r}\n{lines}"
        message = f"Flow run encountered an exception: {said}"
        yield Step(after=timedelta(0), state="FAILED", message=message, log=log)
