"""A database ends one of two transactions that wait for each other."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class Deadlock(World):
    """The transaction was rolled back, so another attempt repeats nothing."""

    name = "deadlock"
    about = "a database rolled a transaction back because of a deadlock"

    def setup(self, scene: Scene) -> None:
        scene.deploy("merge-customers", "merge")

    def drive(self, scene: Scene) -> None:
        scene.start("merge-customers")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"retry_run"}),
            wrong=frozenset({"pause_deployment", "cancel_run", "resize_run"}),
            work=frozenset({"customers"}),
            once=frozenset({"customers"}),
            attempts=2,
        )

    def merge(self, job: Job) -> None:
        job.spend(1.5)
        if job.attempt == 1:
            raise RuntimeError(
                "(psycopg.errors.DeadlockDetected) deadlock detected\n"
                "DETAIL:  Process 4711 waits for ShareLock on transaction 9017; blocked by process 4699."
            )
        job.record("customers", task="merge")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED":
            hand.retry(run["id"], after=5)
