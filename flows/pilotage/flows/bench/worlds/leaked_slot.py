"""A slot of a deployment's limit is counted that nobody holds: its runs wait for ever."""

from __future__ import annotations

from pilotage.flows.bench.world import Hand, Job, Scene, Truth, World


class LeakedSlot(World):
    """A limit of one, taken by nobody."""

    name = "leaked-slot"
    about = "a slot that nobody holds is counted, and the run waits for it"

    def setup(self, scene: Scene) -> None:
        scene.deploy("book-ledger", "book", limit=1)

    def drive(self, scene: Scene) -> None:
        name = f"deployment:{scene.deployments['book-ledger']}"
        scene.ask(
            "POST", "/v2/concurrency_limits/increment", {"names": [name], "slots": 1, "mode": "concurrency"}
        )
        scene.start("book-ledger")

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset({"release_slot", "set_limit"}),
            wrong=frozenset({"cancel_run", "retry_run", "pause_deployment"}),
            work=frozenset({"booked"}),
            once=frozenset({"booked"}),
        )

    def book(self, job: Job) -> None:
        job.spend(0.5)
        job.record("booked", task="book")

    def watch(self, scene: Scene, hand: Hand) -> None:
        if scene.now() > scene.began + scene.seconds(40) and not scene.count("freed"):
            scene.note("freed")
            deployment = scene.deployments["book-ledger"]
            body = {"names": [f"deployment:{deployment}"], "slots": 1, "occupancy_seconds": 1}
            hand.turn(
                "release_slot", f"deployment:{deployment}", "POST", "/v2/concurrency_limits/decrement", body
            )
