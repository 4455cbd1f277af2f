"""A person cancels a run that is under way, and wants it to stay so."""

from __future__ import annotations

from pilotage.flows.bench.world import ANY, Job, Scene, Truth, World


class CancelledByPerson(World):
    """What a person ended is no trouble."""

    name = "cancelled-by-person"
    about = "a person cancels a run; whatever is done about it is wrong"

    def setup(self, scene: Scene) -> None:
        scene.deploy("reindex", "reindex")

    def drive(self, scene: Scene) -> None:
        run_id = scene.start("reindex")
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        scene.after(15, lambda: scene.ask("POST", f"/flow_runs/{run_id}/set_state", cancelling))

    def truth(self) -> Truth:
        return Truth(remediable=False, wrong=frozenset({ANY, "notify_owner"}))

    def reindex(self, job: Job) -> None:
        job.spend(400)
        job.record("reindexed")
