"""A site on a real Prefect server, built over its API as clients and workers do it, without any worker process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from tests.flows.running_controller import eventually

from pilotage.flows.dev.embedded import EmbeddedPrefect

REPOSITORY = Path(__file__).parents[2]


class RealSite:
    """What people, workers and processes of runs do on one server."""

    def __init__(self, server: EmbeddedPrefect) -> None:
        self.server = server
        name, _, password = server.auth_string.partition(":")
        self._http = httpx.Client(base_url=server.api_url, auth=(name, password), timeout=30)
        self._polled: dict[str, list[str]] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End what was started."""
        self._http.close()
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return what the server answers, when its database is no longer busy. Fails the test where it refuses."""

        def answered() -> list[httpx.Response] | None:
            answer = self._http.request(method, path, json=body)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else [answer]

        (answer,) = eventually(answered, what=f"an answer to {method} {path}")
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def pool(self, name: str, *queues: str, **more: Any) -> str:
        """Return a new pool with these queues besides `default`."""
        self.ask("POST", "/work_pools/", {"name": name, "type": "process", **more})
        for queue in queues:
            self.ask("POST", f"/work_pools/{name}/queues", {"name": queue})
        return name

    def served(self, pool: str, *queues: str) -> None:
        """From now on a worker serves these queues of a pool: `beat` asks for their runs, and takes none."""
        self._polled[pool] = list(queues or ("default",))
        self.beat()

    def beat(self) -> None:
        """As living workers do every few seconds."""
        for pool, queues in self._polled.items():
            beat = {"name": f"worker-of-{pool}", "heartbeat_interval_seconds": 30}
            self.ask("POST", f"/work_pools/{pool}/workers/heartbeat", beat)
            self.ask("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", {"work_queue_names": queues})

    def deployment(self, name: str, pool: str = "", queue: str = "default", **more: Any) -> str:
        """Return the id of a new deployment."""
        flow = self.ask("POST", "/flows/", {"name": f"flow-{name}"})
        place = {"work_pool_name": pool, "work_queue_name": queue} if pool else {}
        body = {"name": name, "flow_id": flow["id"], **place, **more}
        return str(self.ask("POST", "/deployments/", body)["id"])

    def run(self, deployment_id: str, *states: str, **more: Any) -> str:
        """Return the id of a run that is due now and went through these states."""
        body = {"state": {"type": "SCHEDULED"}, **more}
        run_id = str(self.ask("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"])
        for state in states:
            self.moves(run_id, state)
        return run_id

    def moves(self, run_id: str, state: str) -> str:
        """Ask for a state as its process or worker does. Return the name of the one that it is in then."""
        body = {"state": {"type": state}, "force": False}
        self.ask("POST", f"/flow_runs/{run_id}/set_state", body)
        return str(self.ask("GET", f"/flow_runs/{run_id}")["state"]["name"])

    def limit(self, name: str, size: int = 1) -> None:
        """Make a limit, global or by tag (`tag:…`)."""
        self.ask("POST", "/v2/concurrency_limits/", {"name": name, "limit": size})

    def child(self, parent: str, deployment_id: str) -> str:
        """Return a run that another has started and waits for, as `run_deployment` does."""
        body = {"flow_run_id": parent, "task_key": "child", "dynamic_key": uuid4().hex}
        task = self.ask("POST", "/task_runs/", {**body, "state": {"type": "PENDING"}})
        return self.run(deployment_id, parent_task_run_id=task["id"])

    def happens(self, event: str, resource: str) -> None:
        """Send an event, as anybody may."""
        body = {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": {"prefect.resource.id": resource},
        }
        self.ask("POST", "/events", [body])

    def processes(self, runs: Mapping[str, str], log: Path) -> None:
        """Execute the parts of `tests.flows.waiting_flows` as these flow runs."""
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.flows.waiting_flows", json.dumps(runs)],
                env=self.server.env,
                cwd=REPOSITORY,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def schedule(every: timedelta) -> list[dict[str, Any]]:
    """A schedule of a fixed interval, first due after one of them, as the API takes it."""
    anchor = (datetime.now(UTC) + every).isoformat()
    return [{"schedule": {"interval": every.total_seconds(), "anchor_date": anchor}, "active": True}]
