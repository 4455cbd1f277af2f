"""A passing fault in production: policy wants a person for each change."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class Production(World):
    """A 503 in something that pays salaries."""

    name = "production"
    about = "a passing fault in production, where every change needs a person"

    def setup(self, scene: Scene) -> None:
        scene.deploy("salaries", "pay", tags=("env:prod", "tier:0"))

    def drive(self, scene: Scene) -> None:
        scene.start("salaries")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"retry_run", "notify_owner"}),
            wrong=frozenset({"pause_deployment", "cancel_run"}),
            tell=True,
            needs_person=True,
        )

    def pay(self, job: Job) -> None:
        job.spend(0.3)
        job.http.get("/bank").raise_for_status()
        job.record("paid", task="pay")

    def answer(self, scene: Scene, request: Request) -> Answer:
        return Answer(status=503 if request.attempt == 1 else 200, body={"error": "upstream busy"})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "approve another attempt")
