"""After an outage a dozen reports are due at once, and only the newest is of any use."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Scene, Truth, World

RUNS = 12
LASTS = 90
"""Seconds in which no worker is there."""
TAKES = 12
"""Seconds that one report takes; one at a time."""


class LatePileup(World):
    """Runs of an outage, one slot, and readers who wait for the newest."""

    name = "late-pileup"
    about = "after an outage twelve reports are due, and only the newest matters"

    def setup(self, scene: Scene) -> None:
        name, _ = scene.pool(limit=1, worker=False)
        self._pool = name
        scene.deploy("report", "report", pool=name, tags=("pilotage:keep-newest:1",))

    def drive(self, scene: Scene) -> None:
        for number in range(RUNS):
            scene.start("report", f"report-{number}", after=number, number=number)
        scene.after(LASTS, lambda: scene.hire(self._pool))

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"catch_up", "cancel_run", "reschedule_run", "set_limit"}),
            wrong=frozenset({"retry_run", "pause_deployment"}),
            work=frozenset({f"report-{RUNS - 1}"}),
            within=130,
        )

    def report(self, job: Job) -> None:
        job.spend(TAKES)
        job.record(f"report-{job.parameters['number']}")

    def watch(self, scene: Scene, hand: Hand) -> None:
        if scene.now() > scene.began + scene.seconds(LASTS / 2) and not scene.count("dropped"):
            scene.note("dropped")
            for number in range(RUNS - 1):
                hand.cancel(scene.started[f"report-{number}"])
