"""The process of a run is killed before it has done anything."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class CrashedProcess(World):
    """The first attempt dies of a signal."""

    name = "crashed-process"
    about = "the flow's process is killed once, before any effect"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.signal = self.random.choice([9, 11, 6])

    def setup(self, scene: Scene) -> None:
        scene.deploy("settle-trades", "settle", tags=("pilotage:repeatable",))

    def drive(self, scene: Scene) -> None:
        scene.start("settle-trades")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run"}),
            wrong=frozenset({"pause_deployment", "cancel_run"}),
            work=frozenset({"settled"}),
            once=frozenset({"settled"}),
            attempts=2,
        )

    def settle(self, job: Job) -> None:
        job.spend(0.5)
        if job.attempt == 1:
            job.end_by_signal(self.signal)
        job.record("settled", task="settle")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "CRASHED":
            hand.retry(run["id"], after=5)
