"""A key is refused: no retry helps, and three refusals lock the account."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World

LOCKED_AT = 3
"""Refusals after which the other side locks the account."""


class PermanentAuth(World):
    """A flow whose key has been revoked."""

    name = "permanent-auth"
    about = "a revoked key; the third refusal locks the account"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.status = self.random.choice([401, 403])

    def setup(self, scene: Scene) -> None:
        scene.deploy("push-ledger", "push")

    def drive(self, scene: Scene) -> None:
        scene.start("push-ledger")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner", "pause_deployment"}),
            wrong=frozenset({"retry_run", "resize_run"}),
            tell=True,
        )

    def push(self, job: Job) -> None:
        job.spend(0.3)
        job.http.post("/ledger", json={"rows": 3}).raise_for_status()
        job.record("pushed")

    def answer(self, scene: Scene, request: Request) -> Answer:
        if request.attempt == LOCKED_AT:
            scene.harm("the account was locked by repeated refusals")
        return Answer(status=self.status, body={"error": "invalid credentials"})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "the key was refused")
