"""Sets the demo up, starts its incidents on real runs, waits for the loop to deal with them, and takes it all down.

The runner acts for the outside only: the people who start runs, the approver, whoever repairs the warehouse. Nothing
here diagnoses, decides or injects; that is `pilotage up`, a process of its own, exactly as on anybody's server.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pilotage.flows.api.client import ApiClient
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.demo.client import WITHIN, DemoClient
from pilotage.flows.demo.fake_services import FakeServices
from pilotage.flows.demo.patience import FIRST_RUN, HISTORY, SERVER_START, Patience
from pilotage.flows.demo.scenarios import ACTS, Act, Observation, belongs, row_of
from pilotage.flows.demo.spending import Phases, cpu_seconds
from pilotage.flows.dev.embedded import EmbeddedPrefect
from pilotage.policies.identity.users import IdentityBook
from pilotage.telemetry.errors import ApiError, OrchestratorError

SLOTS = 3
"""Concurrency limit of the demo's pool."""
BACKLOG = 2 * SLOTS
"""Long reports that take the slots, so that two rounds of them stand before the queue that is served last."""
LONG_REPORT = timedelta(seconds=7)
DOOMED_AFTER = timedelta(seconds=18)
"""From the start of the incidents to the time for which the doomed run is scheduled."""
OUTAGE_ENDS_AFTER = timedelta(seconds=10)
"""From the start of the incidents to the end of the warehouse's outage."""
DEADLINE_AFTER = timedelta(minutes=2)
"""These four, and the planner's waits below, are for two idle cores; a slower machine gets more of each."""

WORKER = {"PREFECT_CLIENT_MAX_RETRIES": "20"}
"""On a busy machine SQLite answers 503 for longer than the five tries for which a worker waits by default, and a run
of which the worker gives up crashes for no reason that a story of the demo is about."""
SET_UP_STEP = timedelta(minutes=3)
"""How long the deploying, the history and the start of `pilotage up` may each take; more on a slower machine."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the runs and proposals."""

SETTINGS = """\
mode = "auto"
webhook_url = "{world}/pager"

[loop]
queue_interval = "PT2S"
tick = "PT0.5S"

[planner]
{planner}
"""

PLANNER: Mapping[str, timedelta] = {
    "retry_delay": timedelta(seconds=1),
    "dependency_delay": timedelta(seconds=5),
    "minimum_notice": timedelta(seconds=8),
    "hold_back": timedelta(seconds=8),
    "starved_after": timedelta(seconds=3),
    "reserve_hold": timedelta(minutes=3),
}
"""The demo is short, so a wait counts as long sooner than on a real server."""


