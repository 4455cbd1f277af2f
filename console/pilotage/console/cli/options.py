"""What most commands take, and how an error becomes a message and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pilotage.console.render.text import fail
from pilotage.flows.api.client import ApiRejection
from pilotage.telemetry.errors import ConfigError, PilotageError

StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Where this installation keeps its state.", show_default=False),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with the token that proves who you are.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="The same for a program, on standard output.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Proposal = Annotated[str, typer.Argument(help="The proposal's id, p-…; its beginning will do.")]

MODES = ("observe", "shadow", "approve", "auto")
"""The modes by name; a test holds them against `verdicts.Mode`, which costs too much to import here."""

NOT_YOU = frozenset({"denied", "wrong-role", "unknown-identity"})
"""Kinds of refusal that are about who asks; every other one is about what went wrong."""

EXIT_ERROR, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3
"""What went wrong outside, what a person must edit, and what the API said no to."""


@contextmanager
def told(as_json: bool) -> Iterator[None]:
    """Turns our errors into a message and an exit code."""
    try:
        yield
    except ApiRejection as exc:
        fail(str(exc), kind=exc.kind, as_json=as_json)
        raise typer.Exit(EXIT_REFUSED) from exc
    except ConfigError as exc:
        fail(str(exc), kind="config", as_json=as_json)
        raise typer.Exit(EXIT_USAGE) from exc
    except PilotageError as exc:
        fail(str(exc), kind="error", as_json=as_json)
        raise typer.Exit(EXIT_ERROR) from exc


def a_mode(name: str, where: str) -> str:
    """The name, when it is that of a mode. Raises ConfigError naming `where` it was given and what is valid."""
    if name not in MODES:
        raise ConfigError(f"Reading {where} {name!r}: no such mode. Valid are {', '.join(MODES)}.")
    return name
