"""The ways to deal with trouble that are compared: each looks once a second and acts, and notes what it did.

Pilotage is no arm of this module: it is the product, started as a user starts it (`real.py`, `simulated.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from pilotage.flows.bench.world import Json, Scene, World
from pilotage.telemetry.errors import OrchestratorError

ArmName = Literal["nothing", "automations", "blind_retry", "pilotage", "pilotage_llm", "oracle"]
ARMS: tuple[ArmName, ...] = ("nothing", "automations", "blind_retry", "pilotage", "pilotage_llm", "oracle")

RETRY_AFTER = 10.0
"""Seconds before a blind retry, as pilotage's own first one by default."""
MOST_ATTEMPTS = 4
"""Attempts, the first included, that a blind retry makes; as pilotage's own by default."""
FLOW_RETRIES = 3
"""Retries of a flow as Prefect's documentation sets them (`retries=3`), in the arm of automations."""
FLOW_RETRY_DELAY = 10
"""Seconds between them (`retry_delay_seconds=10`)."""
HEARTBEAT = 30
"""Seconds between two heartbeats of a flow (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY`), in every arm."""
SILENT_FOR = 90
"""Seconds without a heartbeat after which the documented automation calls a run Crashed."""


BEAT_EVENT = "prefect.flow-run.heartbeat"
ZOMBIE = "Flow run marked as crashed due to missing heartbeats."
"""What the documented automation says of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One change that an arm made."""

    at: datetime
    kind: str
    """As the levers are named."""
    target: str
    """`run:ID`, `deployment:ID` or `queue:POOL/QUEUE`."""
    detail: str = ""
    asked: bool = False
    """Whether a person let it through."""
    undone: bool = False


class Stage(Protocol):
    """Where arms act."""

    scenes: list[tuple[World, Scene]]
    plays_automations: bool
    """Whether Prefect's automations are played here, since the server has none."""

    def now(self) -> datetime:
        """Return the time."""

    def seconds(self, seconds: float) -> timedelta:
        """Return a stretched span."""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Prefect. Raises OrchestratorError."""


def awaiting_retry(now: datetime, after: timedelta, by: str) -> Json:
    """Return the body that tries an ended run again."""
    due = {"scheduled_time": (now + after).isoformat()}
    return {
        "state": {"type": "SCHEDULED", "name": "AwaitingRetry", "message": by, "state_details": due},
        "force": False,
    }


def every_run(ask: Callable[..., Any], deployments: Iterable[str], **state: Any) -> list[Json]:
    """Return the runs of these deployments, page by page."""
    wanted: Json = {"deployment_id": {"any_": list(deployments)}}
    if state:
        wanted["state"] = state
    found: list[Json] = []
    while True:
        page = ask(
            "POST",
            "/flow_runs/filter",
            {"flow_runs": wanted, "limit": 200, "offset": len(found), "sort": "ID_DESC"},
        )
        found += page
        if len(page) < 200:
            return found


@dataclass(slots=True)
class Nothing:
    """Nobody does anything."""

    stage: Stage
    deeds: list[Deed] = field(default_factory=list)

    def tick(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class BlindRetry:
    """Every failed or crashed run is tried again, whatever it failed of."""

    stage: Stage
    deeds: list[Deed] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def tick(self) -> None:
        """Try again what has failed since."""
        deployments = [each for _, scene in self.stage.scenes for each in deployments_of(scene)]
        for run in every_run(self.stage.ask, deployments, type={"any_": ["FAILED", "CRASHED"]}):
            if run["state_id"] in self._seen or run["run_count"] >= MOST_ATTEMPTS:
                continue
            self._seen.add(run["state_id"])
            body = awaiting_retry(self.stage.now(), self.stage.seconds(RETRY_AFTER), "retried blindly")
            self.stage.ask("POST", f"/flow_runs/{run['id']}/set_state", body)
            self.deeds.append(Deed(at=self.stage.now(), kind="retry_run", target=f"run:{run['id']}"))


@dataclass(slots=True)
class Automations:
    """What Prefect's documentation advises: retries of the flow, which `Scene.deploy` sets, and two automations.

    One calls a run Crashed that has sent no heartbeat for a while, one sends a notification when a run has failed
    or crashed. Where the server has automations they are made there; a simulated one has them played here.
    """

    stage: Stage
    deeds: list[Deed] = field(default_factory=list)

    def tick(self) -> None:
        """Play what no server does."""
        if not self.stage.plays_automations:
            return
        deployments = [each for _, scene in self.stage.scenes for each in deployments_of(scene)]
        now, silence = self.stage.now(), self.stage.seconds(SILENT_FOR)
        for run in every_run(self.stage.ask, deployments, type={"any_": ["RUNNING"]}):
            if now - datetime.fromisoformat(run["state"]["timestamp"]) < silence or self._heard(
                run["id"], now - silence
            ):
                continue
            said = {"type": "CRASHED", "name": "Crashed", "message": ZOMBIE}
            self.stage.ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": said, "force": True})

    def _heard(self, run_id: str, since: datetime) -> bool:
        wanted = {
            "occurred": {"since": since.isoformat(), "until": self.stage.now().isoformat()},
            "event": {"name": [BEAT_EVENT]},
            "resource": {"id": [f"prefect.flow-run.{run_id}"]},
        }
        return bool(self.stage.ask("POST", "/events/filter", {"filter": wanted, "limit": 1})["events"])


def deployments_of(scene: Scene) -> tuple[str, ...]:
    """Return the ids of a scene's deployments."""
    return tuple(scene.deployments.values())


