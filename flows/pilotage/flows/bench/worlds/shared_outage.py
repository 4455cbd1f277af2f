"""Something that three deployments share is away for three minutes."""

from __future__ import annotations

import httpx

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World

LASTS = 180
"""Seconds from the first attempt of any of the runs."""
FLOWS = ("load-orders", "load-stock", "load-prices")


class SharedOutage(World):
    """A warehouse that refuses connections."""

    name = "shared-outage"
    about = "a warehouse that three deployments load into is away for three minutes"

    def setup(self, scene: Scene) -> None:
        for flow in FLOWS:
            scene.deploy(flow, "load", table=flow)

    def drive(self, scene: Scene) -> None:
        for number, flow in enumerate(FLOWS):
            scene.start(flow, flow, after=2 * number)

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run", "hold_queue", "release_queue"}),
            wrong=frozenset({"pause_deployment", "cancel_run", "resize_run"}),
            work=frozenset(FLOWS),
            once=frozenset(FLOWS),
            attempts=2 * len(FLOWS),
        )

    def load(self, job: Job) -> None:
        job.spend(0.5)
        answer = job.http.post("/warehouse", json={})
        if answer.status_code == 503:
            raise httpx.ConnectError("[Errno 111] Connection refused: warehouse.internal:5439")
        job.record(str(job.parameters["table"]), task="load")

    def answer(self, scene: Scene, request: Request) -> Answer:
        down = request.now < scene.fault() + scene.seconds(LASTS)
        return Answer(status=503 if down else 200, body={})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            left = (scene.fault() + scene.seconds(LASTS) - scene.now()) / scene.seconds(1)
            hand.retry(run["id"], after=left + 2)
