"""Workers and flow run processes, played over the clock of a fake server.

A worker polls its pool as Prefect's does: it proposes Pending for what it is handed, starts a process, ends it when the
run is cancelled and reports its end. What a process does is a script: steps in time, from the moment it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pilotage.flows.dev.fake_prefect.records import Json, Run, State, text_of
from pilotage.flows.dev.fake_prefect.rules import FORCED_RULES, Proposed
from pilotage.flows.dev.fake_prefect.server import FakePrefect
from pilotage.flows.dev.fake_prefect.work import handed_out, polled

PREFETCH = timedelta(seconds=10)
"""How long before it is due a run is taken, by default."""
BEAT = timedelta(seconds=30)
"""Between two heartbeats of a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that a process does."""

    after: timedelta
    """Since the step before it, or since the process runs."""
    state: str = ""
    """The type of state that it proposes for its run; empty for none."""
    name: str = ""
    message: str = ""
    log: str = ""
    """A line that it writes, as an error."""
    exit_code: int | None = None
    """With it the process ends without a word, and its worker says so."""


Script = Callable[[Run], Iterable[Step]]
"""What the process of a run does, asked for a step when the one before it is done. `run.run_count` says which attempt it
is. Without a last step it goes on for ever."""


def completes(after: timedelta) -> tuple[Step, ...]:
    """Return the steps of a process that completes its run."""
    return (Step(after=after, state="COMPLETED", message="All states completed."),)


def fails(after: timedelta, message: str) -> tuple[Step, ...]:
    """Return the steps of a process whose flow raises."""
    said = f"Flow run encountered an exception: {message}"
    return (Step(after=after, state="FAILED", message=said, log=said),)


def dies(after: timedelta, exit_code: int = -9) -> tuple[Step, ...]:
    """Return the steps of a process that is killed."""
    return (Step(after=after, exit_code=exit_code),)


@dataclass(slots=True, eq=False)
class Process:
    """The process of one attempt."""

    run: Run
    alive: bool = True


@dataclass(slots=True, kw_only=True, eq=False)
class SimulatedWorker:
    """One worker. It starts working when it is made, and works until `stop`."""

    server: FakePrefect
    pool: str
    script: Script
    name: str = "simulated"
    queues: tuple[str, ...] | None = None
    """The queues that it serves; None for all."""
    slots: int = 1000
    """Processes that it runs at a time."""
    poll: timedelta = timedelta(seconds=10)
    prefetch: timedelta = PREFETCH
    start_up: timedelta = timedelta(seconds=2)
    """From taking a run to its process running."""
    run_beat: timedelta | None = None
    """Between two heartbeats of a running flow; None for flows that send none."""
    processes: dict[str, Process] = field(default_factory=dict)
    """The living, by run."""
    _working: bool = True
    _heard: datetime | None = None

    def __post_init__(self) -> None:
        """Start: the first poll is due at once."""
        now = self.server.clock.now()
        self.server.engine.watchers.append(self._sees)
        self.server.agenda.at(now, self._turn)

    def stop(self) -> None:
        """Stop polling and be heard no more. Processes go on: they are the machine's."""
        self._working = False

    def kill(self) -> None:
        """Die together with every process, and report nothing."""
        self.stop()
        for process in self.processes.values():
            process.alive = False
        self.processes.clear()

    # -- the worker ---------------------------------------------------------------------------------------

    def _turn(self, now: datetime) -> None:
        if not self._working:
            return
        self.server.agenda.at(now + self.poll, self._turn)
        if self._heard is None or now - self._heard >= BEAT:
            self._heard = now
            beat = {"name": self.name, "heartbeat_interval_seconds": int(BEAT.total_seconds())}
            self.server.ask("POST", f"/work_pools/{self.pool}/workers/heartbeat", beat)
        polled(self.server.tables, self.pool, self.queues, now)
        free = self.slots - len(self.processes)
        pool = self.server.tables.pools[self.pool]
        if free > 0:
            for run in handed_out(self.server.tables, pool, self.queues, now + self.prefetch, limit=free):
                self._take(run, now)

    def _take(self, run: Run, now: datetime) -> None:
        ruling = self.server.engine.propose(run, Proposed(type="PENDING", name="Pending"), now)
        if ruling.status != "ACCEPT":
            return
        run.infrastructure_pid = f"{self.name}:{run.id[-6:]}"
        run.labels = run.labels | {"prefect.worker.name": self.name}
        process = self.processes[run.id] = Process(run)
        self._report(run, "submitted", now)
        self._after(self.start_up, process, self._run, now)

    def _sees(self, run: Run, state: State) -> None:
        """Notice that a run of ours is being cancelled; the worker looks again at its next poll."""
        process = self.processes.get(run.id)
        if state.type == "CANCELLING" and process is not None:
            self._after(self.poll, process, self._cancel, state.timestamp)

    def _cancel(self, process: Process, now: datetime) -> None:
        if process.run.state.type == "CANCELLING":
            cancelled = Proposed(type="CANCELLED", name="Cancelled", message="Flow run was cancelled.")
            self._end(process, now)
            self.server.engine.propose(process.run, cancelled, now)

    def _end(self, process: Process, now: datetime) -> None:
        process.alive = False
        if self.processes.get(process.run.id) is process:
            del self.processes[process.run.id]
        if self._working:
            self._report(process.run, "executed", now)

    def _report(self, run: Run, what: str, now: datetime) -> None:
        worker: Json = {
            "prefect.resource.id": f"prefect.worker.process.{self.name}",
            "prefect.resource.name": self.name,
            "prefect.worker-type": "process",
        }
        about = {
            "prefect.resource.id": f"prefect.flow-run.{run.id}",
            "prefect.resource.role": "flow-run",
            "prefect.resource.name": run.name,
        }
        event = {
            "occurred": text_of(now),
            "event": f"prefect.worker.{what}-flow-run",
            "resource": worker,
            "related": [about, *self.server.engine.related_to(run)],
        }
        self.server.engine.emit(event, now)

    # -- the process --------------------------------------------------------------------------------------

    def _after(
        self, pause: timedelta, process: Process, work: Callable[[Process, datetime], None], now: datetime
    ) -> None:
        def when_due(moment: datetime) -> None:
            if process.alive:
                work(process, moment)

        self.server.agenda.at(now + pause, when_due)

    def _run(self, process: Process, now: datetime) -> None:
        """Propose Running, as a flow does first of all; wait where it is told to."""
        ruling = self.server.engine.propose(process.run, Proposed(type="RUNNING", name="Running"), now)
        if ruling.status == "WAIT":
            self._after(timedelta(seconds=ruling.delay), process, self._run, now)
        elif ruling.status != "ACCEPT":
            self._end(process, now)
        else:
            self._beat(process, now)  # the first one comes with the start
            self._do(process, iter(self.script(process.run)), now)

    def _beat(self, process: Process, now: datetime) -> None:
        """Send the heartbeat of a flow, and the next one later, for as long as its process lives."""
        if self.run_beat is None or process.run.state.ended:
            return
        run = process.run
        event = {
            "occurred": text_of(now),
            "event": "prefect.flow-run.heartbeat",
            "resource": {
                "prefect.resource.id": f"prefect.flow-run.{run.id}",
                "prefect.resource.name": run.name,
            },
            "related": self.server.engine.related_to(run),
        }
        self.server.engine.emit(event, now)
        self._after(self.run_beat, process, self._beat, now)

    def _do(self, process: Process, steps: Iterator[Step], now: datetime) -> None:
        step = next(steps, None)
        if step is None:
            return

        def work(process: Process, moment: datetime) -> None:
            if self._goes_on(process, step, moment):
                self._do(process, steps, moment)

        self._after(step.after, process, work, now)

    def _goes_on(self, process: Process, step: Step, now: datetime) -> bool:
        """Take the step. Return whether the process has more to do."""
        run = process.run
        if run.state.type == "PAUSED":
            # a suspended process ends at its next task
            self._end(process, now)
            return False
        if step.log:
            self._write(run, step.log, now)
        if step.exit_code is not None:
            self._end(process, now)
            if self._working and not run.state.ended:
                said = f"Flow run process exited with non-zero status code {step.exit_code}."
                crashed = Proposed(type="CRASHED", name="Crashed", message=said)
                self.server.engine.propose(run, crashed, now, FORCED_RULES)
            return False
        if not step.state:
            return True
        name = step.name or step.state.capitalize()
        proposed = Proposed(type=step.state, name=name, message=step.message)
        ruling = self.server.engine.propose(run, proposed, now)
        if ruling.instead is not None and ruling.instead.name == "AwaitingRetry":
            due = run.next_scheduled_start_time or now
            self._after(max(due - now, timedelta(0)), process, self._run, now)
            return False
        if ruling.status != "ACCEPT" or run.state.ended:
            self._end(process, now)
            return False
        return True

    def _write(self, run: Run, message: str, now: datetime) -> None:
        line = {
            "name": "prefect.flow_runs",
            "level": 40,
            "message": message,
            "timestamp": text_of(now),
            "flow_run_id": run.id,
        }
        self.server.ask("POST", "/logs/", [line])
