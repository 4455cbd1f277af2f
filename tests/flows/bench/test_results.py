"""Results of rounds that were played apart are one result, and a real one is held against a simulated one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilotage.console.cli.bench import app
from pilotage.flows.bench.results import agreement, merged, read_result
from pilotage.flows.bench.run import Result, Wanted, run_bench
from pilotage.telemetry.errors import ConfigError


def played(*only: str, seed: int = 1) -> Result:
    wanted = Wanted(simulated=True, only=only, seeds=(seed,), arms=("nothing", "oracle"), untagged=True)
    return run_bench(wanted, say=lambda text: None)


def test_rounds_that_were_played_apart_say_what_one_round_says(tmp_path: Path) -> None:
    parts = [played("transient-network"), played("half-done"), played("half-done", seed=2)]
    for number, part in enumerate(parts):
        part.write(tmp_path / f"{number}.json")
    read = [read_result(tmp_path / f"{number}.json") for number in range(3)]
    assert [part.as_json() for part in read] == [part.as_json() for part in parts]
    whole = merged(read).as_json()
    assert [(row["arm"], row["incidents"]) for row in whole["arms"]] == [("nothing", 3), ("oracle", 3)]
    assert [row["incidents"] for row in whole["untagged"]] == [3, 3]
    assert whole["arms"][1]["handled_share"] == 1
    requests = [row["requests"] for part in parts for row in part.as_json()["arms"] if row["arm"] == "oracle"]
    assert whole["arms"][1]["requests"] == sum(requests) > 0


def test_what_was_played_again_counts_once(tmp_path: Path) -> None:
    first = played("transient-network")
    again = Result(simulated=True, scores=[replace(score, recovered=False) for score in first.scores])
    assert merged([first, again]).scores == sorted(
        again.scores, key=lambda score: (["nothing", "oracle"].index(score.arm), score.tagged)
    )


def test_real_and_simulated_are_compared_and_not_put_together() -> None:
    simulated = played("transient-network")
    real = replace_scores(simulated, recovered=False)
    with pytest.raises(ConfigError, match="agreement"):
        merged([simulated, real])
    assert agreement(simulated, simulated).share == 1
    found = agreement(real, simulated)
    # the oracle recovers it with and without tags; whoever does nothing recovers it in neither
    assert (found.incidents, found.agree, found.share) == (4, 2, 0.5)
    assert found.differ[0] == "oracle, transient-network, seed 1: recovered false and true"
    assert agreement(real, Result(simulated=True)).share is None


def replace_scores(result: Result, *, recovered: bool) -> Result:
    return Result(simulated=False, scores=[replace(score, recovered=recovered) for score in result.scores])


def test_the_terminal_merges_and_compares(tmp_path: Path) -> None:
    one, other, whole = (str(tmp_path / f"{name}.json") for name in ("one", "other", "whole"))
    played("transient-network").write(Path(one))
    played("half-done").write(Path(other))
    run = CliRunner().invoke
    assert (
        run(app, ["merge", one, other, "--out", whole, "--report", str(tmp_path / "report")]).exit_code == 0
    )
    assert "half-done" in (tmp_path / "report" / "report.md").read_text()
    compared = run(app, ["agreement", one, whole, "--json"])
    assert json.loads(compared.stdout) == {"incidents": 4, "agree": 4, "share": 1.0, "differ": []}
    assert "4 of 4 incidents agree (100%)." in run(app, ["agreement", one, whole]).stdout
    Path(other).write_text("{}")
    assert run(app, ["merge", other]).exit_code != 0
