"""An image without a library was rolled out to three deployments."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World

FLOWS = ("score-leads", "score-churn", "score-risk")


class MissingModule(World):
    """Each attempt meets the same."""

    name = "missing-module"
    about = "three deployments lack a library since the last roll-out; an attempt more meets the same"

    def setup(self, scene: Scene) -> None:
        for flow in FLOWS:
            scene.deploy(flow, "score")

    def drive(self, scene: Scene) -> None:
        for number, flow in enumerate(FLOWS):
            scene.start(flow, flow, after=3 * number)

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner", "pause_deployment"}),
            wrong=frozenset({"retry_run", "resize_run", "cancel_run"}),
            tell=True,
        )

    def score(self, job: Job) -> None:
        job.spend(0.2)
        raise ModuleNotFoundError("No module named 'lightgbm'")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "the image lacks a library")
