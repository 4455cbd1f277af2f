"""The light side of the desk: one question, one answer, over a unix socket. No heavy import.

A request is one line `{"token", "op", "arguments"}`, a reply one line `{"ok": true, "result"}` or
`{"ok": false, "error": {"kind", "message"}}`. Who is calling follows from the token alone.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pilotage.flows.places import Places
from pilotage.telemetry.errors import DeskError

if TYPE_CHECKING:
    from pilotage.planner.actions import ActionKind
    from pilotage.planner.proposals import CaseFile, Proposal

MAX_LINE = 16 * 1024 * 1024
"""Bytes in one reply; a story of thousands of steps stays far below."""


class DeskRefusal(DeskError):
    """The desk answered, and the answer is no: unknown id, wrong role, bad request."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class DeskClient:
    """Asks the keyed process, in the name of whoever the token belongs to."""

    def __init__(self, path: Path, token: str, *, timeout: float = 60.0) -> None:
        self._path = path
        self._token = token
        self._timeout = timeout

    def call(self, op: str, **arguments: Any) -> Any:
        """The result of one operation, as plain JSON values.

        Raises DeskRefusal when the desk says no, DeskError when there is no desk.
        """
        request = json.dumps({"token": self._token, "op": op, "arguments": arguments}).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self._path))
                connection.sendall(request)
                with connection.makefile("rb") as lines:
                    line = lines.readline(MAX_LINE)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            raise DeskError(
                f"Asking the desk at {self._path}: nobody answers there. Start it with `pilotage up`.",
                transient=True,
            ) from exc
        except OSError as exc:
            raise DeskError(
                f"Asking the desk at {self._path}: {exc}. Look whether `pilotage up` is alive.",
                transient=True,
            ) from exc
        if not line:
            raise DeskError(
                f"Asking the desk for {op}: it hung up. Look at the output of `pilotage up`.", transient=True
            )
        reply = json.loads(line)
        if reply.get("ok"):
            return reply["result"]
        error = reply.get("error", {})
        raise DeskRefusal(
            str(error.get("kind", "error")), str(error.get("message", "refused without a reason"))
        )

    def file(self, proposal: Proposal, case: CaseFile) -> dict[str, Any]:
        """What became of the proposal so far; see `pilotage.planner.proposals.Desk`."""
        return cast(
            "dict[str, Any]",
            self.call("file", proposal=proposal.model_dump(mode="json"), case=case.model_dump(mode="json")),
        )

    def offered(self) -> tuple[ActionKind, ...]:
        """The kinds of action that this caller may propose."""
        return tuple(self.call("offered"))


def token_for(where: Places, token_file: Path | None = None) -> str:
    """The caller's token: from the file given, from `PILOTAGE_TOKEN_FILE`, or from the state directory.

    A token proves who one is; nothing else does. Raises DeskError when there is none to read.
    """
    named = os.environ.get("PILOTAGE_TOKEN_FILE")
    path = token_file or (Path(named).expanduser() if named else where.token)
    try:
        return path.read_text().strip()
    except OSError as exc:
        raise DeskError(
            f"Reading your token from {path}: {exc.strerror}. "
            "Start `pilotage up` once, name its directory with --state-dir, "
            "or your own file with --token-file or PILOTAGE_TOKEN_FILE."
        ) from exc
