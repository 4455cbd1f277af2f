"""Sees to it that an installation always has an admin: whoever owns its files, when there is no other."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.state_directory import prepare_state_directory
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.roles import Role

OWNER_ROLES = (Role.ADMIN.value, Role.OPERATOR.value)
"""What whoever starts pilotage may do: everything but approve, which takes somebody else's eyes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAdmin:
    """Who became admin, and where their token is."""

    name: str
    token_file: Path | None
    """None for somebody who had a token already."""

    def as_text(self) -> str:
        """Return what a person should know about it."""
        where = f"the token is in {self.token_file}" if self.token_file else "with the token that they have"
        return f"{self.name} is admin and operator now, since there was no admin; {where}"


def ensure_admin(book: IdentityBook, paths: StatePaths) -> NewAdmin | None:
    """Make the owner of the state directory an admin if the users file has none; return them, or None.

    Their token is written where every command looks for one, readable by this user only. Somebody who is in the
    users file under the owner's name keeps their token and gets the roles.
    """
    everyone = book.everyone()
    if any(Role.ADMIN in person.roles for person in everyone):
        return None
    name = owner_name()
    if any(person.name == name for person in everyone):
        book.give_roles(name, OWNER_ROLES)
        return NewAdmin(name=name, token_file=None)
    write_token(paths.token, book.add(name, roles=OWNER_ROLES))
    return NewAdmin(name=name, token_file=paths.token)


def add_person(
    paths: StatePaths, name: str, roles: Collection[str], teams: Collection[str]
) -> tuple[str, NewAdmin | None]:
    """Add a person to the users file; return their token, and the admin who had to be made besides.

    The first person of an installation may be the owner: they get the roles of an admin besides those named.
    Raises ConfigError for a state directory that cannot be used, a name that is taken and roles that there are not.
    """
    prepare_state_directory(paths.root)
    book = IdentityBook(paths.users)
    has_admin = any(Role.ADMIN in person.roles for person in book.everyone())
    if has_admin or Role.ADMIN in roles:
        return book.add(name, roles=roles, teams=teams), None
    if name == owner_name() and Role.AGENT not in roles:
        token = book.add(name, roles={*roles, *OWNER_ROLES}, teams=teams)
        write_token(paths.token, token)
        return token, NewAdmin(name=name, token_file=paths.token)
    token = book.add(name, roles=roles, teams=teams)  # first, so that a wrong role leaves nothing behind
    return token, ensure_admin(book, paths)


def write_token(path: Path, token: str) -> None:
    """Write a token to a file that this user alone can read, also when the file was there before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(token + "\n")


def owner_name() -> str:
    """Return the name of the user who runs this, as the users file can take it; `owner` for one without a name."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container whose user id no name belongs to
        login = ""
    return re.sub(r"[^A-Za-z0-9_.@-]+", "-", login).strip("-._@")[:80] or "owner"