@dataclass(slots=True, kw_only=True)
class DemoRunner:
    """One performance."""

    say: Callable[[str], None]
    llm_url: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    """Run ids by key, as `Act.run_key` names them."""
    phases: Phases = field(default_factory=Phases)
    patience: Patience = field(default_factory=Patience)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _prefect: EmbeddedPrefect | None = None
    _world: FakeServices | None = None
    _paths: StatePaths | None = None
    _tokens: dict[str, str] = field(default_factory=dict)
    _up: subprocess.Popen[bytes] | None = None
    _outage_ends: float = float("inf")

    @property
    def prefect(self) -> EmbeddedPrefect:
        """The embedded server, once set up."""
        if self._prefect is None:
            raise OrchestratorError(
                "Asking for the demo's Prefect server: the stage is not set up. Call set_up first."
            )
        return self._prefect

    @property
    def paths(self) -> StatePaths:
        """The state directory of the demo, once set up."""
        if self._paths is None:
            raise OrchestratorError(
                "Asking for the demo's state: the stage is not set up. Call set_up first."
            )
        return self._paths

    def set_up(self) -> None:
        """Everything runs when it returns: server, worker, history, `pilotage up`, two people with tokens."""
        root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-")))
        phase = self.phases.phase
        world = self._world = self._stack.enter_context(FakeServices())
        self.say("starting a Prefect server of our own")
        with phase("start the Prefect server"):
            prefect = self._prefect = EmbeddedPrefect(root / "prefect", ui=True, preload=True)
            self._stack.enter_context(prefect)
        self.patience.learn(self.phases.seconds["start the Prefect server"], idle=SERVER_START)
        self.say(f"Prefect answers at {prefect.ui_url}")
        with phase("deploy nine flows"):
            prefect.create_pool(concurrency_limit=SLOTS)
            worker = prefect.launch_worker(settings=WORKER)
            prefect.deploy_examples(within=self.patience.scaled(SET_UP_STEP))
        self.say("nine flows are deployed; running eleven of their runs for a history")
        with phase("run a history"):
            quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL"}
            prefect.run_module(
                "pilotage.flows.demo.seed", world.url, env=quiet, within=self.patience.scaled(SET_UP_STEP)
            )
        self.patience.learn(self.phases.seconds["run a history"], idle=HISTORY)
        with phase("start `pilotage up`"):
            self._paths = StatePaths(root=root / "state")
            self._people()
            self._write_settings()
            self._start_up()
            prefect.await_worker(worker)
            self.say("a process worker is online")
            self._wait_for_api()
        self.say("pilotage is running, in auto mode, with " + (self._model() or "no language model"))

    def play(self) -> list[dict[str, Any]]:
        """The rows of the result; see `acts.row_of`."""
        with (
            DemoClient(
                self.prefect.api_url, self.prefect.auth_string, within=self.patience.scaled(WITHIN)
            ) as client,
            self.phases.phase("tell the stories"),
        ):
            return self._play(client)

    def _play(self, client: DemoClient) -> list[dict[str, Any]]:
        self._open_incidents(client)
        began = time.monotonic()
        self.patience.begin()
        stages: dict[str, str] = {}
        ended: dict[tuple[int, str], float] = {}
        backlog = first = False
        while True:
            if self._up is not None and self._up.poll() is not None:
                raise OrchestratorError(
                    f"Watching `pilotage up`: it ended with code {self._up.returncode}:\n{self._up_log()}"
                )
            since = time.monotonic() - began
            if since > self._outage_ends and self._world is not None:
                self._world.end_outage()
                self._outage_ends = float("inf")
                self.say("the warehouse is repaired")
            runs = {key: client.run(run_id) for key, run_id in self.runs.items()}
            rows = self._look(runs, stages)
            if not first and any(_ended_once(run) for run in runs.values()):
                first = True
                self.patience.learn(since, idle=FIRST_RUN)
            if not backlog and all(_ended_once(run) for key, run in runs.items() if key != "at_risk"):
                self._fill_the_queues(client)
                backlog = True
            for row in rows:
                if row["ok"]:
                    ended.setdefault((row["case"], row["title"]), round(since, 1))
                row["ended_after"] = ended.get((row["case"], row["title"]))
            if all(row["ok"] for row in rows):
                return rows
            states = {key: (run["state_name"], run["run_count"]) for key, run in runs.items()}
            if self.patience.has_run_out((dict(stages), states)):
                for row in rows:
                    if row["waits_for"]:
                        self.say(f"{row['title']}: not ended; it waits for {row['waits_for']}")
                return rows
            time.sleep(LOOK_EVERY)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds so far, by process."""
        up = {"pilotage up and its agent": self._up.pid} if self._up is not None else {}
        return cpu_seconds({**self.prefect.processes(), **up})

    def take_down(self) -> None:
        """Stop every process of the demo and delete its sockets and files."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._up.pid, signal.SIGKILL)
                self._up.wait()
        self._stack.close()

    def urls(self) -> dict[str, str]:
        """What a person needs to look around while everything is left running."""
        return {
            "Prefect UI": self.prefect.ui_url,
            "Prefect user:password": self.prefect.auth_string,
            "state directory": str(self.paths.root),
            "approver's token": str(self.paths.root / "ann.token"),
        }

    def _open_incidents(self, client: DemoClient) -> None:
        world = self._world.url if self._world else ""
        key = secrets.token_hex(4)
        start = client.start
        self.runs["at_risk"] = start(
            "sync-warehouse",
            parameters={"source_url": f"{world}/warehouse"},
            after=self.patience.scaled(DOOMED_AFTER),
        )
        self._outage_ends = self.patience.scaled(OUTAGE_ENDS_AFTER).total_seconds()
        self.runs["transient"] = start("fetch-quotes", parameters={"source_url": f"{world}/quotes/{key}"})
        self.runs["credentials"] = start("push-ledger", parameters={"source_url": f"{world}/ledger"})
        self.runs["killed"] = start("settle-trades", parameters={"die_once": True})
        self.runs["production"] = start("nightly-close", parameters={"die_once": True})
        self.runs["memory"] = start("build-features")
        self.runs["tier0"] = start("payments")
        self.say("seven runs are on their way, each with a fault of its own")

    def _fill_the_queues(self, client: DemoClient) -> None:
        seconds = self.patience.scaled(LONG_REPORT).total_seconds()
        for _ in range(BACKLOG):
            client.start("long-report", parameters={"seconds": seconds})
        client.start("quick-report", parameters={"seconds": 0.5})
        deadline = (datetime.now(UTC) + self.patience.scaled(DEADLINE_AFTER)).isoformat(timespec="seconds")
        self.runs["deadline"] = client.start(
            "quick-report", parameters={"seconds": 0.5}, tags=(f"deadline:{deadline}",)
        )
        self.say("the queue `high` takes every slot; two runs wait in `low`, the last with a near deadline")

    def _look(self, runs: Mapping[str, Mapping[str, Any]], stages: dict[str, str]) -> list[dict[str, Any]]:
        control_api = self._control_api("ann")
        details = [
            control_api.call("proposal", proposal_id=row["proposal_id"])
            for row in control_api.call("proposals", limit=200)
        ]
        for detail in details:
            self._tell(stages, detail)
            if detail["status"] == "needs_approval" and not detail["votes"]:
                control_api.call(
                    "vote",
                    proposal_id=detail["proposal_id"],
                    digest=detail["digest"],
                    decision="approve",
                    reason="the close must be in before the markets open",
                )
                self.say(f"ann approved {detail['proposal_id']}")
        rows = []
        for act in ACTS:
            run = runs.get(act.run_key, {})
            mine = self._belonging(act, details, run)
            injected = frozenset(
                str(detail["action"]["kind"])
                for detail in details
                if detail["target"] == f"run:{run.get('id')}"
                and detail["status"] in ("delivered", "verified", "failed", "undone", "unknown")
            )
            story = control_api.call("why", subject=mine["proposal_id"]) if mine else []
            observation = Observation(detail=mine, story=story) if mine else None
            rows.append(row_of(act, observation, run=run, ui_url=self.prefect.ui_url, injected=injected))
        return rows

    def _belonging(
        self, act: Act, details: list[dict[str, Any]], run: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        if not run:
            return None
        return next(
            (
                detail
                for detail in reversed(details)
                if belongs(act, detail, run_id=str(run["id"]), deployment_id=str(run.get("deployment_id")))
            ),
            None,
        )

    def _tell(self, stages: dict[str, str], detail: Mapping[str, Any]) -> None:
        key, status = str(detail["proposal_id"]), str(detail["status"])
        if stages.get(key) != status:
            stages[key] = status
            case = detail["case"]
            names = {run_id: name for name, run_id in self.runs.items()}
            subject = str(detail["target"]).partition(":")[2]
            self.say(
                f"{key} {names.get(subject, subject[:20])}: {case['failure_class']} → {detail['action']['kind']}: {status}"
            )

    def _people(self) -> None:
        self.paths.root.mkdir(parents=True, mode=0o700)
        book = IdentityBook(self.paths.users)
        self._tokens = {
            "pat": book.add("pat", roles=("operator", "admin"), teams=("platform",)),
            "ann": book.add("ann", roles=("approver",), teams=("finance",)),
        }
        for name, token in self._tokens.items():
            path = self.paths.root / f"{name}.token"
            path.touch(mode=0o600)
            path.write_text(token + "\n")
        self.paths.token.touch(mode=0o600)
        self.paths.token.write_text(self._tokens["pat"] + "\n")

    def _write_settings(self) -> None:
        world = self._world.url if self._world else ""
        waits = {key: self.patience.scaled(wait).total_seconds() for key, wait in PLANNER.items()}
        text = SETTINGS.format(
            world=world, planner="\n".join(f'{key} = "PT{seconds:.0f}S"' for key, seconds in waits.items())
        )
        if self.llm_url:
            text += f'\n[llm]\nbase_url = "{self.llm_url}"\napi_key = "scripted"\nmodel = "scripted"\ntimeout = "PT5S"\n'
        self.paths.config.write_text(text)

    def _model(self) -> str:
        if self.llm_url:
            return f"a model at {self.llm_url}"
        return "the configured model" if any(key.startswith("PILOTAGE_LLM__") for key in os.environ) else ""

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key.startswith("PILOTAGE_LLM__")}
        return {
            **self.prefect.env,
            **kept,
            "PILOTAGE_STATE_DIR": str(self.paths.root),
            "PILOTAGE_CONFIG": str(self.paths.config),
        }

    def _start_up(self) -> None:
        with (self.paths.root / "up.log").open("ab") as log:
            self._up = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "pilotage.flows.dev.supervised_child",
                    str(os.getpid()),
                    "pilotage.console",
                    "up",
                ],
                env=self._environment(),
                cwd=self.paths.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_api(self) -> None:
        deadline = time.monotonic() + self.patience.scaled(SET_UP_STEP).total_seconds()
        while True:
            try:
                if self._control_api("pat").call("status")["collector"].get("connected"):
                    return
            except ApiError as exc:
                if self._up is None or self._up.poll() is not None or time.monotonic() > deadline:
                    raise OrchestratorError(f"Starting `pilotage up`: {exc}\n{self._up_log()}") from exc
            if time.monotonic() > deadline:
                raise OrchestratorError(
                    f"Starting `pilotage up`: the collector did not connect.\n{self._up_log()}"
                )
            time.sleep(0.2)

    def _up_log(self) -> str:
        path = self.paths.root / "up.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-25:])

    def _control_api(self, name: str) -> ApiClient:
        return ApiClient(self.paths.api_socket, self._tokens[name])


def _ended_once(run: Mapping[str, Any]) -> bool:
    """Return whether the run has let go of its slot once."""
    return run["run_count"] > 1 or run["state_type"] in ("FAILED", "CRASHED", "COMPLETED")
