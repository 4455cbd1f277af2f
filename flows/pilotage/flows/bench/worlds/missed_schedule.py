"""A schedule was switched off by a deployment gone wrong: the run that everybody expects was never made."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Scene, Truth, World

EVERY = 20
FIRED = 3
"""Times that it fired before."""


class MissedSchedule(World):
    """Nothing fails, and nothing happens."""

    name = "missed-schedule"
    about = "a schedule that fired every time does not fire any more"

    def setup(self, scene: Scene) -> None:
        scene.deploy("hourly-rates", "rates")

    def drive(self, scene: Scene) -> None:
        for number in range(FIRED):
            scene.start("hourly-rates", f"tick-{number}", after=EVERY * number, number=number)

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"start_run"}),
            wrong=frozenset({"retry_run", "pause_deployment", "cancel_run"}),
            work=frozenset({f"rates-{FIRED}"}),
            once=frozenset({f"rates-{FIRED}"}),
        )

    def rates(self, job: Job) -> None:
        job.record(f"rates-{job.parameters.get('number', FIRED)}", task="store")

    def watch(self, scene: Scene, hand: Hand) -> None:
        if scene.now() > scene.began + scene.seconds(EVERY * FIRED + 15) and not scene.count("made"):
            scene.note("made")
            hand.start("hourly-rates", "instead")
