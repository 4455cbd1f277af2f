"""A child fails of something that passes, and its parent fails because of it."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class ChildTrouble(World):
    """The parent's work is what counts."""

    name = "child-trouble"
    about = "a child meets a passing 503, and its parent fails with it"

    def setup(self, scene: Scene) -> None:
        scene.deploy("nightly", "nightly")
        scene.deploy("rates", "rates")

    def drive(self, scene: Scene) -> None:
        scene.start("nightly")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run", "start_run"}),
            wrong=frozenset({"pause_deployment", "cancel_run", "resize_run"}),
            work=frozenset({"nightly"}),
            once=frozenset({"nightly"}),
        )

    def nightly(self, job: Job) -> None:
        ended = job.call("rates", f"rates-{job.attempt}")
        if ended != "COMPLETED":
            raise RuntimeError(f"rates ended {ended}")
        job.record("nightly", task="publish")

    def rates(self, job: Job) -> None:
        job.spend(0.3)
        job.http.get("/rates").raise_for_status()

    def answer(self, scene: Scene, request: Request) -> Answer:
        down = request.now < scene.fault() + scene.seconds(15)
        return Answer(status=503 if down else 200, body={})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED" and run["deployment_id"] == scene.deployments["nightly"]:
            hand.retry(run["id"], after=20)
