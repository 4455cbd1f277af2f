"""Who is calling: people and agents, proved by tokens from a users file or lent for the life of the process.

A token is 32 random bytes from the operating system. With that much entropy there is nothing to guess, so a
plain SHA-256 of it is enough. Words that people choose have a slow hash (`passwords.py`); a password that is right
earns a token that is lent for a while. A person may also hold further tokens, each with fewer roles and an end.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pilotage.policies.identity import passwords
from pilotage.policies.identity.session_tokens import SessionTokens, SignedIn
from pilotage.policies.identity.users_file import section_text
from pilotage.policies.roles import Role
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,79}")
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Scoped(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    roles: list[str] = Field(min_length=1)
    until: AwareDatetime
    token_sha256: _Hash


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    roles: list[str] = Field(min_length=1)
    teams: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,80}$")]] = Field(default_factory=list)
    token_sha256: _Hash
    password: Annotated[str, Field(pattern=passwords.PATTERN)] | None = None
    tokens: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")], _Scoped] = Field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """One token: whose, for which of their roles (all when None), until when (no end when None)."""

    name: str
    token_sha256: str
    roles: frozenset[str] | None = None
    until: datetime | None = None
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One entry of the users file, without its secrets."""

    identity: Identity
    has_password: bool
    tokens: Mapping[str, datetime]
    """When each further token ends, by its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    identity: Identity
    keys: tuple[_Key, ...]
    password: str | None


class IdentityBook:
    """The users file, read again whenever it changes, and the tokens lent by this process. Thread-safe."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._lent: dict[str, Identity] = {}
        self._sessions = SessionTokens()
        self._seen: tuple[int, int, int] | None = None
        self._known: Mapping[str, _Known] = {}
        self._refresh()

    def authenticate(self, token: str) -> Identity | None:
        """The identity that this token proves, or None. Raises ConfigError when the users file went bad.

        Every known token is compared, in constant time each, so the time taken tells nothing.
        """
        presented = _sha256(token)
        with self._lock:
            match: Identity | None = None
            for digest, identity in self._lent.items():
                if hmac.compare_digest(digest, presented):
                    match = identity
            if match is not None:
                return match
            self._refresh()
            for key in (key for known in self._known.values() for key in known.keys):
                if hmac.compare_digest(key.token_sha256, presented):
                    match = self._narrowed(key)
            signed_in = self._sessions.of_token(presented, self._clock())
            return self._of(signed_in) if signed_in else match

    def _of(self, session: SignedIn) -> Identity | None:
        """Who a session is of, as they stand now. A name of the users file is nobody's from elsewhere."""
        known = self._known.get(session.name)
        if session.identity is None:
            return known.identity if known else None
        # as the provider said it last: an older session has no rights that a newer one lost
        return None if known else self._sessions.federated(session.name, self._clock())

    def sign_in(self, name: str, password: str, lasts: timedelta) -> str | None:
        """A token lent for a while to the person whose name and password these are, or None.

        A wrong name takes as long as a wrong password. What the person may do is looked up with each use.
        """
        with self._lock:
            self._refresh()
            known = self._known.get(name)
            stored = (known.password if known else None) or passwords.nobodys()
        if not passwords.matches(password, stored) or known is None:
            return None
        with self._lock:
            return self._sessions.open(name, "password", self._clock(), lasts)

    def sign_in_federated(self, identity: Identity, lasts: timedelta) -> str:
        """A token lent for a while to whom an identity provider vouches for. Raises ConfigError for a taken name."""
        with self._lock:
            self._refresh()
            lent = {each.name for each in self._lent.values()}
            if identity.kind != "user" or identity.name in self._known or identity.name in lent:
                raise ConfigError(
                    f"signing in {identity.name}: somebody of this installation has that name already. "
                    f"Remove one of the two; people of {self._path} sign in with their password or token."
                )
            return self._sessions.open(identity.name, "oidc", self._clock(), lasts, identity)

    def sessions(self) -> tuple[SignedIn, ...]:
        """Who is signed in now, the oldest session first; tokens of the users file are none."""
        with self._lock:
            return self._sessions.current(self._clock())

    def end_sessions(self, name: str, session_id: str = "") -> int:
        """How many sessions of a person were ended: all, or the one with this id."""
        with self._lock:
            return self._sessions.end(name, session_id)

    def set_password(self, name: str, password: str) -> None:
        """Writes the hash of a person's password. Raises ConfigError for an unknown name or a bad password."""
        try:
            stored = passwords.hashed(password)
        except ValueError as exc:
            raise ConfigError(f"setting a password for {name}: {exc}") from exc
        with self._lock:
            self._edit(name, lambda section: section.__setitem__("password", stored))

    def add_token(self, name: str, label: str, roles: Collection[str], until: datetime) -> str:
        """A further token of a person, for some of their roles and with an end; shown this once. Raises ConfigError."""
        token = secrets.token_urlsafe(32)

        def add(section: dict[str, Any]) -> None:
            if missing := sorted(set(roles) - set(section["roles"])):
                raise ConfigError(
                    f"adding a token for {name}: {name} is not {missing[0]}; narrow it to their roles"
                )
            if label in section.get("tokens", {}):
                raise ConfigError(
                    f"adding a token for {name}: there is one called {label}; choose another label"
                )
            section.setdefault("tokens", {})[label] = {
                "roles": sorted(roles),
                "until": until,
                "token_sha256": _sha256(token),
            }

        with self._lock:
            self._edit(name, add)
        return token

    def add(self, name: str, roles: Collection[str], teams: Collection[str] = ()) -> str:
        """The new caller's token, shown this once: only its hash is written. Raises ConfigError."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._refresh()
            if name in self._known:
                raise ConfigError(
                    f"adding {name} to {self._path}: the name is taken; remove its section first"
                )
            entry = _Entry.model_construct(
                roles=sorted(roles), teams=sorted(teams), token_sha256=_sha256(token)
            )
            _known(name, entry.model_dump(), self._path)
            self._append(section_text(name, entry.model_dump(exclude_none=True)))
            self._refresh()
        return token

    def give_roles(self, name: str, roles: Collection[str]) -> None:
        """Give a person these roles besides those they have. Raises ConfigError for an unknown name."""
        with self._lock:
            self._edit(
                name, lambda section: section.__setitem__("roles", sorted({*section["roles"], *roles}))
            )

    def remove(self, name: str) -> None:
        """Remove a person with all their tokens. Raises ConfigError for an unknown name and for the last admin."""
        with self._lock:
            self._refresh()
            admins = [each for each, known in self._known.items() if Role.ADMIN in known.identity.roles]
            if admins == [name]:
                raise ConfigError(
                    f"removing {name} from {self._path}: {name} is the only admin. "
                    "Add another first: `pilotage users add NAME --role admin`."
                )
            self._edit(name, lambda section: None, keep=False)

    def people(self) -> tuple[Person, ...]:
        """Everybody in the users file, by name, with how each can prove who they are."""
        with self._lock:
            self._refresh()
            return tuple(
                Person(
                    identity=known.identity,
                    has_password=known.password is not None,
                    tokens={key.label: key.until for key in known.keys if key.until is not None},
                )
                for _, known in sorted(self._known.items())
            )

    def issue_session_token(self, identity: Identity) -> str:
        """A token for this identity that is held in memory only and ends with the process."""
        if (identity.kind == "agent") != (Role.AGENT in identity.roles):
            raise ConfigError(f"lending to {identity.name}: kind and roles differ; agents have role agent")
        token = secrets.token_urlsafe(32)
        with self._lock:
            if identity.name in self._known and self._known[identity.name].identity != identity:
                raise ConfigError(f"lending to {identity.name}: {self._path} has another so named; rename")
            self._lent[_sha256(token)] = identity
        return token

    def take_back(self, token: str) -> None:
        """Ends a lent token; harmless when it was none."""
        with self._lock:
            self._lent.pop(_sha256(token), None)
            self._sessions.end_token(_sha256(token))

    def current_identity(self, name: str) -> Identity | None:
        """Who this name is now, in the users file or among those lent to, or None. Raises ConfigError."""
        with self._lock:
            for identity in self._lent.values():
                if identity.name == name:
                    return identity
            self._refresh()
            known = self._known.get(name)
            return known.identity if known else self._sessions.federated(name, self._clock())

    def everyone(self) -> tuple[Identity, ...]:
        """The callers of the users file, by name."""
        with self._lock:
            self._refresh()
            return tuple(self._known[name].identity for name in sorted(self._known))

    def _refresh(self) -> None:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                now = (status.st_mtime_ns, status.st_size, status.st_ino)
                if now == self._seen:
                    return
                # whatever is wrong below, nobody is known until it is put right
                self._known, self._seen = {}, None
                if status.st_mode & _OTHERS_MAY_WRITE:
                    raise ConfigError(
                        f"reading users {self._path}: mode {stat.S_IMODE(status.st_mode):o} lets others "
                        f"write it; run `chmod 600 {self._path}`"
                    )
                text = file.read()
        except FileNotFoundError:
            self._known, self._seen = {}, None
            return
        except OSError as exc:
            raise ConfigError(f"reading users {self._path}: {exc}; make it readable to this user") from exc
        self._known = _parsed(text, self._path)
        self._seen = now

    def _narrowed(self, key: _Key) -> Identity | None:
        """Who holds the key, as they stand now, with the roles that it opens; None when it has run out."""
        known = self._known.get(key.name)
        if known is None or (key.until is not None and key.until <= self._clock()):
            return None
        return known.identity.narrowed(key.roles)

    def _append(self, section: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "a") as file:
                file.write(("\n" if file.tell() else "") + section)
        except OSError as exc:
            raise ConfigError(f"writing users {self._path}: {exc}; make it writable to this user") from exc

    def _edit(self, name: str, change: Callable[[dict[str, Any]], None], *, keep: bool = True) -> None:
        """Change one person's section, or drop it unless `keep`, and write the file again, whole or not at all."""
        self._refresh()
        if name not in self._known:
            raise ConfigError(
                f"changing {name} in {self._path}: there is nobody so named; see `pilotage users add`"
            )
        sections = tomllib.loads(self._path.read_text())["users"]
        change(sections[name])
        if not keep:
            del sections[name]
        text = "\n".join(section_text(each, content) for each, content in sections.items())
        _parsed(text.encode(), self._path)
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as exc:
            raise ConfigError(f"writing users {self._path}: {exc}; make it writable to this user") from exc
        self._refresh()


