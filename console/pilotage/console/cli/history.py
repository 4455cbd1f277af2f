"""`pilotage history import`: a run history as a file, from Prefect or from another file."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.console.cli.options import AsJson, told
from pilotage.console.render.text import print_json, print_pairs
from pilotage.telemetry.errors import ConfigError

if TYPE_CHECKING:
    from pilotage.telemetry.forecast.history_file import HistoryTable

app = typer.Typer(help="Histories of runs, to try the forecasts on.", no_args_is_help=True)


@app.callback()
def history() -> None:
    """Histories of runs, to try the forecasts on."""


@app.command("import")
def import_history(
    source: Annotated[
        str,
        typer.Argument(help="A Parquet, CSV or SWF file, or `prefect` for the server of the active profile."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The Parquet file that is written.")] = Path(
        "history.parquet"
    ),
    since: Annotated[
        str | None, typer.Option("--since", help="With `prefect`: runs that were due from this ISO time on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a run history and write it as Parquet in the documented format."""
    with told(as_json):
        from pilotage.telemetry.forecast.history_file import (  # start-up time: NumPy, DuckDB
            read_table,
            write_history,
        )

        table = (
            asyncio.run(_from_prefect(_moment(since))) if source == "prefect" else read_table(Path(source))
        )
        write_history(table, out)
        submitted = table.times[0]
        report = {
            "out": str(out),
            "runs": len(table.run_id),
            "deployments": len(set(table.deployment)),
            "owners": len(set(table.owner)),
            "outcomes": dict(Counter(table.outcome).most_common()),
            "first_submitted": float(submitted.min()),
            "last_submitted": float(submitted.max()),
            "numbers": sorted(table.numbers),
        }
        if as_json:
            print_json(report)
        else:
            outcomes = ", ".join(f"{count} {word}" for word, count in Counter(table.outcome).most_common(10))
            print_pairs(
                "run history",
                {
                    "written to": str(out),
                    "runs": f"{len(table.run_id)} of {len(set(table.deployment))} deployments",
                    "outcomes": outcomes,
                    "columns known at submission": ", ".join(sorted(table.numbers)) or "none",
                },
            )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"Reading --since {text!r}: {error}. Give ISO 8601 (2026-01-31T00:00:00Z)."
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _from_prefect(since: datetime | None) -> HistoryTable:
    import numpy as np  # start-up time, as those below

    from pilotage.telemetry.forecast.history_file import HistoryTable
    from pilotage.telemetry.prefect.http import PrefectReader
    from pilotage.telemetry.prefect.run_history import past_runs

    async with PrefectReader() as reader:
        runs = [run async for page in past_runs(reader, since) for run in page]
    if not runs:
        raise ConfigError(
            "Importing the history of Prefect: the server has no run that was due. Set --since earlier."
        )
    runs.sort(key=lambda run: run.submitted)

    def seconds(moments: list[datetime | None]) -> np.ndarray:
        return np.array([np.nan if moment is None else moment.timestamp() for moment in moments])

    memory = np.array([np.nan if run.memory_mb is None else float(run.memory_mb) for run in runs])
    return HistoryTable(
        run_id=[run.run_id for run in runs],
        deployment=[run.deployment for run in runs],
        owner=[run.owner for run in runs],
        queue=[run.queue for run in runs],
        outcome=[run.outcome for run in runs],
        times=(
            seconds([run.submitted for run in runs]),
            seconds([run.started for run in runs]),
            seconds([run.ended for run in runs]),
        ),
        numbers={"memory_mb": memory} if np.isfinite(memory).any() else {},
        clock=True,
        zero=0.0,
    )
