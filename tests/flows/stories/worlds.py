"""The world of a storm: many runs of several deployments meet one warehouse that is away for three minutes."""

from __future__ import annotations

import os

import httpx

from pilotage.flows.bench.world import Answer, Job, Request, Scene, Truth, World

RUNS = int(os.environ.get("STORM_RUNS", "24"))
DEPLOYMENTS = int(os.environ.get("STORM_DEPLOYMENTS", "4"))
OUTAGE = 180.0
"""Seconds for which the warehouse is away, from the first call."""
WITHIN = 110.0
"""Seconds in which all runs start."""


class Storm(World):
    """Each run loads one row; what is loaded twice would be there twice."""

    name = "storm"
    about = "many runs of several deployments fail within two minutes of one shared cause"

    def setup(self, scene: Scene) -> None:
        for number in range(DEPLOYMENTS):
            scene.deploy(f"load-{number:02d}", "load")

    def drive(self, scene: Scene) -> None:
        for number in range(RUNS):
            scene.start(
                f"load-{number % DEPLOYMENTS:02d}",
                f"run-{number:03d}",
                after=number * WITHIN / RUNS,
                row=number,
            )

    def truth(self) -> Truth:
        rows = frozenset(f"row-{number:03d}" for number in range(RUNS))
        return Truth(
            remediable=True, work=rows, once=rows, wrong=frozenset({"pause_deployment", "cancel_run"})
        )

    def load(self, job: Job) -> None:
        job.spend(0.5)
        if job.http.post("/warehouse", json={}).status_code == 503:
            raise httpx.ConnectError("[Errno 111] Connection refused: warehouse.internal:5439")
        job.record(f"row-{int(job.parameters['row']):03d}", task="load")

    def answer(self, scene: Scene, request: Request) -> Answer:
        down = request.now < scene.fault() + scene.seconds(OUTAGE)
        return Answer(status=503 if down else 200, body={})
