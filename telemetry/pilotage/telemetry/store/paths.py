"""Where things lie in a state directory, and where its unix sockets are.

Light on purpose: every command imports it, so it knows no store, no Arrow and no Prefect.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from pilotage.telemetry.errors import ConfigError

STATE_DIR_VARIABLE = "PILOTAGE_STATE_DIR"
STORE_FILE = "telemetry.duckdb"
STORE_SOCKET = "store"

LONGEST_SOCKET_PATH = 100
"""Bytes. The kernel takes 107 on Linux and 103 on macOS; a few are left for a temporary suffix."""


def state_directory(state_dir: Path | str | None = None) -> Path:
    """The state directory: the argument, or the environment's `PILOTAGE_STATE_DIR`, or `~/.pilotage`."""
    chosen = state_dir or os.environ.get(STATE_DIR_VARIABLE) or "~/.pilotage"
    return Path(chosen).expanduser().absolute()


def socket_path(state_dir: Path, name: str) -> Path:
    """Where the socket `name` of a state directory is: inside it, or in a short private directory.

    Every process that names the same state directory gets the same answer.
    Raises ConfigError when the private directory belongs to somebody else.
    """
    inside = state_dir.expanduser().absolute() / f"{name}.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(inside.parent.resolve())).hexdigest()[:16]
    root = _private(Path(tempfile.gettempdir()) / f"pilotage-{os.getuid()}")
    if len(os.fsencode(root / digest / f"{name}.sock")) > LONGEST_SOCKET_PATH:
        root = _private(Path("/tmp") / f"pilotage-{os.getuid()}")  # noqa: S108 - checked to be ours alone
    return _private(root / digest) / f"{name}.sock"


def _private(directory: Path) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"Making a place for a socket: {directory} is not a directory that only this user can enter. "
            "Remove it, or choose a state directory with a shorter path."
        )
    return directory
