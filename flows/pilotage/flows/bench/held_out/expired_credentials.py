"""The credentials of a bucket have expired, and nobody has declared a remedy."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class ExpiredCredentials(World):
    """A client's own words for it."""

    name = "expired-credentials"
    about = "expired credentials of a bucket, without a remedy"

    def setup(self, scene: Scene) -> None:
        scene.deploy("archive-logs", "archive")

    def drive(self, scene: Scene) -> None:
        scene.start("archive-logs")

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner"}),
            wrong=frozenset({"retry_run", "resize_run", "cancel_run"}),
            tell=True,
        )

    def archive(self, job: Job) -> None:
        job.spend(0.4)
        raise RuntimeError(
            "An error occurred (ExpiredToken) when calling the PutObject operation: "
            "The provided token has expired."
        )

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "the credentials have expired")
