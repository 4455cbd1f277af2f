"""`pilotage bench`: what automations, blind retries and pilotage do about the same faults."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.console.cli.options import AsJson, told
from pilotage.console.render.text import ERR, OUT, harmless, print_json, print_table
from pilotage.telemetry.errors import ConfigError

if TYPE_CHECKING:
    from pilotage.flows.bench.run import Result

app = typer.Typer(
    name="bench", no_args_is_help=True, help="Break flows on purpose, and compare what is done about it."
)

COLUMNS = (
    ("recovered", "recovered_share"),
    ("handled", "handled_share"),
    ("wrong", "wrong_share"),
    ("violations", "policy_violations"),
    ("duplicates", "duplicate_effects"),
    ("recovery s", "median_recovery_s"),
    ("wasted", "wasted_attempts"),
    ("pages", "pages"),
    ("requests", "requests"),
)
"""Headings and fields of the table."""


@app.callback()
def bench() -> None:
    """Break flows on purpose, and compare what is done about it."""


@app.command()
def faults(
    only: Annotated[
        str, typer.Option(help="Classes of fault, or beginnings of their names, with commas between.")
    ] = "",
    arms: Annotated[
        str,
        typer.Option(
            help="With commas between: nothing, automations, blind_retry, pilotage, pilotage_llm, oracle. All by default."
        ),
    ] = "",
    simulated: Annotated[
        bool, typer.Option("--simulated", help="On a fake server with a clock of its own, in seconds.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Incidents of each class.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 1,
    untagged: Annotated[
        bool, typer.Option("--untagged", help="A second set of everything, without any tags.")
    ] = False,
    worlds: Annotated[Path | None, typer.Option(help="A folder with worlds of your own.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Simulated rounds, or real arms, at a time.")] = 2,
    minutes: Annotated[float, typer.Option(min=0.5, help="How long a round is watched.")] = 9,
    mode: Annotated[str, typer.Option(help="The mode of pilotage.")] = "auto",
    report: Annotated[
        Path | None, typer.Option(help="A directory for the report in Markdown and HTML, with its plots.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A file for the result as JSON.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Only name the classes of fault.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score six ways to deal with the same faults, on a real Prefect server or simulated."""
    from pilotage.flows.bench.run import (  # start-up time
        Wanted,
        about_worlds,
        parsed_arms,
        run_bench,
        seeds_of,
    )

    with told(as_json):
        if listed:
            known = about_worlds(worlds)
            if as_json:
                print_json([{"name": name, "about": about} for name, about in known])
            else:
                print_table("Classes of fault", ("name", "what is broken"), known, empty="There is none.")
            return
        try:
            chosen = parsed_arms(arms)
        except ValueError as exc:
            raise ConfigError(f"Reading --arms: {exc}.") from exc
        wanted = Wanted(
            arms=chosen,
            only=tuple(name.strip() for name in only.split(",") if name.strip()),
            worlds=worlds,
            seeds=tuple(seeds_of(seeds, first_seed)),
            untagged=untagged,
            simulated=simulated,
            jobs=jobs,
            mode=mode,
            horizon=timedelta(minutes=minutes),
        )
        _give(run_bench(wanted, say=lambda text: ERR.print(harmless(text))), out, report, as_json=as_json)


Results = Annotated[list[Path], typer.Argument(help="Files that `pilotage bench faults --out` wrote.")]


@app.command()
def merge(
    results: Results,
    report: Annotated[Path | None, typer.Option(help="A directory for the report, as of `faults`.")] = None,
    out: Annotated[Path | None, typer.Option(help="A file for the whole result as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put results of rounds together that were played apart, by class, arm or seed."""
    from pilotage.flows.bench.results import merged, read_result  # start-up time

    with told(as_json):
        _give(merged([read_result(path) for path in results]), out, report, as_json=as_json)


@app.command()
def agreement(
    real: Annotated[Path, typer.Argument(help="A result of the real mode.")],
    simulated: Annotated[Path, typer.Argument(help="A result of the simulated mode with the same seeds.")],
    as_json: AsJson = False,
) -> None:
    """Say how often two results agree on recovered, wrong and duplicate, incident by incident."""
    from pilotage.flows.bench.results import agreement as compared  # start-up time
    from pilotage.flows.bench.results import read_result

    with told(as_json):
        found = compared(read_result(real), read_result(simulated))
        if as_json:
            print_json(
                {
                    "incidents": found.incidents,
                    "agree": found.agree,
                    "share": found.share,
                    "differ": found.differ,
                }
            )
            return
        share = "" if found.share is None else f" ({found.share:.0%})"
        OUT.print(harmless(f"{found.agree} of {found.incidents} incidents agree{share}."))
        for each in found.differ:
            OUT.print(harmless(each))


def _give(result: Result, out: Path | None, report: Path | None, *, as_json: bool) -> None:
    """Write a result where it is wanted, and show it."""
    if out is not None:
        result.write(out)
    figures = result.as_json()
    if report is not None:
        from pilotage.flows.bench.report import write_report  # start-up time

        write_report(figures, report)
    if as_json:
        print_json(figures)
        return
    _show(figures)


def _show(found: dict[str, Any]) -> None:
    for title, rows in (("Faults", found["arms"]), ("The same without tags", found["untagged"])):
        if not rows:
            continue
        cells = [(row["arm"], *(_cell(row[field]) for _, field in COLUMNS)) for row in rows]
        print_table(title, ("arm", *(heading for heading, _ in COLUMNS)), cells, empty="")
    for row in found["arms"]:
        short = [
            f"{name} {_cell(each['recovered_share'])}"
            for name, each in row["by_class"].items()
            if each["remediable"] and each["recovered_share"] != 1
        ]
        if short and row["arm"] != "nothing":
            OUT.print(harmless(f"{row['arm']} does not recover: {', '.join(short)}"))
        wrong = [
            f"{name}: {text} ({count})"
            for name, each in row["by_class"].items()
            for text, count in each["wrong"].items()
        ]
        if wrong and row["arm"].startswith("pilotage"):
            OUT.print(harmless(f"{row['arm']} did wrong: {'; '.join(wrong)}"))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float() if value <= 1:
            return f"{value:.0%}"
        case _:
            return str(value)
