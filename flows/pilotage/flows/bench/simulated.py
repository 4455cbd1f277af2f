"""The bench on the fake Prefect: the same worlds and arms on a clock, an hour of trouble in seconds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pilotage.flows.bench.arms import TICKING, ArmName, Deed, patiently
from pilotage.flows.bench.pilot import deeds_of
from pilotage.flows.bench.round import Played, Round
from pilotage.flows.bench.simulated_stage import SimulatedStage
from pilotage.flows.bench.virtual_loop import VirtualLoop


def play(played: Round, arm: ArmName) -> Played:
    """Return what became of a round under one arm."""
    stage = SimulatedStage(played, arm=arm)
    stage.set_up()
    if arm in TICKING:
        acting = TICKING[arm](stage)

        def tick(now: datetime) -> None:
            if problem := patiently(acting.tick):
                stage.problems.append(problem)

        stage.fake.advance(timedelta(seconds=5))
        stage.drive()
        stage.fake.agenda.every(timedelta(seconds=1), stage.now() + timedelta(seconds=1), tick)
        stage.fake.asked.clear()
        stage.fake.advance(played.horizon)
        deeds: Sequence[Deed] = acting.deeds
    else:
        deeds = _with_pilotage(stage, played, arm)
    return Played(
        stage=stage, outside=stage.outside, deeds=tuple(deeds), requests=sum(stage.fake.asked.values())
    )


def _with_pilotage(stage: SimulatedStage, played: Round, arm: ArmName) -> list[Deed]:
    from pilotage.flows.bench.simulated_pilot import run_controller

    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        root = Path(directory)
        loop = VirtualLoop(stage.clock.now, stage.fake.advance)
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(run_controller(stage, root, played, arm))
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        return deeds_of(root)
