"""`forecast retry-backtest`, `forecast duration-backtest` and `queue replay`: tried on a file, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pilotage.console.cli.options import AsJson, told
from pilotage.console.render.text import print_json, print_pairs, print_table

ORDERS = ("fifo", "sjf", "f1", "pilotage")
"""The orders by name; a test holds them against those of the replay, which costs too much to import here."""

queue_app = typer.Typer(help="The order of the queue.", no_args_is_help=True)
History = Annotated[Path, typer.Argument(help="A run history: Parquet, CSV or SWF (docs/forecast.md).")]
Attempts = Annotated[Path, typer.Argument(help="Decisions about retries: Parquet or CSV (docs/forecast.md).")]
TrainUntil = Annotated[
    str,
    typer.Option(
        "--train-until", help="ISO time, seconds as in the file, or a share of the rows such as 75%."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write what was forecast there as Parquet.")]


def join(forecast: typer.Typer) -> None:
    """Add the two backtests to `pilotage forecast`."""
    forecast.command("retry-backtest")(retries)
    forecast.command("duration-backtest")(durations)


def retries(
    attempts: Attempts, train_until: TrainUntil = "60%", out: Out = None, as_json: AsJson = False
) -> None:
    """Walk through decisions about retries in the order of time and score "another attempt will succeed"."""
    with told(as_json):
        from pilotage.telemetry.forecast.retry_backtest import retry_backtest  # start-up time: scikit-learn
        from pilotage.telemetry.forecast.retry_file import read_decisions

        report = retry_backtest(read_decisions(attempts), train_until, out)
        if as_json:
            print_json(report)
        else:
            _show_retries(report)


def durations(
    history: History, train_until: TrainUntil = "75%", out: Out = None, as_json: AsJson = False
) -> None:
    """Walk through a history in the order of time and score median, p90 and interval of the durations."""
    with told(as_json):
        from pilotage.telemetry.forecast.duration_backtest import duration_backtest  # start-up time
        from pilotage.telemetry.forecast.history_file import read_history

        report = duration_backtest(read_history(history), train_until, out)
        if as_json:
            print_json(report)
        else:
            _show_durations(report)


@queue_app.callback()
def queue() -> None:
    """Try orders of the queue on a history of runs."""


@queue_app.command("replay")
def replay(
    history: History,
    slots: Annotated[int, typer.Option("--slots", min=1, help="How many slots the site has.")],
    order: Annotated[str, typer.Option("--order", help=f"One of {', '.join(ORDERS)}.")] = "pilotage",
    backfilling: Annotated[
        str, typer.Option("--backfilling", help="EASY backfilling: easy, none, or both beside each other.")
    ] = "both",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Replay a history in another order of the queue and tell how long the runs of its last quarter would have waited."""
    with told(as_json):
        from pilotage.telemetry.forecast.history_file import read_history  # start-up time: scikit-learn
        from pilotage.telemetry.forecast.queueing.replay import queue_replay

        report = queue_replay(read_history(history), slots, order, backfilling, out)
        if as_json:
            print_json(report)
        else:
            _show_replay(report)


def _show_retries(report: dict[str, Any]) -> None:
    counts = report["counts"]
    print_pairs(
        "retries",
        {
            "trained on": f"{counts['train']} outcomes that were known before {report['train_until']}",
            "scored": f"{counts['test_scored']} decisions; the attempt succeeded in {report['base_rate']:.1%}",
            "retried": f"above {report['threshold']:.0%}",
        },
    )
    rows = {**report["candidates"], "without logs": report["without_logs"], "served": report["served"]}
    names = ("f1", "precision", "recall", "roc_auc", "brier", "ece")
    print_table(
        "Scores",
        ("candidate", "F1", "precision", "recall", "ROC-AUC", "Brier", "ECE"),
        (
            (name, *("" if found.get(key) is None else f"{found[key]:.3f}" for key in names))
            for name, found in rows.items()
        ),
        empty="",
    )
    _show_retry_costs(report["thresholds"])


def _show_retry_costs(rows: list[dict[str, Any]]) -> None:
    print_table(
        "What retrying above a chance would have cost",
        ("retry above", "F1", "useless retries", "missed recoveries"),
        (
            (
                f"{row['retry_above']:.0%}",
                f"{row['f1']:.3f}",
                str(row["useless_retries"]),
                str(row["missed_recoveries"]),
            )
            for row in rows
        ),
        empty="",
    )


def _show_durations(report: dict[str, Any]) -> None:
    counts = report["counts"]
    print_pairs(
        "durations",
        {
            "trained on": f"{counts['train']} runs that ended before {report['train_until']}",
            "scored": f"{counts['test_scored']} runs",
            "interval": f"said {report['interval_level']:.0%}, holds {report['coverage']:.1%}; "
            f"{report['median_width_s']:.0f} s wide (median)",
        },
    )
    print_table(
        "Pinball loss in seconds",
        ("forecast", "median", "p90", "mean"),
        (
            (name, *(f"{loss[key]:.1f}" for key in ("p50", "p90", "mean")))
            for name, loss in report["pinball"].items()
        ),
        empty="",
    )
    _show_overlong(report["overlong"])


def _show_overlong(rows: list[dict[str, Any]]) -> None:
    print_table(
        "What telling of overlong runs would have cost",
        ("told when more end sooner than", "good runs told", "of all good runs", "hours until told (median)"),
        (
            (
                f"{row['told_above']:.1%}",
                str(row["good_runs_told"]),
                f"{row['share_of_good_runs']:.2%}",
                f"{row['median_hours_until_told']:.2f}",
            )
            for row in rows
        ),
        empty="",
    )


def _show_replay(report: dict[str, Any]) -> None:
    ways = [way for way in ("easy", "no_backfilling") if way in report]
    print_pairs(
        "replay",
        {
            "order": f"{report['order']} on {report['slots']} slots",
            "scored": f"{report['scored']} runs that completed, of {report['runs']}",
        },
    )
    names = ("mean_wait_s", "p95_wait_s", "worst_wait_s", "bounded_slowdown", "sla_miss_share")
    print_table(
        "Waits",
        ("backfilling", "mean s", "p95 s", "worst s", "bounded slowdown", "SLA missed"),
        (
            (
                "EASY" if way == "easy" else "none",
                *(f"{report[way][key]:.0f}" for key in names[:3]),
                f"{report[way]['bounded_slowdown']:.1f}",
                f"{report[way]['sla_miss_share']:.1%}",
            )
            for way in ways
        ),
        empty="",
    )
