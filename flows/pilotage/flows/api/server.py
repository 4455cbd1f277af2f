"""The controller's counter: authenticates each request by its token and answers it. See `client.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from pilotage.flows.api.client import MAX_LINE, ApiRejection
from pilotage.policies.types import Identity
from pilotage.telemetry.errors import PilotageError

log = logging.getLogger("pilotage.desk")

READERS = frozenset({"viewer", "operator", "approver", "admin", "agent"})
PEOPLE = frozenset({"viewer", "operator", "approver", "admin"})
APPROVERS = frozenset({"approver", "admin"})
PROPOSERS = frozenset({"agent", "operator", "admin"})
AGENTS = frozenset({"agent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request for a change that was refused before it came to a verdict."""

    by: Identity
    request: str
    """The operation, or a route of the HTTP API."""
    kind: str
    why: str
    about: str = ""
    """The proposal or grant that it named, as the caller wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that can be asked."""

    run: Callable[..., Awaitable[Any]]
    """Called with the caller's identity and the request's arguments; returns plain JSON values."""
    roles: frozenset[str]
    """Who may ask at all. What Cedar polices (votes, stop, resume, undo) is decided by Cedar behind this."""
    changes: bool = False
    """Whether it changes what is decided or carried out; then each refusal of it is a row of the audit log."""


class ApiServer:
    """Serves operations on a unix socket that only this user's processes can open."""

    def __init__(
        self,
        path: Path,
        operations: Mapping[str, Operation],
        authenticate: Callable[[str], Identity | None],
        *,
        strangers: Mapping[str, Callable[..., Awaitable[Any]]] = MappingProxyType({}),
        record: Callable[[Refused], Awaitable[None]] | None = None,
    ) -> None:
        """`strangers` has the questions of those whom `authenticate` does not know yet: how to sign in.

        `record` writes down a refusal that is no row yet, of somebody who is known and asked for a change.
        """
        self._path = path
        self._operations = operations
        self._authenticate = authenticate
        self._strangers = strangers
        self._record = record
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Opens the socket, mode 0600. A stale one of a dead process is replaced: the lock file guards the rest."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path=str(self._path), limit=MAX_LINE)
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Closes the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), timeout=30)
            if line:
                writer.write(await self.answer(line))
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError) as exc:
            log.debug("a caller went away: %s", exc)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def answer(self, line: bytes) -> bytes:
        """Return the line that answers a line."""
        return json.dumps(await self._answer(line), default=str).encode() + b"\n"

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            token, op, arguments = (
                str(request["token"]),
                str(request["op"]),
                dict(request.get("arguments") or {}),
            )
        except (ValueError, KeyError, TypeError):
            return _no(
                "bad-request",
                "Reading the request: it is not {token, op, arguments}. Use the pilotage client.",
            )
        if op in self._strangers:
            return await _outcome(op, partial(self._strangers[op], **arguments))
        try:
            caller = self._authenticate(token)
        except PilotageError as exc:
            return _no("error", f"Checking your token: {exc}. Until then the API knows nobody.")
        if caller is None:
            return _no(
                "unknown-identity",
                "Checking your token: nobody has it, or it has run out. See `pilotage users list`; an admin makes "
                "one with `pilotage users add`.",
            )
        operation = self._operations.get(op)
        if operation is None:
            return _no(
                "unknown-operation", f"Looking for {op!r}: valid are {', '.join(sorted(self._operations))}."
            )
        if caller.roles & operation.roles:
            reply = await _outcome(op, partial(operation.run, caller, **arguments))
        else:
            reply = _no(
                "wrong-role",
                f"Asking for {op}: {caller.name} is {', '.join(sorted(caller.roles)) or 'nothing'}; "
                f"it takes one of {', '.join(sorted(operation.roles))}.",
            )
        if operation.changes and not reply["ok"]:
            reply["error"]["recorded"] = await self._recorded(op, caller, reply["error"], arguments)
        return reply

    async def _recorded(
        self, op: str, caller: Identity, error: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> bool:
        """Whether the refusal is a row; it is made one where it is none yet. A failure of ours is no refusal."""
        if error["recorded"] or error["kind"] == "error" or self._record is None:
            return bool(error["recorded"])
        about = str(arguments.get("proposal_id") or arguments.get("grant_id") or "")
        try:
            await self._record(
                Refused(by=caller, request=op, kind=error["kind"], why=error["message"], about=about)
            )
        except Exception:
            log.exception("writing down that %s of %s was refused", op, caller.name)
            return False
        return True


async def _outcome(op: str, run: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    try:
        return {"ok": True, "result": await run()}
    except ApiRejection as exc:
        return _no(exc.kind, str(exc), recorded=exc.recorded)
    except ValidationError as exc:
        return _no("invalid", unreadable(op, exc))
    except TypeError as exc:
        return _no("bad-request", f"Reading the arguments of {op}: {exc}.")
    except PilotageError as exc:
        return _no("error", str(exc))
    except Exception as exc:
        log.exception("answering %s", op)
        return _no("error", f"Answering {op}: {type(exc).__name__}. The output of `pilotage up` says more.")


def unreadable(op: str, exc: ValidationError) -> str:
    """Return in words which arguments of an operation are not what they must be."""
    wrong = "; ".join(
        f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
        for error in exc.errors(include_url=False, include_input=False)
    )
    return f"Reading the arguments of {op}: {wrong}. Nothing was recorded."


def _no(kind: str, message: str, *, recorded: bool = False) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message, "recorded": recorded}}
