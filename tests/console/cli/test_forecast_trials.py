"""The backtests of retries and durations, the replay of the queue and the import of histories, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.flows.fake_server import a_fake_server
from typer.testing import CliRunner

from pilotage.console.cli.forecast_trials import ORDERS
from pilotage.console.cli.main import app
from pilotage.telemetry.forecast.queueing import orders


def say(*words: str) -> Any:
    ran = CliRunner().invoke(app, [*words, "--json"])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def history(folder: Path) -> Path:
    """Write eighty runs of four deployments that come faster than two slots can take them."""
    rows = ["run_id,deployment,owner,submitted_at,started_at,ended_at,outcome,requested_s"]
    rows += [
        f"r{n},d{n % 4},o{n % 2},{n * 40},{n * 40},{n * 40 + 30 * (1 + n % 4)},COMPLETED,200"
        for n in range(80)
    ]
    path = folder / "h.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_durations_are_scored_as_json_and_as_a_table(tmp_path: Path) -> None:
    path, out = str(history(tmp_path)), tmp_path / "d.parquet"
    report = say("forecast", "duration-backtest", path, "--train-until", "75%", "--out", str(out))
    assert report["counts"]["test_scored"] == 20
    assert 0 <= report["coverage"] <= 1
    assert set(report["pinball"]) == {"served", "own", "boosting", "live"}
    assert out.is_file()
    ran = CliRunner().invoke(app, ["forecast", "duration-backtest", path])
    assert ran.exit_code == 0, ran.output


def test_retries_are_scored_as_json_and_as_a_table(tmp_path: Path) -> None:
    rows = ["chain,workflow,attempt,decided_at,outcome"]
    rows += [f"c{n},w{n % 3},1,{n * 9000},{'success' if n % 3 else 'failure'}" for n in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    report = say("forecast", "retry-backtest", str(tmp_path / "a.csv"))
    assert report["counts"]["test_scored"] == 24
    assert report["f1"] == report["served"]["f1"] > 0.9
    ran = CliRunner().invoke(app, ["forecast", "retry-backtest", str(tmp_path / "a.csv")])
    assert ran.exit_code == 0, ran.output


def test_a_queue_is_replayed_as_json_and_as_a_table(tmp_path: Path) -> None:
    path = str(history(tmp_path))
    report = say("queue", "replay", path, "--slots", "2", "--order", "pilotage")
    assert report["scored"] == 20
    assert report["mean_wait_s"] == report["easy"]["mean_wait_s"] > 0
    for name in ("p95_wait_s", "worst_wait_s", "bounded_slowdown", "sla_miss_share"):
        assert report["no_backfilling"][name] >= 0
    ran = CliRunner().invoke(app, ["queue", "replay", path, "--slots", "2", "--order", "fifo"])
    assert ran.exit_code == 0, ran.output


def test_the_orders_that_the_help_names_are_those_that_are_replayed() -> None:
    assert ORDERS == orders.ORDERS


def test_a_file_is_imported_and_what_was_written_is_read_again(tmp_path: Path) -> None:
    out = tmp_path / "h.parquet"
    report = say("history", "import", str(history(tmp_path)), "--out", str(out))
    assert report["runs"] == 80
    assert report["deployments"] == 4
    assert report["outcomes"] == {"COMPLETED": 80}
    assert report["numbers"] == ["requested_s"]
    assert say("queue", "replay", str(out), "--slots", "2")["runs"] == 80
    again = say("history", "import", str(out), "--out", str(tmp_path / "again.parquet"))
    assert {**again, "out": ""} == {**report, "out": ""}


def test_the_runs_of_a_prefect_server_are_imported(tmp_path: Path) -> None:
    with a_fake_server() as server:
        fake = server.embedded.fake  # type: ignore[attr-defined]
        [deployment, *_] = fake.ask("POST", "/deployments/filter", {})
        for state in ("COMPLETED", "FAILED", "RUNNING"):
            run = fake.ask(
                "POST", f"/deployments/{deployment['id']}/create_flow_run",
                {"state": {"type": "PENDING"}, "tags": ["owner:anna"]},
            )  # fmt: skip
            for each in dict.fromkeys(("RUNNING", state)):
                fake.ask(
                    "POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": each}, "force": True}
                )
        out = tmp_path / "h.parquet"
        report = say("history", "import", "prefect", "--out", str(out))
    assert report["runs"] == 3
    assert report["owners"] == 1
    assert report["outcomes"] == {"COMPLETED": 1, "FAILED": 1, "RUNNING": 1}
    assert out.is_file()
