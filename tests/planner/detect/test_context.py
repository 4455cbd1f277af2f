"""What stands around a failed run: its remedy, and whether that helped the runs that fail in a row with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from tests.planner.planner_fixture import PlannerFixture

from pilotage.planner.detect.context import background_of, failing_for
from pilotage.telemetry.facts import DecisionFact, RunFact, StateType

MINUTE = timedelta(minutes=1)


def remedy_of(make: Any, run_id: str, ended: float, outcome: str = "verified") -> DecisionFact:
    return DecisionFact(
        decision_id=f"d-{run_id}",
        at=make.now + ended * MINUTE,
        proposal_id="p-1",
        incident_id="i-1",
        run_id=run_id,
        step="verified",
        action="launch_remediation",
        outcome=outcome,
    )


def a_run(make: Any, number: int, started: float, **changes: Any) -> RunFact:
    at = make.now + started * MINUTE
    run: RunFact = make.run(
        run_id=f"00000000-0000-4000-8000-{number:012x}",
        state_id=f"s{number}",
        created=at,
        started=at,
        ended=at + MINUTE / 2,
        updated=at + MINUTE / 2,
        **changes,
    )
    return run


GOOD = {"state_type": StateType.COMPLETED, "state_name": "Completed", "state_message": ""}


@pytest.mark.parametrize(
    ("between", "outcome", "remedied"),
    [
        ((), "verified", "the deployment failed again after it"),
        ((), "failed", "the deployment failed again after it"),
        ((GOOD,), "verified", ""),
    ],
    ids=["it went well and the next run fails", "it did not end well", "a run completed since"],
)
def test_a_remedy_that_did_not_help_is_not_started_for_the_next_run(
    planner_fixture: PlannerFixture, make: Any, between: Sequence[dict[str, Any]], outcome: str, remedied: str
) -> None:
    first, last = a_run(make, 1, -9), a_run(make, 9, -1)
    store = planner_fixture.store
    store.merge_runs([first, *(a_run(make, 5, -5, **more) for more in between), last])
    store.add_decisions([remedy_of(make, first.run_id, -8, outcome)])
    around = background_of(store, last, None, make.now, planner_fixture.parameters)
    assert around.remedied == remedied
    assert not around.remedy_helped


def test_a_remedy_that_ended_while_another_run_was_under_way_says_nothing_of_it(
    planner_fixture: PlannerFixture, make: Any
) -> None:
    first, last = a_run(make, 1, -9), a_run(make, 9, -8.5)
    planner_fixture.store.merge_runs([first, last])
    planner_fixture.store.add_decisions([remedy_of(make, first.run_id, -8.2)])
    around = background_of(planner_fixture.store, last, None, make.now, planner_fixture.parameters)
    assert around.remedied == ""


def test_a_row_of_failures_is_as_old_as_its_first(make: Any) -> None:
    newest, before, good = a_run(make, 1, -2), a_run(make, 2, -9), a_run(make, 3, -20, **GOOD)
    assert failing_for([newest, before, good], make.now) == 8.5 * MINUTE
    assert failing_for([good], make.now) == timedelta(0)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("eu", 'all 3 runs with region = "eu" failed, and of the 6 others at most one in ten'),
        ("us", ""),
    ],
)
def test_the_siblings_of_a_run_tell_whether_its_value_is_what_fails(
    planner_fixture: PlannerFixture, make: Any, own: str, told: str
) -> None:
    last = a_run(make, 99, -1, parameters={"region": own})
    bad = [a_run(make, n, -10 - n, parameters={"region": "eu"}) for n in range(2 if own == "eu" else 3)]
    good = [a_run(make, 50 + n, -30 - n, parameters={"region": "us"}, **GOOD) for n in range(6)]
    planner_fixture.store.merge_runs([*bad, *good, last])
    around = background_of(planner_fixture.store, last, None, make.now, planner_fixture.parameters)
    assert around.failing_value == told
