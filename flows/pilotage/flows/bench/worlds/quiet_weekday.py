"""An ordinary day: runs of several deployments complete, and one heals itself. Whatever is done here is wrong."""

from __future__ import annotations

from pilotage.flows.bench.world import ANY, Job, Scene, Truth, World

FLOWS = ("orders", "stock", "prices")
ROUNDS = 3


class QuietWeekday(World):
    """Nothing is broken."""

    name = "quiet-weekday"
    about = "nothing is broken; whatever is done is wrong"

    def setup(self, scene: Scene) -> None:
        for flow in FLOWS:
            scene.deploy(flow, "load", flow=flow)

    def drive(self, scene: Scene) -> None:
        for number in range(ROUNDS):
            for flow in FLOWS:
                after = self.random.uniform(0, 20) + 40 * number
                scene.start(
                    flow, f"{flow}-{number}", after=after, flow=flow, takes=self.random.uniform(0.3, 3)
                )

    def truth(self) -> Truth:
        return Truth(remediable=False, wrong=frozenset({ANY, "notify_owner"}))

    def load(self, job: Job) -> None:
        job.spend(float(job.parameters.get("takes", 1)))
        job.record(f"{job.parameters['flow']}", task="store")
