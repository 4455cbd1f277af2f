"""Which Prefect servers are accepted, what is said of them, and what is then not offered on them."""

from __future__ import annotations

import pytest
from tests.compat.versions import VERSIONS

from pilotage.planner.actions.types import KINDS
from pilotage.telemetry.prefect.servers import (
    LACKS,
    NEWEST_TRIED,
    OLDEST_SERVER,
    kinds_not_offered,
    numbers,
    remarks,
    unfit,
)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        *((version, True) for version in VERSIONS),
        ("3.6.15", False),
        ("3.4.0", False),
        ("3.6.9", False),
        ("2.20.25", False),
        ("3.10.0", True),
        ("3.10.0rc1", True),
        ("3.6.16+12.gabc", True),
        ("3.7.dev1", True),
        ("4.0.0", False),
        ("<html>", False),
        ("", False),
    ],
)
def test_whole_versions_are_compared(version: str, accepted: bool) -> None:
    assert (unfit(version) == "") is accepted, unfit(version)


def test_a_server_that_is_too_old_is_told_the_release_it_needs() -> None:
    assert OLDEST_SERVER in unfit("3.6.15")
    assert "3.6.15" in unfit("3.6.15")


def test_the_tested_range_is_that_of_the_matrix() -> None:
    assert (VERSIONS[0], VERSIONS[-1]) == (OLDEST_SERVER, NEWEST_TRIED)


def test_the_table_knows_only_kinds_that_exist_and_releases_in_the_range() -> None:
    assert {kind for lack in LACKS for kind in lack.kinds} <= set(KINDS)
    assert all(numbers(OLDEST_SERVER) < numbers(lack.since) <= numbers(NEWEST_TRIED) for lack in LACKS)


def test_what_a_server_lacks_is_not_offered_with_its_reason_and_said_at_the_start() -> None:
    assert set(kinds_not_offered(OLDEST_SERVER)) == {kind for lack in LACKS for kind in lack.kinds}
    assert all(OLDEST_SERVER in why for why in kinds_not_offered(OLDEST_SERVER).values())
    said = "\n".join(remarks(OLDEST_SERVER))
    assert all(kind in said for kind in kinds_not_offered(OLDEST_SERVER))
    assert kinds_not_offered(NEWEST_TRIED) == {}
    assert remarks(NEWEST_TRIED) == ()
    assert NEWEST_TRIED in remarks("3.10.0")[0]
