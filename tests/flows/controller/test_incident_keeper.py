"""As what a run of an open incident is closed: by what became of its work, and not before its stand-in is through."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pilotage.flows.controller.incidents import closed_as
from pilotage.telemetry.facts import RunFact, StateType

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


def a_run(state: StateType) -> RunFact:
    return RunFact(
        run_id="r-1",
        name="brave-otter",
        flow_name="etl",
        state_type=state,
        state_name=state.value.title(),
        state_id="s-1",
        created=NOW,
        updated=NOW,
    )


def row(failure_class: str, made: str = "") -> dict[str, str]:
    return {"run_id": "r-1", "failure_class": failure_class, "made": made}


@pytest.mark.parametrize("state", [StateType.CANCELLED, StateType.COMPLETED])
@pytest.mark.parametrize("failure_class", ["overlong", "never_started", "standstill"])
def test_what_waits_for_a_run_that_is_made_instead_stays_open(failure_class: str, state: StateType) -> None:
    # a missed start is told by a run that has long completed; a run that hung was cancelled by us
    assert closed_as(row(failure_class, made="p-1"), a_run(state), {}) is None
    closed = closed_as(row(failure_class), a_run(state), {})
    assert closed is not None
    assert closed[0] == "superseded"


def test_a_failed_run_is_recovered_when_it_completed_and_superseded_by_a_later_one() -> None:
    assert closed_as(row("transient"), a_run(StateType.FAILED), {}) is None
    for state, later, expected in (
        (StateType.COMPLETED, {}, "recovered"),
        (StateType.CANCELLED, {}, "superseded"),
        (StateType.FAILED, {"r-1": "r-2"}, "superseded"),
    ):
        closed = closed_as(row("transient"), a_run(state), later)
        assert closed is not None
        assert closed[0] == expected
