"""A worker took a run and was lost before it started the process: the run stays Pending for ever."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World


class StuckPending(World):
    """Pending, and nobody is at it."""

    name = "stuck-pending"
    about = "taken by a worker that was lost before it started the process"

    def setup(self, scene: Scene) -> None:
        scene.deploy("export-tax", "export")

    def drive(self, scene: Scene) -> None:
        run_id = scene.start("export-tax", after=30)
        pending = {"state": {"type": "PENDING", "name": "Pending"}, "force": False}
        scene.ask("POST", f"/flow_runs/{run_id}/set_state", pending)

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"mark_crashed", "retry_run", "cancel_run", "start_run"}),
            wrong=frozenset({"pause_deployment", "resize_run"}),
            work=frozenset({"export"}),
            once=frozenset({"export"}),
            attempts=1,
        )

    def export(self, job: Job) -> None:
        job.spend(0.5)
        job.record("export", task="export")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "CRASHED" and run["run_count"] == 0:
            hand.retry(run["id"])

    def watch(self, scene: Scene, hand: Hand) -> None:
        run = scene.run(scene.started["run"])
        if scene.count("marked"):
            return
        if run["state_type"] == "PENDING" and scene.now() > scene.began + scene.seconds(60):
            scene.note("marked")
            hand.crash(run["id"])
