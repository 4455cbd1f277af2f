"""A schedule made the same run twice: both would do the work."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Scene, Truth, World

DUE = 45


class DuplicateSchedule(World):
    """Two alike runs of one deployment."""

    name = "duplicate-schedule"
    about = "the same run twice, due at one time with the same parameters"

    def setup(self, scene: Scene) -> None:
        scene.deploy("charge-cards", "charge")

    def drive(self, scene: Scene) -> None:
        due = scene.now() + scene.seconds(DUE)
        scene.start("charge-cards", "first", at=due, day="2027-03-01")
        scene.start("charge-cards", "second", at=due, day="2027-03-01")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"cancel_run", "reschedule_run"}),
            wrong=frozenset({"retry_run", "pause_deployment"}),
            work=frozenset({"charged"}),
            once=frozenset({"charged"}),
        )

    def charge(self, job: Job) -> None:
        job.spend(0.5)
        job.record("charged", task="charge")

    def watch(self, scene: Scene, hand: Hand) -> None:
        if not scene.count("cancelled"):
            scene.note("cancelled")
            hand.cancel(scene.started["second"])
