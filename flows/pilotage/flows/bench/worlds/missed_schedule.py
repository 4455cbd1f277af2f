"""Runs of a schedule are deleted before they start, as by a clean-up gone wrong: nothing runs, and nothing fails."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Request, Scene, Truth, World

EVERY = 35
FIRED = 3
"""Times that it fires before the clean-up begins."""
WATCHED = 480
"""Seconds for which the clean-up goes on."""


class MissedSchedule(World):
    """Nothing fails, and nothing happens."""

    name = "missed-schedule"
    about = "a schedule that fired every time does not fire any more"

    def setup(self, scene: Scene) -> None:
        scene.deploy("hourly-rates", "rates", every=EVERY)

    def drive(self, scene: Scene) -> None:
        for number in range(int(EVERY * (FIRED - 0.5)), WATCHED, 2):
            scene.after(number, lambda: self._clean_up(scene))

    def _clean_up(self, scene: Scene) -> None:
        scene.note("cleaning")
        for run in scene.runs():
            if run["auto_scheduled"] and run["state_type"] == "SCHEDULED" and not run["run_count"]:
                scene.ask("DELETE", f"/flow_runs/{run['id']}")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"start_run"}),
            wrong=frozenset({"retry_run", "pause_deployment", "cancel_run"}),
            work=frozenset({"made up"}),
            once=frozenset({"made up"}),
        )

    def rates(self, job: Job) -> None:
        instead = job.http.post("/rates").json()["instead"]
        job.record("made up" if instead else "rates", task="store")

    def answer(self, scene: Scene, request: Request) -> Answer:
        return Answer(body={"instead": not scene.run(request.run_id)["auto_scheduled"]})

    def watch(self, scene: Scene, hand: Hand) -> None:
        if scene.now() > scene.began + scene.seconds(EVERY * FIRED + 15) and not scene.count("made"):
            scene.note("made")
            hand.start("hourly-rates", "instead")
