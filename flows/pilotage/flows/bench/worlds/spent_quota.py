"""A paid quota is used up until its owner raises it."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World


class SpentQuota(World):
    """Not too fast, but too much."""

    name = "spent-quota"
    about = "a paid quota is used up; only its owner can raise it"

    def setup(self, scene: Scene) -> None:
        scene.deploy("embed-documents", "embed")

    def drive(self, scene: Scene) -> None:
        scene.start("embed-documents")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner"}),
            wrong=frozenset({"retry_run", "resize_run"}),
            tell=True,
        )

    def embed(self, job: Job) -> None:
        job.spend(0.3)
        answer = job.http.post("/embeddings")
        if answer.is_error:
            job.log(str(answer.json()["error"]["message"]), "error")
            raise RuntimeError(f"Error code: 429 - {answer.json()}")
        job.record("embedded")

    def answer(self, scene: Scene, request: Request) -> Answer:
        error = {
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
        }
        return Answer(status=429, body={"error": error})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "the quota is used up")
