"""`pilotage users …`: who may look, propose, vote and stop, and how each proves it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pilotage.console.cli.client import asker
from pilotage.console.cli.options import AsJson, StateDir, TokenFile, told
from pilotage.console.render.text import ERR, OUT, harmless, joined, print_json, print_table, when
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
    """Add a person to the users file, and show their token once. The first one comes with an admin."""
    from pilotage.flows.config.paths import paths
    from pilotage.flows.controller.owner import add_person

    with told(as_json):
        token, admin = add_person(paths(state_dir), name, role, team or ())
        if token_to is not None:
            _write_token(token_to, token)
        shown = str(token_to) if token_to else token
        if as_json:
            extra = {"admin": admin.name, "admin_token_file": str(admin.token_file)} if admin else {}
            print_json({"name": name, "roles": role, "token_file" if token_to else "token": shown, **extra})
            return
        if admin:
            ERR.print(harmless(admin.as_text()), soft_wrap=True)
        OUT.print(harmless(f"{name} ({', '.join(role)}): {shown}"))


@app.command("list")
def users_list(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Everybody who may ask or vote, with their roles and how they prove who they are."""
    from pilotage.flows.config.paths import paths
    from pilotage.policies.identity.users import IdentityBook

    with told(as_json):
        where = paths(state_dir)
        people = IdentityBook(where.users).people()
        if as_json:
            print_json(
                [
                    {
                        "name": person.identity.name,
                        "kind": person.identity.kind,
                        "roles": sorted(person.identity.roles),
                        "teams": sorted(person.identity.teams),
                        "password": person.has_password,
                        "tokens": {label: until.isoformat() for label, until in person.tokens.items()},
                    }
                    for person in people
                ]
            )
            return
        print_table(
            "Users",
            ("name", "roles", "teams", "password", "further tokens"),
            (
                (
                    person.identity.name,
                    joined(sorted(person.identity.roles)),
                    joined(sorted(person.identity.teams)),
                    "set" if person.has_password else "none",
                    joined(
                        f"{label} until {when(until.isoformat())}" for label, until in person.tokens.items()
                    ),
                )
                for person in people
            ),
            empty=f"Nobody is in {where.users}. The first `pilotage up` makes you an admin.",
        )


@app.command("remove")
def users_remove(
    name: Annotated[str, typer.Argument(help="Who.")],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove a person and all their tokens, at once. The last admin stays."""
    from pilotage.flows.config.paths import paths
    from pilotage.policies.identity.users import IdentityBook

    with told(as_json):
        IdentityBook(paths(state_dir).users).remove(name)
        print_json({"removed": name}) if as_json else OUT.print(harmless(f"{name} is removed"))


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
    from pilotage.flows.config.paths import paths
    from pilotage.policies.identity.users import IdentityBook

    with told(as_json=False):
        if password_file is None:
            password = str(typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True))
        else:
            password = _first_line(password_file)
        IdentityBook(paths(state_dir).users).set_password(name, password)
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

    from pilotage.flows.config.paths import paths
    from pilotage.policies.identity.users import IdentityBook

    with told(as_json):
        until = datetime.now(UTC) + timedelta(days=days)
        token = IdentityBook(paths(state_dir).users).add_token(name, label, roles=tuple(role), until=until)
        shown = {"name": name, "label": label, "roles": role, "until": until.isoformat(), "token": token}
        print_json(shown) if as_json else OUT.print(
            harmless(f"{name}/{label} until {when(until.isoformat())}: {token}")
        )


@app.command("sessions")
def users_sessions(state_dir: StateDir = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Who is signed in by a password or an identity provider: everybody for an admin, else yourself."""
    with told(as_json):
        rows = asker(state_dir, token_file).ask("sessions")
        if as_json:
            print_json(rows)
            return
        print_table(
            "Sessions",
            ("session", "name", "by", "roles", "since", "until"),
            (
                (
                    row["id"],
                    row["name"],
                    row["how"],
                    joined(row["roles"]),
                    when(row["since"]),
                    when(row["until"]),
                )
                for row in rows
            ),
            empty="Nobody is signed in. Tokens of the users file are no sessions.",
        )


@app.command("sign-out")
def users_sign_out(
    name: Annotated[str, typer.Argument(help="Whom.")],
    session: Annotated[
        str, typer.Option(help="This one only; see `pilotage users sessions`.", show_default="all")
    ] = "",
    state_dir: StateDir = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End a person's sessions at once. Tokens of the users file go on; `pilotage users remove` ends them."""
    with told(as_json):
        reply = asker(state_dir, token_file).ask("end_sessions", name=name, session_id=session)
        print_json(reply) if as_json else OUT.print(harmless(f"{reply['ended']} session(s) of {name} ended"))


def _first_line(path: Path) -> str:
    try:
        text = sys.stdin.readline() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Reading the password from {path}: {exc}. Name a readable text file.") from exc
    return text.split("\n", 1)[0]


def _write_token(path: Path, token: str) -> None:
    from pilotage.flows.controller.owner import write_token

    try:
        write_token(path, token)
    except OSError as exc:
        raise ConfigError(
            f"Writing the token to {path}: {exc.strerror}. It is shown nowhere else: remove the person with "
            "`pilotage users remove` and add them again with a path that can be written."
        ) from exc
