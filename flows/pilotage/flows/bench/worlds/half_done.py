"""A payment went out before the run failed: another attempt pays twice."""

from __future__ import annotations

import httpx

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class HalfDone(World):
    """The effect is there, and the run says Failed."""

    name = "half-done"
    about = "failed after its effect: another attempt doubles it"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.how = self.random.choice(["timed out", "reset"])

    def setup(self, scene: Scene) -> None:
        scene.deploy("pay-suppliers", "pay", tags=("pilotage:not-repeatable",))

    def drive(self, scene: Scene) -> None:
        scene.start("pay-suppliers")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner"}),
            wrong=frozenset({"retry_run", "resize_run"}),
            once=frozenset({"payment"}),
            tell=True,
        )

    def pay(self, job: Job) -> None:
        job.spend(0.5)
        job.record("payment", task="send-payment")
        job.spend(0.5)
        if self.how == "timed out":
            raise httpx.ReadTimeout("The read operation timed out")
        raise httpx.ReadError("[Errno 104] Connection reset by peer")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "the payment may have gone out")
