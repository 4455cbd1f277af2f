"""A run takes a few times as long as usual, since there is more to do, and ends well."""

from __future__ import annotations

from pilotage.flows.bench.world import ANY, Job, Scene, Truth, World


class MonthEnd(World):
    """Slow, and right."""

    name = "month-end"
    about = "a run takes four times as long as usual and ends well; whatever is done to it is wrong"

    def setup(self, scene: Scene) -> None:
        scene.deploy("close-month", "close")

    def drive(self, scene: Scene) -> None:
        for number in range(5):
            scene.start("close-month", f"day-{number}", after=14 * number, takes=10)
        scene.start("close-month", "month-end", after=75, takes=40, last=True)

    def truth(self) -> Truth:
        return Truth(remediable=False, wrong=frozenset({ANY}), work=frozenset({"month"}))

    def close(self, job: Job) -> None:
        takes = float(job.parameters["takes"])
        for number in range(5):
            job.spend(takes / 5)
            job.log(f"closed part {number + 1} of 5")
        job.record("month" if job.parameters.get("last") else "day", task="close")
