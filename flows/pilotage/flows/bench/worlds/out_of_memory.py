"""A run needs more memory than it was given; at the same size each attempt dies."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World

GIVEN = 128
"""MiB."""


class OutOfMemory(World):
    """An allocation that fails."""

    name = "out-of-memory"
    about = "needs more memory than it was given"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.needs = self.random.choice([150, 180, 240])

    def setup(self, scene: Scene) -> None:
        scene.deploy("build-features", "build", memory_mb=GIVEN)

    def drive(self, scene: Scene) -> None:
        scene.start("build-features")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"resize_run", "size_run"}),
            wrong=frozenset({"retry_run", "pause_deployment", "cancel_run"}),
            work=frozenset({"features"}),
            once=frozenset({"features"}),
            attempts=2,
        )

    def build(self, job: Job) -> None:
        job.spend(0.5)
        if job.memory_mb < self.needs:
            raise MemoryError(f"Unable to allocate {self.needs}.0 MiB for an array with data type float64")
        job.record("features", task="store")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.resize(run["id"], 256)
