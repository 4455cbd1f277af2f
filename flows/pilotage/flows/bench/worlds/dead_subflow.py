"""A child's machine is lost: the child stays Running, and its parent waits for it for ever."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World

LOST = 45
"""Seconds after which the machine is lost: after the second heartbeat, without which nobody knows how often it sends."""


class DeadSubflow(World):
    """A parent in the bench's pool, its child on a machine that is lost."""

    name = "dead-subflow"
    about = "a child is lost without a word, and its parent waits for ever"

    def setup(self, scene: Scene) -> None:
        name, _ = scene.pool(worker=False)
        self._pool = name
        scene.deploy("merge", "merge")
        scene.deploy("part", "part", pool=name, tags=("pilotage:repeatable",))

    def drive(self, scene: Scene) -> None:
        lost = scene.hire(self._pool)
        scene.start("merge")
        scene.after(LOST, lost.kill)
        scene.after(LOST + 15, lambda: scene.hire(self._pool))

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"mark_crashed", "retry_run", "cancel_run", "cancel_tree", "start_run"}),
            wrong=frozenset({"pause_deployment", "resize_run"}),
            work=frozenset({"merged"}),
            once=frozenset({"merged"}),
        )

    def merge(self, job: Job) -> None:
        ended = job.call("part", f"part-{job.attempt}")
        if ended != "COMPLETED":
            raise RuntimeError(f"the part ended {ended}")
        job.record("merged", task="merge")

    def part(self, job: Job) -> None:
        first = job.http.post("/part").json()["first"]
        job.spend(4 * LOST if first else 1)

    def answer(self, scene: Scene, request: Request) -> Answer:
        first = not scene.count("asked")
        scene.note("asked")
        return Answer(body={"first": first})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "FAILED" and run["deployment_id"] == scene.deployments["merge"]:
            hand.retry(run["id"])

    def watch(self, scene: Scene, hand: Hand) -> None:
        if scene.now() < scene.began + scene.seconds(LOST + 30) or scene.count("marked"):
            return
        for run in scene.runs():
            if run["state_type"] == "RUNNING" and run["deployment_id"] == scene.deployments["part"]:
                scene.note("marked")
                hand.crash(run["id"])
