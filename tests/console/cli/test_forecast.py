"""`pilotage forecast backtest` on a file, as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.telemetry.samples import a_run, at
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.store.duckdb import DuckDBStore


def history(path: Path) -> Path:
    """Write forty runs of two deployments, one of which always fails."""
    rows = ["run_id,deployment,submitted_at,ended_at,outcome"]
    rows += [
        f"r{n},{'bad' if n % 4 == 0 else 'good'},{n * 100},{n * 100 + 50},{'FAILED' if n % 4 == 0 else 'COMPLETED'}"
        for n in range(40)
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_history_of_forty_runs_is_scored_as_json(tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        app,
        ["forecast", "backtest", str(history(tmp_path / "h.csv")), "--label", "FAILED", "--train-until", "2000",
         "--json"],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["counts"]["test_scored"] == 20
    assert report["counts"]["test_failures"] == 5
    assert report["served"]["roc_auc"] == 1.0


def test_a_file_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        app, ["forecast", "backtest", str(tmp_path / "no.csv"), "--label", "FAILED", "--train-until", "75%"]
    )
    assert ran.exit_code != 0
    assert "Name a Parquet, CSV or SWF file" in " ".join(ran.output.split())


def test_a_model_is_trained_listed_scored_and_taken_back(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    store.merge_runs(
        [
            a_run(
                f"r{n}",
                StateType.FAILED if n % 4 == 0 else StateType.COMPLETED,
                deployment_id=f"d{n % 4}",
                started=at(n * 60),
                ended=at(n * 60 + 20),
            )
            for n in range(120)
        ]
    )
    store.add_forecasts(
        [
            Forecast(run_id=f"r{n}", made_at=at(n * 60 - 1), p_fail=0.5, model="rate", trained_on=1)
            for n in range(120)
        ]
    )
    store.score_forecasts(at(100_000))
    store.close()

    def say(*words: str) -> Any:
        ran = CliRunner().invoke(app, ["forecast", *words, "--state-dir", str(tmp_path), "--json"])
        assert ran.exit_code == 0, ran.output
        return json.loads(ran.stdout)

    assert say("status")["serving"] is None
    first = say("train")["model_id"]
    assert say("status")["serving"] == first
    assert [each["model_id"] for each in say("models")] == [first]
    assert say("rollback", first)["model_id"] == first
    assert say("status")["chosen by a person"] is True
    (scored,) = say("score")
    assert (scored["model_id"], scored["forecasts"], scored["base_rate"]) == ("rate", 120, 0.25)
