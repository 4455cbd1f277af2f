"""One run probes while the trouble lasts; the others are released in waves once it gets through."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from pilotage.planner.incidents.turns import ALONE, LARGEST_WAVE, Attempt, whose_turn

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
State = Literal["ready", "under_way", "helped", "failed"]


def attempt(number: int, state: State = "ready", *, run: int | None = None, ago: float = 0) -> Attempt:
    return Attempt(
        proposal_id=f"p-{number:03}",
        run_id=f"r-{run if run is not None else number}",
        state=state,
        at=NOW - timedelta(seconds=ago),
    )


def test_a_few_runs_are_all_tried_at_once() -> None:
    assert len(whose_turn([attempt(n) for n in range(ALONE)], NOW)) == ALONE


def test_of_many_the_oldest_probes_and_the_others_wait_for_it() -> None:
    many = [attempt(n, ago=100 - n) for n in range(50)]
    assert whose_turn(many, NOW) == ("p-000",)
    assert whose_turn([attempt(0, "under_way"), *many[1:]], NOW) == ()


def test_the_run_that_probed_goes_on_with_its_own_plan_and_another_waits_longer_each_time() -> None:
    many = [attempt(n, ago=10) for n in range(1, 50)]
    probed = attempt(100, "failed", run=0, ago=5)
    assert whose_turn([probed, *many], NOW) == ()
    assert whose_turn([probed, attempt(101, run=0), *many], NOW) == ("p-101",)
    assert whose_turn([attempt(100, "failed", run=0, ago=11), *many], NOW) == ("p-001",)
    twice = [attempt(99, "failed", run=0, ago=60), attempt(100, "failed", run=0, ago=39)]
    assert whose_turn([*twice, *many], NOW) == ()


def test_each_that_gets_through_widens_the_wave_and_one_that_fails_ends_it() -> None:
    many = [attempt(n) for n in range(1, 500)]
    assert len(whose_turn([attempt(0, "helped", ago=9), *many], NOW)) == 5
    through = [attempt(1000 + n, "helped", ago=9) for n in range(30)]
    assert len(whose_turn([*through, *many], NOW)) == LARGEST_WAVE
    assert whose_turn([*through, attempt(999, "failed", ago=1), *many], NOW) == ()


STATES = st.sampled_from(["ready", "under_way", "helped", "failed"])


@given(st.lists(st.tuples(STATES, st.floats(0, 1000)), max_size=80))
def test_only_what_is_ready_gets_a_turn_and_never_more_than_a_wave(told: list[tuple[State, float]]) -> None:
    attempts = [attempt(n, state, ago=ago) for n, (state, ago) in enumerate(told)]
    found = whose_turn(attempts, NOW)
    assert set(found) <= {one.proposal_id for one in attempts if one.state == "ready"}
    assert len(set(found)) == len(found)
    if len(attempts) > ALONE:
        under_way = sum(one.state == "under_way" for one in attempts)
        assert not found or len(found) + under_way <= LARGEST_WAVE
    if len(attempts) > ALONE and not any(one.state == "helped" for one in attempts):
        assert len(found) <= 1
