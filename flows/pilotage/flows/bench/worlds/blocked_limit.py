"""Over 200 runs of one deployment wait for its limit, and others must get past them."""

from __future__ import annotations

from collections.abc import Sequence

from pilotage.flows.bench.world import Effects, Job, Record, Scene, Truth, World

RUNS = 210


class BlockedLimit(World):
    """A backfill with a limit of one."""

    name = "blocked-limit"
    alone = True
    about = "over 200 runs wait for a limit of one, and another deployment waits behind them"

    def setup(self, scene: Scene) -> None:
        pool, _ = scene.pool()
        scene.deploy("backfill", "long", pool=pool, limit=1)
        scene.deploy("hourly", "hourly", pool=pool)

    def drive(self, scene: Scene) -> None:
        for number in range(RUNS):
            scene.start("backfill", f"backfill-{number}")
        scene.start("hourly", after=5)

    def truth(self) -> Truth:
        return Truth(
            remediable=False,
            right=frozenset({"spread_runs"}),
            wrong=frozenset({"cancel_run", "retry_run", "release_slot", "pause_deployment"}),
        )

    def long(self, job: Job) -> None:
        job.spend(100_000)

    def hourly(self, job: Job) -> None:
        job.record("hourly")

    def effects(self, scene: Scene, records: Sequence[Record]) -> Effects:
        done = [record.at for record in records if record.key == "hourly"]
        return Effects(records=tuple(records), worst_wait=(done[0] if done else scene.now()) - scene.began)
