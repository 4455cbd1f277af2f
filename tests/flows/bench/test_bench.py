"""The bench simulated: what the ground truth says holds, and the arms do what their names say."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pilotage.flows.bench.postgres import binaries, cluster
from pilotage.flows.bench.report import write_report
from pilotage.flows.bench.round import WORLDS, Round, incidents_of, sources_in, world_class
from pilotage.flows.bench.run import Result, Wanted, rounds_of, run_bench, simulate
from pilotage.flows.bench.score import Score
from pilotage.telemetry.errors import ConfigError

SOURCES = sources_in(WORLDS)
NAMES = [world_class(source).name for source in SOURCES]
SEEDS = (1, 2, 3)
HELD_OUT = WORLDS.parent / "held_out"
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


def test_the_worlds_kept_apart_can_be_won_too_and_nothing_wins_none() -> None:
    wanted = Wanted(simulated=True, worlds=HELD_OUT, arms=("nothing", "oracle"))
    found = run_bench(wanted, say=lambda text: None).scores
    assert len({score.name for score in found}) >= 4
    assert not {score.name for score in found} & set(NAMES)
    assert [score.name for score in found if score.arm == "oracle" and not score.handled] == []
    assert not [
        score.name for score in found if score.arm == "nothing" and score.remediable and score.recovered
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
    again, _, _ = simulate(rounds_of(Wanted())[0], "blind_retry")
    names = {score.name for score in again}
    assert again == [score for score in scores["blind_retry"] if score.seed == 1 and score.name in names]


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


def test_the_report_says_what_the_result_says(tmp_path: Path, scores: dict[str, list[Score]]) -> None:
    found = Result(simulated=True, scores=[score for each in scores.values() for score in each]).as_json()
    write_report(found, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| oracle | 100% | 100% |" in text
    assert "blind_retry, half-done: retry_run of run (9)" in text
    for plot in ("arms.svg", "classes.svg"):
        assert ElementTree.fromstring((tmp_path / plot).read_text()).tag.endswith("svg")  # noqa: S314  our own
    assert "<h2>What was wrong</h2>" in (tmp_path / "report.html").read_text()


def test_an_incident_that_would_slow_the_others_down_has_a_server_to_itself() -> None:
    together, alone = rounds_of(Wanted())
    assert [each.name for each in alone.incidents] == ["blocked-limit"]
    assert len(together.incidents) == len(NAMES) - 1


def test_postgresql_is_made_and_removed() -> None:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL here")
    with cluster() as postgres:
        assert postgres is not None
        assert postgres.database("prefect").startswith("postgresql+asyncpg://postgres:")
        port = postgres.port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port))


def test_postgresql_ends_with_a_bench_that_is_asked_to_end() -> None:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL here")
    code = (
        "import sys, time\n"
        "from pilotage.flows.bench.postgres import cluster\n"
        "with cluster() as postgres:\n"
        "    print(postgres.port if postgres else 0, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bench:
        assert bench.stdout is not None
        port = int(bench.stdout.readline())
        bench.terminate()
        assert bench.wait(60) == 128 + signal.SIGTERM
    if port:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port))


def test_an_unknown_world_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="transient-network"):
        Wanted(only=("no-such",)).incidents()
    with pytest.raises(ConfigError, match="no file there"):
        Wanted(worlds=tmp_path).incidents()
