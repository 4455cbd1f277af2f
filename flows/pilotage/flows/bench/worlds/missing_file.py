"""The flow's file is not where its deployment says it is."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class MissingFile(World):
    """A deployment that was moved."""

    name = "missing-file"
    about = "the flow's file is not there; each attempt meets the same"

    def setup(self, scene: Scene) -> None:
        scene.deploy("monthly", "monthly", missing=True)

    def drive(self, scene: Scene) -> None:
        scene.start("monthly")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner", "pause_deployment"}),
            wrong=frozenset({"retry_run", "resize_run"}),
            tell=True,
        )

    def monthly(self, job: Job) -> None:
        job.record("never")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] in ("FAILED", "CRASHED"):
            hand.tell(run["id"], "the flow's file is missing")
