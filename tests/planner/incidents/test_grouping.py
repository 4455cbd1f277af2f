"""Which incident a failure belongs to: one answer, whatever order the facts come in."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pilotage.planner.incidents.grouping import (
    REOPEN,
    SHARED_WINDOW,
    KnownIncident,
    Occurrence,
    Placement,
    placed,
)

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


def occurrence(*causes: str, run: str = "x", seconds: float = 0) -> Occurrence:
    return Occurrence(
        occurrence_id=f"i-{run}", subject=f"run:{run}", causes=causes, at=NOW + timedelta(seconds=seconds)
    )


def known(
    name: str, *keys: str, minutes: float = 1, resolved: float | None = None, sealed: bool = False
) -> KnownIncident:
    then = NOW - timedelta(minutes=minutes)
    over = None if resolved is None else NOW - timedelta(minutes=resolved)
    return KnownIncident(
        incident_id=name, keys=frozenset(keys), last_at=then, opened_at=then, resolved_at=over, sealed=sealed
    )


def test_what_nothing_is_known_of_opens_an_incident_of_its_own_id() -> None:
    assert placed(occurrence("fault:a"), []) == Placement(decision="opened", incident_id="i-x")


def test_the_same_fault_joins_while_the_incident_is_open_however_long() -> None:
    old = known("i-1", "fault:a", minutes=60 * 24)
    assert placed(occurrence("fault:a"), [old]).decision == "joined"


def test_a_shared_cause_joins_within_its_window_only() -> None:
    minutes = SHARED_WINDOW.total_seconds() / 60
    near, far = (
        known("i-1", "host:passing:h", minutes=minutes),
        known("i-1", "host:passing:h", minutes=minutes + 1),
    )
    assert placed(occurrence("fault:b", "host:passing:h"), [near]).decision == "joined"
    assert placed(occurrence("fault:b", "host:passing:h"), [far]).decision == "opened"


def test_one_that_fits_two_shows_them_to_be_one_and_the_oldest_is_kept() -> None:
    older, younger = known("i-1", "fault:a", minutes=9), known("i-2", "host:passing:h", minutes=3)
    found = placed(occurrence("fault:a", "host:passing:h"), [younger, older])
    assert (found.incident_id, found.merged) == ("i-1", ("i-2",))


def test_a_fault_that_comes_back_soon_reopens_and_a_shared_cause_does_not() -> None:
    back = known("i-1", "fault:a", "host:passing:h", minutes=30, resolved=20)
    assert placed(occurrence("fault:a"), [back]).decision == "reopened"
    assert placed(occurrence("fault:b", "host:passing:h"), [back]).decision == "opened"
    late = known("i-1", "fault:a", minutes=300, resolved=REOPEN.total_seconds() / 60 + 1)
    assert placed(occurrence("fault:a"), [late]).decision == "opened"


def test_what_a_person_split_off_takes_its_own_fault_and_nothing_that_is_shared() -> None:
    split = known("i-9", "fault:a", "host:passing:h", sealed=True)
    assert placed(occurrence("fault:b", "host:passing:h"), [split]).decision == "opened"
    assert placed(occurrence("fault:a", "host:passing:h"), [split]).incident_id == "i-9"


KEYS = st.lists(
    st.sampled_from(["fault:a", "fault:b", "host:passing:h", "table:passing:t", "run:r", "words:auth:w"]),
    max_size=4,
    unique=True,
)
INCIDENTS = st.lists(
    st.builds(
        lambda n, keys, minutes, resolved, sealed: known(
            f"i-{n}", *keys, minutes=minutes, resolved=resolved, sealed=sealed
        ),
        st.integers(0, 99),
        KEYS,
        st.floats(0, 200),
        st.none() | st.floats(0, 100),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.incident_id,
)


@given(KEYS, INCIDENTS, st.randoms(use_true_random=False))
def test_the_order_of_what_is_known_changes_nothing(
    causes: list[str], incidents: list[KnownIncident], rng: random.Random
) -> None:
    shuffled = list(incidents)
    rng.shuffle(shuffled)
    assert placed(occurrence(*causes), incidents) == placed(occurrence(*causes), shuffled)


@given(KEYS, INCIDENTS)
def test_it_only_ever_goes_where_a_key_is_shared_and_merges_nothing_else(
    causes: list[str], incidents: list[KnownIncident]
) -> None:
    one = occurrence(*causes)
    found, by_id = placed(one, incidents), {each.incident_id: each for each in incidents}
    for name in (found.incident_id, *found.merged):
        if found.decision != "opened":
            assert by_id[name].keys & set(one.keys)
    assert all(by_id[name].resolved_at is None and not by_id[name].sealed for name in found.merged)
    assert found.incident_id not in found.merged
