"""A run was cancelled whose process was gone: it stays Cancelling and keeps the only slot of its deployment."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Scene, Truth, World

LOST = 45
"""Seconds after which the machine is lost: after the second heartbeat, without which nobody knows how often it sends."""


class StuckCancelling(World):
    """Cancelling, and nobody is left to say Cancelled."""

    name = "stuck-cancelling"
    about = "Cancelling for ever keeps the only slot; the next run must be done before Prefect itself ends it"

    def setup(self, scene: Scene) -> None:
        name, _ = scene.pool(worker=False)
        self._pool = name
        scene.deploy("post-journal", "post", pool=name, limit=1)

    def drive(self, scene: Scene) -> None:
        lost = scene.hire(self._pool)
        stuck = scene.start("post-journal", "stuck", waits=True)
        scene.after(LOST, lost.kill)
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        scene.after(LOST + 4, lambda: scene.ask("POST", f"/flow_runs/{stuck}/set_state", cancelling))
        scene.after(LOST + 6, lambda: scene.hire(self._pool))
        scene.after(LOST + 12, lambda: scene.start("post-journal", "next"))

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"cancel_run", "mark_crashed", "release_slot", "set_limit"}),
            wrong=frozenset({"pause_deployment", "retry_run"}),
            work=frozenset({"journal"}),
            once=frozenset({"journal"}),
            within=LOST + 290,
        )

    def post(self, job: Job) -> None:
        if job.parameters.get("waits"):
            job.hang()
        job.spend(0.5)
        job.record("journal", task="post")

    def watch(self, scene: Scene, hand: Hand) -> None:
        run = scene.run(scene.started["stuck"])
        if run["state_type"] == "CANCELLING" and scene.now() > scene.began + scene.seconds(LOST + 20):
            state = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
            hand.turn("cancel_run", f"run:{run['id']}", "POST", f"/flow_runs/{run['id']}/set_state", state)
