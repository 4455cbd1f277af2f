"""The answer to "why is it late": who is meant, and the same words wherever it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.planner.detect.waiting_worlds import World

from pilotage.planner.actions.types import ActionKind
from pilotage.planner.chat.rules import answer_by_rules
from pilotage.planner.chat.tools import Toolbox, looked_up
from pilotage.planner.detect.why import told, why_it_waits
from pilotage.planner.proposals import CaseFile, Proposal


class NobodysApi:
    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        return ()

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        raise AssertionError("nothing is filed here")

    def consider(self, action: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("nothing is considered here")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_a_run_and_its_deployment_are_meant_by_id_by_name_and_in_a_question(world: World) -> None:
    pool = world.pool()
    deployment = world.deployment(pool)
    run = world.run(deployment)
    world.passes(10)
    world.collect()
    row, fake = world.fake.tables.deployments[deployment], world.fake.tables
    name, flow = row["name"], fake.flows[row["flow_id"]]["name"]
    answers = [
        why_it_waits(world.store, words, world.now)
        for words in (
            run,
            run.upper(),
            fake.runs[run].name,
            deployment,
            name,
            f"{flow}/{name}",
            f'why is "{name}" late?',
            f"Why does {fake.runs[run].name} not start",
            f"why did the deployment {name} not run?",
        )
    ]
    assert {answer["key"] for answer in answers if answer} == {f"no_worker:pool:{pool}"}
    assert all(answer is not None for answer in answers)
    assert why_it_waits(world.store, "why is the weather late?", world.now) is None


def test_rules_tools_and_chat_say_the_same(world: World) -> None:
    pool = world.pool()
    deployment = world.deployment(pool)
    run = world.run(deployment)
    world.passes(10)
    world.collect()
    name = world.fake.tables.deployments[deployment]["name"]
    tools = Toolbox(store=world.store, control_api=NobodysApi(), clock=lambda: world.now)
    answer = why_it_waits(world.store, run, world.now)
    assert answer is not None
    assert f"prefect worker start --pool {pool}" in told(answer)
    assert looked_up(tools, "why_it_waits", {"name": name}).result["words"] == answer["words"]
    assert looked_up(tools, "why_run", {"run_id": run}).result["waits"] == answer["words"]
    spoken = answer_by_rules(f"why is {name} late?", tools)
    assert answer["words"] in spoken.text
    assert answer["todo"] in spoken.text
    assert "No run and no deployment" in answer_by_rules("why is nobody-knows-it stuck?", tools).text


def test_what_has_ended_waits_for_nothing(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    run = world.run(world.deployment(pool))
    world.passes(10)
    world.collect()
    answer = why_it_waits(world.store, run, world.now)
    assert answer is not None
    assert (answer["cause"], answer["trouble"]) == ("ended", False)
