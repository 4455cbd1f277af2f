"""The bench simulated: what the ground truth says holds, and the arms do what their names say."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from pilotage.flows.bench.round import WORLDS, Round, incidents_of, sources_in, world_class
from pilotage.flows.bench.run import Wanted, run_bench, simulate
from pilotage.flows.bench.score import Score
from pilotage.telemetry.errors import ConfigError

SOURCES = sources_in(WORLDS)
NAMES = [world_class(source).name for source in SOURCES]
SEEDS = (1, 2, 3)
DOCS = Path(__file__).parents[3] / "docs" / "bench.md"


@pytest.fixture(scope="module")
def scores() -> dict[str, list[Score]]:
    """Every world with three seeds, under the arms that cost nothing."""
    wanted = Wanted(simulated=True, seeds=SEEDS, arms=("nothing", "blind_retry", "oracle"))
    found = run_bench(wanted, say=lambda text: None).scores
    return {arm: [score for score in found if score.arm == arm] for arm in wanted.arms}


def test_there_are_twenty_classes_of_fault_and_a_quiet_day() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 21
    assert "quiet-weekday" in NAMES


def test_the_oracle_wins_every_fault_that_can_be_won_in_each_of_three_runs(
    scores: dict[str, list[Score]],
) -> None:
    lost = [
        (score.name, score.seed) for score in scores["oracle"] if score.remediable and not score.recovered
    ]
    assert not lost
    assert not [
        (score.name, score.wrong, score.duplicates) for score in scores["oracle"] if not score.handled
    ]


def test_nothing_recovers_none(scores: dict[str, list[Score]]) -> None:
    assert not [score.name for score in scores["nothing"] if score.remediable and score.recovered]


def test_blind_retries_pay_twice_and_lock_accounts(scores: dict[str, list[Score]]) -> None:
    by_name = {score.name: score for score in scores["blind_retry"]}
    assert by_name["half-done"].duplicates
    assert by_name["permanent-auth"].wrong
    assert by_name["transient-network"].recovered
    assert by_name["production"].violations


def test_the_same_seed_gives_the_same_scores(scores: dict[str, list[Score]]) -> None:
    again, _, _ = simulate(Round(incidents=tuple(incidents_of(SOURCES, [1]))), "blind_retry")
    assert again == [score for score in scores["blind_retry"] if score.seed == 1]


def test_pilotage_is_the_product_and_recovers_what_passes() -> None:
    chosen = tuple(incidents_of(SOURCES, [1], ["transient-network", "permanent-auth", "production"]))
    found, requests, _ = simulate(Round(incidents=chosen, horizon=timedelta(seconds=60)), "pilotage")
    by_name = {score.name: score for score in found}
    assert by_name["transient-network"].recovered
    assert not by_name["permanent-auth"].wrong
    assert by_name["permanent-auth"].told
    assert not by_name["production"].violations
    assert requests


def test_a_world_of_ones_own_is_found_in_a_folder(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "disk_full.py").write_text(code.group(1))
    wanted = Wanted(simulated=True, worlds=tmp_path, arms=("nothing", "oracle"))
    nothing, oracle = run_bench(wanted, say=lambda text: None).scores
    assert not nothing.recovered
    assert oracle.recovered


def test_an_unknown_world_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="transient-network"):
        Wanted(only=("no-such",)).incidents()
    with pytest.raises(ConfigError, match="no file there"):
        Wanted(worlds=tmp_path).incidents()
