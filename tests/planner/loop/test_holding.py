"""A crash that may still be alive: held while two signs of its death may come, retried on both, else asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.planner.planner_fixture import PlannerFixture

from pilotage.planner.detect.site_rules import SiteRules
from pilotage.telemetry.facts import EventFact, StateType
from pilotage.telemetry.queries.heartbeats import HEARTBEAT, signs_of_death

BEAT = timedelta(seconds=60)
LOST = "Flow run marked as crashed due to missing heartbeats."


@pytest.fixture
def held(tmp_path: Path, make: Any) -> Iterator[PlannerFixture]:
    """A run that beat once a minute, was called crashed a minute ago, while others are heard."""
    fixture = PlannerFixture(tmp_path, make.now)
    fixture.store.merge_runs(
        [make.run(state_type=StateType.CRASHED, state_name="Crashed", state_message=LOST)]
    )
    yield fixture
    fixture.store.close()


def hear(
    fixture: PlannerFixture, make: Any, name: str, *moments: datetime, run_id: str | None = None
) -> None:
    known = make.run().run_id if run_id is None else run_id
    fixture.store.add_events(
        [
            EventFact(event_id=f"{name}-{known}-{at.isoformat()}", occurred=at, name=name, resource_id="r", run_id=known)
            for at in moments
        ]
    )  # fmt: skip


def beats(make: Any) -> list[datetime]:
    return [make.now - timedelta(minutes=n) for n in (3, 4)]


def others(make: Any, until: datetime) -> list[datetime]:
    count = int((until - make.now + timedelta(minutes=10)) / timedelta(seconds=20))
    return [until - timedelta(seconds=20 * n + 1) for n in range(count)]


def test_it_is_held_then_retried_when_both_signs_are_there(held: PlannerFixture, make: Any) -> None:
    hear(held, make, HEARTBEAT, *beats(make))
    held.ticks()
    assert held.control_api.actions == []
    held.now = make.now + timedelta(minutes=3)
    hear(held, make, "prefect.flow-run.Running", *others(make, held.now), run_id="another")
    hear(held, make, "prefect.worker.executed-flow-run", make.now)
    [run] = [make.run(state_type=StateType.CRASHED)]
    assert signs_of_death(held.store, run, held.now).proven
    held.ticks()
    assert held.control_api.kinds_filed == ["retry_run"]


def test_one_sign_is_a_question_when_the_wait_is_over(held: PlannerFixture, make: Any) -> None:
    hear(held, make, HEARTBEAT, *beats(make))
    held.now = make.now + timedelta(minutes=11, seconds=30)
    hear(held, make, "prefect.flow-run.Running", *others(make, held.now), run_id="another")
    held.ticks()
    assert held.control_api.kinds_filed == ["notify_owner"]
    [(_, case)] = held.control_api.filed.values()
    assert any("one sign is not enough" in road for road in case.alternatives)


def test_what_was_heard_after_its_end_is_a_question_at_once(held: PlannerFixture, make: Any) -> None:
    hear(held, make, HEARTBEAT, *beats(make), make.now - timedelta(seconds=5))
    hear(held, make, "prefect.worker.executed-flow-run", make.now - timedelta(seconds=50))
    held.ticks()
    assert held.control_api.kinds_filed == ["notify_owner"]
    [(_, case)] = held.control_api.filed.values()
    assert any("heard after it was called ended" in road for road in case.alternatives)


def test_what_no_sign_can_come_of_is_a_question_at_once(held: PlannerFixture) -> None:
    held.ticks()
    assert held.control_api.kinds_filed == ["notify_owner"]


def test_silence_says_nothing_while_nobody_is_heard(held: PlannerFixture, make: Any) -> None:
    hear(held, make, HEARTBEAT, *beats(make))
    hear(held, make, "prefect.worker.executed-flow-run", make.now)
    run = make.run(state_type=StateType.CRASHED)
    signs = signs_of_death(held.store, run, make.now + timedelta(minutes=9))
    assert (signs.silent, signs.proven) == ("", False)


def test_a_site_rule_decides_in_the_loop(held: PlannerFixture, make: Any) -> None:
    rules = SiteRules.model_validate(
        {"before": [{"id": "ledger-closed", "failure_class": "auth", "because": "closed", "phrases": ["ledger is closed"]}]}
    )  # fmt: skip
    ended = replace(make.run(), run_id="44444444-4444-4444-8444-444444444444", state_id="s-2",
                    state_message="Flow run encountered an exception: ConnectionError: the ledger is closed")  # fmt: skip
    held.store.merge_runs([ended])
    held.book = rules.book()
    told = {row["subject"]: row for row in held.ticks()[0]}
    assert told[f"run:{ended.run_id}"]["rule_id"] == "ledger-closed"
