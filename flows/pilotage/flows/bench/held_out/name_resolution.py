"""A name cannot be resolved for a while."""

from __future__ import annotations

import socket

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class NameResolution(World):
    """A resolver that comes back."""

    name = "name-resolution"
    about = "a resolver is away for some twenty seconds"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.lasts = self.random.choice([14.0, 20.0, 28.0])

    def setup(self, scene: Scene) -> None:
        scene.deploy("mirror-feed", "mirror")

    def drive(self, scene: Scene) -> None:
        scene.start("mirror-feed")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run"}),
            wrong=frozenset({"pause_deployment", "cancel_run", "resize_run"}),
            work=frozenset({"mirrored"}),
            once=frozenset({"mirrored"}),
        )

    def mirror(self, job: Job) -> None:
        job.spend(0.4)
        if job.http.get("/feed").is_error:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        job.record("mirrored", task="store")

    def answer(self, scene: Scene, request: Request) -> Answer:
        return Answer(status=502 if request.now < scene.fault() + scene.seconds(self.lasts) else 200)

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.retry(run["id"], after=self.lasts)