def _parsed(text: bytes, path: Path) -> Mapping[str, _Known]:
    try:
        content = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"reading users {path}: not TOML ({exc}); correct the line it names") from exc
    if strange := sorted(set(content) - {"users"}):
        raise ConfigError(f"reading users {path}: `{strange[0]}` is unknown; every section is [users.NAME]")
    sections = content.get("users", {})
    if not isinstance(sections, dict):
        raise ConfigError(f"reading users {path}: `users` is no table; every section is [users.NAME]")
    known = {name: _known(name, section, path) for name, section in sections.items()}
    hashes = [key.token_sha256 for entry in known.values() for key in entry.keys]
    if len(set(hashes)) != len(hashes):
        raise ConfigError(f"reading users {path}: two users share a token_sha256; make one again")
    return known


def _known(name: str, section: object, path: Path) -> _Known:
    where = f"reading users {path}: users.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: not a name; letters, digits and . _ @ - only, 80 at most")
    try:
        entry = _Entry.model_validate(section)
    except ValidationError as exc:
        errors = "; ".join(f"`{'.'.join(map(str, error['loc']))}`: {error['msg']}" for error in exc.errors())
        raise ConfigError(f"{where}: {errors}; valid keys are {', '.join(_Entry.model_fields)}") from exc
    valid = [role.value for role in Role]
    if unknown := sorted(set(entry.roles) - set(valid)):
        raise ConfigError(f"{where}: `{unknown[0]}` is not a role; valid roles are {', '.join(valid)}")
    if Role.AGENT in entry.roles and len(entry.roles) > 1:
        raise ConfigError(f"{where}: an agent has no other role; give the person a section of their own")
    identity = Identity(
        name=name,
        kind="agent" if Role.AGENT in entry.roles else "user",
        roles=frozenset(entry.roles),
        teams=frozenset(entry.teams),
    )
    return _Known(identity=identity, keys=_keys(name, entry), password=entry.password)


def _keys(name: str, entry: _Entry) -> tuple[_Key, ...]:
    scoped = (
        _Key(
            name=name,
            token_sha256=each.token_sha256,
            roles=frozenset(each.roles),
            until=each.until,
            label=label,
        )
        for label, each in entry.tokens.items()
    )
    return (_Key(name=name, token_sha256=entry.token_sha256), *scoped)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
