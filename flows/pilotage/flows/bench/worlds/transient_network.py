"""A call is cut off once: another attempt some seconds later gets through."""

from __future__ import annotations

import httpx

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class TransientNetwork(World):
    """The first calls of a run are answered 503 or cut off."""

    name = "transient-network"
    about = "the other side is away for some seconds"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.lasts = self.random.choice([3.0, 5.0, 8.0])
        self.cut = self.random.random() < 0.5

    def setup(self, scene: Scene) -> None:
        scene.deploy("fetch-quotes", "fetch")

    def drive(self, scene: Scene) -> None:
        scene.start("fetch-quotes")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run"}),
            wrong=frozenset({"pause_deployment", "cancel_run", "resize_run"}),
            work=frozenset({"quotes"}),
            once=frozenset({"quotes"}),
            attempts=2,
        )

    def fetch(self, job: Job) -> None:
        job.spend(0.5)
        answer = job.http.get("/quotes")
        if self.cut and answer.status_code == 503:
            raise httpx.ConnectError("[Errno 104] Connection reset by peer")
        answer.raise_for_status()
        job.record("quotes", task="store")

    def answer(self, scene: Scene, request: Request) -> Answer:
        if request.now < scene.fault() + scene.seconds(self.lasts):
            return Answer(status=503, body={"error": "upstream busy"})
        return Answer(body={"EURUSD": 1.08})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.retry(run["id"], after=self.lasts)
