"""The flow of every deployment of the bench on a real server: it does the method that its deployment names."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Literal, NoReturn

import httpx
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.deployments import run_deployment
from prefect.runtime import flow_run

from pilotage.flows.bench.arms import FLOW_RETRIES, FLOW_RETRY_DELAY
from pilotage.flows.bench.outside import ATTEMPT, RUN, ToOutside, address_of
from pilotage.flows.bench.round import world_class
from pilotage.flows.bench.scene import DEPLOYMENT, MEMORY_MB


class RealJob:
    """As `Job`, in the process of a flow run."""

    def __init__(self, own: dict[str, Any], parameters: dict[str, Any]) -> None:
        self.run_id = str(flow_run.id)
        self.attempt = int(flow_run.run_count)
        self.parameters = parameters
        given = os.environ.get("PILOTAGE_MEMORY", f"{MEMORY_MB} MiB")
        self.memory_mb = int(given.removesuffix("MiB"))
        self._scale = float(own["scale"])
        self._key = str(own["key"])
        headers = {RUN: self.run_id, ATTEMPT: str(self.attempt)}
        self.http = httpx.Client(
            transport=ToOutside(own["url"]), base_url=address_of(self._key), headers=headers, timeout=30
        )

    def spend(self, seconds: float) -> None:
        """As `Job`."""
        time.sleep(seconds * self._scale)

    def record(self, key: str, *, task: str = "") -> None:
        """As `Job`."""
        if not task:
            self.http.post("/effects", json={"key": key})
            return
        _effect.with_options(name=task)(self.http, key)

    def log(self, text: str, level: Literal["info", "warning", "error"] = "info") -> None:
        """As `Job`."""
        getattr(get_run_logger(), level)(text)

    def end_by_signal(self, number: int = 9) -> NoReturn:
        """As `Job`."""
        os.kill(os.getpid(), number)
        while True:
            time.sleep(1)

    def hang(self) -> NoReturn:
        """As `Job`."""
        while True:
            time.sleep(1)

    def call(self, deployment: str, name: str) -> str:
        """As `Job`."""
        started: Any = run_deployment  # what it is typed as depends on where it is called
        child = started(
            f"{self._key}-{deployment}/{DEPLOYMENT}",
            name=f"{self._key}-{name}",
            timeout=None,
            poll_interval=2,
        )
        return str(child.state.type.value)


@task(cache_policy=NO_CACHE)
def _effect(http: httpx.Client, key: str) -> None:
    http.post("/effects", json={"key": key}).raise_for_status()


@flow(name="work")
def work(parameters: dict[str, Any] | None = None) -> None:
    """Do the method of the world that this deployment is of."""
    own = json.loads(os.environ["PILOTAGE_BENCH"])
    if not own:
        return
    job = RealJob(own, dict(parameters or {}))
    job.http.post("/begin")
    getattr(world_class(str(own["source"]))(int(own["seed"])), str(own["work"]))(job)


work_with_retries = work.with_options(retries=FLOW_RETRIES, retry_delay_seconds=FLOW_RETRY_DELAY)
"""The same as Prefect's documentation advises it."""
