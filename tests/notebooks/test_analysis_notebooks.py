"""Notebooks 02 to 05 run from top to bottom on a demo's facts, say what was counted by hand, and what is missing."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
from tests.notebooks.queue_facts import PrefectProbe, write
from tests.notebooks.test_notebooks import NOTEBOOKS, PNG, complaints, execute, images, tagged, texts

from pilotage.flows.config.paths import StatePaths
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.analysis.before_after import differ, wilson
from pilotage.telemetry.store.duckdb import DuckDBStore

BEGUN = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
BOOKS = {
    "02_failures_and_incidents": 3,
    "03_is_the_forecast_calibrated": 4,
    "04_replaying_a_policy": 2,
    "05_before_and_after": 2,
}
"""The pictures of each."""
EMPTY = {
    "02_failures_and_incidents": ["failures", "failed hours", "incidents"],
    "03_is_the_forecast_calibrated": ["scored forecasts", "forecasts", "thresholds", "history"],
    "04_replaying_a_policy": ["decisions", "supposed proposals"],
    "05_before_and_after": ["two windows", "times", "numbers"],
}


@pytest.fixture
def kernel(without_credentials: dict[str, str]) -> dict[str, str]:
    """The same, without a setting of ours, and with all days."""
    kept = {name: value for name, value in without_credentials.items() if not name.startswith("PILOTAGE_")}
    return kept | {"PILOTAGE_STATE_DIR": without_credentials["PILOTAGE_STATE_DIR"], "PILOTAGE_DAYS": "3650"}


def a_history(path: Path) -> Path:
    draw = random.Random(8)
    rows = ["run_id,deployment,owner,submitted_at,ended_at,outcome"]
    for number in range(400):
        which = draw.randrange(8)
        failed = draw.random() < (0.6 if which < 2 else 0.05)
        rows.append(
            f"r{number},d{which},o{which % 3},{number * 60},{number * 60 + 30},{'FAILED' if failed else 'COMPLETED'}"
        )
    path.write_text("\n".join(rows) + "\n")
    return path


def test_on_a_demos_facts_each_picture_says_what_was_counted_by_hand(
    owner: DuckDBStore, state: Path, kernel: dict[str, str], tmp_path: Path
) -> None:
    probe = PrefectProbe(BEGUN)
    write(owner, probe.opening())
    for facts in islice(probe.later(), 5):
        write(owner, facts)
    owner.score_forecasts(BEGUN + timedelta(days=1))
    SqlLedger(f"sqlite:///{StatePaths(root=state).ledger}").close()
    env = kernel | {"PILOTAGE_HISTORY": str(a_history(tmp_path / "history.csv"))}
    told = {}
    for name, pictures in BOOKS.items():
        cells = execute(NOTEBOOKS / f"{name}.ipynb", env)
        assert complaints(cells) == [], name
        drawn = [image for cell in tagged(cells, "plot") for image in images(cell)]
        for number, image in enumerate(drawn):
            assert image.startswith(PNG)
            (tmp_path / f"{name}-{number}.png").write_bytes(image)
        told[name] = "\n".join(texts(cell) for cell in cells)
        missing = told[name].count("**No ")
        assert len(drawn) == pictures - missing + (name.startswith("05") and "No numbers" in told[name]), (
            told[name]
        )
    (tmp_path / "told.txt").write_text("\n\n".join(told.values()))
    assert "verified, nobody was asked" in told["02_failures_and_incidents"]
    assert "expected calibration error" in told["03_is_the_forecast_calibrated"]
    assert "the best candidate in hindsight" in told["03_is_the_forecast_calibrated"]
    assert re.search(r"allowed: [1-9]|asked: [1-9]|denied: [1-9]", told["04_replaying_a_policy"])
    assert "promises kept" in told["05_before_and_after"]


@pytest.mark.parametrize("name", BOOKS)
def test_a_store_with_nothing_in_it_is_said_plainly(
    owner: DuckDBStore, kernel: dict[str, str], name: str
) -> None:
    cells = execute(NOTEBOOKS / f"{name}.ipynb", kernel)
    assert complaints(cells) == []
    told = "\n".join(texts(cell) for cell in cells)
    assert [what for what in EMPTY[name] if f"**No {what} yet.**" in told] == EMPTY[name]


def test_shares_differ_only_by_more_than_chance() -> None:
    assert not differ(wilson("x", 5, 10), wilson("x", 7, 10))
    assert differ(wilson("x", 500, 1000), wilson("x", 700, 1000))
    share = wilson("x", 0, 20)
    assert (share.value, share.low) == (0.0, 0.0)
    assert 0.1 < share.high < 0.25
