"""A queue of long runs takes every slot, and a run with a near deadline waits in the queue behind it."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.bench.world import Hand, Job, Scene, Truth, World

CROWD = 14
TAKES = 12
"""Seconds that a long run takes; two at a time."""
DEADLINE = 70
"""Seconds after the beginning."""


class Starvation(World):
    """A deadline behind a crowd."""

    name = "starvation"
    about = "a run with a near deadline waits behind a queue that takes every slot"

    def setup(self, scene: Scene) -> None:
        name, _ = scene.pool(limit=2, queues=("high", "default", "low"))
        self._pool = name
        scene.deploy("long-report", "crowd", pool=name, queue="high")
        scene.deploy("payroll", "pay", pool=name, queue="low", tags=("pilotage:may-move",))

    def drive(self, scene: Scene) -> None:
        for number in range(CROWD):
            scene.start("long-report", f"crowd-{number}")
        due = scene.now() + scene.seconds(DEADLINE)
        scene.start("payroll", after=2, tags=(f"deadline:{due.isoformat(timespec='seconds')}",))

    def truth(self) -> Truth:
        return Truth(
            remediable=True,
            right=frozenset(
                {"reserve_slot", "move_run", "reschedule_run", "set_priority", "hold_queue", "set_limit"}
            ),
            wrong=frozenset({"cancel_run", "retry_run", "pause_deployment"}),
            work=frozenset({"paid"}),
            once=frozenset({"paid"}),
            within=DEADLINE,
        )

    def crowd(self, job: Job) -> None:
        job.spend(TAKES)

    def pay(self, job: Job) -> None:
        job.spend(0.5)
        job.record("paid", task="pay")

    def watch(self, scene: Scene, hand: Hand) -> None:
        late = scene.now() > scene.began + timedelta(seconds=8)
        if late and not scene.count("moved"):
            scene.note("moved")
            path = f"/work_pools/{self._pool}/queues/low"
            hand.turn("set_priority", f"queue:{self._pool}/low", "PATCH", path, {"priority": 1})
