"""A machine is lost with its worker and the process of a run; another comes. The run stays Running for ever."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Json, Scene, Truth, World

LOST = 45
"""Seconds after which the machine is lost: after the second heartbeat, without which nobody knows how often it sends."""


class LostWorker(World):
    """The worker and its processes are killed, and nobody says so."""

    name = "lost-worker"
    about = "a machine is lost with a running run; another machine serves the pool"

    def setup(self, scene: Scene) -> None:
        name, _ = scene.pool(worker=False)
        self._pool = name
        scene.deploy("rebuild-index", "rebuild", pool=name, tags=("pilotage:repeatable",))

    def drive(self, scene: Scene) -> None:
        lost = scene.hire(self._pool)
        scene.start("rebuild-index")
        scene.after(LOST, lost.kill)
        scene.after(LOST + 15, lambda: scene.hire(self._pool))

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"mark_crashed", "retry_run"}),
            wrong=frozenset({"pause_deployment", "resize_run"}),
            work=frozenset({"index"}),
            once=frozenset({"index"}),
            attempts=2,
        )

    def rebuild(self, job: Job) -> None:
        job.spend(4 * LOST if job.attempt == 1 else 2)
        job.record("index", task="rebuild")

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "CRASHED" and run["run_count"] == 1:
            hand.retry(run["id"])

    def watch(self, scene: Scene, hand: Hand) -> None:
        run = scene.run(scene.started["run"])
        gone = scene.now() > scene.began + scene.seconds(LOST + 30)
        if gone and run["state_type"] == "RUNNING" and run["run_count"] == 1:
            hand.crash(run["id"])
