"""A dependency comes and goes for the better part of a minute."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class Flapping(World):
    """Up, down and up again."""

    name = "flapping"
    about = "a dependency comes and goes for the better part of a minute"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.steady = self.random.choice([35.0, 45.0, 55.0])

    def setup(self, scene: Scene) -> None:
        scene.deploy("read-prices", "read")

    def drive(self, scene: Scene) -> None:
        scene.start("read-prices")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run", "raise_retries"}),
            wrong=frozenset({"pause_deployment", "cancel_run", "resize_run"}),
            work=frozenset({"prices"}),
            once=frozenset({"prices"}),
            attempts=2,
        )

    def read(self, job: Job) -> None:
        job.http.get("/catalogue").raise_for_status()
        job.spend(4)
        job.http.get("/prices").raise_for_status()
        job.record("prices", task="store")

    def answer(self, scene: Scene, request: Request) -> Answer:
        gone = (request.now - scene.fault()) / scene.seconds(1)
        first_half = request.path == "/catalogue"
        if gone >= self.steady or (first_half and request.attempt == 1):
            return Answer(body={})
        return Answer(status=502, body={"error": "bad gateway"})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.retry(run["id"], after=self.steady)
