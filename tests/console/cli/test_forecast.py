"""`pilotage forecast backtest` on a file, as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from pilotage.console.cli.main import app


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
