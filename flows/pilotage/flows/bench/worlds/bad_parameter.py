"""A run was started with a value that its code cannot accept."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class BadParameter(World):
    """A date that is none."""

    name = "bad-parameter"
    about = "a parameter that the code refuses"

    def setup(self, scene: Scene) -> None:
        scene.deploy("close-books", "close", day="2027-03-01")

    def drive(self, scene: Scene) -> None:
        scene.start("close-books", day=self.random.choice(["2027-02-30", "yesterday", "31/12"]))

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner"}),
            wrong=frozenset({"retry_run", "resize_run", "pause_deployment"}),
            tell=True,
        )

    def close(self, job: Job) -> None:
        from datetime import date

        job.spend(0.3)
        date.fromisoformat(str(job.parameters["day"]))
        job.record("closed")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.tell(run["id"], "the day is none")
