"""A flow that always took seconds stands still and will never end."""

from __future__ import annotations

from pilotage.flows.bench.world import Answer, Hand, Job, Json, Request, Scene, Truth, World

BEFORE = 5
"""Runs that completed before."""


class Hanging(World):
    """A call without a time-out."""

    name = "hanging"
    about = "runs far past its learned duration and will never end"

    def setup(self, scene: Scene) -> None:
        scene.deploy("sync-crm", "sync", tags=("pilotage:repeatable",))

    def drive(self, scene: Scene) -> None:
        for number in range(BEFORE):
            scene.start("sync-crm", f"before-{number}", after=2 * number, ordinary=True)
        scene.start("sync-crm", after=2 * BEFORE + 5)

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"cancel_run", "retry_run", "start_run"}),
            wrong=frozenset({"resize_run", "pause_deployment"}),
            work=frozenset({"synced"}),
            once=frozenset({"synced"}),
        )

    def sync(self, job: Job) -> None:
        job.spend(1)
        if job.parameters.get("ordinary"):
            return
        if job.http.post("/sync").json()["hangs"]:
            job.hang()
        job.record("synced", task="sync")

    def answer(self, scene: Scene, request: Request) -> Answer:
        first = not scene.count("asked")
        scene.note("asked")
        return Answer(body={"hangs": first})

    def oracle(self, scene: Scene, hand: Hand, run: Json) -> None:
        if run["state_type"] == "CANCELLED":
            hand.start("sync-crm", "instead")

    def watch(self, scene: Scene, hand: Hand) -> None:
        run = scene.run(scene.started["run"])
        if run["state_type"] == "RUNNING" and scene.now() > scene.began + scene.seconds(75):
            hand.cancel(run["id"])
