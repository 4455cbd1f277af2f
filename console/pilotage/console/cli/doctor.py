"""`pilotage doctor`: one table of what is wrong or missing, each row with what to do about it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from pilotage.console.cli.options import AsJson, StateDir, TokenFile, told
from pilotage.console.render.text import OUT, harmless, print_json, print_table

app = typer.Typer(
    help="What is wrong or missing, and what to do. Exit code 0: well, 1: a warning, 2: something is broken."
)

COLOURS = {"OK": "green", "NOTE": "", "WARNING": "yellow", "BROKEN": "red"}


@app.callback(invoke_without_command=True)
def doctor(
    context: typer.Context,
    send_test: Annotated[
        bool, typer.Option("--send-test", help="Send the webhook a test alert, resolved at once.")
    ] = False,
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.", show_default="pilotage.toml")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at the installation and its Prefect server; change nothing."""
    if context.invoked_subcommand is not None:
        return
    with told(as_json):
        from pilotage.flows.doctor.checks import exit_code, run_checks
        from pilotage.flows.doctor.gather import Request, gather_facts  # start-up time: Prefect

        asked = Request(state_dir=state_dir, token_file=token_file, config=config, send_test=send_test)
        rows = run_checks(asyncio.run(gather_facts(asked)))
        code = exit_code(rows)
        if as_json:
            print_json(
                {
                    "worst": max(row.result.level for row in rows).name.lower(),
                    "exit_code": code,
                    "checks": [
                        {
                            "check": row.check,
                            "level": row.result.level.name.lower(),
                            "found": row.result.found,
                            "todo": row.result.todo,
                        }
                        for row in rows
                    ],
                }
            )
        else:
            print_table(
                "pilotage doctor",
                ("check", "", "found", "what to do"),
                (
                    (
                        row.check,
                        harmless(row.result.level.name.lower(), style=COLOURS[row.result.level.name]),
                        row.result.found,
                        row.result.todo,
                    )
                    for row in rows
                ),
                empty="Nothing was looked at.",
            )
    raise typer.Exit(code)


@app.command("tags")
def doctor_tags(as_json: AsJson = False) -> None:
    """Print the lines for prefect.yaml that give each deployment its env:, tier: and team: tags."""
    with told(as_json):
        from pilotage.flows.doctor.gather import read_deployments  # start-up time: Prefect
        from pilotage.flows.doctor.tags import missing_tags, prefect_yaml

        missing = missing_tags(asyncio.run(read_deployments()))
        if as_json:
            print_json(
                [
                    {"deployment": each.deployment, "tags": list(each.tags), "missing": list(each.missing)}
                    for each in missing
                ]
            )
        elif missing:
            for line in prefect_yaml(missing):
                OUT.print(harmless(line), soft_wrap=True)
        else:
            OUT.print("Every deployment has its env:, tier: and team: tags.")
