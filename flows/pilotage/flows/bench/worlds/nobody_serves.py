"""Nobody serves a pool: its runs wait, and no change to them helps."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Scene, Truth, World

RUNS = 6


class NobodyServes(World):
    """A pool without a worker."""

    name = "nobody-serves"
    about = "a pool has no worker, and its runs are late"

    def setup(self, scene: Scene) -> None:
        pool, _ = scene.pool(worker=False)
        scene.deploy("mail-invoices", "mail", pool=pool)

    def drive(self, scene: Scene) -> None:
        for number in range(RUNS):
            scene.start("mail-invoices", f"run-{number}", after=5 * number)

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner"}),
            wrong=frozenset(
                {
                    "spread_runs",
                    "catch_up",
                    "reschedule_run",
                    "cancel_run",
                    "retry_run",
                    "reserve_slot",
                    "set_priority",
                }
            ),
            tell=True,
        )

    def mail(self, job: Job) -> None:
        job.record("mailed")

    def watch(self, scene: Scene, hand: Hand) -> None:
        if scene.now() > scene.began + scene.seconds(60) and not scene.count("told"):
            scene.note("told")
            hand.tell(scene.started["run-0"], "nobody serves this pool")
