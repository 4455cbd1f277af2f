"""`pilotage forecast backtest`: would the forecasts have been right? Needs a file only: no server, no state directory."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.console.cli import forecast_models
from pilotage.console.cli.options import AsJson, told
from pilotage.console.render.text import print_json, print_pairs, print_table

app = typer.Typer(
    help="The failure forecast: its models, and how right it would have been.", no_args_is_help=True
)
for command in (
    forecast_models.status,
    forecast_models.train,
    forecast_models.models,
    forecast_models.rollback,
    forecast_models.score,
):
    app.command()(command)
History = Annotated[Path, typer.Argument(help="A run history: Parquet, CSV or SWF (docs/forecast.md).")]
TrainUntil = Annotated[
    str,
    typer.Option(
        "--train-until", help="ISO time, seconds as in the file, or a share of the runs such as 75%."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write the forecasts there as Parquet.")]


@app.command("backtest")
def failure_backtest(
    history: History,
    train_until: TrainUntil,
    label: Annotated[
        str, typer.Option("--label", help="The outcomes that are forecast, separated by commas.")
    ] = "FAILED,CRASHED",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Walk through a history in the order of time and score the failure forecasts of every candidate."""
    with told(as_json):
        from pilotage.telemetry.forecast.backtest import backtest
        from pilotage.telemetry.forecast.history_file import read_history  # start-up time: scikit-learn

        report = backtest(read_history(history), label.split(","), train_until, out)
        if as_json:
            print_json(report)
        else:
            _show(report)


@app.command("lateness-backtest")
def lateness_backtest(
    history: History,
    train_until: TrainUntil = "75%",
    late_after: Annotated[
        float, typer.Option("--late-after", min=1, help="Seconds after which a start is late.")
    ] = 300.0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Walk through a history in the order of time and score "this run will start late", forecast at its submission."""
    with told(as_json):
        from pilotage.telemetry.forecast.backtest import scored_walk
        from pilotage.telemetry.forecast.history_file import read_history  # start-up time: scikit-learn
        from pilotage.telemetry.forecast.lateness import waits_of

        waits, late = waits_of(read_history(history), timedelta(seconds=late_after))
        report: dict[str, Any] = {
            "late_after_s": late_after,
            **scored_walk(waits, late, train_until, out),
        }
        if as_json:
            print_json(report)
        else:
            _show(
                {"label": [f"starts later than {late_after:g} s"], **report}, bad="late starts", good="others"
            )


def _show(report: dict[str, Any], bad: str = "bad runs", good: str = "good runs") -> None:
    counts, happened = report["counts"], "failed" if bad == "bad runs" else "late"
    print_pairs(
        "backtest",
        {
            "forecast": ", ".join(report["label"]),
            "trained on": f"{counts['train']} runs that ended before {report['train_until']}",
            "scored": f"{counts['test_scored']} runs, {report['base_rate']:.2%} of them {happened}",
        },
    )
    names = ("roc_auc", "pr_auc", "brier", "ece", "log_loss", "precision_at_5_percent", "recall_at_5_percent")
    print_table(
        "Scores",
        ("candidate", "ROC-AUC", "PR-AUC", "Brier", "ECE", "log loss", "precision at 5 %", "recall at 5 %"),
        (
            (name, *("" if scores[key] is None else f"{scores[key]:.4f}" for key in names))
            for name, scores in (*report["candidates"].items(), ("served", report["served"]))
        ),
        empty="",
    )
    print_table(
        "What acting on the served forecast would have cost",
        ("act above", f"{bad} caught", f"{good} delayed"),
        (
            (f"{row['act_above']:.0%}", str(row["bad_runs_caught"]), str(row["good_runs_delayed"]))
            for row in report["thresholds"]
        ),
        empty="",
    )
