"""docs/compatibility.md says what was tried, and .ci/run tries the oldest and the newest server."""

from __future__ import annotations

import re
from pathlib import Path

from tests.compat.matrix import CORE, END, START
from tests.compat.versions import VERSIONS

from pilotage.telemetry.prefect.servers import LACKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()


def test_the_page_has_the_table_of_the_versions_that_are_tried() -> None:
    table = PAGE.partition(START)[2].partition(END)[0].strip().splitlines()
    assert [cell.strip() for cell in table[0].strip("|").split("|")] == ["action", *VERSIONS]
    outcomes = {
        cells[0]: cells[1:]
        for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in table[2:])
    }
    assert {*CORE, "collect"} <= set(outcomes)
    assert all(each in ("done", "not offered") for cells in outcomes.values() for each in cells)
    assert f"**{VERSIONS[0]} to {VERSIONS[-1]}**" in PAGE
    assert "Prefect Cloud" in PAGE


def test_the_page_says_what_older_servers_lack() -> None:
    rows = re.findall(r"^\| (3\.\d+\.\d+) \|.*\| (.*) ?\|$", PAGE, re.MULTILINE)
    kinds = {since: frozenset(re.findall(r"`(\w+)`", cell)) for since, cell in rows}
    assert kinds == {lack.since: lack.kinds for lack in LACKS}


def test_ci_tries_the_oldest_and_the_newest() -> None:
    assert f'make compat VERSIONS="{VERSIONS[0]} {VERSIONS[-1]}"' in (ROOT / ".ci" / "run").read_text()
