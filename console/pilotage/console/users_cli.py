"""`pilotage users …`: who may look, propose, vote and stop, and how each proves it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pilotage.console.options import AsJson, StateDir, told
from pilotage.console.shown import OUT, harmless, print_json, when
from pilotage.telemetry.errors import ConfigError

app = typer.Typer(help="People who may look, propose, vote and stop.", no_args_is_help=True)


@app.command("add")
def users_add(
    name: Annotated[str, typer.Argument(help="Who.")],
    role: Annotated[list[str], typer.Option(help="viewer, operator, approver or admin; may be given again.")],
    team: Annotated[list[str] | None, typer.Option(help="A team they belong to; may be given again.")] = None,
    token_to: Annotated[
        Path | None, typer.Option(help="Write the token to this file, mode 0600, instead of printing it.")
    ] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Add a person to the users file, and show their token once."""
    import os

    from pilotage.flows.places import places
    from pilotage.policies.identities import IdentityBook

    with told(as_json):
        where = places(state_dir)
        where.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        token = IdentityBook(where.users).add(name, roles=tuple(role), teams=tuple(team or ()))
        if token_to is not None:
            descriptor = os.open(token_to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(token + "\n")
        shown = str(token_to) if token_to else token
        if as_json:
            print_json({"name": name, "roles": role, "token_file" if token_to else "token": shown})
        else:
            OUT.print(harmless(f"{name} ({', '.join(role)}): {shown}"))


@app.command("password")
def users_password(
    name: Annotated[str, typer.Argument(help="Who.")],
    password_file: Annotated[
        Path | None,
        typer.Option(help="Read it from this file, `-` for standard input.", show_default="asks twice"),
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Set the password with which a person signs in to the page. Only a slow hash of it is kept."""
    from pilotage.flows.places import places
    from pilotage.policies.identities import IdentityBook

    with told(as_json=False):
        if password_file is None:
            password = str(typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True))
        else:
            password = _first_line(password_file)
        IdentityBook(places(state_dir).users).set_password(name, password)
        OUT.print(harmless(f"{name} can sign in with it now"))


@app.command("token")
def users_token(
    name: Annotated[str, typer.Argument(help="Whose.")],
    label: Annotated[str, typer.Option(help="What it is for, such as ci.")],
    role: Annotated[list[str], typer.Option(help="One of their roles; may be given again.")],
    days: Annotated[int, typer.Option(min=1, max=366, help="How long it lasts.")] = 30,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """A further token for a person's programs, with fewer roles and an end. Shown once."""
    from datetime import UTC, datetime, timedelta

    from pilotage.flows.places import places
    from pilotage.policies.identities import IdentityBook

    with told(as_json):
        until = datetime.now(UTC) + timedelta(days=days)
        token = IdentityBook(places(state_dir).users).add_token(name, label, roles=tuple(role), until=until)
        found = {"name": name, "label": label, "roles": role, "until": until.isoformat(), "token": token}
        print_json(found) if as_json else OUT.print(
            harmless(f"{name}/{label} until {when(until.isoformat())}: {token}")
        )


def _first_line(path: Path) -> str:
    try:
        text = sys.stdin.readline() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Reading the password from {path}: {exc}. Name a readable text file.") from exc
    return text.split("\n", 1)[0]
