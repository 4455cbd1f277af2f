"""Pilotage ends without notice every few seconds: no step of a plan is made twice, none is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from pilotage.flows.bench.pilot import deeds_of, prepared
from pilotage.flows.bench.round import WORLDS, Played, Round, incidents_of, sources_in
from pilotage.flows.bench.score import scores_of
from pilotage.flows.bench.simulated_pilot import PAGER, START_UP, TICK, world_outside
from pilotage.flows.bench.simulated_stage import SimulatedStage
from pilotage.flows.bench.virtual_loop import VirtualLoop
from pilotage.flows.config.settings import load_settings
from pilotage.flows.controller.controller import Controller

LIVES = (9.0, 7.0, 11.0, 5.0)
"""Seconds from a start to the next end, in turn: no two ends meet a plan at the same step."""
ENDS = 12
LASTS = timedelta(minutes=4)
PLANS = ("flapping", "declared-remedy", "hanging", "half-done")
"""Retries in steps; a remedy and the retry after it; a run that is ended and made again; what may not be repeated."""


async def _lives(stage: SimulatedStage, root: Path) -> None:
    paths = prepared(root, mode="auto", pager=PAGER, scale=1.0, tick=TICK, queue=2 * TICK)
    settings = load_settings(config=paths.config, state_dir=paths.root)

    def begin() -> tuple[asyncio.Event, asyncio.Task[None]]:
        stop = asyncio.Event()
        controller = Controller(settings, outside=world_outside(stage, settings, "pilotage"))
        return stop, asyncio.create_task(controller.run(stop))

    began = stage.now()
    stop, running = begin()
    await asyncio.sleep(START_UP)
    stage.drive()
    for number in range(ENDS):
        await asyncio.sleep(LIVES[number % len(LIVES)])
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        stop, running = begin()
    await asyncio.sleep((began + LASTS - stage.now()).total_seconds())
    stop.set()
    await running


@pytest.mark.timeout(900)
def test_a_plan_is_found_where_it_stood_however_often_pilotage_ends(tmp_path: Path) -> None:
    chosen = tuple(incidents_of(sources_in(WORLDS), [1], PLANS))
    stage = SimulatedStage(Round(incidents=chosen), arm="pilotage")
    stage.set_up()
    loop = VirtualLoop(stage.clock.now, stage.fake.advance)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_lives(stage, tmp_path))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    deeds = tuple(deeds_of(tmp_path))
    played = Played(stage=stage, outside=stage.outside, deeds=deeds, requests=None)
    scores = {score.name: score for score in scores_of(played, "pilotage")}
    assert {
        name: (score.duplicates, score.wrong, score.violations) for name, score in scores.items()
    } == dict.fromkeys(PLANS, (0, (), ()))
    assert [name for name, score in scores.items() if score.remediable and not score.recovered] == []
    # what is made once is made once: the remedy, the end of the run that hung, the run in its place
    made = Counter(deed.kind for deed in deeds)
    assert (made["launch_remediation"], made["cancel_run"], made["start_run"]) == (1, 1, 1)