@dataclass(slots=True)
class Oracle:
    """Does what the worlds say is right: it shows that each fault can be won."""

    stage: Stage
    deeds: list[Deed] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def tick(self) -> None:
        """Show each world its runs that are in a new state, then let it look round."""
        owners = {each: pair for pair in self.stage.scenes for each in deployments_of(pair[1])}
        for run in every_run(self.stage.ask, owners) if owners else ():
            if run["state_id"] not in self._seen:
                self._seen.add(run["state_id"])
                world, scene = owners[run["deployment_id"]]
                world.oracle(scene, OracleHand(self, scene), run)
        for world, scene in self.stage.scenes:
            world.watch(scene, OracleHand(self, scene))


@dataclass(slots=True)
class OracleHand:
    """As `Hand`."""

    oracle: Oracle
    scene: Scene

    def _note(self, kind: str, target: str, detail: str = "") -> None:
        self.oracle.deeds.append(Deed(at=self.scene.now(), kind=kind, target=target, detail=detail))

    def _propose(self, run_id: str, body: Json) -> None:
        self.scene.ask("POST", f"/flow_runs/{run_id}/set_state", body)

    def retry(self, run_id: str, *, after: float = 0, **parameters: Any) -> None:
        """As `Hand`."""
        if parameters:
            given = self.scene.run(run_id)["parameters"]
            changed = {**given, "parameters": {**given.get("parameters", {}), **parameters}}
            self.scene.ask("PATCH", f"/flow_runs/{run_id}", {"parameters": changed})
        # a worker that has not let go of the attempt yet would be confused
        after = max(after, 3.0)
        self._propose(run_id, awaiting_retry(self.scene.now(), self.scene.seconds(after), "the oracle"))
        self._note("change_parameters" if parameters else "retry_run", f"run:{run_id}")

    def resize(self, run_id: str, memory_mb: int) -> None:
        """As `Hand`."""
        body = awaiting_retry(self.scene.now(), self.scene.seconds(5), "the oracle")
        self._propose(run_id, body)
        variables = {**(self.scene.run(run_id).get("job_variables") or {}), "memory_mb": memory_mb}
        self.scene.ask("PATCH", f"/flow_runs/{run_id}", {"job_variables": variables})
        self._note("resize_run", f"run:{run_id}")

    def cancel(self, run_id: str) -> None:
        """As `Hand`."""
        self._propose(run_id, {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False})
        self._note("cancel_run", f"run:{run_id}")

    def crash(self, run_id: str) -> None:
        """As `Hand`."""
        said = {"type": "CRASHED", "name": "Crashed", "message": "the oracle knows that it is dead"}
        self._propose(run_id, {"state": said, "force": False})
        self._note("mark_crashed", f"run:{run_id}")

    def remedy(self, deployment: str) -> str:
        """As `Hand`."""
        run_id = self.scene.start(deployment, "remedy")
        self._note("launch_remediation", f"run:{run_id}")
        return run_id

    def pause(self, deployment: str) -> None:
        """As `Hand`."""
        deployment_id = self.scene.deployments[deployment]
        self.scene.ask("POST", f"/deployments/{deployment_id}/pause_deployment")
        self._note("pause_deployment", f"deployment:{deployment_id}")

    def turn(self, kind: str, target: str, method: str, path: str, body: Any = None) -> Any:
        """As `Hand`."""
        answer = self.scene.ask(method, path, body)
        self._note(kind, target)
        return answer

    def start(self, deployment: str, name: str) -> str:
        """As `Hand`."""
        run_id = self.scene.start(deployment, name)
        self._note("start_run", f"run:{run_id}")
        return run_id

    def tell(self, run_id: str, text: str) -> None:
        """As `Hand`."""
        self._note("notify_owner", f"run:{run_id}", text)


TICKING: Mapping[str, Callable[[Stage], Nothing | Automations | BlindRetry | Oracle]] = {
    "nothing": Nothing,
    "automations": Automations,
    "blind_retry": BlindRetry,
    "oracle": Oracle,
}
"""Arms that this module plays."""


def patiently(tick: Callable[[], None]) -> str:
    """Tick once. Return what went wrong with Prefect, which the next tick tries again, or an empty text."""
    try:
        tick()
    except OrchestratorError as exc:
        return str(exc)
    return ""
