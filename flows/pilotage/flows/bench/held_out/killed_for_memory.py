"""A process is killed by the kernel for its memory, and twice its size is still too little."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class KilledForMemory(World):
    """Nothing but a signal, after a line about memory."""

    name = "killed-for-memory"
    about = "killed for memory at 128 MiB and again at twice that"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.needs = self.random.choice([280, 320, 380])

    def setup(self, scene: Scene) -> None:
        scene.deploy("train-model", "train", memory_mb=128)

    def drive(self, scene: Scene) -> None:
        scene.start("train-model")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"resize_run", "size_run"}),
            wrong=frozenset({"pause_deployment", "cancel_run"}),
            work=frozenset({"model"}),
            once=frozenset({"model"}),
        )

    def train(self, job: Job) -> None:
        job.spend(1)
        if job.memory_mb < self.needs:
            job.log(
                f"Memory usage {job.memory_mb} MiB of {job.memory_mb} MiB: container is OOMKilled", "error"
            )
            job.end_by_signal(9)
        job.record("model", task="store")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "CRASHED":
            hand.resize(run["id"], 512)
