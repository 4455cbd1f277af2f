"""A run is called Crashed while its process lives and goes on to finish its work."""

from __future__ import annotations

from pilotage.flows.bench.world import Job, Scene, Truth, World

SAID = "Flow run crashed: no heartbeat was received for it within the expected time"
ENDS = 60
"""Seconds that the process works on."""


class CrashedAlive(World):
    """Whoever watched it lost sight of it."""

    name = "crashed-alive"
    about = "called Crashed while its process lives and finishes its work"

    def setup(self, scene: Scene) -> None:
        scene.deploy("settle-batch", "settle")

    def drive(self, scene: Scene) -> None:
        run_id = scene.start("settle-batch")
        state = {"state": {"type": "CRASHED", "name": "Crashed", "message": SAID}, "force": True}
        scene.after(20, lambda: scene.ask("POST", f"/flow_runs/{run_id}/set_state", state))

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"notify_owner"}),
            wrong=frozenset({"retry_run", "resize_run", "launch_remediation"}),
            once=frozenset({"settled"}),
        )

    def settle(self, job: Job) -> None:
        job.spend(ENDS)
        job.record("settled")
