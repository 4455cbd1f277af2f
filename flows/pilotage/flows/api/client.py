"""The light side of the API: one question, one answer, over a unix socket. No heavy import.

A request is one line `{"token", "op", "arguments"}`, a reply one line `{"ok": true, "result"}` or
`{"ok": false, "error": {"kind", "message"}}`. Who is calling follows from the token alone.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pilotage.flows.config.paths import StatePaths
from pilotage.telemetry.errors import ApiError

if TYPE_CHECKING:
    from pilotage.planner.actions.types import ActionKind
    from pilotage.planner.proposals import CaseFile, Proposal

MAX_LINE = 16 * 1024 * 1024
"""Bytes in one reply; a story of thousands of steps stays far below."""


class ApiRejection(ApiError):
    """The API answered, and the answer is no: unknown id, wrong role, bad request."""

    def __init__(self, kind: str, message: str, *, recorded: bool = False) -> None:
        """`recorded`: whether the refusal is a row of the audit log already."""
        super().__init__(message)
        self.kind = kind
        self.recorded = recorded


class TokenMissing(ApiError):
    """There is no token to prove who asks; whether anybody could answer was not tried."""


class ApiClient:
    """Asks the controller, in the name of whoever the token belongs to."""

    def __init__(self, path: Path, token: str, *, timeout: float = 60.0) -> None:
        self._path = path
        self._token = token
        self._timeout = timeout

    def call(self, op: str, **arguments: Any) -> Any:
        """The result of one operation, as plain JSON values.

        Raises ApiRejection when the API says no, ApiError when there is no API.
        """
        line = self._exchanged(
            json.dumps({"token": self._token, "op": op, "arguments": arguments}).encode() + b"\n"
        )
        if not line:
            raise ApiError(
                f"Asking the API for {op}: it hung up. Look at the output of `pilotage up`.", transient=True
            )
        try:
            reply = json.loads(line)
        except ValueError as exc:
            raise ApiError(
                f"Asking {self._path} for {op}: its answer is not a whole line of JSON. "
                "Is what runs there a `pilotage up` of this version?"
            ) from exc
        if reply.get("ok"):
            return reply["result"]
        error = reply.get("error", {})
        raise ApiRejection(
            str(error.get("kind", "error")),
            str(error.get("message", "refused without a reason")),
            recorded=bool(error.get("recorded")),
        )

    def _exchanged(self, request: bytes) -> bytes:
        """Return the line that answers a line. Raises ApiError when nobody answers."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self._path))
                connection.sendall(request)
                with connection.makefile("rb") as lines:
                    return lines.readline(MAX_LINE)
        except OSError as exc:
            raise _unreachable(self._path, exc, self._timeout) from exc

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        """What became of the proposal so far; see `pilotage.planner.proposals.ProposalApi`."""
        return cast(
            "dict[str, Any]",
            self.call("file", proposal=proposal.model_dump(mode="json"), case=case.model_dump(mode="json")),
        )

    def permitted_kinds(self) -> tuple[ActionKind, ...]:
        """The kinds of action that this caller may propose."""
        return tuple(self.call("offered"))


def _unreachable(path: Path, exc: OSError, timeout: float) -> ApiError:
    """Why nobody answered at this socket, told apart by what the system says."""
    asking = f"Asking the API at {path}"
    match exc:
        case FileNotFoundError() if not path.parent.is_dir():
            cause = f"there is no directory {path.parent}. Name the right one with --state-dir or PILOTAGE_STATE_DIR."
        case FileNotFoundError() | ConnectionRefusedError():
            cause = "nobody answers there. Start it with `pilotage up`."
        case PermissionError():
            cause = (
                f"this user may not open it ({exc.strerror}). Ask as the user who runs `pilotage up`, or use the "
                "page of `pilotage serve`."
            )
        case TimeoutError():
            cause = f"it took the question and did not answer within {timeout:.0f} s. Look at the output of `pilotage up`."
        case _:
            cause = f"{exc}. Look whether `pilotage up` is alive."
    return ApiError(f"{asking}: {cause}", transient=not isinstance(exc, PermissionError))


def token_for(where: StatePaths, token_file: Path | None = None) -> str:
    """The caller's token: from the file given, from `PILOTAGE_TOKEN_FILE`, or from the state directory.

    A token proves who one is; nothing else does. Raises TokenMissing when there is none to read.
    """
    path = token_path(where, token_file)
    reading = f"Reading your token from {path}"
    advice = (
        "Name your own file with --token-file or PILOTAGE_TOKEN_FILE; an admin makes one with "
        "`pilotage users add NAME --role ROLE --token-to FILE`."
    )
    try:
        token = path.read_text().strip()
    except FileNotFoundError as exc:
        first = "" if where.users.exists() else "The first `pilotage up` makes one; or name its --state-dir. "
        raise TokenMissing(f"{reading}: there is no such file. {first}{advice}") from exc
    except OSError as exc:
        raise TokenMissing(f"{reading}: {exc.strerror}. {advice}") from exc
    except UnicodeDecodeError as exc:
        raise TokenMissing(f"{reading}: it holds no text. {advice}") from exc
    if not token:
        raise TokenMissing(f"{reading}: it is empty. {advice}")
    return token


def token_path(where: StatePaths, token_file: Path | None = None) -> Path:
    """Which file the caller's token is read from."""
    named = os.environ.get("PILOTAGE_TOKEN_FILE")
    return token_file or (Path(named).expanduser() if named else where.token)
