"""Runs that will not go on are cancelled and made again; what only may go on is left to its owner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.planner.detect.test_standstill import found
from tests.planner.detect.waiting_worlds import World

from pilotage.planner.detect.stand_ins import (
    HUNG,
    remediate_missed,
    remediate_never_started,
    remediate_overlong,
)
from pilotage.planner.findings import FailureClass
from pilotage.planner.remediation import Background, Remediation
from pilotage.telemetry.facts import StateType


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def kinds(remediation: Remediation) -> list[str]:
    return [desired.action.kind for desired in remediation.desired]


def test_a_run_that_nobody_started_anything_for_is_found_alone(world: World) -> None:
    pool = world.pool()
    world.worker(pool)
    deployment = world.deployment(pool)
    lost = world.run(deployment, timedelta(hours=1))
    pending = {"state": {"type": "PENDING", "name": "Pending"}}
    world.ask("POST", f"/flow_runs/{lost}/set_state", pending)
    world.passes(5)
    assert found(world) == []
    world.passes(7)
    (finding,) = found(world)
    assert (finding.failure_class, finding.subject) == (FailureClass.NEVER_STARTED, f"run:{lost}")
    assert finding.cause == f"ongoing:never_started:pool:{pool}"


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (StateType.PENDING, ["cancel_run"]),
        (StateType.CANCELLED, ["start_run"]),
        (StateType.RUNNING, []),
        (StateType.COMPLETED, []),
    ],
)
def test_it_is_cancelled_and_then_made_again_and_left_alone_once_it_began(
    make: Any, state: StateType, wanted: list[str]
) -> None:
    context = make.incident_context(FailureClass.NEVER_STARTED)
    context = replace(context, run=replace(context.run, state_type=state))
    assert kinds(remediate_never_started(context)) == wanted


@pytest.mark.parametrize(
    ("rule", "repeatable", "state", "wanted"),
    [
        (HUNG, True, StateType.RUNNING, ["cancel_run"]),
        (HUNG, False, StateType.RUNNING, ["notify_owner"]),
        ("overlong", True, StateType.RUNNING, ["notify_owner"]),
        (HUNG, True, StateType.CANCELLED, ["start_run"]),
        ("overlong", True, StateType.COMPLETED, []),
    ],
    ids=["hangs and may be repeated", "nobody says so", "it is only slow", "ended by us", "it has ended"],
)
def test_what_hangs_is_ended_only_where_its_owner_says_that_it_may_be_repeated(
    make: Any, rule: str, repeatable: bool, state: StateType, wanted: list[str]
) -> None:
    context = make.incident_context(FailureClass.OVERLONG)
    context = replace(
        context,
        finding=replace(context.finding, rule_id=rule),
        run=replace(context.run, state_type=state),
        around=Background(may_be_repeated=repeatable),
    )
    assert kinds(remediate_overlong(context)) == wanted


def test_a_missed_start_is_made_up_for_and_told(make: Any) -> None:
    context = make.incident_context(FailureClass.STANDSTILL)
    around = Background(witness=make.run_id)
    finding = replace(context.finding, subject="deployment:d", missed=make.now)
    context = replace(context, finding=finding, around=around, run=None)
    assert kinds(remediate_missed(context)) == ["start_run", "notify_owner"]
    for_all = replace(context, finding=replace(finding, subject="prefect"))
    assert kinds(remediate_missed(for_all)) == ["notify_owner"]
