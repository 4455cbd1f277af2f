"""`pilotage store …`: what is kept, how large it is and for how long; files made small again."""

from __future__ import annotations

from typing import Any

import typer

from pilotage.console.cli.client import asker
from pilotage.console.cli.options import AsJson, StateDir, TokenFile, told
from pilotage.console.render.text import OUT, harmless, print_json, print_table, when
from pilotage.flows.config.paths import paths, runner_of

app = typer.Typer(help="What is kept, how large it is and for how long.", no_args_is_help=True)


@app.command("status")
def status(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Rows, size, oldest and life of each kind, and the files of the state directory."""
    with told(as_json):
        reply: dict[str, Any] = asker(state_dir, token_file).ask("store_status")
        if as_json:
            print_json(reply)
            return
        print_table(
            "Kept",
            ("kind", "rows", "size", "oldest", "life"),
            [
                (
                    each["kind"],
                    "" if each["rows"] is None else f"{each['rows']:,}",
                    "" if each["bytes"] is None else size(each["bytes"]),
                    when(each["oldest"]) if each["oldest"] else "",
                    life(each),
                )
                for each in reply["kinds"]
            ],
            empty="Nothing is kept yet.",
        )
        print_table(
            "Files",
            ("file", "size"),
            [(name, size(count)) for name, count in reply["files"].items()],
            empty="There are no files.",
        )
        gone = ", ".join(f"{count:,} {kind}" for kind, count in reply["gone"].items() if count)
        if gone:
            OUT.print(harmless(f"Deleted the last time: {gone}."))
        OUT.print(
            harmless(
                f"Archived before it is deleted, in {reply['archive']}."
                if reply["archive"]
                else "Not archived before it is deleted (`retention.archive`)."
            )
        )


@app.command("compact")
def compact(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Make the files as small as what they hold, now. A running `pilotage up` does it by itself once a day."""
    with told(as_json):
        where = paths(state_dir)
        if runner_of(where) is not None:
            reply: dict[str, dict[str, int]] = asker(state_dir, token_file).ask("store_compact")
        else:
            from pilotage.flows.controller.retention import (
                compact_at_rest,  # start-up time: duckdb, SQLAlchemy
            )

            reply = compact_at_rest(where)
        if as_json:
            print_json(reply)
            return
        for name, each in reply.items():
            OUT.print(harmless(f"{name}: {size(each['before'])} before, {size(each['after'])} now"))
        if not reply:
            OUT.print("Nothing to gain.")


def size(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def life(each: dict[str, Any]) -> str:
    """How long a kind is kept, in words."""
    if each.get("current"):
        return "as it is now"
    if each["life_days"] is None:
        return "for ever"
    return f"{each['life_days']:g} days"
