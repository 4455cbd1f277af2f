"""A record in a run's input kills its process each time; each attempt may take others down with it."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World

MOST = 3
"""Attempts that may be made before it ought to be known."""


class Poison(World):
    """Dies at the same record whenever it is tried."""

    name = "poison"
    about = "an input that kills the process at every attempt"

    def setup(self, scene: Scene) -> None:
        scene.deploy("parse-feed", "parse")

    def drive(self, scene: Scene) -> None:
        scene.start("parse-feed")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner", "pause_deployment", "retry_run"}),
            wrong=frozenset({"resize_run"}),
            tell=True,
        )

    def parse(self, job: Job) -> None:
        job.http.post("/feed")
        job.spend(0.5)
        job.end_by_signal(11)

    def answer(self, scene: Scene, request: Request) -> Answer:
        if request.attempt > MOST:
            scene.harm(f"attempt {request.attempt} of a run that died alike each time")
        return Answer()

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "CRASHED":
            hand.tell(run["id"], "it dies at the same record each time")
